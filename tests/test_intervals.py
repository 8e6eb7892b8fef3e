"""Intervals, jets and enclosures hold what they say: against exact arithmetic, against autograd, and for what they refuse."""

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from analysis.proofs.intervals.graph import FunctionEnclosure, UnboundedError
from analysis.proofs.intervals.interval import Interval

TRIAL = torch.tensor([[0.3, -0.4], [0.55, 0.2]], dtype=torch.float64)

numbers = st.floats(-4, 4, allow_subnormal=False) | st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-160, -1e-300, 1e200])


def box(low: list[float], high: list[float]) -> Interval:
    return Interval(torch.tensor([low], dtype=torch.float64), torch.tensor([high], dtype=torch.float64))


def holds(bounds: Interval, exact: Fraction) -> bool:
    low, high = float(bounds.low), float(bounds.high)
    if low != low or high != high:
        return True
    return (low == -np.inf or Fraction(low) <= exact) and (high == np.inf or exact <= Fraction(high))


def point(number: float) -> Interval:
    return Interval.point(torch.tensor(number, dtype=torch.float64))


@given(numbers, numbers)
def test_arithmetic_on_numbers_holds_the_exact_result(a: float, b: float) -> None:
    x, y, p, q = Fraction(a), Fraction(b), point(a), point(b)
    results = [(p + q, x + y), (p - q, x - y), (p * q, x * y), (p.square(), x * x), (p.power(3), x**3), (-p, -x)]
    results += [(q.reciprocal(), 1 / y)] if y else []
    for bounds, exact in results:
        assert holds(bounds, exact)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12))
def test_sums_and_matrix_products_hold_the_exact_result(pairs: list[tuple[float, float]]) -> None:
    first, second = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    exact_sum = sum((Fraction(a) for a, _ in pairs), Fraction(0))
    exact_dot = sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))
    assert holds(Interval.point(first).sum([-1]), exact_sum)
    row, column = Interval.point(first[None]), Interval.point(second[:, None])
    wide = Interval(second[:, None], second[:, None].clone())
    for bounds in (row.matmul(column), row.matmul(wide), Interval(first[None], first[None].clone()).matmul(wide)):
        assert holds(bounds, exact_dot)


def test_a_product_of_matrices_without_sums_is_exact_where_it_can_be() -> None:
    column, row = torch.tensor([[0.5], [3.0]]).double(), torch.arange(12).double()[None] / 7
    found = Interval.point(column).matmul(Interval.point(row))
    assert torch.equal(found.low[0], found.high[0])
    assert bool((found.low[1] < found.high[1]).any())
    assert all(
        Fraction(a) <= Fraction(x) * Fraction(y) <= Fraction(b)
        for (x, y), a, b in zip(
            product(*(part.flatten().tolist() for part in (column, row))),
            found.low.flatten().tolist(),
            found.high.flatten().tolist(),
            strict=True,
        )
    )


def test_what_is_exact_stays_exact() -> None:
    zero = point(0.0)
    unknown_small = Interval(torch.tensor(-1e-300, dtype=torch.float64), torch.tensor(1e-300, dtype=torch.float64))
    exact = [
        (zero * point(3.7), 0.0),
        (zero.sin(), 0.0),
        (zero.cos(), 1.0),
        (zero.exp(), 1.0),
        (zero.tanh(), 0.0),
        (zero.log1p(), 0.0),
        (point(1.0) + zero.square(), 1.0),
        (point(1.0).log(), 0.0),
        (zero.sqrt(), 0.0),
        (point(0.1) - point(0.1), 0.0),
    ]
    for bounds, value in exact:
        assert float(bounds.low) == float(bounds.high) == value
    assert float((unknown_small * point(1e-300)).low) < 0 < float((unknown_small * point(1e-300)).high)


def test_what_is_undefined_or_overflows_is_unknown() -> None:
    across = Interval(torch.tensor(-1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64))
    for bounds in (across.reciprocal(), across.log(), across.sqrt(), across.power(-2), across.power(1.5)):
        assert bounds.low.isnan()
        assert bounds.high.isnan()
    assert point(1e200).square().low.isnan()
    assert point(1000.0).exp().low.isnan()
    assert Interval(torch.tensor(1.5, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64)).tan().low.isnan()


def decimal_cosine(x: Decimal) -> Decimal:
    term = total = Decimal(1)
    for k in range(1, 80):
        term *= -x * x / ((2 * k - 1) * (2 * k))
        total += term
    return total


def decimal_sine(x: Decimal) -> Decimal:
    term = total = x
    for k in range(1, 80):
        term *= -x * x / ((2 * k) * (2 * k + 1))
        total += term
    return total


def decimal_arctangent(x: Decimal) -> Decimal:
    # Three halvings of the angle, and then the series.
    for _ in range(3):
        x = x / (1 + (1 + x * x).sqrt())
    return 8 * sum(((-1) ** k * x ** (2 * k + 1) / (2 * k + 1) for k in range(120)), Decimal(0))


ELEMENTARY: dict[str, Callable[[Decimal], Decimal]] = {
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.exp() - 1,
    "log": lambda x: abs(x).ln(),
    "log1p": lambda x: (1 + abs(x)).ln(),
    "sqrt": lambda x: abs(x).sqrt(),
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "sin": decimal_sine,
    "cos": decimal_cosine,
    "tan": lambda x: decimal_sine(x) / decimal_cosine(x),
    "atan": decimal_arctangent,
}


@pytest.mark.parametrize("name", ELEMENTARY)
@given(x=st.floats(-12, 12).filter(lambda x: abs(x) > 1e-30))
@settings(max_examples=60)
def test_elementary_functions_hold_fifty_digits(name: str, x: float) -> None:
    x = abs(x) if name in ("log", "log1p", "sqrt") else x
    bounds = getattr(point(x), name)()
    with localcontext() as context:
        context.prec = 60
        exact = ELEMENTARY[name](Decimal(x))
        assert bounds.low.isnan() or Decimal(float(bounds.low)) <= exact <= Decimal(float(bounds.high))


def plane(z: Tensor) -> tuple[Tensor, Tensor]:
    x, y = z.unbind(1)
    return x, y


def written_in_place(z: Tensor) -> Tensor:
    out = z.clone()
    out[:, 0] = z[:, 1] ** 2
    out[:, 1] += z[:, 0]
    return out[:, 0] * out[:, 1]


WEIGHTS = torch.tensor([[0.7, -1.3, 0.2], [0.4, 0.9, -2.0]], dtype=torch.float64)

# Functions on the square [-2, 2]^2; all down to "in place" are smooth.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "polynomial": lambda z: z[:, 0] ** 3 - 2 * z[:, 0] * z[:, 1] ** 2 + z.square().sum(1) / 3,
    "same factors": lambda z: z[:, 0] * z[:, 0] * z[:, 1],
    "quotient": lambda z: z[:, 0] / (1.5 + z[:, 1] ** 2),
    "powers": lambda z: (z[:, 0] + 3) ** 1.5 + (z[:, 1] + 3) ** -2 + (3 + z[:, 0]) ** 0.5 + z[:, 1] ** 4,
    "roots": lambda z: torch.sqrt(z[:, 0] + 3) * torch.rsqrt(z[:, 1] + 3) + torch.reciprocal(z[:, 0] - 5),
    "exponential": lambda z: torch.exp(z[:, 0] * z[:, 1]) + torch.expm1(z[:, 0]),
    "logarithm": lambda z: torch.log(5 + z[:, 0] * z[:, 1]) + torch.log1p(z[:, 1] ** 2),
    "waves": lambda z: torch.sin(2 * z[:, 0] + z[:, 1]) * torch.cos(z[:, 1] - 1) + torch.tan(z[:, 0] / 4),
    "squashed": lambda z: torch.tanh(z[:, 0] - z[:, 1]) + torch.sigmoid(3 * z[:, 1]) * torch.atan(2 * z[:, 0]),
    "softplus": lambda z: functional.softplus(z @ WEIGHTS).sum(1),
    "silu": lambda z: functional.silu(z @ WEIGHTS).mean(1),
    "linear layer": lambda z: torch.tanh(functional.linear(z, WEIGHTS.T, WEIGHTS[0])).square().sum(1),
    "quadratic form": lambda z: torch.einsum("bi,ij,bj->b", z, WEIGHTS[:, :2], z),
    "long sum": lambda z: (z.repeat(1, 6) * torch.arange(12.0, dtype=torch.float64)).sin().sum(1),
    "moved about": lambda z: (
        torch.cat([z.flip(1), z[:, [1]]], 1).reshape(-1, 3, 1).transpose(1, 2).squeeze(1)[:, 1:].square()
        @ WEIGHTS[:, 0]
    ),
    "split": lambda z: torch.stack(z.split(1, dim=1), 2).mean(dim=(1, 2)) ** 2,
    "in place": written_in_place,
    "ramps": lambda z: z[:, 0].relu() * z[:, 1] + z[:, 1].clamp(-0.5, 0.7) + functional.leaky_relu(z[:, 0], 0.1),
    "absolute": lambda z: z.abs().sum(1) * z[:, 0] + functional.hardtanh(z[:, 1]),
    "extremes": lambda z: torch.maximum(z[:, 0], z[:, 1] ** 2) - torch.minimum(z[:, 0].sin(), z[:, 1]) + z.amax(1),
    "smallest": lambda z: (z @ WEIGHTS).amin(dim=1) * z[:, 0],
    "chosen": lambda z: torch.where((z[:, 0] > 0.1) & ~(z[:, 1] >= z[:, 0]), z[:, 0] ** 2, z.sum(1)),
    "steps": lambda z: z[:, 0].sign() + (z[:, 1] < 0.3) * z[:, 0] + (z[:, 0] <= 0.5).double() * z[:, 1],
    "constant": lambda z: z.new_ones(len(z)) / 3,
    "detached": lambda z: z[:, 0].detach() * z[:, 1],
}
SMOOTH = list(FUNCTIONS)[:17]


def breaches(
    enclosure: FunctionEnclosure, function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, seed: int
) -> list[str]:
    """Return which bounds on a box fail to hold what autograd finds at states drawn from it, to within its own rounding."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(32, 2, generator=generator, dtype=torch.float64)
    corners = torch.tensor(list(product([0.0, 1.0], repeat=2)), dtype=torch.float64)
    states = (low + torch.cat([share, corners]) * (high - low)).clamp(low, high)
    jet = enclosure(Interval(low[None], high[None]), 2)
    found = [("value", jet.value, function(states)[None])]
    if function not in (FUNCTIONS["detached"], FUNCTIONS["steps"], FUNCTIONS["constant"]):
        gradient = torch.func.jacrev(lambda z: function(z[None])[0])
        found.append(("gradient", jet.gradient, torch.vmap(gradient)(states).mT[:, None]))
        hessian = torch.func.jacrev(gradient)
        found.append(("hessian", jet.hessian, torch.vmap(hessian)(states).permute(1, 2, 0)[:, :, None]))
    failed = []
    for name, bounds, sampled in found:
        slack = 1e-11 * (1 + sampled.abs())
        inside = ~(sampled < bounds.low[..., None] - slack) & ~(sampled > bounds.high[..., None] + slack)
        failed += [] if bool(inside.all()) else [name]
    return failed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bounds_hold_values_gradients_and_hessians(name: str) -> None:
    enclosure = FunctionEnclosure(FUNCTIONS[name], TRIAL)
    generator = torch.Generator().manual_seed(1)
    for seed in range(25):
        ends = 4 * torch.rand(2, 2, generator=generator, dtype=torch.float64) - 2
        low, high = ends.amin(0), ends.amax(0)
        high = low + (high - low) * 0.3 ** (seed % 4)
        assert breaches(enclosure, FUNCTIONS[name], low, high, seed) == []


@pytest.mark.parametrize("name", SMOOTH)
def test_bounds_of_smooth_functions_shrink_with_the_box(name: str) -> None:
    state = torch.tensor([[0.31, -0.72]], dtype=torch.float64)
    jet = FunctionEnclosure(FUNCTIONS[name], TRIAL)(Interval(state - 1e-7, state + 1e-7), 2)
    for bounds in (jet.value, jet.gradient, jet.hessian):
        assert float((bounds.high - bounds.low).max()) < 1e-3
    assert not bool(jet.bends_up | jet.bends_down)


@pytest.mark.parametrize(
    ("operation", "wrong", "function"),
    [
        ("__mul__", lambda a, b: Interval(a.low * b.low, a.high * b.high), "polynomial"),
        ("sin", lambda a: Interval(a.low.sin(), a.high.sin()), "waves"),
        ("sigmoid", lambda a: Interval(a.low.sigmoid(), a.low.sigmoid()), "squashed"),
        ("hull", lambda a, b: a, "ramps"),
        ("matmul", lambda a, b: Interval(a.low @ b.low, a.high @ b.high), "linear layer"),
    ],
)
def test_a_wrong_rule_is_noticed(
    monkeypatch: pytest.MonkeyPatch, operation: str, wrong: Callable[..., Interval], function: str
) -> None:
    enclosure = FunctionEnclosure(FUNCTIONS[function], TRIAL)
    monkeypatch.setattr(Interval, operation, wrong)
    low, high = torch.tensor([[-1.5, -1.0], [0.9, 1.2]], dtype=torch.float64)
    assert breaches(enclosure, FUNCTIONS[function], low, high, 0)


coefficients = st.lists(st.integers(-6, 6).map(lambda k: k / 7), min_size=6, max_size=6)
small = st.floats(-2, 2, allow_subnormal=False)


@given(coefficients, small, small, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=10, deadline=None)
def test_polynomials_hold_exactly(c: list[float], x: float, y: float, width: float, share: float) -> None:
    """At an exact state of the box, the exact polynomial and its exact gradient lie within the bounds: no tolerance."""

    def polynomial(z: Tensor) -> Tensor:
        a, b = plane(z)
        return c[0] * a**3 + c[1] * a * b + c[2] * (a - c[3] * b) ** 2 * b + c[4] * b + c[5]

    jet = FunctionEnclosure(polynomial, TRIAL)(box([x, y], [x + width, y]), 1)
    a, b = Fraction(min(x + share * width, x + width)), Fraction(y)
    k = [Fraction(number) for number in c]
    inner = a - k[3] * b
    assert holds(jet.value, k[0] * a**3 + k[1] * a * b + k[2] * inner**2 * b + k[4] * b + k[5])
    slope = 3 * k[0] * a**2 + k[1] * b + 2 * k[2] * inner * b
    assert holds(Interval(jet.gradient.low[0], jet.gradient.high[0]), slope)


def test_kinks_are_told_by_their_direction() -> None:
    around = box([-0.1, -0.1], [0.1, 0.1])
    convex = FunctionEnclosure(lambda z: z.abs().sum(1), TRIAL)(around, 2)
    concave = FunctionEnclosure(lambda z: -(z[:, 0].relu()), TRIAL)(around, 2)
    squared = FunctionEnclosure(lambda z: z[:, 0].relu() ** 2 - z[:, 1], TRIAL)(around, 2)
    product_below = FunctionEnclosure(lambda z: (z[:, 1] - 1) * z[:, 0].abs(), TRIAL)(around, 2)
    assert (bool(convex.bends_up), bool(convex.bends_down)) == (True, False)
    assert (bool(concave.bends_up), bool(concave.bends_down)) == (False, True)
    assert not bool(squared.bends_down)
    assert (bool(product_below.bends_up), bool(product_below.bends_down)) == (False, True)


def test_a_jump_has_no_gradient() -> None:
    jet = FunctionEnclosure(lambda z: torch.where(z[:, 0] > 0, z.new_ones(()), z.new_zeros(())) + z[:, 1], TRIAL)(
        box([-0.1, 0.0], [0.1, 0.0]), 2
    )
    assert (float(jet.value.low), float(jet.value.high)) == (0, 1)
    assert bool(jet.gradient.low.isnan().all())


def branching(z: Tensor) -> Tensor:
    return z.sum(1) if bool((z > 0).all()) else z[:, 0]


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "numpy": (lambda z: torch.as_tensor(z.detach().numpy().sum(1)), "cannot be traced"),
    "numpy condition": (lambda z: z.sum(1) if z.detach().numpy().max() < 5 else z[:, 0], "cannot be traced"),
    "branch": (branching, "cannot be traced"),
    "item": (lambda z: z.sum(1) * float(z[0, 0]), "cannot be traced"),
    "float32": (lambda z: (z.float() ** 2).sum(1).double(), "no interval form"),
    # A number alone takes the dtype of the tensor beside it; a tensor of float32 beside states is widened, which is exact.
    "float32 beside a number": (lambda z: z.sum() * torch.ones(1), "computes in float32"),
    "unknown operation": (lambda z: torch.special.bessel_j0(z).sum(1), "bessel_j0"),
    "random": (lambda z: z.sum(1) + torch.rand(1, dtype=torch.float64), "random"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_bounded_is_refused_by_name(name: str) -> None:
    function, reason = REFUSED[name]
    with pytest.raises(UnboundedError, match=reason):
        FunctionEnclosure(function, TRIAL.abs())


def test_a_batch_gives_what_each_box_gives_alone() -> None:
    enclosure = FunctionEnclosure(FUNCTIONS["extremes"], TRIAL)
    low = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)
    together = enclosure(Interval(low, low + 0.3), 2)
    for row in range(5):
        alone = enclosure(Interval(low[row : row + 1], low[row : row + 1] + 0.3), 2)
        assert torch.equal(together.value.low[row : row + 1], alone.value.low)
        assert torch.equal(together.hessian.high[:, :, row : row + 1], alone.hessian.high)
