"""Does V fall at its promised rate: along the stabilised field, along its trajectories, along the unprojected field?"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from analysis.checks.effort import beside_construction, looking, searching
from analysis.checks.flow import HORIZON, LARGEST, judge_flow, replay_flow, unfollowed_flow
from analysis.checks.proof import proved
from analysis.checks.witness import (
    Replay,
    judged,
    lyapunov_of,
    require_equilibria,
    state_of,
    unknown_claim,
)
from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.judge import EVALUATED, judge
from analysis.evidence.regions import Ball
from analysis.evidence.sampling import clopper_pearson_upper, directions
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.findings.four_digits import at_least
from analysis.measure import phase_plane
from analysis.measure.rows import in_parts
from analysis.measure.subject import Subject
from analysis.proofs.cells.unprojected_decay import unprojected_rate
from stabdeq.errors import EvaluationError
from stabdeq.lyapunov import LyapunovFunction, claims
from stabdeq.percent import percent

IMAGES = 16  # images whose fields are searched jointly
RADII = 12
DIRECTIONS = 256
NUMBERS = 2**22  # in the states of all images that are measured: of large ones fewer directions are tried
SEARCH = Effort(samples=4096, starts=16, steps=40)
REPEATED = Effort(samples=512, starts=0)  # by the gradient that automatic differentiation gives of V
THINNED = 4  # of so many states one shows the margins of both fields
PIECES = ("claims", "field", "planes")
STEPS = torch.logspace(-4, 6, 81, base=2, dtype=torch.float64)


def check(subject: Subject, pieces: Collection[str] = PIECES) -> CheckResult:
    """Judge the stabilised field and its flow; measure the unprojected field and the largest Euler step: those ``pieces`` of it."""
    lyapunov, result = lyapunov_of(subject), CheckResult()
    if "claims" in pieces:
        stabilised = _stabilised(subject)
        unprojected = [judge_unprojected(subject)] if "decay.unprojected" in subject.claims else []
        flow, result.series["flow"] = _flow(subject, stabilised)
        result.findings.extend([stabilised, *unprojected, flow])
    if "field" in pieces:
        raw, result.series["raw"], result.series["margin"] = _raw(subject)
        result.measurements.extend([raw, _largest_euler_step(subject)])
    if "planes" in pieces:
        # A plane goes through equilibria of two classes.
        drawn = subject.answers == "classes"
        result.series["planes"] = phase_plane.planes(subject, HORIZON / lyapunov.alpha) if drawn else {}
    return result


def _flow(subject: Subject, stabilised: Finding) -> tuple[Finding, dict[str, Any]]:
    reason = "V-dot <= -alpha V is proved at every state: exp(alpha t) V never rises along a trajectory."
    if stabilised.verdict is Verdict.PROVED and subject.dim > LARGEST:
        return unfollowed_flow(subject, reason)
    flow, series = judge_flow(subject, is_proved=_is_proved(subject, stabilised))
    if stabilised.verdict is Verdict.PROVED and flow.verdict is Verdict.SUPPORTED:
        flow = proved(flow, reason, flow.evidence)
    return flow, series


def _across_images(subject: Subject, offsets: Tensor, stabilised: bool, automatic: bool = False) -> claims.Violation:
    """Return the decay violation at each offset (B, n) from V's centre, of the image for which it is worst.

    Where a gradient is asked for, as by a climb, it is that of the worst image, the others being evaluated without.
    """
    rows = max(1, EVALUATED // (min(IMAGES, len(subject.equilibria)) * offsets.shape[1]))
    with torch.no_grad():
        found = [_worst_image(subject, part, stabilised, automatic) for part in offsets.detach().split(rows)]
    worst, excess, scale = (torch.cat(parts) for parts in zip(*found, strict=True))
    if offsets.requires_grad:
        return _violation(subject, offsets, worst, stabilised, automatic)
    return claims.Violation(excess, scale)


def _worst_image(subject: Subject, offsets: Tensor, stabilised: bool, automatic: bool) -> tuple[Tensor, ...]:
    """Return the image with the worst violation at each offset (B, n), its excess and its scale, all (B,)."""
    count = min(IMAGES, len(subject.equilibria))
    which, of = torch.arange(count).repeat_interleave(len(offsets)), torch.arange(len(offsets)).repeat(count)
    parts = [
        _violation(subject, offsets[of[part]], which[part], stabilised, automatic)
        for part in in_parts(len(which), subject.dim)
    ]
    everywhere = claims.Violation(*(torch.cat([getattr(one, name) for one in parts]) for name in ("excess", "scale")))
    worst = everywhere.relative.view(count, -1).nan_to_num(nan=torch.inf).argmax(0, keepdim=True)
    excess, scale = (part.view(count, -1).gather(0, worst).squeeze(0) for part in (everywhere.excess, everywhere.scale))
    return worst.squeeze(0), excess, scale


def _directions(subject: Subject) -> int:
    """Return in how many directions around each centre the field is measured."""
    return min(DIRECTIONS, max(1, NUMBERS // (IMAGES * subject.dim)))


class _Once:
    """V, evaluated once where it is asked for twice at the same offsets: by the projection, and by the claim."""

    def __init__(self, lyapunov: LyapunovFunction) -> None:
        self.lyapunov, self.centre, self.alpha = lyapunov, lyapunov.centre, lyapunov.alpha
        self.known: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return V (B,) and grad V (B, n) at ``offset`` (B, n)."""
        if self.known is None or not torch.equal(self.known[0], offset):
            self.known = offset, self.lyapunov(offset)
        return self.known[1]


def _violation(
    subject: Subject, offsets: Tensor, which: Tensor, stabilised: bool, automatic: bool = False
) -> claims.Violation:
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    centres = subject.centres()[which]
    z = centres + offsets
    offsets = z - centres  # what rounding left of them, so that V and the field are taken at one state
    once = _Once(lyapunov)
    velocity = subject.stabilised(z, which, once) if stabilised else subject.field(z, which)
    value, gradient = once(offsets)
    if automatic:
        leaf = offsets.detach().requires_grad_()
        with torch.enable_grad():
            value = lyapunov(leaf)[0]
            if not value.requires_grad:
                reason = "V's value has no gradient by automatic differentiation: compute it by PyTorch's operations"
                raise EvaluationError(reason, offsets[0].tolist())
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return claims.decay(gradient, velocity, value, lyapunov.alpha)


def _claim(subject: Subject, name: str, sentence: str) -> Claim:
    """Return the claim on the decay along the field that ``name`` says, "stabilised" or "unprojected"."""
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    count = min(IMAGES, len(subject.equilibria))
    stabilised = name == "stabilised"

    def describe(offset: Tensor) -> dict[str, Any]:
        relative = _violation(subject, offset.expand(count, -1), torch.arange(count), stabilised).relative
        position = int(relative.argmax())
        return {"image": int(subject.indices[subject.found[position]]), "offset_from": lyapunov.centre}

    return Claim(
        check="decay",
        name=name,
        sentence=sentence,
        violation=lambda offsets: _across_images(subject, offsets, stabilised),
        replay=lambda offset: _across_images(subject, offset, stabilised, automatic=True),
        replayed_by="the gradient of V by automatic differentiation",
        tolerance=claims.tolerance(torch.float64, subject.dim),
        describe=describe,
        note=f"Each state was tried with {count} images at once.",
    )


def _searched(subject: Subject, claim: Claim, effort: Effort) -> Finding:
    region = Ball(torch.zeros(subject.dim, dtype=torch.float64), subject.radius)
    finding = judge(claim, region, seed=subject.seed, effort=effort)
    if finding.verdict is not Verdict.SUPPORTED or subject.structured or claim.replay is None:
        return finding
    # V's own gradient may not be V's: the projection, which rests on it too, then leaves no violation to be seen by it.
    again = judge(
        replace(claim, violation=claim.replay), region, seed=subject.seed, effort=REPEATED.affordable(subject.dim)
    )
    return finding if again.verdict is Verdict.SUPPORTED else again


def _stabilised(subject: Subject) -> Finding:
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    alpha = f"{lyapunov.alpha:g}"
    sentence = f"Along the stabilised field V falls at rate {alpha} or faster: V-dot <= -{alpha} V."
    effort = beside_construction(subject, SEARCH, subject.dim)
    finding = _searched(subject, _claim(subject, "stabilised", sentence), effort)
    if subject.structured and finding.verdict is Verdict.SUPPORTED:
        return proved(
            finding,
            "By construction: the projection leaves no field that decreases V more slowly, wherever grad V is not 0, and that is "
            "everywhere but at the centre.",
        )
    return finding


def _is_proved(subject: Subject, stabilised: Finding) -> bool:
    """Whether V-dot <= -alpha V along the field follows from its construction; not where it was seen to fail all the same."""
    return subject.structured and stabilised.verdict is not Verdict.REFUTED


@torch.no_grad()
def _raw(subject: Subject) -> tuple[Measurement, dict[str, Any], dict[str, Any]]:
    """Measure how often the unprojected field violates the decay, and the margins of both fields, by distance from V's centre."""
    count = min(IMAGES, len(subject.equilibria))
    which = torch.arange(count).repeat_interleave(_directions(subject))
    radii = torch.logspace(-4, 0, RADII, dtype=torch.float64) * subject.radius
    generator = subject.generator()
    tolerance = claims.tolerance(torch.float64, subject.dim)
    rates, uppers, violating = [], [], 0
    unprojected, stabilised, few = [], [], slice(None, None, THINNED)
    for radius in radii:
        offsets = radius * directions(len(which), subject.dim, generator)
        relative = _relative(subject, offsets, which, stabilised=False)
        unprojected.append(_spread(-relative[few]))
        stabilised.append(_spread(-_relative(subject, offsets[few], which[few], stabilised=True)))
        # NaN counts as a violation: it is no decay.
        violated = int((~(relative <= tolerance)).sum())
        rates.append(violated / len(which))
        uppers.append(clopper_pearson_upper(violated, len(which)))
        violating += violated
    total = RADII * len(which)
    bound = clopper_pearson_upper(violating, total)
    text = (
        f"the unprojected field violates the decay at {percent(violating / total)} of {total} states around {count} images' "
        f"centres, at distances {float(radii[0]):.2g} to {float(radii[-1]):.3g} (below {100 * bound:.2g} % with 95 % confidence)"
    )
    measurement = Measurement(check="decay", name="unprojected field", value=violating / total, text=text)
    margin = {"radii": radii.tolist(), "states": len(which[few]), "unprojected": unprojected, "stabilised": stabilised}
    return measurement, {"radii": radii.tolist(), "violation_rate": rates, "upper": uppers}, margin


def _relative(subject: Subject, offsets: Tensor, which: Tensor, stabilised: bool) -> Tensor:
    """Return the relative violation (B,) at ``offsets`` (B, n) from the centres of the found images ``which`` (B,)."""
    parts = in_parts(len(which), subject.dim)
    return torch.cat([_violation(subject, offsets[part], which[part], stabilised).relative for part in parts])


def _spread(margins: Tensor) -> dict[str, float]:
    """Return the worst, the 5 % and 95 % quantiles and the median of those of ``margins`` (B,) that are numbers, and how many are not."""
    finite = margins[margins.isfinite()]
    names, levels = ("worst", "lower", "median", "upper"), torch.tensor([0.0, 0.05, 0.5, 0.95], dtype=margins.dtype)
    found = finite.quantile(levels).tolist() if len(finite) else [float("nan")] * len(names)
    return dict(zip(names, found, strict=True)) | {"not_finite": len(margins) - len(finite)}


@torch.no_grad()
def _largest_euler_step(subject: Subject) -> Measurement:
    """Measure the largest explicit Euler step of the stabilised field that decreases V at every sampled state."""
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    count = min(IMAGES, len(subject.equilibria))
    each = _directions(subject)
    which = torch.arange(count).repeat_interleave(each)
    lengths = torch.logspace(-3, 0, each, dtype=torch.float64).repeat(count)[:, None] * subject.radius
    offsets = lengths * directions(len(which), subject.dim, subject.generator())
    centres = subject.centres()[which]
    parts = list(in_parts(len(which), subject.dim))
    velocity = torch.cat([subject.stabilised((centres + offsets)[part], which[part]) for part in parts])
    value = [lyapunov(offsets[part])[0] for part in parts]
    largest = 0.0
    for step in STEPS.tolist():
        after = (lyapunov(offsets[part] + step * velocity[part])[0] for part in parts)
        if not all(bool((now <= before).all()) for now, before in zip(after, value, strict=True)):
            break
        largest = step
    found = f"every Euler step up to {largest:.3g}" if largest else f"not even an Euler step of {float(STEPS[0]):.3g}"
    text = f"{found} decreases V at all {len(which)} sampled states of the stabilised field"
    return Measurement(check="decay", name="largest Euler step", value=largest, text=text)


def replay(subject: Subject, finding: Finding) -> Replay:
    """Evaluate the decay anew at the state that the witness of ``finding`` names, or along the trajectory from there."""
    lyapunov_of(subject)
    require_equilibria(subject)
    if finding.name == "flow":
        again = replay_flow(subject, finding, is_proved=False)
        # Whether V-dot <= -alpha V is proved takes a search, and matters to what would refute alone.
        if again.refutes and _is_proved(subject, _stabilised(subject)):
            return replay_flow(subject, finding, is_proved=True)
        return again
    if finding.name not in ("stabilised", "unprojected"):
        raise unknown_claim(finding)
    offset = state_of(finding, "state", subject.dim)[None]
    violation = _violation(subject, offset, torch.tensor([0]), finding.name == "stabilised", automatic=True)
    return judged(finding, violation, claims.tolerance(torch.float64, subject.dim))


def judge_unprojected(subject: Subject) -> Finding:
    """Return the finding that V falls at its rate along F(z, h) = f(z, h) - z as the cell leaves it: proved by weights, or searched."""
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    alpha = f"{lyapunov.alpha:g}"
    sentence = f"Along the unprojected field V falls at rate {alpha} or faster, for every input: V-dot <= -{alpha} V."
    rate = unprojected_rate(lyapunov, subject.model.cell)
    is_proof = rate is not None and rate >= lyapunov.alpha
    effort = searching(subject, looking(subject.dim) if is_proof else SEARCH, subject.dim)
    finding = _searched(subject, _claim(subject, "unprojected", sentence), effort)
    if finding.verdict is Verdict.SUPPORTED and rate is not None and is_proof:
        return proved(
            finding,
            f"The weights of V and of the cell prove the rate {at_least(rate)} for every input; so the projection never acts.",
        )
    return finding
