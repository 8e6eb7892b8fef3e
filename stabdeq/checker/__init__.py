"""A checker of proofs that trusts none of this library: ``python -P -m stabdeq.checker proof.json [checkpoint.safetensors]``.

It imports Python and python-flint alone, and runs by itself where this folder is copied to. Of a proof about a model read ``door``
(what is read and printed), ``reading`` (numbers), ``matrices`` (the proof that one is positive definite), ``parameters`` and ``ends``
(the function that a checkpoint defines), ``inequalities``, ``cell_claims`` and ``predictions`` (the theorems), ``claims`` (their words).
"""
