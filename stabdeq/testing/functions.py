"""The functions under test: called on states, with their results checked."""

from collections.abc import Callable

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.lyapunov import claims
from stabdeq.testing.literals import name

Value = Callable[[Tensor], Tensor]  # V: (B, n) -> (B,)
Field = Callable[[Tensor], Tensor]  # F: (B, n) -> (B, n)
Step = Callable[[Tensor], Tensor]  # z -> z+: (B, n) -> (B, n)


def require_states(states: Tensor) -> None:
    """Raise ConfigError unless ``states`` are (B, n), of floating point."""
    if states.dim() != 2 or not states.is_floating_point():
        raise ConfigError(f"expected states (B, n) of floating point, got {tuple(states.shape)} {states.dtype}")


def origin_of(states: Tensor, centre: Tensor | None) -> Tensor:
    """Return ``centre`` (n,), by default 0, as a tensor like ``states`` (B, n)."""
    require_states(states)
    if centre is None:
        return states.new_zeros(states.shape[1])
    if tuple(centre.shape) != (states.shape[1],):
        raise ConfigError(f"expected a centre of shape ({states.shape[1]},), got {tuple(centre.shape)}")
    return centre.detach().to(states)


def value_of(V: Value, states: Tensor) -> Tensor:
    """Return V (B,) at a copy of ``states`` (B, n); raise ConfigError where V returns anything else."""
    return _checked(V(states.detach().clone()), states, (len(states),), name(V, "V")).detach()


def velocity_of(F: Field, states: Tensor) -> Tensor:
    """Return F (B, n) at a copy of ``states`` (B, n); raise ConfigError where F returns anything else."""
    return _checked(F(states.detach().clone()), states, tuple(states.shape), name(F, "F")).detach()


def next_of(step: Step, states: Tensor) -> Tensor:
    """Return the next states (B, n) after a copy of ``states`` (B, n); raise ConfigError where ``step`` returns anything else."""
    return _checked(step(states.detach().clone()), states, tuple(states.shape), name(step, "step")).detach()


def value_and_gradient_of(V: Value, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return V (B,) and, by automatic differentiation, grad V (B, n) at ``states`` (B, n)."""
    with torch.enable_grad():
        leaf = states.detach().clone().requires_grad_()
        value = _checked(V(leaf), states, (len(states),), name(V, "V"))
        if not value.requires_grad:
            raise ConfigError(f"{name(V, 'V')} is not differentiable by autograd, which V-dot needs")
        (gradient,) = torch.autograd.grad(value.sum(), leaf, materialize_grads=True)
    return value.detach(), gradient


def rounding(states: Tensor, *results: Tensor) -> float:
    """Return the relative violation that rounding can cause at ``states`` (B, n), in the coarsest dtype of all these."""
    return max(claims.tolerance(tensor.dtype, states.shape[1]) for tensor in (states, *results))


def _checked(result: object, states: Tensor, shape: tuple[int, ...], who: str) -> Tensor:
    if not isinstance(result, Tensor) or tuple(result.shape) != shape or not result.is_floating_point():
        came = f"{tuple(result.shape)} {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
        raise ConfigError(f"{who} must return shape {shape} of floating point for {tuple(states.shape)}, got {came}")
    return result
