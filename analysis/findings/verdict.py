"""How a claim can end, with the words and the signs that stand for it everywhere."""

from enum import StrEnum


class Verdict(StrEnum):
    """How a claim ends: ``PROVED``, ``SUPPORTED`` (searched, nothing found), ``REFUTED`` (by a witness) or ``INCONCLUSIVE``.

    ``UNKNOWN`` is no verdict of ours: it stands for a word in somebody's report that this version does not know.
    """

    PROVED = "PROVED"
    SUPPORTED = "SUPPORTED"
    UNKNOWN = "UNKNOWN"
    INCONCLUSIVE = "INCONCLUSIVE"
    REFUTED = "REFUTED"

    @property
    def meaning(self) -> str:
        """A few words for a reader who meets the verdict for the first time."""
        return _MEANINGS[self]

    @property
    def symbol(self) -> str:
        """One character; ``ascii_symbol`` where the output's encoding lacks it."""
        return _SYMBOLS[self][0]

    @property
    def ascii_symbol(self) -> str:
        """One ASCII character."""
        return _SYMBOLS[self][1]

    @property
    def must_explain(self) -> bool:
        """Whether a reader must see the evidence whole: the claim does not hold, or may not."""
        return self not in (Verdict.PROVED, Verdict.SUPPORTED)


# What a reader must not miss stands at the top.
WORST_FIRST = tuple(reversed(Verdict))

_MEANINGS = {
    Verdict.PROVED: "true by construction, or certified",
    Verdict.SUPPORTED: "searched for a counterexample, found none; not a proof",
    Verdict.REFUTED: "not true: a counterexample was found",
    Verdict.INCONCLUSIVE: "could not be settled either way",
    Verdict.UNKNOWN: "a verdict this version does not know",
}
_SYMBOLS = {
    Verdict.PROVED: "✓+",
    Verdict.SUPPORTED: "◐~",
    Verdict.REFUTED: "✗x",
    Verdict.INCONCLUSIVE: "??",
    Verdict.UNKNOWN: "??",
}
