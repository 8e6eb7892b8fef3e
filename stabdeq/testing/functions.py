"""The functions under test: called on states, with their results checked."""

from collections.abc import Callable

import torch
from torch import Tensor

from stabdeq.constraint import Constraint
from stabdeq.errors import ConfigError
from stabdeq.lyapunov import claims
from stabdeq.testing.literals import name, short

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


def checked_constraint(h: Constraint) -> Constraint:
    """Return ``h``, (B, n) -> (B,) or (B, k), which raises ConfigError, in plain words, where it raises or returns anything else."""
    who = name(h, "h")

    def checked(states: Tensor) -> Tensor:
        try:
            result: object = h(states)
        except Exception as error:
            raise ConfigError(
                f"{who} raises {type(error).__name__} at states {tuple(states.shape)}: {error}; expected a function of states (B, n) in "
                "PyTorch operations that returns numbers (B,) or (B, k)"
            ) from error
        if (
            not isinstance(result, Tensor)
            or result.shape[:1] != states.shape[:1]
            or result.dim() not in (1, 2)
            or not result.numel()
        ):
            came = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise ConfigError(
                f"{who} must return shape ({len(states)},) or ({len(states)}, k) for {tuple(states.shape)}, numbers that are 0 on the set, "
                f"got {came}"
            )
        if result.dtype != states.dtype:
            raise ConfigError(
                f"{who} must compute in {states.dtype}, as the states are, got {result.dtype}: leave out the conversion"
            )
        if not result.requires_grad:
            raise ConfigError(
                f"{who} is not differentiable by autograd, along whose gradient the set is found: write it in PyTorch operations"
            )
        return result

    return checked


def require_numbers(h: Constraint, checked: Constraint, states: Tensor) -> None:
    """Raise ConfigError where ``h``, which is ``checked``, is NaN at one of ``states`` (B, n)."""
    with torch.enable_grad():
        value = checked(states.detach().clone().requires_grad_()).detach().reshape(len(states), -1)
    if bool(value.isnan().any()):
        state = states[int(value.isnan().any(1).nonzero()[0])]
        raise ConfigError(
            f"{name(h, 'h')} is NaN at {short(state)}: give numbers at all states of the box, which are 0 on the set"
        )


def rounding(states: Tensor, *results: Tensor) -> float:
    """Return the relative violation that rounding can cause at ``states`` (B, n), in the coarsest dtype of all these."""
    return max(claims.tolerance(tensor.dtype, states.shape[1]) for tensor in (states, *results))


def _checked(result: object, states: Tensor, shape: tuple[int, ...], who: str) -> Tensor:
    if not isinstance(result, Tensor) or tuple(result.shape) != shape or not result.is_floating_point():
        came = f"{tuple(result.shape)} {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
        raise ConfigError(f"{who} must return shape {shape} of floating point for {tuple(states.shape)}, got {came}")
    return result
