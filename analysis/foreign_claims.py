"""The claims that ``stabdeq check`` judges of a user's V and dynamics, by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.judge import Claim, Effort, EvaluationError, judge
from analysis.evidence.noise import rounding_noise
from analysis.evidence.regions import Outside, Pairs, Region, Sublevel
from analysis.evidence.sampling import directions
from analysis.findings import Finding, Verdict
from analysis.foreign_function import ForeignFunction
from stabdeq import claims
from stabdeq.claims import Violation
from stabdeq.errors import ConfigError

# Fourth-order central differences with this step, as a part of the distance from the centre, err by some 1e-12 where V is
# smooth on that scale; a violation has to be far above.
DIFFERENCE_STEP = 1e-3
DIFFERENCE_TOLERANCE = 1e-6
# A violation has to stand this far above the noise that was measured.
NOISE_MARGIN = 64
REFERENCE_STATES = 1024
DECADES = 6


@dataclass(frozen=True)
class Subject:
    """What is judged: V and, where given, the dynamics, on a region around a centre.

    ``alpha`` is the rate of the claim "decay"; ``seed`` draws all states.
    """

    value: ForeignFunction
    velocity: ForeignFunction | None
    region: Region
    alpha: float | None = None
    seed: int = 0
    effort: Effort = field(default_factory=Effort)

    @property
    def centre(self) -> Tensor:
        """(n,): where V should vanish."""
        return self.region.centre

    @property
    def judged_region(self) -> Region:
        """The region, less a small ball around the centre where derivatives are differences."""
        if self.value.is_differentiable:
            return self.region
        return Outside(self.region, DIFFERENCE_STEP * self.region.radius)

    @property
    def tolerance(self) -> float:
        """The relative violation that rounding can cause in values of V and of the dynamics."""
        widths = [function.dtype for function in (self.value, self.velocity) if function is not None]
        return max(claims.tolerance(width, len(self.centre)) for width in widths)

    @property
    def derivative_tolerance(self) -> float:
        """The relative violation that rounding, or the step of finite differences, can cause in V-dot."""
        return self.tolerance if self.value.is_differentiable else max(DIFFERENCE_TOLERANCE, self.tolerance)

    def gradient(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return V (B,) and grad V (B, n), by automatic differentiation or by central differences."""
        if not self.value.is_differentiable:
            return self.value(states), self._differences(states)
        keep_graph = torch.is_grad_enabled() and self._is_twice_differentiable
        with torch.enable_grad():
            leaf = states if states.requires_grad else states.detach().requires_grad_()
            value = self.value(leaf)
            (gradient,) = torch.autograd.grad(
                value.sum(), leaf, create_graph=keep_graph, retain_graph=True, materialize_grads=True
            )
        return (value, gradient) if torch.is_grad_enabled() else (value.detach(), gradient.detach())

    def flow(self, states: Tensor) -> Tensor:
        """Return the dynamics (B, n)."""
        assert self.velocity is not None
        return self.velocity(states)

    def derivative(self, states: Tensor) -> Tensor:
        """Return V-dot (B,) by a path that shares nothing with ``gradient``: along the flow alone.

        It is the derivative of t -> V(z + t f(z)) at 0: by autograd where finite differences agree with that to within
        their own error, else by finite differences, which a wrong ``backward`` cannot deceive.
        """
        with torch.no_grad():
            velocity = self.flow(states)
            speed = velocity.norm(dim=1)
            along = velocity / torch.where(speed == 0, 1, speed)[:, None]
            step = self._step(states) / 3
            fine, coarse = self._slope(states, along, step), self._slope(states, along, 2 * step)
            rounding = torch.finfo(torch.float64).eps * self.value(states).abs() / step.squeeze(1)
            doubt = 10 * ((fine - coarse).abs() + rounding)
        if not self.value.is_differentiable:
            return speed * fine
        with torch.enable_grad():
            time = torch.zeros(len(states), 1, dtype=torch.float64, requires_grad=True)
            moved = self.value(states.detach() + time * along).sum()
            (exact,) = torch.autograd.grad(moved, time, materialize_grads=True)
        exact = exact.squeeze(1)
        return speed * torch.where((exact - fine).abs() <= doubt, exact, fine)

    @property
    def derivative_words(self) -> str:
        """How ``derivative`` differentiates."""
        if self.value.is_differentiable:
            return "differentiation along the flow alone, held against finite differences,"
        return "a difference along the flow with another step"

    @property
    def method_note(self) -> str:
        """What a reader has to know of how gradients were taken; empty where autograd took them."""
        if self.value.is_differentiable:
            return ""
        kind = "takes NumPy arrays" if self.value.is_numpy else "is not differentiable by autograd"
        return (
            f"{self.value.name} {kind}: its gradient is by finite differences, and states within "
            f"{DIFFERENCE_STEP * self.region.radius:g} of the centre were not judged."
        )

    @cached_property
    def reference(self) -> tuple[Tensor, Tensor]:
        """States (1024, n) drawn from the region, and V there (1024,)."""
        states = self.region.sample(REFERENCE_STATES, torch.Generator().manual_seed(self.seed))
        with torch.no_grad():
            return states, self.value(states)

    @cached_property
    def typical_value(self) -> float:
        """The median of |V| over the region."""
        return float(self.reference[1].abs().nan_to_num(nan=0.0, posinf=0.0).median())

    @cached_property
    def typical_curvature(self) -> float:
        """The median of |V| / distance^2 over the region."""
        states, value = self.reference
        return float((value.abs() / (states - self.centre).square().sum(1)).nan_to_num(nan=0.0).median())

    def noise(self, function: Callable[[Tensor], Tensor]) -> float:
        """Return the rounding noise of ``function`` next to the centre."""
        generator = torch.Generator().manual_seed(self.seed)
        return rounding_noise(function, self.centre, self.region.radius, generator)

    @cached_property
    def value_noise(self) -> float:
        """The noise of V."""
        return self.noise(self.value)

    @cached_property
    def derivative_noise(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The noise of V-dot (B,), as a function of grad V and the velocity (B, n)."""
        of_gradient = self.noise(lambda states: self.gradient(states)[1])
        of_velocity = self.noise(self.flow)
        return lambda gradient, velocity: of_gradient * velocity.norm(dim=1) + of_velocity * gradient.norm(dim=1)

    @cached_property
    def _is_twice_differentiable(self) -> bool:
        leaf = self.reference[0][:2].detach().requires_grad_()
        try:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self.value(leaf).sum(), leaf, create_graph=True)
                if gradient.requires_grad:
                    torch.autograd.grad(gradient.sum(), leaf, allow_unused=True)
        except RuntimeError:
            return False
        return True

    def _step(self, states: Tensor) -> Tensor:
        distance = (states - self.centre).norm(dim=1, keepdim=True)
        return DIFFERENCE_STEP * distance.clamp(min=DIFFERENCE_STEP * self.region.radius)

    def _differences(self, states: Tensor) -> Tensor:
        step = self._step(states)
        units = torch.eye(states.shape[1], dtype=torch.float64, device=states.device)
        return torch.stack([self._slope(states, unit, step) for unit in units], 1)

    def _slope(self, states: Tensor, along: Tensor, step: Tensor) -> Tensor:
        states = states.detach()
        near = self.value(states + step * along) - self.value(states - step * along)
        far = self.value(states + 2 * step * along) - self.value(states - 2 * step * along)
        return (8 * near - far) / (12 * step.squeeze(1))


def judge_claims(subject: Subject, names: list[str]) -> list[Finding]:
    """Return one finding for each name of ``CLAIMS``, in the order given."""
    findings = []
    for name in names:
        try:
            findings.append(CLAIMS[name](subject))
        except EvaluationError as error:
            reason = f"{error}; mend the function there, or judge it on a region without that state."
            findings.append(
                _finding(subject, name, f"{name}.", Verdict.INCONCLUSIVE, reason, witness={"state": error.state})
            )
    return findings


def _zero(subject: Subject) -> Finding:
    with torch.no_grad():
        value = subject.value(subject.centre[None])
    reference = subject.typical_value + NOISE_MARGIN * subject.value_noise / subject.tolerance
    violation = claims.zero(value, torch.full_like(value, reference))
    words = (
        f"V(c) = {float(value):.3g}, against a median of |V| = {subject.typical_value:.3g} over {subject.region.words}"
    )
    return _at_centre(subject, "zero", "V vanishes at the centre.", violation, words, {"value": float(value)})


def _equilibrium(subject: Subject) -> Finding:
    with torch.no_grad():
        velocity = subject.flow(subject.centre[None])
        typical = float(subject.flow(subject.reference[0]).norm(dim=1).nan_to_num(nan=0.0, posinf=0.0).median())
    reference = typical + NOISE_MARGIN * subject.noise(subject.flow) / subject.tolerance
    violation = claims.equilibrium(velocity, velocity.new_full((1,), reference))
    speed = float(velocity.norm())
    words = f"||f(c)|| = {speed:.3g}, against a median of {typical:.3g} over {subject.region.words}"
    details = {"value": speed, "velocity": velocity[0].tolist()}
    return _at_centre(subject, "equilibrium", "The dynamics rest at the centre.", violation, words, details)


def _at_centre(
    subject: Subject, name: str, sentence: str, violation: Violation, words: str, details: dict[str, Any]
) -> Finding:
    """Return the finding on a claim about the centre alone."""
    relative = float(violation.relative)
    if relative <= subject.tolerance:
        return _finding(subject, name, sentence, Verdict.SUPPORTED, f"Evaluated there: {words}.", margin=-relative)
    witness = {"state": subject.centre.tolist(), **details}
    if relative != relative or float(violation.excess) == torch.inf:
        reason = f"Not finite at the centre: {words}."
        return _finding(subject, name, sentence, Verdict.INCONCLUSIVE, reason, witness=witness)
    return _finding(
        subject, name, sentence, Verdict.REFUTED, f"It does not: {words}.", margin=-relative, witness=witness
    )


def _positive(subject: Subject) -> Finding:
    floor = NOISE_MARGIN * subject.value_noise / subject.tolerance

    def violation(states: Tensor) -> Violation:
        value = subject.value(states)
        plain = claims.positive(value, torch.zeros_like(value))
        # V relative to itself is 1 everywhere: only a typical growth shows the climb where V is small for its distance. It
        # is kept from hiding a V that truly grows more slowly, such as x^8.
        growth = subject.typical_curvature * (states - subject.centre).square().sum(1)
        return Violation(plain.excess, plain.scale + floor + torch.minimum(growth, 1e9 * value.abs()))

    claim = Claim(
        check="positive",
        name="positive",
        sentence=f"V > 0 in {subject.region.words}, except there.",
        violation=violation,
        tolerance=subject.tolerance,
        strict=True,
        describe=lambda state: {"value": _number(subject.value, state)},
    )
    return judge(claim, subject.region, seed=subject.seed, effort=subject.effort)


def _convex(subject: Subject) -> Finding:
    floor = NOISE_MARGIN * subject.value_noise / subject.tolerance

    def violation(pairs: Tensor) -> Violation:
        a, b = pairs.chunk(2, 1)
        plain = claims.convex(subject.value((a + b) / 2), subject.value(a), subject.value(b))
        return Violation(plain.excess, plain.scale + floor)

    def describe(pair: Tensor) -> dict[str, Any]:
        a, b = pair.chunk(2)
        middle = (a + b) / 2
        named = {"state": middle, "a": a, "b": b}
        values = {"value": middle, "value_a": a, "value_b": b}
        return {key: state.tolist() for key, state in named.items()} | {
            key: _number(subject.value, state) for key, state in values.items()
        }

    claim = Claim(
        check="convex",
        name="convex",
        sentence=f"V is convex: V at the middle of any two states of {subject.region.words} is at most their mean.",
        violation=violation,
        tolerance=subject.tolerance,
        describe=describe,
    )
    return judge(claim, Pairs(subject.region), seed=subject.seed, effort=subject.effort)


def _decrease(subject: Subject) -> Finding:
    sentence = f"V-dot < 0 in {subject.region.words}, except there."
    return _judge_derivative(subject, "decrease", sentence, None, subject.judged_region)


def _decay(subject: Subject) -> Finding:
    assert subject.alpha is not None
    sentence = f"V-dot <= -{subject.alpha:g} V in {subject.region.words}."
    return _judge_derivative(subject, "decay", sentence, subject.alpha, subject.judged_region)


def _invariant(subject: Subject) -> Finding:
    assert isinstance(subject.region, Sublevel)
    boundary = Sublevel(subject.centre, subject.region.radius, subject.value, subject.region.level, on_boundary=True)
    sentence = f"No trajectory leaves {subject.region.words}: V-dot < 0 on its boundary."
    rays = directions(REFERENCE_STATES, len(subject.centre), torch.Generator().manual_seed(subject.seed))
    open_rays = rays[(boundary.reach(rays) >= (1 - 1e-9) * boundary.radius).squeeze(1)]
    if len(open_rays):
        state = subject.centre + boundary.radius * open_rays[0]
        reason = (
            f"V is still at most {boundary.level:g} at distance {boundary.radius:g}: the set is not closed there, so its "
            "boundary was not seen. Give a larger --radius or a smaller --sublevel."
        )
        return _finding(subject, "invariant", sentence, Verdict.INCONCLUSIVE, reason, witness={"state": state.tolist()})
    return _judge_derivative(subject, "invariant", sentence, None, boundary)


def _judge_derivative(subject: Subject, name: str, sentence: str, alpha: float | None, region: Region) -> Finding:
    """Judge V-dot < 0, or V-dot <= -alpha V where ``alpha`` is given."""
    tolerance = subject.derivative_tolerance

    def measured(gradient: Tensor, velocity: Tensor, value: Tensor, derivative: Tensor | None = None) -> Violation:
        if alpha is None:
            plain = claims.decrease(gradient, velocity)
            noise = subject.derivative_noise(gradient, velocity)
        else:
            plain = claims.decay(gradient, velocity, value, alpha)
            noise = subject.derivative_noise(gradient, velocity) + alpha * subject.value_noise
        excess = plain.excess if derivative is None else derivative + (alpha or 0.0) * value
        return Violation(excess, plain.scale + NOISE_MARGIN / tolerance * noise)

    def violation(states: Tensor) -> Violation:
        value, gradient = subject.gradient(states)
        return measured(gradient, subject.flow(states), value)

    def replay(states: Tensor) -> Violation:
        value, gradient = subject.gradient(states)
        return measured(gradient, subject.flow(states), value, subject.derivative(states))

    def describe(state: Tensor) -> dict[str, Any]:
        value, gradient = subject.gradient(state[None])
        velocity = subject.flow(state[None])
        return {
            "value": float(value.detach()),
            "velocity": velocity.detach()[0].tolist(),
            "derivative": float((gradient * velocity).sum().detach()),
        }

    claim = Claim(
        check=name,
        name=name,
        sentence=sentence,
        violation=violation,
        tolerance=tolerance,
        replay=replay,
        replayed_by=subject.derivative_words,
        strict=alpha is None,
        describe=describe,
        note=subject.method_note,
    )
    return judge(claim, region, seed=subject.seed, effort=subject.effort)


def _proper(subject: Subject) -> Finding:
    """Follow V out along rays: growth over decades supports the claim, and nothing that is sampled can refute it."""
    dim = len(subject.centre)
    axes = torch.eye(dim, dtype=torch.float64)
    drawn = directions(REFERENCE_STATES, dim, torch.Generator().manual_seed(subject.seed))
    rays = torch.cat([axes, -axes, drawn])
    lengths = subject.region.radius * 10.0 ** torch.arange(DECADES + 1, dtype=torch.float64)
    with torch.no_grad():
        value = subject.value((subject.centre + lengths[:, None, None] * rays).reshape(-1, dim))
    value = value.reshape(len(lengths), len(rays))
    gain = value.nan_to_num(nan=torch.nan, posinf=torch.finfo(torch.float64).max).diff(dim=0)
    # A bounded V gains less with every decade, ln(1 + r^2) as much in each. An overflow is growth.
    overflows = value[-1].isposinf()
    flat = ~((gain[-1] > 0.01 * gain.amax(0)) | overflows)
    sentence = "V grows without bound with the distance from the centre."
    span = f"between {float(lengths[0]):g} and {float(lengths[-1]):g} from the centre"
    if not bool(flat.any()):
        words = f"V grows through every decade {span} along {len(rays)} rays; this is not a proof."
        return _finding(subject, "proper", sentence, Verdict.SUPPORTED, words, samples=value.numel())
    ray = int(flat.nonzero()[0])
    words = (
        f"Along one ray V goes from {float(value[0, ray]):.6g} to {float(value[-1, ray]):.6g} {span}, and stops growing; no "
        "sample can tell whether it grows further out. It matters for global stability alone."
    )
    witness = {
        "state": (subject.centre + lengths[-1] * rays[ray]).tolist(),
        "value": float(value[-1, ray]),
        "ray": rays[ray].tolist(),
    }
    return _finding(
        subject,
        "proper",
        sentence,
        Verdict.INCONCLUSIVE,
        words,
        samples=value.numel(),
        witness=witness,
    )


def _finding(
    subject: Subject,
    name: str,
    sentence: str,
    verdict: Verdict,
    evidence: str,
    *,
    margin: float | None = None,
    samples: int = 1,
    witness: dict[str, Any] | None = None,
) -> Finding:
    return Finding(
        check=name,
        name=name,
        claim=sentence,
        verdict=verdict,
        margin=margin,
        evidence=evidence,
        samples=samples,
        tolerance=subject.tolerance,
        dtype="float64",
        seed=subject.seed,
        witness=witness,
    )


def _number(function: ForeignFunction, state: Tensor) -> float:
    with torch.no_grad():
        return float(function(state[None]))


def sublevel_radius(value: ForeignFunction, centre: Tensor, level: float) -> float:
    """Return a distance beyond which V exceeds ``level`` in 256 random directions; raise ConfigError where none is found."""
    rays = directions(256, len(centre), torch.Generator().manual_seed(0))
    for exponent in range(-10, 21):
        with torch.no_grad():
            outside = value(centre + 2.0**exponent * rays) > level
        if bool(outside.all()):
            return 2.0 ** (exponent + 1)
    raise ConfigError(
        f"V stays at most {level:g} as far as 1e6 from the centre: give --radius to bound the search, or a smaller --sublevel"
    )


CLAIMS: dict[str, Callable[[Subject], Finding]] = {
    "zero": _zero,
    "positive": _positive,
    "proper": _proper,
    "convex": _convex,
    "equilibrium": _equilibrium,
    "decrease": _decrease,
    "decay": _decay,
    "invariant": _invariant,
}
