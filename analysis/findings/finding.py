"""Findings: what is said of a claim, with its verdict, and the numbers that are reported without one."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from analysis.findings.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The verdict on one named claim, and all that it rests on.

    ``claim`` is a sentence; ``evidence`` says in words what was done and seen; ``margin`` is the signed distance to
    violation in the units that ``evidence`` names (positive: the claim holds); ``samples`` counts the states or images
    examined; ``tolerance`` is the bound beyond which a violation counts; ``witness`` is what refutes the claim. In a report that
    was read from a file, a number that could not be read is None, a text that is not there empty.
    """

    check: str
    name: str
    claim: str
    verdict: Verdict
    margin: float | None
    evidence: str
    samples: int | None
    tolerance: float | None
    dtype: str
    seed: int | None
    seconds: float = 0.0
    witness: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A number that the audit reports without a verdict, since the model does not claim anything about it."""

    check: str
    name: str
    value: float | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A check that was not made, and why; ``asked_for`` is false where the audit was asked for others alone."""

    check: str
    reason: str
    asked_for: bool = True


NOT_JUDGED = "not judged"  # the name of the finding of a check that was asked for and could not be made
NOT_ASKED_FOR = "not among those asked for"


def not_asked_for(names: Iterable[str]) -> tuple[Skipped, ...]:
    """Return what a report says of the checks, or claims, ``names``, that were left out of what it was asked for."""
    return tuple(Skipped(check=name, reason=NOT_ASKED_FOR, asked_for=False) for name in names)


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check brings: findings, measurements, and the plain series that figures are drawn from."""

    findings: list[Finding] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)


def short(value: Any) -> str:
    """Return a number, or the first eight of a list, with six digits."""
    values = value if isinstance(value, list) else [value]
    shown = ", ".join(f"{item:.6g}" for item in values[:8])
    more = f", ... {len(values)} in all" if len(values) > 8 else ""
    return f"[{shown}{more}]" if isinstance(value, list) else shown


def exactly(number: float) -> str:
    """Return the number with the digits that tell it from all others: what holds at 1.9999999 may be false at 2.

    >>> exactly(2.0), exactly(1.9999999)
    ('2', '1.9999999')
    """
    rounded = f"{number:g}"
    return rounded if float(rounded) == number else repr(number)
