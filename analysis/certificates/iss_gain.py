"""The gain from features to equilibria that a Lyapunov function would give, where it falls along the unprojected field."""

import torch
from torch import Tensor

from analysis.evidence.judge import Claim, Effort, judge
from analysis.evidence.regions import Ball
from analysis.findings import Finding
from analysis.subject import Subject
from stabdeq import claims
from stabdeq.lyapunov import InputConvexLyapunov

IMAGES = 16  # whose fields are searched jointly


def iss_gain(lyapunov: InputConvexLyapunov, sensitivity: float) -> float:
    """Return gamma with ||dz*|| <= gamma ||dh|| where V falls at rate alpha along F(., h) for every h.

    alpha eta ||e||^2 <= alpha V(e) <= -grad V(e) . F(z', h) <= 2 k ||e|| ``sensitivity`` ||dh||, with V <= k ||e||^2 and
    ``sensitivity`` a Lipschitz constant of f in h (theory: from a changed image to a changed state).
    """
    return 2 * lyapunov.growth_bound() * sensitivity / (lyapunov.alpha * lyapunov.eta)


def judge_unprojected_decay(subject: Subject) -> Finding:
    """Return the finding, never PROVED, that V falls at its rate along F(z, h) = f(z, h) - z as the cell leaves it."""
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    centres = subject.centres()[:IMAGES]
    count = len(centres)

    def violation(offsets: Tensor) -> claims.Violation:
        """Return, at each offset (B, n) from V's centre, the violation of the image for which it is worst."""
        which = torch.arange(count).repeat_interleave(len(offsets))
        z = centres[which] + offsets.repeat(count, 1)
        value, gradient = lyapunov(z - centres[which])
        each = claims.decay(gradient, subject.field(z, which), value, lyapunov.alpha)
        worst = each.relative.detach().nan_to_num(nan=torch.inf).view(count, -1).argmax(0, keepdim=True)
        return claims.Violation(
            each.excess.view(count, -1).gather(0, worst)[0], each.scale.view(count, -1).gather(0, worst)[0]
        )

    claim = Claim(
        check="iss_gain",
        name="iss_gain",
        sentence=f"V falls at rate {lyapunov.alpha:g} along the unprojected field.",
        violation=violation,
        tolerance=claims.tolerance(torch.float64, subject.dim),
        note=f"Each state was tried with {count} images at once.",
    )
    region = Ball(torch.zeros(subject.dim, dtype=torch.float64), subject.radius)
    return judge(claim, region, seed=subject.seed, effort=Effort(samples=4096, starts=16, steps=40))
