"""Is V convex?"""

import torch
from torch import Tensor

from analysis.checks.effort import beside_construction
from analysis.checks.proof import proved
from analysis.checks.witness import Replay, judged, lyapunov_of, state_of, unknown_claim
from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.judge import judge
from analysis.evidence.regions import Ball, Pairs
from analysis.findings import CheckResult, Finding, Verdict
from analysis.measure.subject import Subject
from stabdeq.lyapunov import InputConvexLyapunov, LyapunovFunction, claims


def check(subject: Subject) -> CheckResult:
    """Judge V((a + b) / 2) <= (V(a) + V(b)) / 2."""
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    claim = Claim(
        check="convexity",
        name="convex",
        sentence="V is convex.",
        violation=lambda pairs: _violation(lyapunov, pairs),
        tolerance=claims.tolerance(torch.float64, subject.dim),
    )
    region = Pairs(Ball(torch.zeros(subject.dim, dtype=torch.float64), subject.radius))
    finding = judge(claim, region, seed=subject.seed, effort=beside_construction(subject, Effort(), 2 * subject.dim))
    if subject.structured and finding.verdict is Verdict.SUPPORTED:
        assert isinstance(lyapunov, InputConvexLyapunov)
        least = float(lyapunov.network.mix.detach().min())
        proof = (
            f"By construction: the hidden-to-output weights are a softplus (least {least:.3g} >= 0) and the activations convex and "
            f"non-decreasing, so V is {2 * lyapunov.eta:g}-strongly convex."
        )
        finding = proved(finding, proof)
    return CheckResult(findings=[finding])


def _violation(lyapunov: LyapunovFunction, pairs: Tensor) -> claims.Violation:
    a, b = pairs.chunk(2, dim=1)
    return claims.convex(*lyapunov(torch.cat([(a + b) / 2, a, b]))[0].chunk(3))


@torch.no_grad()
def replay(subject: Subject, finding: Finding) -> Replay:
    """Evaluate V anew at the two offsets that the witness of ``finding`` names, and half-way between them."""
    if finding.name != "convex":
        raise unknown_claim(finding)
    pair = state_of(finding, "state", 2 * subject.dim)[None]
    return judged(finding, _violation(lyapunov_of(subject), pair), claims.tolerance(torch.float64, subject.dim))
