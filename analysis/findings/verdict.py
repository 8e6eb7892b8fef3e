"""The verdicts."""

from enum import StrEnum


class Verdict(StrEnum):
    """How a claim ends: ``PROVED``, ``SUPPORTED`` (searched, nothing found), ``REFUTED`` (by a witness) or ``INCONCLUSIVE``."""

    PROVED = "PROVED"
    SUPPORTED = "SUPPORTED"
    REFUTED = "REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"
