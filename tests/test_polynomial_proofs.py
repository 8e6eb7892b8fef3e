"""Sums of squares prove what is known to be true of polynomial systems, up to the edge of it, and nothing that is false."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flint import fmpq
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from analysis.evidence.regions import Ball, Box
from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.polynomials import moments, prove_polynomial
from analysis.proofs.polynomials.monomials import Problem, packed, shape
from analysis.proofs.polynomials.polynomial import BeyondSquaresError, Ring, rational
from analysis.proofs.polynomials.reading import quotients
from analysis.proofs.polynomials.squares import prove_positive
from analysis.proofs.tracing import read

Function = Callable[[Tensor], Tensor]


def zeros(dim: int) -> Tensor:
    return torch.zeros(dim, dtype=torch.float64)


def ball(dim: int, radius: float) -> Ball:
    return Ball(zeros(dim), radius)


def box(dim: int, reach: float) -> Box:
    return Box(zeros(dim), zeros(dim) - reach, zeros(dim) + reach)


def prove(name: str, value: Function, motion: Function | None, base: Ball | Box, **rest: Any) -> Proof | Unproved:
    some = base.centre + torch.rand(
        2, len(base.centre), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    graphs = [None if function is None else read(function, some) for function in (value, motion)]
    assert graphs[0] is not None
    return prove_polynomial(name, *graphs, base=base, **rest)


def is_proved(*args: Any, **rest: Any) -> bool:
    return isinstance(prove(*args, **rest), Proof)


def squared(z: Tensor) -> Tensor:
    return (z * z).sum(1)


def quadratic(p: float, q: float, r: float) -> Function:
    return lambda z: p * z[:, 0] ** 2 + q * z[:, 0] * z[:, 1] + r * z[:, 1] ** 2


def reversed_van_der_pol(mu: float) -> Function:
    return lambda z: torch.stack([-z[:, 1], z[:, 0] + mu * (z[:, 0] ** 2 - 1) * z[:, 1]], 1)


VAN_DER_POL = quadratic(1.5, -1.0, 1.0)


@pytest.mark.parametrize(
    ("mu", "value", "true", "false"),
    [(1.0, VAN_DER_POL, 2.3042, 2.3047), (3.0, quadratic(11 / 6, -1.0, 1 / 3), 1.2581, 1.2587)],
)
def test_van_der_pol_decreases_up_to_the_published_level_and_no_further(
    mu: float, value: Function, true: float, false: float
) -> None:
    motion = reversed_van_der_pol(mu)
    for level in (true / 100, true):
        assert is_proved("decrease", value, motion, ball(2, 3.0), level=level)
        assert is_proved("invariant", value, motion, ball(2, 3.0), level=level)
    for level in (false, 1.01 * false, 2 * false):
        assert not is_proved("decrease", value, motion, ball(2, 3.0), level=level)


def test_every_claim_about_van_der_pol() -> None:
    motion = reversed_van_der_pol(1.0)
    for name in ("zero", "equilibrium", "positive", "convex", "closed", "invariant", "decrease"):
        for base in (ball(2, 3.0), box(2, 2.5)):
            found = prove(name, VAN_DER_POL, motion, base, level=2.3)
            assert isinstance(found, Proof), (name, found)
    for name in ("positive", "decrease"):
        found = prove(name, VAN_DER_POL, motion, ball(2, 3.0), level=2.0)
        assert "{V <= 2} within 3 of the centre" in found.words


def lyznet(z: Tensor) -> Tensor:
    x = dict(enumerate(z.unbind(1), 1))
    return torch.stack(
        [
            -x[1] + 0.5 * x[2] - 0.1 * x[9] ** 2,
            -0.5 * x[1] - x[2],
            -x[3] + 0.5 * x[4] - 0.1 * x[1] ** 2,
            -0.5 * x[3] - x[4],
            -x[5] + 0.5 * x[6] + 0.1 * x[7] ** 2,
            -0.5 * x[5] - x[6],
            -x[7] + 0.5 * x[8],
            -0.5 * x[7] - x[8],
            -x[9] + 0.5 * x[10],
            -0.5 * x[9] - x[10] + 0.1 * x[2] ** 2,
        ],
        1,
    )


def test_ten_dimensions_up_to_the_level_where_it_fails() -> None:
    """V-dot is -|x|^2 and a cubic form, whose least value on rays, found by descent, lets it vanish first at |x| = 22.5, V = 253.125."""
    for level in (1.0, 253.1):
        assert is_proved("decrease", lambda z: squared(z) / 2, lyznet, ball(10, 23.0), level=level)
    assert is_proved("invariant", lambda z: squared(z) / 2, lyznet, ball(10, 23.0), level=250.0)


def cubic(z: Tensor) -> Tensor:
    """-z + z^3 with a rotation: V-dot of |z|^2 is -2 sum z_i^2 (1 - z_i^2), negative on |z| < 1, and 0 at the unit vectors."""
    dim = z.shape[1]
    below = torch.arange(dim * dim, dtype=torch.float64).sin().reshape(dim, dim).tril(-1)
    return -z + z**3 + z @ (below - below.mT)


def test_twelve_dimensions() -> None:
    for name in ("decrease", "invariant"):
        assert is_proved(name, squared, cubic, ball(12, 2.0), level=0.999)
        assert not is_proved(name, squared, cubic, ball(12, 2.0), level=1.001)
    assert is_proved("decrease", squared, cubic, box(12, 0.99))


@pytest.mark.parametrize("radius", [0.9, 0.999, 1 - 1e-6, 1.0, 1 + 1e-9, 1.01])
def test_the_edge_of_truth(radius: float) -> None:
    for dim in (1, 2, 3):
        assert is_proved("decrease", squared, cubic, ball(dim, radius)) == (radius < 1)


def test_a_slow_direction() -> None:
    slow = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    for slower, holds in ((slow, True), (-slow.flip(0), False), (slow * torch.tensor([1, -1]), False)):
        assert is_proved("decrease", squared, lambda z, slower=slower: (z**3 / 2 - z) * slower, ball(2, 1.0)) == holds


def test_a_centre_elsewhere() -> None:
    centre = torch.tensor([0.3, -1.7], dtype=torch.float64)
    for radius in (0.99, 1.01):
        found = is_proved("decrease", lambda z: squared(z - centre), lambda z: cubic(z - centre), Ball(centre, radius))
        assert found == (radius < 1)


def sostools(z: Tensor) -> Tensor:
    x, y, w = z.unbind(1)
    return torch.stack([-(x**3) - x * w**2, -y - x**2 * y, -w - 3 * w / (w**2 + 1) + 3 * x**2 * w], 1)


def test_a_rational_system_with_a_degenerate_linear_part() -> None:
    weights = torch.tensor([5.5489, 4.1068, 1.7945], dtype=torch.float64)

    def value(z: Tensor) -> Tensor:
        return z**2 @ weights

    for radius in (1.0, 100.0):
        assert is_proved("decrease", value, sostools, ball(3, radius))
    for name in ("positive", "invariant", "closed", "convex"):
        assert is_proved(name, value, sostools, ball(3, 3.0), level=1.0)
    # With the weights turned round, V-dot is positive at (sqrt(3), 0, 1).
    for radius, holds in ((1.0, True), (2.0, False)):
        assert is_proved("decrease", lambda z: z**2 @ weights.flip(0), sostools, ball(3, radius)) == holds


def test_functions_flat_at_the_centre() -> None:
    def value(z: Tensor) -> Tensor:
        return z[:, 0] ** 2 + z[:, 1] ** 4

    def motion(z: Tensor) -> Tensor:
        return torch.stack([-z[:, 0] + z[:, 1] ** 2 * z[:, 0], -(z[:, 1] ** 3) + z[:, 0] * z[:, 1] / 2], 1)

    for name in ("positive", "decrease", "closed", "invariant", "convex"):
        assert is_proved(name, value, motion, ball(2, 2.0), level=0.5)
    # V is 0 on a line, or V-dot is: not positive, but not negative either.
    assert not is_proved("positive", lambda z: z[:, 0] ** 2, None, ball(2, 1.0))
    assert is_proved("convex", lambda z: z[:, 0] ** 2, None, ball(2, 1.0))
    assert not is_proved("decrease", value, lambda z: z * torch.tensor([-1.0, 0.0]), ball(2, 1.0))
    assert not is_proved("decrease", value, lambda z: 0 * z, ball(2, 1.0))
    # What is linear, or negative, at the centre is not positive.
    assert not is_proved("positive", lambda z: z[:, 0] + squared(z), None, ball(2, 1.0))
    assert not is_proved("positive", lambda z: squared(z) - 1e-9, None, ball(2, 1.0))
    assert is_proved("positive", lambda z: squared(z) + 1e-9, None, ball(2, 1.0))


def test_decay_at_its_exact_rate() -> None:
    for rate, holds in ((2.0, True), (math.nextafter(2.0, 3.0), False)):
        assert is_proved("decay", squared, lambda z: -z, ball(3, 1.0), rate=rate) == holds
        assert is_proved("decay", squared, lambda z: -z - z**3, ball(3, 1.0), rate=rate) == holds
    assert not is_proved("decay", squared, lambda z: -z + 1e-6 * z**3, ball(2, 1.0), rate=2.0)


def test_values_at_the_centre_are_exact() -> None:
    assert is_proved("zero", lambda z: (z[:, 0] + 1) ** 3 - 1 + z[:, 1], None, ball(2, 1.0))
    assert not is_proved("zero", lambda z: z[:, 0] + 0.1 + 0.2 - 0.3, None, ball(2, 1.0))
    assert is_proved("equilibrium", squared, lambda z: z - z**3, Ball(zeros(2) + 1, 1.0))
    assert not is_proved("equilibrium", squared, lambda z: z - z**3, Ball(zeros(2) + 1.0000000000000002, 1.0))
    for centre, holds in ((0.0, True), (0.5, True), (0.25, False)):
        found = is_proved("equilibrium", squared, lambda z: 2 * z**2, Ball(zeros(1) + centre, 1.0), in_steps=True)
        assert found == holds


def test_convexity_ends_where_it_does() -> None:
    def value(z: Tensor) -> Tensor:  # its second derivative along the first axis is 2 - 12 z^2
        return squared(z) - z[:, 0] ** 4

    assert is_proved("convex", value, None, ball(2, 0.408))
    assert not is_proved("convex", value, None, ball(2, 0.409))
    assert not is_proved("convex", lambda z: z[:, 0] ** 2 - 1e-9 * z[:, 1] ** 2, None, ball(2, 1.0))

    def bowl(z: Tensor) -> Tensor:  # along a ray its second derivative is 0 where r^2 = 1/3
        return squared(z) / (1 + squared(z))

    assert is_proved("convex", bowl, None, ball(2, 0.57), level=0.1)
    assert not is_proved("convex", bowl, None, ball(2, 0.58), level=0.1)


def test_sets_without_their_middle() -> None:
    def motion(z: Tensor) -> Tensor:  # V-dot = 2 r^2 (0.01 - r^2): a limit cycle at r = 0.1
        return z * (0.01 - squared(z))[:, None]

    for inner, holds in ((0.101, True), (0.099, False), (0.0, False)):
        assert is_proved("decrease", squared, motion, ball(2, 1.0), inner=inner) == holds
        lower = inner**2
        assert is_proved("decrease", squared, motion, ball(2, 1.0), level=0.9, lower=lower) == holds
        assert is_proved("decrease", squared, motion, box(2, 1.0), lower=lower) == holds
    # So small a hole is not needed.
    assert is_proved("decrease", VAN_DER_POL, reversed_van_der_pol(1.0), ball(2, 3.0), level=2.0, inner=1e-9)
    found = prove("decrease", squared, motion, ball(2, 1.0), level=0.5, lower=0.25, inner=0.2)
    assert "{0.25 <= V <= 0.5} within 1 of the centre, further than 0.2 from the centre" in found.words


def test_a_set_is_closed_where_v_exceeds_the_level() -> None:
    for level, holds in ((0.999, True), (1.0, False), (1.001, False)):
        for base in (ball(2, 1.0), box(2, 1.0)):
            assert is_proved("closed", squared, None, base, level=level) == holds
            assert is_proved("invariant", squared, lambda z: -z, base, level=level) == holds
    assert not is_proved("closed", squared, None, ball(2, 1.0))
    # V is 0 at the centre and at +-1/2, so that V-dot is not negative wherever V = 0.
    assert not is_proved("invariant", lambda z: (z**4 - z**2 / 4).sum(1), lambda z: -z, ball(1, 1.0), level=0.0)
    for sign in (-1, 1):  # on one face of the box V is 0 in the middle, on the other 2
        assert not is_proved("closed", lambda z, sign=sign: squared(z) + sign * z[:, 0], None, box(2, 1.0), level=0.1)
    # V falls on the boundary alone: V-dot = 2 V (1/2 - V) (V - 2)^2 on circles, negative at V = 1.

    def motion(z: Tensor) -> Tensor:
        return z * (0.5 - squared(z))[:, None]

    assert is_proved("invariant", squared, motion, ball(2, 1.5), level=1.0)
    assert not is_proved("invariant", squared, motion, ball(2, 1.5), level=0.499)
    assert not is_proved("decrease", squared, motion, ball(2, 1.5), level=1.0)


def test_discrete_time() -> None:
    def step(z: Tensor) -> Tensor:  # |z+|^2 = |z|^2 (1/4 + |z|^2): less than |z|^2 where that is below 3/4
        return torch.stack([0.5 * z[:, 0] - squared(z) ** 0 * z[:, 1] * z[:, 1], 0.5 * z[:, 1] + z[:, 0] * z[:, 1]], 1)

    def cubing(z: Tensor) -> Tensor:  # |z+|^2 = |z|^6
        return z * squared(z)[:, None]

    for level, holds in ((0.999, True), (1.001, False)):
        assert is_proved("decrease", squared, cubing, ball(2, 2.0), level=level, in_steps=True) == holds
        assert is_proved("invariant", squared, cubing, ball(2, 2.0), level=level, in_steps=True) == holds
    # V^3 <= (1 - kappa) V where V^2 <= 1 - kappa
    for kappa, holds in ((0.749, True), (0.751, False)):
        assert is_proved("decrease", squared, cubing, ball(2, 0.5**0.5), rate=kappa, in_steps=True) == holds
    assert is_proved("invariant", squared, cubing, box(2, 0.7), in_steps=True)
    assert not is_proved("invariant", squared, cubing, box(2, 0.75), in_steps=True)
    assert is_proved("decrease", squared, step, ball(2, 0.4), in_steps=True)


def random_system(seed: int, dim: int) -> tuple[Function, Function]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    root, square, cube = drawn(dim, dim), drawn(dim, dim, dim) / 4, drawn(dim, dim) / 4
    form = root @ root.mT + torch.eye(dim, dtype=torch.float64)

    def motion(z: Tensor) -> Tensor:
        return -z + torch.einsum("ijk,bj,bk->bi", square, z, z) + z**3 @ cube

    return (lambda z: ((z @ form) * z).sum(1)), motion


def excess(value: Function, motion: Function, states: Tensor) -> Tensor:
    states = states.requires_grad_()
    (slope,) = torch.autograd.grad(value(states).sum(), states)
    return (slope * motion(states)).sum(1).detach()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_of_random_systems_the_true_levels_are_proved_and_the_false_are_not(dim: int) -> None:
    """A level is false where a sampled state of it has V-dot > 0; 0.8 of the least such level is taken to be true."""
    close = known = 0
    for seed in range(15):
        value, motion = random_system(seed, dim)
        states = torch.randn(20_000, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        states = 2 * states / states.norm(dim=1, keepdim=True) * torch.linspace(0.001, 1, 20_000)[:, None].double()
        rises = excess(value, motion, states) > 1e-9
        if not bool(rises.any()):
            continue
        least = float(value(states.detach())[rises].min())
        for factor in (1.0, 1.5):
            assert not is_proved("decrease", value, motion, ball(dim, 20.0), level=factor * least), seed
        known += 1
        close += is_proved("decrease", value, motion, ball(dim, 20.0), level=0.8 * least)
    assert known >= 4
    assert close >= 0.9 * known


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=9, max_size=9),
    st.sampled_from(["positive", "convex"]),
    st.lists(st.integers(-8, 8), min_size=2, max_size=2).filter(any),
)
def test_a_polynomial_made_to_be_negative_somewhere_is_not_proved(
    coefficients: list[int], name: str, where: list[int]
) -> None:
    """From a polynomial its value, or its second derivative, at one state is taken, and a little more, times what is 1 there."""
    at = torch.tensor(where, dtype=torch.float64) / 8
    powers = [(2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (0, 3), (4, 0), (2, 2), (0, 4)]

    def value(z: Tensor) -> Tensor:
        terms = [c * z[:, 0] ** a * z[:, 1] ** b for c, (a, b) in zip(coefficients, powers, strict=True)]
        return sum(terms[1:], terms[0]) + 3 * squared(z)

    state = at[None].clone().requires_grad_()
    if name == "positive":
        spare = float(value(state).detach())

        def planted(z: Tensor) -> Tensor:
            return value(z) - (abs(spare) + 2.0**-20) * squared(z) / squared(at[None])
    else:
        curvature = float(torch.autograd.functional.hessian(lambda z: value(z).sum(), state)[0, 0, 0, 0])

        def planted(z: Tensor) -> Tensor:
            return value(z) - (abs(curvature) / 2 + 2.0**-20) * squared(z)

    assert not is_proved(name, planted, None, ball(2, 2.0))


FALSE = Problem({packed([2, 0]): fmpq(1), packed([0, 2]): fmpq(-1, 10**6)}, [], [], 2)
TRUE = Problem(
    {packed([2, 0]): fmpq(1), packed([4, 0]): fmpq(-1), packed([0, 2]): fmpq(1)},
    [{0: fmpq(9, 10), packed([2, 0]): fmpq(-1), packed([0, 2]): fmpq(-1)}],
    [],
    2,
)


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-6, 1e-3, 1.0, 1e6])
def test_nothing_false_is_proved_whatever_the_solver_says(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    solved, random = moments._solved, np.random.default_rng(0)

    def disturbed(*args: Any) -> np.ndarray | None:
        found = solved(*args)
        if found is None:
            return None
        found = found + noise * random.standard_normal(len(found))
        found[0] = -abs(found[0]) - noise  # a margin, claimed where there is none
        return found

    monkeypatch.setattr(moments, "_solved", disturbed)
    region = TRUE.inequalities[0]
    wrong = Problem(TRUE.target, [region | {0: fmpq(1)}], [], 2)  # at (1, 0) the target is 0
    for _ in range(20):
        assert prove_positive(FALSE, strictly=False) is None
        assert prove_positive(Problem(FALSE.target, [region], [], 2), strictly=True) is None
        assert prove_positive(wrong, strictly=True) is None
        if noise <= 1e-6:  # what is left of the identity is absorbed
            assert prove_positive(TRUE, strictly=True) is not None


@pytest.mark.parametrize("answer", [math.nan, math.inf, 1e300, 0.0])
def test_a_solver_that_fails_proves_nothing(answer: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, *args: Any) -> None:
            self.size = len(args[3])

        def solve(self) -> Any:
            return type("Solution", (), {"z": [answer] * self.size})

    monkeypatch.setattr(moments.clarabel, "DefaultSolver", Failing)
    assert prove_positive(TRUE, strictly=True) is None


def test_monomials_are_those_of_half_of_newtons_polytope() -> None:
    target = {packed([2, 0]): fmpq(1), packed([0, 4]): fmpq(1)}
    free = shape(Problem(target, [], [], 2), 2)
    assert sorted(one for block in free.main for one in block) == sorted([packed([1, 0]), packed([0, 2])])
    inside = shape(Problem(target, [{0: fmpq(1), packed([2, 0]): fmpq(-1), packed([0, 2]): fmpq(-1)}], [], 2), 2)
    monomials = {one for block in inside.main for one in block}
    assert monomials == {packed(one) for one in ([1, 0], [2, 0], [1, 1], [0, 2])}  # neither 1 nor y


READABLE: list[Function] = [
    lambda z: (z @ torch.tensor([[1.0, 2.0], [0.1, -0.3]], dtype=torch.float64)).pow(3).mean(1),
    lambda z: torch.einsum("bi,bj->bij", z, z).sum((1, 2)),
    lambda z: torch.nn.functional.linear(z, z.new_ones(3, 2), z.new_tensor([0.1, 0.2, 0.3])).square().sum(-1),
    lambda z: (torch.cat([z, z.flip(1) ** 2], 1)[:, [3, 0]] * 0.1).prod(1),
    lambda z: z.split(1, dim=1)[1].squeeze(1).neg() - 2 * z[:, 0] / 3 + 1 - (2 - z[:, 1]) ** 2,
    lambda z: (z[:, 0] - 3) ** -2 + 1 / (1 + squared(z)) + z[:, 1].reciprocal() * z[:, 1] / (1 + squared(z)),
    lambda z: torch.stack([z[:, 0], torch.zeros_like(z[:, 0]), torch.ones_like(z[:, 1])], 1).roll(1, 1) @ z.new_ones(3),
]


@pytest.mark.parametrize("function", READABLE)
def test_a_graph_is_read_as_what_it_computes_with_its_slopes(function: Function) -> None:
    centre = torch.tensor([0.5, 1.25], dtype=torch.float64)
    states = centre + torch.rand(8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4
    ring = Ring(2)
    inputs = [one + ring.constant(rational(at)) for one, at in zip(ring.coordinates, centre.tolist(), strict=True)]
    found = quotients(read(function, states), inputs).item()
    states.requires_grad_()
    value = function(states)
    (slopes,) = torch.autograd.grad(value.sum(), states)

    def at(quotient: Any, state: Tensor) -> float:
        offset = [rational(x) - rational(c) for x, c in zip(state.tolist(), centre.tolist(), strict=True)]
        number = quotient.numerator(*offset)
        for place, power in quotient.powers.items():
            number /= ring.divisors[place](*offset) ** power
        return float(number.p) / float(number.q)

    for state, expected, slope in zip(states.detach(), value.tolist(), slopes.tolist(), strict=True):
        assert at(found, state) == pytest.approx(expected, rel=1e-12)
        assert [at(found.derivative(place), state) for place in (0, 1)] == pytest.approx(slope, rel=1e-11)


def test_constants_are_the_floats_that_they_are() -> None:
    ring = Ring(1)
    found = quotients(read(lambda z: 0.1 * z[:, 0], torch.rand(2, 1, dtype=torch.float64)), ring.coordinates).item()
    assert found.numerator[(1,)] == rational(0.1) != fmpq(1, 10)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda z: squared(z.tanh()), "aten.tanh.default makes no polynomial"),
        (lambda z: squared(z).sqrt(), "aten.sqrt.default"),
        (lambda z: z[:, 0].abs(), "aten.abs.default"),
        (lambda z: z[:, 0].relu(), "aten.relu.default"),
        (lambda z: squared(z) ** 1.5, "the power 1.5"),
        (lambda z: squared(z) ** 1000, "the power 1000"),
        (lambda z: squared(z) ** 13, "degree 26"),
        (lambda z: squared(z) / z[:, 0], "divides by what is 0 at the centre"),
        (lambda z: squared(z.float()).double(), "another type than float64"),
        (lambda z: z[:, 0] * (z[:, 0] > 0), "aten.gt.Scalar"),
        (lambda z: squared(z) * (2**53 + 1), "aten.mul.Tensor is not read with these arguments"),
    ],
)
def test_what_is_no_polynomial_is_refused_by_name(function: Function, words: str) -> None:
    found = prove("positive", function, None, ball(2, 1.0))
    assert isinstance(found, Unproved)
    assert words in found.reason


def test_a_divisor_must_be_positive_on_the_whole_region() -> None:
    for radius, holds in ((0.9, True), (1.0, False), (1.1, False)):
        assert is_proved("positive", lambda z: squared(z) / (1 - squared(z)), None, ball(2, radius)) == holds
        assert is_proved("positive", lambda z: -squared(z) / (squared(z) - 1), None, ball(2, radius)) == holds


def test_too_large_a_question_is_not_begun() -> None:
    dense = torch.randn(14, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = prove("decrease", squared, lambda z: -z + (z @ dense) ** 3, ball(14, 1.0))
    assert isinstance(found, Unproved)
    assert "more than 66 monomials in one matrix" in found.reason
    with pytest.raises(BeyondSquaresError, match="101 coordinates"):
        quotients(read(squared, torch.rand(2, 101, dtype=torch.float64)), Ring(101).coordinates)
    wide = torch.ones(14, 4000, dtype=torch.float64)
    found = prove("positive", lambda z: ((z @ wide) ** 2).sum(1), None, ball(14, 1.0))
    assert isinstance(found, Unproved)
    assert "56000 constants" in found.reason
    # Where there is no choice, none is too large.
    assert is_proved("decrease", squared, lambda z: -z + 0.01 * z.sum(1, keepdim=True), ball(80, 1.0))


def test_a_claim_says_what_it_lacks() -> None:
    assert isinstance(prove("attraction", squared, None, ball(2, 1.0)), Unproved)
    with pytest.raises(ValueError, match="needs them"):
        prove("decrease", squared, None, ball(2, 1.0))
    with pytest.raises(ValueError, match="rate alpha"):
        prove("decay", squared, lambda z: -z, ball(2, 1.0))


def test_the_answer_is_the_same_again_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    found = [prove("decrease", VAN_DER_POL, reversed_van_der_pol(1.0), ball(2, 3.0), level=2.3) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert capfd.readouterr() == ("", "")
