"""Hypothesis strategies and properties to test a Lyapunov function, a vector field or a projection in one's own suite.

A property takes the functions and a batch of states, and raises AssertionError where its claim fails at one of them, with
a line to paste as a regression test. Hypothesis shrinks the states first::

    from hypothesis import given
    from stabdeq.testing import assert_decay, states_in_ball

    @given(states_in_ball(2, radius=3.0))
    def test_my_energy_decays(states):
        assert_decay(my_energy, my_dynamics, states, alpha=0.1)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from stabdeq import claims
from stabdeq.claims import Violation
from stabdeq.config import LyapunovConfig
from stabdeq.errors import ConfigError
from stabdeq.input_convex import InputConvexNetwork
from stabdeq.lyapunov import InputConvexLyapunov
from stabdeq.projection import project

Value = Callable[[Tensor], Tensor]
Field = Callable[[Tensor], Tensor]
Projection = Callable[[Tensor, Tensor, Tensor, float], Tensor]


# Strategies


def states_in_ball(
    dim: int, *, radius: float = 1.0, centre: Tensor | None = None, batch: int = 1
) -> SearchStrategy[Tensor]:
    """Return a strategy for states (batch, dim), float64, within ``radius`` of ``centre`` (dim,), by default 0.

    It shrinks towards the centre. Raises ConfigError where an argument is out of range, as all strategies here do.
    """
    origin = _centre(dim, centre, batch)
    _require_positive("radius", radius)

    def scaled(cube: Tensor) -> Tensor:
        # Those in the cube's corners move onto the sphere.
        return origin + radius * cube / cube.norm(dim=1, keepdim=True).clamp(min=1)

    return _cubes(batch, dim).map(scaled)


def states_in_box(dim: int, low: float, high: float, *, batch: int = 1) -> SearchStrategy[Tensor]:
    """Return a strategy for states (batch, dim), float64, with every coordinate between ``low`` and ``high``."""
    _require_sizes(dim, batch)
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"expected finite low < high, got {low} and {high}")
    return _tensors((batch, dim), low, high)


def states_on_shells(
    dim: int,
    *,
    smallest: float = 1e-6,
    largest: float = 1.0,
    centre: Tensor | None = None,
    batch: int = 1,
) -> SearchStrategy[Tensor]:
    """Return a strategy for states (batch, dim), float64, at log-uniform distances from ``centre`` (dim,)."""
    origin = _centre(dim, centre, batch)
    _require_positive("smallest", smallest)
    if not smallest <= largest < math.inf:
        raise ConfigError(f"expected smallest <= largest < inf, got {smallest} and {largest}")

    def placed(drawn: tuple[Tensor, Tensor]) -> Tensor:
        cube, exponents = drawn
        first = torch.zeros_like(cube)
        first[:, 0] = 1
        length = cube.norm(dim=1, keepdim=True)
        # Too short a vector to have a direction in all its digits gives way to the first axis.
        ray = torch.where(length < 1e-3, first, cube / length.clamp(min=1e-3))
        return origin + ray * 10**exponents

    exponents = _tensors((batch, 1), math.log10(smallest), math.log10(largest))
    return strategies.tuples(_cubes(batch, dim), exponents).map(placed)


def states_near_centre(
    dim: int, *, radius: float = 1.0, centre: Tensor | None = None, batch: int = 1
) -> SearchStrategy[Tensor]:
    """Return a strategy for states between a billionth and a thousandth of ``radius`` from ``centre``, (batch, dim)."""
    _require_positive("radius", radius)
    smallest, largest = 1e-9 * radius, 1e-3 * radius
    return states_on_shells(dim, smallest=smallest, largest=largest, centre=centre, batch=batch)


def input_convex_networks(
    dim: int, *, hidden: int = 4, smoothing: float = 1.0, largest_weight: float = 3.0
) -> SearchStrategy[InputConvexNetwork]:
    """Return a strategy for the two-layer input-convex networks g of this library, float64, without gradients."""
    _require_sizes(dim, hidden)
    _require_positive("smoothing", smoothing)
    _require_positive("largest_weight", largest_weight)
    count = sum(p.numel() for p in InputConvexNetwork(dim, hidden, smoothing).parameters())

    def built(weights: Tensor) -> InputConvexNetwork:
        network = InputConvexNetwork(dim, hidden, smoothing).double().requires_grad_(False)
        torch.nn.utils.vector_to_parameters(weights, network.parameters())
        return network

    return _tensors((count,), -largest_weight, largest_weight).map(built)


def lyapunov_functions(
    dim: int, *, hidden: int = 4, eta: float = 0.1, smoothing: float = 1.0
) -> SearchStrategy[InputConvexLyapunov]:
    """Return a strategy for this library's V, centred at 0, float64; called on offsets, it returns V and grad V."""
    networks = input_convex_networks(dim, hidden=hidden, smoothing=smoothing)
    _require_positive("eta", eta)
    config = LyapunovConfig(hidden=hidden, eta=eta, smoothing=smoothing)

    def built(network: InputConvexNetwork) -> InputConvexLyapunov:
        function = InputConvexLyapunov(dim, config, "origin")
        function.network = network
        return function

    return networks.map(built)


@dataclass(frozen=True)
class LinearDynamics:
    """z' = A z, with ``matrix`` A (n, n), of which the truth is known.

    V = ||z||^2 satisfies V-dot <= -``rate`` V everywhere and no faster rate, up to rounding of A's entries. Where ``rate``
    is negative, A has an eigenvalue with a positive real part: the origin is unstable.
    """

    matrix: Tensor
    rate: float

    def __call__(self, states: Tensor) -> Tensor:
        """Return the velocity (B, n) at ``states`` (B, n)."""
        return states @ self.matrix.to(states.dtype).T


def stable_linear(dim: int, *, rate: float = 1.0) -> SearchStrategy[LinearDynamics]:
    """Return a strategy for stable dynamics in which ||z||^2 decays at exactly ``rate`` > 0 along its slowest axis."""
    _require_positive("rate", rate)
    return _linear(dim, rate)


def unstable_linear(dim: int, *, growth: float = 1.0) -> SearchStrategy[LinearDynamics]:
    """Return a strategy for unstable dynamics: ||z||^2 grows at ``growth`` > 0 along the fastest axis."""
    _require_positive("growth", growth)
    return _linear(dim, -growth)


def _linear(dim: int, rate: float) -> SearchStrategy[LinearDynamics]:
    _require_sizes(dim, 1)

    def built(drawn: tuple[Tensor, Tensor]) -> LinearDynamics:
        turns, extra = drawn
        # The slowest axis is the first and turns with none: its rate is then an eigenvalue, whatever the others do.
        skew = turns.tril(-1) - turns.tril(-1).T
        skew[0, :] = skew[:, 0] = 0
        shrinking = torch.cat([torch.zeros(1, dtype=torch.float64), extra]) + rate / 2
        return LinearDynamics(skew - torch.diag(shrinking), rate)

    return strategies.tuples(_tensors((dim, dim), -2, 2), _tensors((dim - 1,), 0, 2)).map(built)


def _cubes(batch: int, dim: int) -> SearchStrategy[Tensor]:
    return _tensors((batch, dim), -1, 1)


def _tensors(shape: tuple[int, ...], low: float, high: float) -> SearchStrategy[Tensor]:
    entries = strategies.floats(low, high, allow_subnormal=False)
    return arrays.arrays("float64", shape, elements=entries).map(torch.from_numpy)


def _centre(dim: int, centre: Tensor | None, batch: int) -> Tensor:
    _require_sizes(dim, batch)
    if centre is None:
        return torch.zeros(dim, dtype=torch.float64)
    if tuple(centre.shape) != (dim,) or not bool(centre.isfinite().all()):
        raise ConfigError(f"expected a finite centre of shape ({dim},), got shape {tuple(centre.shape)}")
    return centre.double()


def _require_sizes(dim: int, batch: int) -> None:
    for size in (dim, batch):
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"expected whole numbers of at least 1 for dim, batch and hidden, got {size!r}")


def _require_positive(name: str, number: float) -> None:
    if not 0 < number < math.inf:
        raise ConfigError(f"{name} must be positive and finite, got {number}")


# Properties


def assert_zero_at_centre(V: Value, centre: Tensor, *, reference: float = 1.0) -> None:
    """Assert that V, (B, n) -> (B,), is 0 at ``centre`` (n,), to rounding of terms of size ``reference``.

    Raises AssertionError where the claim fails, ConfigError where an argument or V's result is malformed; so does every
    property here.
    """
    if centre.dim() != 1:
        raise ConfigError(f"expected a centre of shape (n,), got {tuple(centre.shape)}")
    _require_positive("reference", reference)
    value = _value(V, centre[None])
    call = f"assert_zero_at_centre({_name(V)}, {_literal(centre)})"
    _judge(claims.zero(value, torch.full_like(value, reference)), centre[None], "V(c) = 0", [call])


def assert_positive_definite(
    V: Value, states: Tensor, *, centre: Tensor | None = None, eta: float = 0.0, reference: float = 0.0
) -> None:
    """Assert V > 0, and V >= ``eta`` ||z - c||^2, at ``states`` (B, n) other than ``centre`` (n,), by default 0.

    ``reference`` is the size of the terms that V is summed from, such as 1 in 1 - cos(x): next to the centre such a V is 0
    by rounding, which then counts as positive.
    """
    origin = _origin(states, centre)
    if not 0 <= eta < math.inf:
        raise ConfigError(f"eta must be at least 0 and finite, got {eta}")
    if not 0 <= reference < math.inf:
        raise ConfigError(f"reference must be at least 0 and finite, got {reference}")
    value = _value(V, states)
    square = (states - origin).square().sum(1)
    violation = claims.positive(value, eta * square)
    # 0 off the centre violates the strict claim, though a square may underflow to it.
    is_flat = (value == 0) & (square > 0) & (reference == 0)
    excess = torch.where(is_flat, torch.ones_like(value), violation.excess)
    scale = torch.where(is_flat, torch.ones_like(value), violation.scale + reference)
    given = f", centre={_literal(centre)}" if centre is not None else ""
    given += f", eta={eta!r}" if eta else ""
    given += f", reference={reference!r}" if reference else ""
    calls = [f"assert_positive_definite({_name(V)}, {_literal(state[None])}{given})" for state in states]
    _judge(Violation(excess, scale), states, f"V > 0 and V >= {eta:g} ||z - c||^2", calls)


def assert_convex(V: Value, a: Tensor, b: Tensor) -> None:
    """Assert V((a + b) / 2) <= (V(a) + V(b)) / 2 for the pairs of states ``a``, ``b`` (B, n)."""
    _origin(a, None)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ConfigError(f"expected a and b alike, got {tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype}")
    middle = (a + b) / 2
    violation = claims.convex(_value(V, middle), _value(V, a), _value(V, b))
    pairs = zip(a, b, strict=True)
    calls = [f"assert_convex({_name(V)}, {_literal(first[None])}, {_literal(second[None])})" for first, second in pairs]
    _judge(violation, middle, "V((a + b) / 2) <= (V(a) + V(b)) / 2", calls)


def assert_decay(V: Value, F: Field, states: Tensor, *, alpha: float) -> None:
    """Assert V-dot = grad V . F <= -``alpha`` V at ``states`` (B, n); ``alpha`` = 0 asks that V does not grow.

    V is (B, n) -> (B,), differentiable by autograd; F is (B, n) -> (B, n), the velocity.
    """
    _origin(states, None)
    if not 0 <= alpha < math.inf:
        raise ConfigError(f"alpha must be at least 0 and finite, got {alpha}")
    value, gradient = _value_and_gradient(V, states)
    velocity = F(states).detach()
    if velocity.shape != states.shape:
        raise ConfigError(f"{_name(F)} must return shape {tuple(states.shape)}, got {tuple(velocity.shape)}")
    calls = [f"assert_decay({_name(V)}, {_name(F)}, {_literal(state[None])}, alpha={alpha!r})" for state in states]
    _judge(claims.decay(gradient, velocity, value, alpha), states, f"V-dot <= -{alpha:g} V", calls)


def assert_projection(
    field: Tensor, gradient: Tensor, value: Tensor, *, alpha: float, projection: Projection = project
) -> None:
    """Assert that ``projection`` (field, gradient, value, alpha) is that onto the fields with grad V . F <= -alpha V.

    ``field`` and ``gradient`` are (B, n), ``value`` (B,) is V >= 0, all of sizes whose squares the dtype can hold.
    The result decays; it is the field itself where that decays already, or where grad V = 0; elsewhere it differs from
    the field along grad V alone, and no more than is needed.
    """
    _origin(field, None)
    if gradient.shape != field.shape or value.shape != field.shape[:1]:
        raise ConfigError(
            f"expected field and gradient (B, n) and value (B,), got {tuple(field.shape)}, {tuple(gradient.shape)} and "
            f"{tuple(value.shape)}"
        )
    _require_positive("alpha", alpha)
    projected = projection(field, gradient, value, alpha)
    if projected.shape != field.shape:
        raise ConfigError(f"the projection must return shape {tuple(field.shape)}, got {tuple(projected.shape)}")
    calls = [
        f"assert_projection({_literal(f[None])}, {_literal(g[None])}, {_literal(v[None])}, alpha={alpha!r})"
        for f, g, v in zip(field, gradient, value, strict=True)
    ]
    off_centre = (gradient != 0).any(1)
    decay = claims.decay(gradient, projected, value, alpha)
    # The steps of the projection are as large as the field and the needed speed alpha V / ||grad V||.
    before = claims.decay(gradient, field, value, alpha)
    _judge(_where(off_centre, decay), field, "grad V . projected <= -alpha V", calls)
    slack = claims.tolerance(field.dtype, field.shape[1]) * before.scale
    moved = Violation((projected - field).norm(dim=1), field.norm(dim=1))
    kept = ~off_centre | (before.excess < -slack)
    _judge(_where(kept, moved), field, "a field that decays stays as it is", calls)
    length = gradient.norm(dim=1)
    ray = gradient / torch.where(length == 0, 1, length)[:, None]
    needed = before.excess.clamp(min=0) / torch.where(length == 0, 1, length)
    nearest = field - ray * needed[:, None]
    far = Violation((projected - nearest).norm(dim=1), field.norm(dim=1) + needed)
    _judge(_where(off_centre & ~kept, far), field, "the projected field is the nearest that decays", calls)


def _where(applies: Tensor, violation: Violation) -> Violation:
    """Return the violation where it ``applies`` (B,), none elsewhere."""
    excess = torch.where(applies, violation.excess, -torch.ones_like(violation.excess))
    return Violation(excess, torch.where(applies, violation.scale, torch.ones_like(violation.scale)))


def _judge(violation: Violation, states: Tensor, claim: str, calls: list[str]) -> None:
    """Raise AssertionError for the state at which the claim fails most, if it does."""
    relative = violation.relative.detach()
    allowed = claims.tolerance(states.dtype, states.shape[1])
    # NaN compares false with everything, and is a failure.
    failing = ~(relative <= allowed)
    if not bool(failing.any()):
        return
    worst = int(torch.where(failing, relative.nan_to_num(nan=torch.inf), -torch.inf).argmax())
    excess = float(violation.excess.detach()[worst])
    raise AssertionError(
        f"{claim} fails at {_short(states[worst])} by {excess:.6g}, {float(relative[worst]):.3g} of its terms' size "
        f"(rounding allows {allowed:.2g}).\nTo keep this case, paste:\n    {calls[worst]}"
    )


def _origin(states: Tensor, centre: Tensor | None) -> Tensor:
    if states.dim() != 2 or not states.is_floating_point():
        raise ConfigError(f"expected states (B, n) of floating point, got {tuple(states.shape)} {states.dtype}")
    if centre is None:
        return states.new_zeros(states.shape[1])
    if tuple(centre.shape) != (states.shape[1],):
        raise ConfigError(f"expected a centre of shape ({states.shape[1]},), got {tuple(centre.shape)}")
    return centre.to(states)


def _value(V: Value, states: Tensor) -> Tensor:
    value = V(states)
    if not isinstance(value, Tensor) or tuple(value.shape) != (len(states),):
        came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(f"{_name(V)} must return shape ({len(states)},) for {tuple(states.shape)}, got {came}")
    return value.detach()


def _value_and_gradient(V: Value, states: Tensor) -> tuple[Tensor, Tensor]:
    _value(V, states)
    with torch.enable_grad():
        leaf = states.detach().clone().requires_grad_()
        value = V(leaf)
        if not value.requires_grad:
            raise ConfigError(f"{_name(V)} is not differentiable by autograd, which assert_decay needs")
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def _name(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _literal(tensor: Tensor) -> str:
    return f"torch.tensor({tensor.tolist()!r}, dtype={tensor.dtype})"


def _short(state: Tensor) -> str:
    shown = ", ".join(f"{entry:.6g}" for entry in state.tolist()[:8])
    return f"[{shown}{', ...' if len(state) > 8 else ''}]"
