"""Every operation that the proofs read, against ball arithmetic, autograd and known answers.

``BOXES=100000 pytest tests/test_more_operations.py`` takes as many boxes of each.
"""

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flint import arb, arb_series, ctx
from torch import Tensor
from torch.nn import functional

from analysis.proofs.balls import JUMPING, evaluate, exact
from analysis.proofs.balls.elementary import ELEMENTARY as ON_BALLS
from analysis.proofs.intervals.elementary import ELEMENTARY, INVERSE_LN_2, INVERSE_LN_10, LN_2
from analysis.proofs.intervals.graph import FunctionEnclosure, UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.jets import Jet
from analysis.proofs.intervals.operations import STEPS
from analysis.proofs.intervals.piecewise import steps
from analysis.proofs.tracing import TraceError, read

BOXES = int(os.environ.get("BOXES", "300"))
WIDTHS = [0.0, 1e-9, 1e-3, 0.1, 1.0]


@pytest.fixture(autouse=True)
def _precision() -> Any:
    before, ctx.prec = ctx.prec, 256
    cap, ctx.cap = ctx.cap, 3
    yield
    ctx.prec, ctx.cap = before, cap


def both_signs(x: arb_series) -> tuple[arb_series, arb_series]:
    return x.exp(), (-x).exp()


def tanh(x: arb_series) -> arb_series:
    up, down = both_signs(x)
    return (up - down) / (up + down)


def natural(number: int) -> arb:
    return arb(number).log()


# Each function as a power series, whose coefficients are its derivatives, and from where to where it is tried.
TRUTHS: dict[str, tuple[Callable[[arb_series], arb_series], float, float]] = {
    "exp": (lambda x: x.exp(), -40, 40),
    "exp2": (lambda x: (x * natural(2)).exp(), -60, 60),
    "expm1": (lambda x: x.exp() - 1, -40, 40),
    "log": (lambda x: x.log(), 0, 50),
    "log2": (lambda x: x.log() / natural(2), 0, 50),
    "log10": (lambda x: x.log() / natural(10), 0, 50),
    "log1p": (lambda x: (1 + x).log(), -1, 50),
    "sin": (lambda x: x.sin(), -20, 20),
    "cos": (lambda x: x.cos(), -20, 20),
    "tan": (lambda x: x.tan(), -20, 20),
    "asin": (lambda x: x.asin(), -1, 1),
    "acos": (lambda x: x.acos(), -1, 1),
    "atan": (lambda x: x.atan(), -50, 50),
    "sinh": (lambda x: (x.exp() - (-x).exp()) / 2, -40, 40),
    "cosh": (lambda x: (x.exp() + (-x).exp()) / 2, -40, 40),
    "tanh": (tanh, -40, 40),
    "asinh": (lambda x: (x + (1 + x * x).sqrt()).log(), -50, 50),
    "acosh": (lambda x: (x + (x * x - 1).sqrt()).log(), 1, 50),
    "atanh": (lambda x: ((1 + x) / (1 - x)).log() / 2, -1, 1),
    "sigmoid": (lambda x: 1 / (1 + (-x).exp()), -40, 40),
    "erf": (lambda x: x.erf(), -7, 7),
    "erfc": (lambda x: x.erfc(), -7, 27),
}
SPECIAL = [
    0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    2.0**-30,
    1e-8,
    1 - 2.0**-53,
    1 + 2.0**-52,
    -1 + 2.0**-53,
    5.92,
    26.5,
    1e-300,
    -1e-300,
]


def test_constants_are_within_a_unit_in_the_last_place() -> None:
    roots = (2 / math.sqrt(math.pi), 2 / arb.pi().sqrt()), (math.pi / 2, arb.pi() / 2)
    logarithms = (LN_2, natural(2)), (INVERSE_LN_2, 1 / natural(2)), (INVERSE_LN_10, 1 / natural(10))
    for number, exactly in (*roots, *logarithms):
        assert arb(math.nextafter(number, 0)) < exactly < arb(math.nextafter(number, math.inf))


def test_every_elementary_function_is_tried() -> None:
    assert {target.overloadpacket.__name__ for target in ELEMENTARY} == set(TRUTHS)


@pytest.mark.parametrize("name", TRUTHS)
def test_an_elementary_function_and_its_derivatives_are_within_their_bounds(name: str) -> None:
    truth, least, most = TRUTHS[name]
    generator = torch.Generator().manual_seed(0)
    middle = least + (most - least) * torch.rand(BOXES, generator=generator, dtype=torch.float64)
    near = torch.tensor(SPECIAL, dtype=torch.float64)
    middle = torch.cat([middle, near, near.nextafter(torch.tensor(math.inf)), near.nextafter(torch.tensor(-math.inf))])
    middle = middle[(middle > least) & (middle < most)]
    width = torch.tensor(WIDTHS, dtype=torch.float64)[torch.arange(len(middle)) % len(WIDTHS)]
    box = Interval((middle - width).clamp(min=least), (middle + width).clamp(max=most))
    place = torch.rand(len(middle), generator=generator, dtype=torch.float64)
    inside = torch.where(width == 0, middle, (box.low + (box.high - box.low) * place).clamp(box.low, box.high))
    rules = ELEMENTARY[getattr(torch.ops.aten, name).default]
    bounds = [[bound.tolist() for bound in (rule(box).low, rule(box).high)] for rule in rules]
    known = 0
    for row, point in enumerate(inside.tolist()):
        series = truth(arb_series([arb(point), 1]))
        for (low, high), order in zip(bounds, range(3), strict=True):
            exactly = series[order] * math.factorial(order)
            if exactly.is_finite() and not math.isnan(low[row]) and not math.isnan(high[row]):
                known += 1
                assert not exactly < arb(low[row]), (name, order, point)
                assert not exactly > arb(high[row]), (name, order, point)
    assert known > len(inside)


@pytest.mark.parametrize("name", TRUTHS)
def test_bounds_of_one_point_are_near_each_other(name: str) -> None:
    truth, least, most = TRUTHS[name]
    points = torch.linspace(least, most, 41, dtype=torch.float64)[5:-5]
    for order, rule in enumerate(ELEMENTARY[getattr(torch.ops.aten, name).default]):
        found = rule(Interval.point(points))
        true = torch.tensor(
            [float(truth(arb_series([arb(x), 1]))[order].mid()) * (1, 1, 2)[order] for x in points.tolist()]
        )
        assert ((found.high - found.low) <= 1e-11 * (true.abs() + 1)).all(), order


def weights(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


P = torch.tensor([2.0, 0.5, -1.5], dtype=torch.float64)
W, W5, RIGHT = weights(3, 3), weights(3, 25), weights(5, 2)
ROUND = torch.tensor([[0.0, 1.0, 0.2], [0.1, 0.0, 1.0], [1.0, 0.3, 0.0]], dtype=torch.float64)
EYE = torch.eye(3, dtype=torch.float64)
NORM = torch.nn.LayerNorm(3).double()
PRELU = torch.nn.PReLU(3, init=0.3).double()
with torch.no_grad():
    NORM.weight.copy_(P)
    PRELU.weight.copy_(torch.tensor([0.2, 1.7, -0.4]))


def mass(z: Tensor) -> Tensor:
    """A matrix (B, 3, 3) that depends on the state and is not singular."""
    return 4 * EYE + torch.diag_embed(z.square()) + 0.3 * W * z.sin()[:, :, None]


def wide_mass(z: Tensor) -> Tensor:
    """The same of size 5."""
    return 6 * torch.eye(5, dtype=torch.float64) + (z @ W5).sin().reshape(-1, 5, 5)


def each(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The sum of a function of one number over the coordinates, weighted."""
    return lambda z: (function(z) * P).sum(1)


def places(z: Tensor, *numbers: int) -> Tensor:
    return torch.tensor([numbers]).expand(len(z), -1)


def set_at(z: Tensor) -> Tensor:
    made = z * 2
    made[:, 1] = z[:, 0].sin()
    return made.square().sum(1)


SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": each(functional.gelu),
    "gelu by tanh": each(lambda u: functional.gelu(u, approximate="tanh")),
    "mish": each(functional.mish),
    "silu": each(functional.silu),
    "softplus": each(lambda u: functional.softplus(u, beta=2.0, threshold=100.0)),
    "logsigmoid": each(functional.logsigmoid),
    "tanhshrink": each(functional.tanhshrink),
    "sinh, cosh": each(lambda u: torch.sinh(u) + torch.cosh(u)),
    "asin, acos": each(lambda u: torch.asin(u / 30) + torch.acos(u / 30)),
    "asinh, acosh": each(lambda u: torch.asinh(u) + torch.acosh(2 + u**2)),
    "atanh": each(lambda u: torch.atanh(u / 30)),
    "erf, erfc": each(lambda u: torch.erf(u) + 2 * torch.erfc(u)),
    "exp2, log2, log10": each(lambda u: torch.exp2(u) + torch.log2(1 + u**2) + torch.log10(1 + u**2)),
    "cube root": each(lambda u: (20 + u) ** (1 / 3)),
    "powers": each(lambda u: (20 + u) ** 0.3 + (20 + u) ** -1.7 + (20 + u) ** 3.7),
    "powers of each": lambda z: (z ** torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)).sum(1),
    "power of a tensor": lambda z: (2 + z[:, 0] ** 2) ** z[:, 1],
    "power of a number": lambda z: 0.7 ** z[:, 0] + 2 ** z[:, 1],
    "atan2": lambda z: torch.atan2(z[:, 0], 2 + z[:, 1] ** 2) + torch.atan2(2 + z[:, 1] ** 2, z[:, 2]),
    "atan2 below": lambda z: torch.atan2(-1 - z[:, 0] ** 2, z[:, 1]),
    "hypot": lambda z: torch.hypot(z[:, 0], 1 + z[:, 1] ** 2),
    "logsumexp": lambda z: torch.logsumexp(z, 1) + torch.logaddexp(z[:, 0], z[:, 1]),
    "softmax": lambda z: (torch.softmax(z, 1) * P).sum(1),
    "log_softmax": lambda z: (torch.log_softmax(z, 1) * P).sum(1),
    "LayerNorm": lambda z: (NORM(z) * P).sum(1),
    "var, std": lambda z: z.var(1) + torch.sqrt(1 + z.var(1, correction=0)) + torch.var_mean(z, 1)[1],
    "prod": lambda z: z.prod(1),
    "cumsum": lambda z: (z.cumsum(1).sin() * P).sum(1),
    "cumprod": lambda z: (z.cumprod(1) * P).sum(1),
    "mv": lambda z: torch.mv(z, P) * torch.inner(z, P) + torch.addmv(z[:, 0], z, P),
    "vecdot": lambda z: torch.linalg.vecdot(z, z.sin()),
    "bmm": lambda z: torch.baddbmm(z[:, :1, None], z[:, None], z[:, :, None].sin())[:, 0, 0],
    "einsum": lambda z: torch.einsum("bi,ij,bj->b", z, W, z) + torch.einsum("...i,...i->...", z, z.cos()),
    "solve": lambda z: (torch.linalg.solve(mass(z), z[:, :, None])[:, :, 0] * P).sum(1),
    "solve, a constant matrix": lambda z: (torch.linalg.solve(W + 3 * EYE, z.mT.sin()).mT * P).sum(1),
    "solve from the right": lambda z: (torch.linalg.solve(W + 3 * EYE, z, left=False) * P).sum(1),
    "solve 5": lambda z: torch.linalg.solve(wide_mass(z), RIGHT).sum((1, 2)),
    "solve, a 0 on the diagonal": lambda z: torch.linalg.solve(
        mass(z)[:, [1, 2, 0]] * ROUND, P.expand(len(z), -1)
    ).prod(1),
    "inverse": lambda z: (torch.linalg.inv(mass(z)) * W).sum((1, 2)),
    "det": lambda z: torch.linalg.det(mass(z)) / 100,
    "slogdet": lambda z: torch.linalg.slogdet(mass(z)).logabsdet,
    "det 2": lambda z: torch.det(mass(z)[:, :2, :2]),
    "det 5": lambda z: torch.linalg.det(wide_mass(z)) / 1000,
    "gather": lambda z: z.sin().gather(1, places(z, 0, 2)).prod(1),
    "scatter": lambda z: z.cos().scatter(1, places(z, 2, 0), z[:, :2].square()).prod(1),
    "scatter a number": lambda z: z.cos().scatter(1, places(z, 2), 0.5).prod(1),
    "scatter_add": lambda z: (z.cos().scatter_add(1, places(z, 2, 0, 2), z.square()) * P).sum(1),
    "index_add": lambda z: z.cos().index_add(1, torch.tensor([0, 2, 2]), z.square()).prod(1),
    "index_copy": lambda z: z.cos().index_copy(1, torch.tensor([2, 0]), z[:, :2].square()).prod(1),
    "set in place": set_at,
    "unfold": lambda z: z.sin().unfold(1, 2, 1).prod(2).sum(1),
    "triu, tril": lambda z: (torch.triu(z[:, :, None] * z[:, None]) - torch.tril(z[:, :, None] * W, -1)).sum((1, 2)),
    "trapezoid": lambda z: torch.trapezoid(z.sin(), torch.tensor([0.0, 1.0, 3.0]).double(), dim=1),
    "cumulative trapezoid": lambda z: torch.cumulative_trapezoid(z.sin(), dx=0.1, dim=1).prod(1),
    "lerp": lambda z: (torch.lerp(z, z.sin(), 0.3) * torch.lerp(z, z.cos(), z)).sum(1),
    "addcmul, addcdiv": lambda z: (torch.addcmul(z, z, z.sin(), value=2) + torch.addcdiv(z, z, 3 + z**2, value=2)).sum(
        1
    ),
    "masked by a constant": lambda z: z.square().masked_fill(torch.tensor([True, False, True]), 0.5).sum(1),
}
KINKED: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": each(lambda u: functional.elu(u, 0.5)),
    "elu, steep on the left": each(lambda u: functional.elu(u, 2.0)),
    "selu": each(torch.selu),
    "celu": each(lambda u: functional.celu(u, 2.0)),
    "softsign": each(functional.softsign),
    "hardswish": each(functional.hardswish),
    "hardsigmoid": each(functional.hardsigmoid),
    "hardtanh": each(lambda u: functional.hardtanh(u, -0.5, 0.7)),
    "relu6": each(lambda u: functional.relu6(4 * u)),
    "leaky": each(
        lambda u: functional.leaky_relu(u, 0.1) + functional.leaky_relu(u, 1.5) + functional.leaky_relu(u, -0.2)
    ),
    "prelu": lambda z: (PRELU(z) * P).sum(1),
    "softshrink": each(functional.softshrink),
    "norm 1": lambda z: torch.linalg.vector_norm(z, 1, dim=1),
    "norm 2": lambda z: torch.linalg.vector_norm(z, dim=1) + z[:, :2].norm(dim=1),
    "norm 3": lambda z: torch.linalg.vector_norm(z, 3, dim=1),
    "norm inf": lambda z: torch.linalg.vector_norm(z, math.inf, dim=1),
    "clamp by tensors": lambda z: (z.clamp(-P.abs(), P.abs()) + z.clamp(min=z.roll(1, 1).sin())).square().sum(1),
    "fmax": lambda z: torch.fmax(z[:, 0], z[:, 1]) - torch.fmin(z[:, 1], z[:, 2].square()),
    "max, min": lambda z: z.max(1).values + z.square().min(1)[0],
    "sort": lambda z: (z.sort(1)[0] * P).sum(1),
    "sort, descending": lambda z: (z.sort(1, descending=True).values * P).sum(1),
    "sort, stable": lambda z: (z.sort(dim=1, stable=True)[0] * P).sum(1),
    "topk": lambda z: z.topk(2, 1)[0].prod(1),
    "median": lambda z: z.median(1)[0],
}
JUMPY: dict[str, Callable[[Tensor], Tensor]] = {
    "remainder": each(lambda u: torch.remainder(u, 2) + u % -1.3),
    "remainder of a tensor": lambda z: torch.remainder(z[:, 0], 2 + z[:, 1] ** 2),
    "fmod": each(lambda u: torch.fmod(u, 1.5)),
    "floor": each(lambda u: u * torch.floor(u)),
    "ceil": each(lambda u: u * torch.ceil(u)),
    "round": each(lambda u: u * torch.round(u)),
    "trunc": each(lambda u: u * torch.trunc(u) + torch.frac(u)),
    "floor division": each(lambda u: u * (u // 1.5)),
    "angle": lambda z: torch.atan2(z[:, 0], z[:, 1]),
    "softplus with a jump": each(lambda u: functional.softplus(u, beta=3, threshold=2)),
    "hardshrink": each(functional.hardshrink),
    "masked by the state": lambda z: z.square().masked_fill(z > 0, 0.5).sum(1),
    "cube root at 0": each(lambda u: u.sign() * u.abs() ** (1 / 3)),
}
PROGRAMS = SMOOTH | KINKED | JUMPY


def derivatives(function: Callable[[Tensor], Tensor], states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The values (B,), gradients (n, B) and Hessians (n, n, B) of PyTorch."""
    states = states.clone().requires_grad_()
    value = function(states)
    gradient, rows = torch.full_like(states, math.nan), torch.full((3, *states.shape), math.nan, dtype=torch.float64)
    with contextlib.suppress(NotImplementedError):
        gradient = differentiated(value.sum(), states)
        rows = torch.stack([differentiated(part.sum(), states) for part in gradient.unbind(1)])
    return value.detach(), gradient.detach().mT, rows.detach().movedim(-1, 1)


def differentiated(total: Tensor, states: Tensor) -> Tensor:
    """The gradient of a sum; raises NotImplementedError where PyTorch has none."""
    if not total.requires_grad:
        return torch.zeros_like(states)
    try:
        (found,) = torch.autograd.grad(total, states, create_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "is not implemented" in str(error):
            raise NotImplementedError from error
        raise
    return torch.zeros_like(states) if found is None else found


@pytest.mark.parametrize("name", PROGRAMS)
def test_autograd_is_within_the_bounds(name: str) -> None:
    function, generator = PROGRAMS[name], torch.Generator().manual_seed(3)
    states = 1.5 * torch.randn(BOXES, 3, generator=generator, dtype=torch.float64)
    enclosure = FunctionEnclosure(function, states[:8])
    widths = torch.tensor(WIDTHS, dtype=torch.float64)[torch.arange(BOXES) % len(WIDTHS), None]
    inside = states + widths * (2 * torch.rand(BOXES, 3, generator=generator, dtype=torch.float64) - 1)
    known = torch.zeros(3, len(WIDTHS))
    for rows in torch.arange(BOXES).split(2000):
        bounds = enclosure(Interval(states[rows] - widths[rows], states[rows] + widths[rows]), 2)
        found = zip((bounds.value, bounds.gradient, bounds.hessian), derivatives(function, inside[rows]), strict=True)
        for order, (interval, true) in enumerate(found):
            slack = 1e-8 * (1 + true.abs())  # of floating point
            is_known = ~(interval.low.isnan() | interval.high.isnan())
            holds = (true >= interval.low - slack) & (true <= interval.high + slack)
            assert bool((holds | ~is_known | true.isnan()).all()), (order, true[~holds & is_known])
            share = is_known.reshape(-1, len(rows)).all(0)
            for kind in range(len(WIDTHS)):
                known[order, kind] += share[rows % len(WIDTHS) == kind].sum() / BOXES * len(WIDTHS)
    # Of small boxes nearly all is known, since few meet a kink or a jump.
    assert bool((known[:, :3] > (0.9 if name in JUMPY else 0.98)).all()), known
    if name in SMOOTH:
        assert bool((known[:, 3] > 0.98).all()), known
    if name in KINKED and not name.startswith("norm"):
        assert bool((known[:2] > 0.98).all()), known


@pytest.mark.parametrize("name", PROGRAMS)
def test_ball_arithmetic_is_within_the_bounds(name: str) -> None:
    """The other engine gives what PyTorch does, and lies within the bounds of intervals, without any slack."""
    function, generator = PROGRAMS[name], torch.Generator().manual_seed(4)
    count = max(10, BOXES // 100)
    states = 1.5 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    graph, enclosure = read(function, states), FunctionEnclosure(function, states)
    widths = torch.tensor(WIDTHS, dtype=torch.float64)[torch.arange(count) % len(WIDTHS), None]
    inside = states + widths * (2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1)
    bounds = enclosure(Interval(states - widths, states + widths), 1)
    values, gradients, _ = derivatives(function, inside)
    for row, state in enumerate(inside):
        place = row % 3
        found = evaluate(graph, exact(state), exact(torch.eye(3, dtype=torch.float64)[place]))
        slope = arb(0) if found.slope is None else found.slope.reshape(-1)[0]
        for number, interval, true in (
            (found.value.reshape(-1)[0], (bounds.value.low[row], bounds.value.high[row]), values[row]),
            (slope, (bounds.gradient.low[place, row], bounds.gradient.high[place, row]), gradients[place, row]),
        ):
            assert float(number.mid()) == pytest.approx(float(true), rel=1e-8, abs=1e-8) or true.isnan()
            low, high = (float(bound) for bound in interval)
            if low == low and high == high:
                assert not number < arb(low)
                assert not number > arb(high)


def test_slopes_on_balls_are_within_those_on_intervals() -> None:
    for target, (_, slope, _) in ELEMENTARY.items():
        known = 0
        for number in (-0.6, 0.3, 1.7):
            bounds = slope(Interval.point(torch.tensor(number, dtype=torch.float64)))
            if bool(bounds.low.isfinite()):
                known += 1
                found = ON_BALLS[target][1](arb(number))
                assert float(bounds.low) < found < float(bounds.high), (target, number)
        assert known, target


def test_a_constant_does_not_bend_where_it_is_rounded() -> None:
    found = steps(torch.floor)(Jet.constant(torch.tensor(2.0).double()))
    assert not bool(found.bends_up.any() | found.bends_down.any())


def test_a_power_of_a_ball_that_holds_0_is_no_wider_than_its_products() -> None:
    for power, (least, most) in ((2, (0.0, 2.25)), (3, (-0.125, 3.375))):
        graph = read(lambda z, power=power: z[:, 0] ** power, torch.tensor([[0.3], [0.4]], dtype=torch.float64))
        found = evaluate(graph, np.array([arb(0.5, 1)], dtype=object)).value.item()
        assert found.contains(arb(least))
        assert found.contains(arb(most))
        assert found.abs_upper() < 3.4


@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc"])
def test_a_rounding_is_known_where_no_jump_is_in_the_box(name: str) -> None:
    function = getattr(torch, name)
    enclosure = FunctionEnclosure(lambda z: function(z).sum(1), torch.tensor([[0.3], [0.4]], dtype=torch.float64))
    jump = {"round": 1.5}.get(name, 1.0)
    low = torch.tensor([jump - 0.2, jump - 0.2, jump, jump + 2**-50, jump - 0.9], dtype=torch.float64)[:, None]
    high = torch.tensor([jump + 0.2, jump, jump + 0.2, jump + 0.3, jump - 2**-50], dtype=torch.float64)[:, None]
    bounds = enclosure(Interval(low, high), 2)
    assert bounds.gradient.low[0].isnan().tolist() == [True, True, True, False, False]
    assert bounds.hessian.low[0, 0].isnan().tolist() == [True, True, True, False, False]
    assert bounds.bends_up.tolist() == [True, True, True, False, False]
    assert bool((bounds.value.low == function(low[:, 0])).all())
    assert bool((bounds.value.high == function(high[:, 0])).all())
    graph = read(lambda z: function(z).sum(1), torch.tensor([[0.3], [0.4]], dtype=torch.float64))
    slope = evaluate(graph, exact(torch.tensor([jump])), exact(torch.tensor([1.0]))).slope
    assert slope is not None
    assert slope.reshape(-1)[0].is_nan()


def test_the_angle_jumps_at_its_cut_alone() -> None:
    enclosure = FunctionEnclosure(
        lambda z: torch.atan2(z[:, 0], z[:, 1]), torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    )
    middle = torch.tensor(
        [[0.0, -1.0], [0.0, 1.0], [0.0, 0.0], [0.2, -1.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64
    )
    bounds = enclosure(Interval(middle - 0.1, middle + 0.1), 2)
    assert bounds.gradient.low[0].isnan().tolist() == [True, False, True, False, False, False]
    assert bounds.bends_down.tolist() == [True, False, True, False, False, False]
    assert bounds.value.low[0] <= -math.pi
    assert bounds.value.high[0] >= math.pi


def test_kinks_bend_as_they_do() -> None:
    box = Interval(torch.tensor([[-0.1]], dtype=torch.float64), torch.tensor([[0.1]], dtype=torch.float64))
    bends = {}
    for name, function in {
        "elu": functional.elu,
        "flat elu": lambda z: functional.elu(z, 0.5),
        "steep elu": lambda z: functional.elu(z, 2.0),
        "leaky": lambda z: functional.leaky_relu(z, 0.5),
        "steep leaky": lambda z: functional.leaky_relu(z, 2.0),
    }.items():
        bounds = FunctionEnclosure(
            lambda z, function=function: function(z).sum(1), torch.tensor([[0.3], [-0.4]], dtype=torch.float64)
        )(box, 2)
        bends[name] = bool(bounds.bends_up), bool(bounds.bends_down)
    assert bends == {
        "elu": (False, False),
        "flat elu": (True, False),
        "steep elu": (False, True),
        "leaky": (True, False),
        "steep leaky": (False, True),
    }


def test_a_matrix_that_may_be_singular_has_no_known_solution() -> None:
    def function(z: Tensor) -> Tensor:
        return torch.linalg.inv(z[:, :1, None] * EYE).sum((1, 2))

    enclosure = FunctionEnclosure(function, torch.tensor([[1.0], [2.0]], dtype=torch.float64))
    ends = torch.tensor([[-1.0], [0.5]], dtype=torch.float64)
    bounds = enclosure(Interval(ends, torch.ones_like(ends)), 1)
    assert bool(bounds.value.low.isnan()[0])
    assert (float(bounds.value.low[1]), float(bounds.value.high[1])) == pytest.approx((3, 6))


REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "nan_to_num": lambda z: torch.nan_to_num(z).sum(1),
    "argmax": lambda z: z.argmax(1).double(),
    "the places of a sort": lambda z: z.gather(1, z.sort(1)[1]).sum(1),
    "places that depend on the state": lambda z: z.index_put((z > 0,), torch.ones((), dtype=torch.float64)).sum(1),
    "dropout": lambda z: functional.dropout(z, 0.5).sum(1),
    "float32": lambda z: z.float().sum(1).double(),
    "scattered twice to one place": lambda z: z.cos().scatter(1, places(z, 2, 2), z.square()).sum(1),
    "special functions": lambda z: torch.lgamma(4 + z).sum(1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_bounded_is_refused(name: str) -> None:
    states = torch.tensor([[0.3, -0.7, 1.1], [-0.4, 0.9, 0.2]], dtype=torch.float64)
    with pytest.raises((UnboundedError, TraceError)):
        FunctionEnclosure(REFUSED[name], states)


def test_what_jumps_is_known_to() -> None:
    assert set(STEPS) | {torch.ops.aten.atan2.default} <= JUMPING
