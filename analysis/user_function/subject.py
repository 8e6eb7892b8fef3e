"""What ``stabdeq check`` judges: V and dynamics that a user wrote, on a region, with the scales that rounding is held to."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Context
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.constrained import Constrained
from analysis.evidence.effort import Effort
from analysis.evidence.noise import rounding_noise
from analysis.evidence.regions import Ball, Box, Outside, Region
from analysis.evidence.sampling import INNERMOST
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding, Verdict
from analysis.proofs.balls import UnreadableError, evaluate, exact
from analysis.proofs.tracing import TraceError, read, size_of, stands_for
from analysis.user_function.certainty import Certainty
from analysis.user_function.differentiation import DIFFERENCE_TOLERANCE, Differentiation
from analysis.user_function.function import CentredValue, ForeignFunction
from analysis.user_function.jumps import Jump, find_jump
from analysis.user_function.sentences import OFF_CENTRE, sentence
from stabdeq.errors import EvaluationError
from stabdeq.lyapunov import InputConvexLyapunov, claims

REFERENCE_STATES = 1024
BOXES = 2**16  # for each claim: some seconds, of functions of some ten operations
OUTWEIGHS = 32.0
NEAR_IDENTITY = 0.25
TRACED, COMPARED = 64, 4096  # states at which a function is read as operations, and held against them


@dataclass(frozen=True)
class Subject:
    """V and, where given, the dynamics, on a region around a centre.

    ``motion`` is the velocity f(z), or the next state z+ where the dynamics move ``in_steps``. ``rate`` is alpha of the claim "decay",
    or kappa of "decrease" in steps; ``inner`` the radius of a ball around the centre in which nothing is claimed;
    ``sets`` holds g of the initial and of the unsafe set {g <= 0} of a barrier, as far as they are given, by these names.
    ``seed`` draws all states. ``boxes`` bound the search for each proof, and ``deadline``, a time of ``time.monotonic``, stops it.
    """

    value: ForeignFunction
    motion: ForeignFunction | None
    region: Region
    rate: float | None = None
    seed: int = 0
    effort: Effort = field(default_factory=Effort)
    boxes: int = BOXES
    deadline: float = math.inf
    inner: float = 0.0
    in_steps: bool = False
    sets: Mapping[str, ForeignFunction] = field(default_factory=dict)

    @property
    def centre(self) -> Tensor:
        """(n,): where V should vanish."""
        return self.region.centre

    @property
    def functions(self) -> list[ForeignFunction]:
        """V, and the dynamics and the constraint where they are given."""
        return [one for one in (self.value, self.motion, self.constraint) if one is not None]

    @property
    def constraint(self) -> ForeignFunction | None:
        """h, where states are those of a set {h = 0}."""
        constraint = self.region.constraint if isinstance(self.region, Constrained) else None
        return constraint if isinstance(constraint, ForeignFunction) else None

    @property
    def structure(self) -> InputConvexLyapunov | None:
        """V as one of this library's own family, where the user gave such a one."""
        return self.value.function.lyapunov if isinstance(self.value.function, CentredValue) else None

    @cached_property
    def certainty(self) -> Certainty | None:
        """What tells the signs at a state for certain; None where V, the dynamics or h cannot be read as operations."""
        try:
            states = self.base.sample(COMPARED, torch.Generator().manual_seed(self.seed))
            graphs = [read(function, states[:TRACED]) for function in self.functions]
            for graph, function in zip(graphs, self.functions, strict=True):
                if not stands_for(graph, function, states, size_of(function, states)):
                    return None
            value, *others = graphs
            motion = None if self.motion is None else others[0]
            found = Certainty(value, motion, self.in_steps, None if self.constraint is None else others[-1])
            found.of_value(states[0])
            if motion is not None:
                found.of_excess(states[0], 0.0)
            if found.constraint is not None:
                evaluate(found.constraint, exact(states[0]), exact(states[0]))
        except (TraceError, UnreadableError, EvaluationError):
            return None
        return found

    @cached_property
    def hole(self) -> float:
        """The radius of the ball around the centre of which nothing is claimed: ``inner``, or one in which rounding alone decides."""
        if not self.rests_to_rounding:
            return self.inner
        assert self.certainty is not None
        smallest = max(self.inner, _upwards(INNERMOST * self.region.radius))
        if self.certainty.of_value(self.centre)[0] == 0:
            return smallest
        # Nearer than this, the rounding of V at the centre outweighs its growth.
        return max(
            smallest, _upwards(OUTWEIGHS * (self.tolerance * self.typical_value / self.typical_curvature) ** 0.5)
        )

    @cached_property
    def rests_to_rounding(self) -> bool:
        """Whether V, its slope or the speed at the centre is surely not 0, and not told from 0 in floating point.

        A controller's bias, or the sine of a constant, is rounded: the true equilibrium lies some 1e-16 beside the centre, and
        around both no strict claim is true.
        """
        if self.certainty is None:
            return False
        units = torch.eye(len(self.centre), dtype=torch.float64)
        if isinstance(self.region, Constrained):  # along the set alone
            units = self.region.along(self.centre)
        try:
            slopes = [self.certainty.slope_of_value(self.centre, unit) for unit in units]
            sign, value = self.certainty.of_value(self.centre)
            parts = [(sign == 0, value, self.typical_value)]
            parts += [(slope == 0, slope, self.typical_value / self.region.radius) for slope in slopes]
            if self.motion is not None:
                sign, square = self.certainty.of_speed(self.centre)
                parts.append((sign == 0, square**0.5, self.typical_speed))
        except (EvaluationError, UnreadableError):
            return False
        known = [(is_zero, abs(number), size) for is_zero, number, size in parts if number == number]
        is_exact = all(is_zero for is_zero, _, _ in known)
        return not is_exact and all(number <= self.tolerance * size for _, number, size in known)

    @property
    def is_near_identity(self) -> bool:
        """Whether a velocity f(z) is z, but for a quarter of its length, at the typical state: a next state is, of a short step."""
        if self.in_steps or self.motion is None:
            return False
        states = self.reference[0]
        away = (self.flow(states).detach() - states).norm(dim=1) / (states - self.centre).norm(dim=1)
        return float(away.nan_to_num(nan=torch.inf).median()) < NEAR_IDENTITY

    @cached_property
    def typical_speed(self) -> float:
        """The median of the speed, or of the length of a step, over the region."""
        moved = self.moved(self.reference[0]).detach().norm(dim=1)
        return float(moved.nan_to_num(nan=0.0, posinf=0.0).median())

    @property
    def judged_region(self) -> Region:
        """The region, less a small ball around the centre where nothing is claimed, or derivatives are differences."""
        hole = self.hole if self.in_steps else max(self.differentiation.hole, self.hole)
        return Outside(self.region, hole) if hole else self.region

    @property
    def claimed_region(self) -> Region:
        """The region, less the ball around the centre where nothing is claimed."""
        return Outside(self.region, self.hole) if self.hole else self.region

    @property
    def whole_region(self) -> Region:
        """The region with the states of lower levels, of which the claims that are not of states off the centre are made."""
        return replace(self.region, lower=-math.inf) if isinstance(self.region, Sublevel) else self.region

    @property
    def base(self) -> Ball | Box:
        """The ball or the box that the region lies in."""
        base = self.region.base if isinstance(self.region, Sublevel) else self.region
        assert isinstance(base, Ball | Box)
        return base

    @property
    def level(self) -> float:
        """The level of V at which the region ends, infinite where it has none."""
        return self.region.level if isinstance(self.region, Sublevel) else math.inf

    @property
    def tolerance(self) -> float:
        """The relative violation that rounding can cause in values of V and of the dynamics."""
        if self.certainty is not None:  # whose operations are seen to be in float64
            return claims.tolerance(torch.float64, len(self.centre))
        return max(claims.tolerance(function.dtype, len(self.centre)) for function in self.functions)

    @property
    def derivative_tolerance(self) -> float:
        """The relative violation that rounding, or the step of finite differences, can cause in V-dot."""
        return self.tolerance if self.differentiation.uses_autograd else max(DIFFERENCE_TOLERANCE, self.tolerance)

    @cached_property
    def differentiation(self) -> Differentiation:
        """How V is differentiated."""
        slopes = None if self.certainty is None else self.certainty.slope_of_value
        return Differentiation(self.value, self.centre, self.region.radius, self.reference[0], slopes)

    def flow(self, states: Tensor) -> Tensor:
        """Return the velocity, or the next states, (B, n)."""
        assert self.motion is not None
        return self.motion(states)

    def moved(self, states: Tensor) -> Tensor:
        """Return the velocity, or the way of the step, (B, n), which is 0 at an equilibrium."""
        return self.flow(states) - states if self.in_steps else self.flow(states)

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

    @cached_property
    def jump(self) -> Jump | None:
        """A jump of V, or else of the dynamics, on the region; none of a function that is made of continuous operations, nor in steps."""
        if self.in_steps:
            return None
        if self.certainty is not None and self.certainty.is_continuous:
            return None
        # The segments between two states of a set {h = 0} leave it.
        region = self.base if self.constraint is not None else self.region
        jumps = (find_jump(function, region, self.seed) for function in self.functions)
        return next((jump for jump in jumps if jump is not None), None)

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
        of_gradient = self.noise(lambda states: self.differentiation.gradient(states)[1])
        of_velocity = self.noise(self.flow)
        return lambda gradient, velocity: of_gradient * velocity.norm(dim=1) + of_velocity * gradient.norm(dim=1)

    def sentence(self, name: str, *, on_rays: bool = True) -> str:
        """Return what the claim ``name`` says of the region, of a set between levels as it is seen ``on_rays`` or of all of it."""
        where = self.region if name in OFF_CENTRE else self.whole_region
        where = replace(where, on_rays=on_rays) if isinstance(where, Sublevel) else where
        is_whole = not (self.hole or (isinstance(where, Sublevel) and where.lower > -math.inf))
        where = Outside(where, self.hole) if self.hole and name in OFF_CENTRE else where
        return sentence(name, where.words, self.rate, in_steps=self.in_steps, is_whole=is_whole)

    def finding(
        self,
        name: str,
        verdict: Verdict,
        evidence: str,
        *,
        margin: float | None = None,
        samples: int = 1,
        witness: dict[str, Any] | None = None,
    ) -> Finding:
        """Return a finding on the claim ``name`` that was not reached by ``judge``."""
        return Finding(
            check=name,
            name=name,
            claim=self.sentence(name),
            verdict=verdict,
            margin=margin,
            evidence=evidence,
            samples=samples,
            tolerance=self.tolerance,
            dtype="float64",
            seed=self.seed,
            witness=witness,
        )


def _upwards(number: float) -> float:
    """Return a number of two digits, not below this one: a claim names it."""
    return float(Context(2, ROUND_CEILING).create_decimal_from_float(number))
