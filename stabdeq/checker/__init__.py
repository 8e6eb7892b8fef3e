"""A checker of proofs that trusts none of this library: ``python -m stabdeq.checker proof.json [checkpoint.safetensors]``.

It imports Python and python-flint alone, and runs by itself where this folder is copied to. Read it in this order: ``door`` (what
is read and printed), ``reading`` (numbers), ``matrices`` (positive definite), ``parameters`` and ``ends`` (the function that a
checkpoint defines), ``claims`` (the theorems), ``boxes`` (claims about a user's own functions).
"""
