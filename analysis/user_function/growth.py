"""Is V radially unbounded?"""

import torch
from torch import Tensor

from analysis.evidence.falsifier import falsify
from analysis.evidence.regions import Ball, polar
from analysis.evidence.sampling import directions
from analysis.findings import Finding, Verdict
from analysis.user_function.levels import low_rays
from analysis.user_function.subject import REFERENCE_STATES, Subject
from stabdeq.lyapunov.claims import Violation

DECADES = 6
VALLEYS, DESCENT_STEPS = 16, 60


def proper(subject: Subject) -> Finding:
    """Follow V out along rays and along the lowest paths met: growth over decades supports the claim, and no sample can refute it."""
    rays = _rays(len(subject.centre), subject.seed)
    lengths = subject.region.radius * 10.0 ** torch.arange(DECADES + 1, dtype=torch.float64)
    along_rays = lengths[:, None, None] * rays
    along_valleys = _valleys(subject, lengths)
    offsets = torch.cat([along_rays, along_valleys], 1)
    with torch.no_grad():
        value = subject.value((subject.centre + offsets).reshape(-1, len(subject.centre)))
    value = value.reshape(offsets.shape[:2])
    gain = value.nan_to_num(nan=torch.nan, posinf=torch.finfo(torch.float64).max).diff(dim=0)
    # A bounded V gains less with every decade, ln(1 + r^2) as much in each. An overflow is growth.
    overflows = value[-1].isposinf()
    flat = ~((gain[-1] > 0.01 * gain.amax(0)) | overflows)
    span = f"between {float(lengths[0]):g} and {float(lengths[-1]):g} from the centre"
    if not bool(flat.any()):
        words = (
            f"V grows through every decade {span} along {len(rays)} rays and {along_valleys.shape[1]} paths on which it was sought to "
            "be least; this is not a proof."
        )
        return subject.finding("proper", Verdict.SUPPORTED, words, samples=value.numel())
    path = int(flat.nonzero()[0])
    way = "one ray" if path < len(rays) else "the lowest path that was found"
    words = (
        f"Along {way} V goes from {float(value[0, path]):.6g} to {float(value[-1, path]):.6g} {span}, and stops growing; no "
        "sample can tell whether it grows further out. It matters for global stability alone."
    )
    witness = {
        "state": (subject.centre + offsets[-1, path]).tolist(),
        "value": float(value[-1, path]),
        "ray": (offsets[-1, path] / lengths[-1]).tolist(),
    }
    return subject.finding("proper", Verdict.INCONCLUSIVE, words, samples=value.numel(), witness=witness)


def _rays(dim: int, seed: int) -> Tensor:
    axes = torch.eye(dim, dtype=torch.float64)
    drawn = directions(REFERENCE_STATES, dim, torch.Generator().manual_seed(seed))
    return torch.cat([axes, -axes, drawn])


def _valleys(subject: Subject, lengths: Tensor) -> Tensor:
    """Return offsets (decades, VALLEYS, n) from the centre at which V is sought to be least at those ``lengths``.

    A valley may bend, so that its floor is followed outwards in steps by half, each a descent on a sphere from the floor before.
    """
    generator = torch.Generator().manual_seed(subject.seed)
    radius = float(lengths[0])
    rays = low_rays(subject.value, Ball(subject.centre, radius), subject.seed)
    with torch.no_grad():
        rays = rays[subject.value(subject.centre + radius * rays).argsort()[:VALLEYS]]
    found = [radius * rays]
    for end in lengths[1:].tolist():
        while radius < end:
            radius = min(1.5 * radius, end)
            rays = _lowest(subject, radius, rays, generator)
        found.append(radius * rays)
    return torch.stack(found)


def _lowest(subject: Subject, radius: float, rays: Tensor, generator: torch.Generator) -> Tensor:
    """Return unit vectors near ``rays`` (k, n) along which V is less at ``radius``."""

    def onto_sphere(states: Tensor) -> Tensor:
        return subject.centre + radius * polar(states, subject.centre)[1]

    def depth(states: Tensor) -> Violation:
        value = subject.value(states)
        # By its logarithm, since V may differ by many decades between a valley's floor and its walls.
        return Violation(-torch.log1p(value.clamp(min=0)), torch.ones_like(value))

    found = falsify(
        depth,
        subject.centre + radius * rays,
        onto_sphere,
        first_step=torch.full((len(rays),), 0.1 * radius, dtype=torch.float64),
        generator=generator,
        steps=DESCENT_STEPS,
    )
    return (found.states - subject.centre) / radius
