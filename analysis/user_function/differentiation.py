"""Derivatives of a user's V by two paths that share nothing, and whether its own backward pass can be trusted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from analysis.evidence.sampling import directions
from analysis.findings import short
from analysis.user_function.function import ForeignFunction

# Fourth-order central differences with this step, as a part of the distance from the centre, err by some 1e-12 where V is
# smooth on that scale; a violation has to be far above.
DIFFERENCE_STEP = 1e-3
DIFFERENCE_TOLERANCE = 1e-6
# A kink misleads differences only within a step of it, and rounding only where the step is short. What is wrong with both
# steps, by more than this part of the slope and at more than one state in 64, is a wrong gradient.
STEPS = (DIFFERENCE_STEP / 3, 1e-6)
WRONG_BY, WRONG_AT = 1e-3, 1 / 64
EXACT_STATES = 64  # at which the slope is told exactly


@dataclass(frozen=True)
class Differentiation:
    """How V, (B, n) -> (B,), is differentiated around ``centre`` (n,).

    ``radius`` is that of the region; ``states`` (B, n) are drawn from it, to hold the gradient by autograd there against
    ``exact_slope``, V's derivative at a state along a direction, where that can be told, else against finite differences.
    """

    value: ForeignFunction
    centre: Tensor
    radius: float
    states: Tensor
    exact_slope: Callable[[Tensor, Tensor], float] | None = None

    @property
    def uses_autograd(self) -> bool:
        """Whether the gradient is V's own, not by finite differences."""
        return self.value.is_differentiable and self.wrong_at is None

    @property
    def hole(self) -> float:
        """The distance from the centre within which derivatives cannot be told."""
        return 0.0 if self.uses_autograd else DIFFERENCE_STEP * self.radius

    @property
    def note(self) -> str:
        """What a reader has to know of how gradients were taken; empty where autograd took them."""
        if self.uses_autograd:
            return ""
        if self.wrong_at is not None:
            kind = (
                f"has a gradient by autograd that is not its slope, at {short(self.wrong_at.tolist())} for one (a part of it "
                "is detached, or has a backward pass of its own)"
            )
        else:
            kind = "takes NumPy arrays" if self.value.is_numpy else "is not differentiable by autograd"
        return (
            f"{self.value.name} {kind}: its gradient is by finite differences, and states within {self.hole:g} of the centre "
            "were not judged."
        )

    @property
    def second_path(self) -> str:
        """How ``along`` differentiates, in words."""
        if self.uses_autograd:
            return "differentiation along the flow alone, held against finite differences,"
        return "a difference along the flow with another step"

    def gradient(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return V (B,) and grad V (B, n), by automatic differentiation or by central differences."""
        if not self.uses_autograd:
            return self.value(states), self._differences(states)
        keep_graph = torch.is_grad_enabled() and self._is_twice_differentiable
        with torch.enable_grad():
            leaf = states if states.requires_grad else states.detach().requires_grad_()
            value = self.value(leaf)
            (gradient,) = torch.autograd.grad(
                value.sum(), leaf, create_graph=keep_graph, retain_graph=True, materialize_grads=True
            )
        return (value, gradient) if torch.is_grad_enabled() else (value.detach(), gradient.detach())

    def along(self, states: Tensor, velocity: Tensor) -> Tensor:
        """Return V-dot (B,) where states (B, n) move at ``velocity`` (B, n), by a path that shares nothing with ``gradient``.

        It is the derivative of t -> V(z + t f) at 0: by autograd where finite differences agree with that to within their own
        error, else by finite differences, which a wrong ``backward`` cannot deceive.
        """
        speed = velocity.norm(dim=1)
        ray = velocity / torch.where(speed == 0, 1, speed)[:, None]
        fine, doubt = self._slope_and_doubt(states, ray, self._step(states, DIFFERENCE_STEP / 3))
        if not self.uses_autograd:
            return speed * fine
        exact = self._slope_by_autograd(states, ray)
        return speed * torch.where((exact - fine).abs() <= doubt, exact, fine)

    @cached_property
    def wrong_at(self) -> Tensor | None:
        """A state (n,) at which the gradient by autograd is not V's slope, if it is wrong at more than a few."""
        if not self.value.is_differentiable:
            return None
        # Pulled in a little: the differences may not leave the region.
        states = self.centre + 0.99 * (self.states - self.centre)
        ray = directions(len(states), states.shape[1], torch.Generator().manual_seed(0))
        if self.exact_slope is not None:
            states, ray = states[:EXACT_STATES], ray[:EXACT_STATES]
            slope = torch.tensor([self.exact_slope(*both) for both in zip(states, ray, strict=True)])
            found = self._slope_by_autograd(states, ray)
            # On a kink there is no slope. Rounding may leave few digits of a difference of large terms, here and there.
            doubt = WRONG_BY * torch.maximum(slope.abs(), found.abs())
            wrong = (found - slope).abs() > doubt
            return states[int(wrong.nonzero()[0])] if int(wrong.sum()) > len(states) / 4 else None
        exact = self._slope_by_autograd(states, ray)
        wrong = torch.ones(len(states), dtype=torch.bool)
        for part in STEPS:
            fine, doubt = self._slope_and_doubt(states, ray, self._step(states, part))
            wrong &= (exact - fine).abs() > doubt + WRONG_BY * torch.maximum(exact.abs(), fine.abs())
        return states[int(wrong.nonzero()[0])] if int(wrong.sum()) > WRONG_AT * len(states) else None

    @cached_property
    def _is_twice_differentiable(self) -> bool:
        leaf = self.states[:2].detach().requires_grad_()
        try:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self.value(leaf).sum(), leaf, create_graph=True)
                if gradient.requires_grad:
                    torch.autograd.grad(gradient.sum(), leaf, allow_unused=True)
        except RuntimeError:
            return False
        return True

    def _slope_by_autograd(self, states: Tensor, ray: Tensor) -> Tensor:
        """Return the derivative (B,) along the unit vectors ``ray`` (B, n)."""
        with torch.enable_grad():
            time = torch.zeros(len(states), 1, dtype=torch.float64, requires_grad=True)
            moved = self.value(states.detach() + time * ray).sum()
            (slope,) = torch.autograd.grad(moved, time, materialize_grads=True)
        return slope.squeeze(1)

    def _slope_and_doubt(self, states: Tensor, ray: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivative (B,) along ``ray`` (B, n) by differences, and a bound of its error as they tell it."""
        with torch.no_grad():
            fine, coarse = _slope(self.value, states, ray, step), _slope(self.value, states, ray, 2 * step)
            # Of V, and of the states, which a step far from the origin may hardly move.
            size = self.value(states).abs() + states.norm(dim=1) * fine.abs()
            rounding = torch.finfo(torch.float64).eps * size / step.squeeze(1)
        return fine, 10 * ((fine - coarse).abs() + rounding)

    def _differences(self, states: Tensor) -> Tensor:
        step = self._step(states, DIFFERENCE_STEP)
        units = torch.eye(states.shape[1], dtype=torch.float64)
        return torch.stack([_slope(self.value, states, unit, step) for unit in units], 1)

    def _step(self, states: Tensor, part: float) -> Tensor:
        """Return (B, 1) the step of differences: this part of the distance from the centre, or of the hole around it."""
        distance = (states - self.centre).norm(dim=1, keepdim=True)
        return part * distance.clamp(min=DIFFERENCE_STEP * self.radius)


def _slope(value: Callable[[Tensor], Tensor], states: Tensor, along: Tensor, step: Tensor) -> Tensor:
    """Return the derivative (B,) of ``value`` along ``along``, (n,) or (B, n), by fourth-order differences."""
    states = states.detach()
    near = value(states + step * along) - value(states - step * along)
    far = value(states + 2 * step * along) - value(states - 2 * step * along)
    return (8 * near - far) / (12 * step.squeeze(1))
