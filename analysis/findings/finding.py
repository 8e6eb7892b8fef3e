"""Findings: what an audit says of a claim, with one of four verdicts."""

from dataclasses import dataclass, field
from typing import Any

from analysis.findings.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The verdict on one named claim, and all that it rests on.

    ``claim`` is a sentence; ``evidence`` says in words what was done and seen; ``margin`` is the signed distance to
    violation in the units that ``evidence`` names (positive: the claim holds); ``samples`` counts the states or images
    examined; ``tolerance`` is the bound beyond which a violation counts; ``witness`` is what refutes the claim.
    """

    check: str
    name: str
    claim: str
    verdict: Verdict
    margin: float | None
    evidence: str
    samples: int
    tolerance: float
    dtype: str
    seed: int
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
class CheckResult:
    """What one check brings: findings, measurements, and the plain series that figures are drawn from."""

    findings: list[Finding] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)


def exit_code(findings: list[Finding]) -> int:
    """Return 1 where a claim is refuted, else 3 where one is inconclusive or none was judged, else 0.

    >>> exit_code([])
    3
    """
    verdicts = {finding.verdict for finding in findings}
    if Verdict.REFUTED in verdicts:
        return 1
    return 3 if Verdict.INCONCLUSIVE in verdicts or not verdicts else 0


def short(value: Any) -> str:
    """Return a number, or the first eight of a list, with six digits."""
    values = value if isinstance(value, list) else [value]
    shown = ", ".join(f"{item:.6g}" for item in values[:8])
    more = f", ... {len(values)} in all" if len(values) > 8 else ""
    return f"[{shown}{more}]" if isinstance(value, list) else shown
