"""Is V zero at its centre and positive elsewhere?"""

import torch
from torch import Tensor

from analysis.checks.effort import beside_construction
from analysis.checks.proof import proved
from analysis.checks.witness import RELATIVE, Replay, judged, lyapunov_of, state_of, unknown_claim
from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.judge import CLEAR_OF_CENTRE, judge
from analysis.evidence.noise import NOISE_MARGIN, rounding_noise
from analysis.evidence.regions import Ball
from analysis.findings import CheckResult, Finding, Verdict
from analysis.measure.subject import Subject
from analysis.proofs.structure import growth
from stabdeq.lyapunov import InputConvexLyapunov, LyapunovFunction, claims


def check(subject: Subject) -> CheckResult:
    """Judge V(c) = 0 and V > 0 off the centre; V is a function of z - c alone, whatever the image."""
    return CheckResult(findings=[_zero(subject), _positive(subject)])


@torch.no_grad()
def _zero(subject: Subject) -> Finding:
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    centre = torch.zeros(1, subject.dim, dtype=torch.float64)
    value, gradient = lyapunov(centre)
    around, _ = lyapunov(centre + 1 / subject.dim**0.5)
    violation = _violation_at_centre(value, around)
    tolerance = claims.tolerance(torch.float64, subject.dim)
    # Of a steep V the value at distance 1 says nothing of the terms at the centre: rounding must explain V(c) there.
    nearest, noise = _at_the_centre(subject)
    beside_rounding = _violation_at_centre(value, nearest.abs() + NOISE_MARGIN * noise / tolerance)
    holds = violation <= tolerance and beside_rounding <= tolerance  # one by one, for NaN is never the largest
    proof = (
        "By construction: g(0) is recomputed at every call and subtracted, so V(c) = s(0) + 0 for all weights. "
        if subject.structured
        else ""
    )
    if holds:
        verdict = Verdict.PROVED if subject.structured else Verdict.SUPPORTED
    else:
        verdict = Verdict.REFUTED if violation > tolerance else Verdict.INCONCLUSIVE  # NaN, or small beside a steep V
    return Finding(
        check="positivity",
        name="zero",
        claim="V vanishes at its centre.",
        verdict=verdict,
        margin=tolerance - violation,
        evidence=f"{proof if holds else ''}V(c) = {float(value):.3g}, ||grad V(c)|| = {float(gradient.norm()):.3g}, "
        f"against V = {float(around):.3g} at distance 1 and {float(nearest):.3g} at distance {CLEAR_OF_CENTRE:g}.",
        samples=1,
        tolerance=tolerance,
        dtype="float64",
        seed=subject.seed,
        witness=None if holds else {"state": centre.squeeze(0).tolist(), "value": float(value)},
    )


def _at_the_centre(subject: Subject) -> tuple[Tensor, float]:
    """Return V (1,) as near to the centre as V > 0 is judged, and the noise of V there."""
    lyapunov = lyapunov_of(subject)
    centre = torch.zeros(subject.dim, dtype=torch.float64)
    nearest, _ = lyapunov((centre + CLEAR_OF_CENTRE / subject.dim**0.5)[None])
    return nearest, rounding_noise(lambda offset: lyapunov(offset)[0], centre, 1.0, subject.generator())


def _violation_at_centre(value: Tensor, around: Tensor) -> float:
    return float(claims.zero(value, around.abs()).relative)


def _eta(lyapunov: LyapunovFunction) -> float:
    return lyapunov.eta if isinstance(lyapunov, InputConvexLyapunov) else 0.0


def _violation(lyapunov: LyapunovFunction, offset: Tensor) -> claims.Violation:
    return claims.positive(lyapunov(offset)[0], _eta(lyapunov) * offset.square().sum(1))


def _positive(subject: Subject) -> Finding:
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    eta = _eta(lyapunov)
    claim = Claim(
        check="positivity",
        name="positive",
        sentence=f"V >= {eta:g} ||z - c||^2 for all states." if eta else "V > 0 at every state but its centre.",
        violation=lambda offset: _violation(lyapunov, offset),
        tolerance=claims.tolerance(torch.float64, subject.dim),
        strict=not eta,
    )
    region = Ball(torch.zeros(subject.dim, dtype=torch.float64), subject.radius)
    finding = judge(claim, region, seed=subject.seed, effort=beside_construction(subject, Effort(), subject.dim))
    if subject.structured and finding.verdict is Verdict.SUPPORTED:
        return proved(finding, f"By construction: s >= 0, so {growth(lyapunov)}, for all states.")
    return finding


@torch.no_grad()
def replay(subject: Subject, finding: Finding) -> Replay:
    """Evaluate V anew at the offset that the witness of ``finding`` names."""
    lyapunov, offset = lyapunov_of(subject), state_of(finding, "state", subject.dim)[None]
    tolerance = claims.tolerance(torch.float64, subject.dim)
    if finding.name == "positive":
        # Next to the centre V underflows, so that equality says nothing there; the audit's radius is at least 1.
        clear = float(offset.norm()) >= CLEAR_OF_CENTRE
        equality_counts = not _eta(lyapunov) and clear
        return judged(finding, _violation(lyapunov, offset), tolerance, equality_counts=equality_counts)
    if finding.name != "zero":
        raise unknown_claim(finding)
    if bool(offset.any()):
        return Replay(quantity="distance from the centre", reported=None, now=float(offset.norm()), refutes=False)
    violation = _violation_at_centre(lyapunov(offset)[0], lyapunov(offset + 1 / subject.dim**0.5)[0])
    reported = None if finding.margin is None else tolerance - finding.margin
    return Replay(quantity=RELATIVE, reported=reported, now=violation, refutes=violation > tolerance)
