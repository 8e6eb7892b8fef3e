"""Proofs on boxes: what is true with room to spare is proved, what is false never is."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from analysis.evidence.regions import Ball, Box, Pairs, Region
from analysis.evidence.sublevel import Sublevel
from analysis.proofs import box_search
from analysis.proofs import boxes as box_proofs
from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.boxes import prove_claim
from analysis.proofs.intervals.branch_and_bound import Examined, cover
from analysis.proofs.intervals.interval import Interval
from analysis.user_function.function import load_function

Function = Callable[[Tensor], Tensor]


def origin(dim: int) -> Tensor:
    return torch.zeros(dim, dtype=torch.float64)


def attempt(case: zoo.Case, max_boxes: int = 5000) -> Proof | Unproved:
    value = load_function(f"zoo:{case.value}", case.dim, "value")
    velocity = load_function(f"zoo:{case.dynamics}", case.dim, "velocity") if case.dynamics else None
    centre = [float(number) for number in str(case.centre or 0).split(",")]
    region: Region = Ball(origin(case.dim) + torch.tensor(centre, dtype=torch.float64), case.radius or 1.0)
    if case.sublevel is not None:
        region = Sublevel(Ball(region.centre, case.radius or 4.0), value, case.sublevel)
    return prove_claim(case.claim, value, velocity, region, case.alpha, max_boxes=max_boxes)


INVALID = [case for case in zoo.CASES if not case.is_valid]
# True, and out of this method's reach: arrays, a form that degenerates at the centre, a field that is not Lipschitz or
# jumps, a Hessian that bends both ways, growth without bound.
BEYOND = re.compile(r"of_array|^7-|^8-|^12-|^13-.*decay|(Learned|structured)-convex|proper")
PROVABLE = [case for case in zoo.CASES if case.is_valid and not BEYOND.search(str(case))]


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_no_invalid_case_is_proved(case: zoo.Case) -> None:
    assert isinstance(attempt(case, max_boxes=1500), Unproved)


@pytest.mark.parametrize("case", PROVABLE, ids=str)
def test_valid_cases_are_proved(case: zoo.Case) -> None:
    proof = attempt(case)
    assert isinstance(proof, Proof), proof
    assert "interval arithmetic" in proof.words or "linear bounds" in proof.words


@pytest.mark.parametrize("name", [case for case in zoo.CASES if case.is_valid and BEYOND.search(str(case))], ids=str)
def test_what_is_out_of_reach_says_why(name: zoo.Case) -> None:
    found = attempt(name, max_boxes=1500)
    assert isinstance(found, Unproved)
    assert found.reason.endswith(".")


@pytest.mark.parametrize("alpha", [2 + 1e-12, 2.0001])
def test_a_rate_a_hair_too_large_is_not_proved(alpha: float) -> None:
    ball = Ball(origin(3), 1.0)
    assert isinstance(prove_claim("decay", zoo.square, zoo.sink, ball, alpha), Unproved)
    assert isinstance(prove_claim("decay", zoo.square, zoo.sink, ball, 2.0), Proof)


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


def coupled(z: Tensor) -> Tensor:
    """V-dot = -2 |z|^2 + 0.6 x y z for |z|^2: decreasing within sqrt(3) / 0.1 or so."""
    return -z + 0.1 * z.roll(1, 1) * z.roll(2, 1)


class Network(torch.nn.Module):
    """A network less its own value at the origin, squared: the usual learned V."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)]
        self.layers = torch.nn.Sequential(*layers).double().requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        return (self.layers(z) - self.layers(torch.zeros_like(z))).square().sum(1) + 0.1 * square(z)


PROVED: dict[str, tuple[str, Function, Function | None, Region, float | None]] = {
    "three dimensions": ("decrease", square, coupled, Ball(origin(3), 2.0), None),
    "four dimensions": ("decay", square, coupled, Ball(origin(4), 1.0), 1.5),
    "a box": ("decrease", square, coupled, Box(origin(3), origin(3) - 1, origin(3) + 2), None),
    "another centre": (
        "decrease",
        lambda z: square(z - 0.1),
        lambda z: torch.sin(0.1 - z),
        Ball(origin(2) + 0.1, 1.0),
        None,
    ),
    "centre on the border": ("positive", square, None, Box(origin(2), origin(2), origin(2) + 1), None),
    "a learned V": ("positive", Network(), None, Ball(origin(2), 1.0), None),
    "a learned V decreases": ("decrease", Network(), zoo.sink, Ball(origin(2), 0.2), None),
    "a learned V vanishes": ("zero", Network(), None, Ball(origin(2), 0.2), None),
    "a convex kink at the centre": (
        "positive",
        lambda z: square(z.relu()) + square(z),
        None,
        Ball(origin(2), 1.0),
        None,
    ),
    "convex": ("convex", lambda z: torch.exp(z[:, 0]) + z.abs().sum(1), None, Ball(origin(2), 1.0), None),
    "convex in one direction": ("convex", lambda z: z[:, 0] ** 2, None, Ball(origin(2), 1.0), None),
    "rest": ("equilibrium", square, lambda z: torch.sin(z) - torch.log1p(z), Ball(origin(2), 0.5), None),
    "a field with kinks": ("decrease", square, lambda z: -z - z.relu(), Ball(origin(2), 1.0), None),
    "a field with a jump": ("decrease", square, lambda z: -z - 0.01 * z * (z > 0.5), Ball(origin(2), 1.0), None),
    "an empty part": (
        "decrease",
        lambda z: (1 - torch.cos(z[:, :2])).sum(1) + (1 - torch.cos(z[:, 2:])).sum(1),
        lambda z: torch.stack([z[:, 1] - z[:, 0], -z[:, 0] - z[:, 1]], 1),
        Ball(origin(2), 1.0),
        None,
    ),
    "a sum of nothing": ("positive", lambda z: square(z) + z[:, :0].sum(1), None, Ball(origin(2), 1.0), None),
    "a running sum": (
        "positive",
        lambda z: (1 - torch.cos(z)).cumsum(1, dtype=torch.float64)[:, -1],
        None,
        Ball(origin(2), 1.0),
        None,
    ),
    "a product": (
        "positive",
        lambda z: (1 + z.square()).prod(1, dtype=torch.float64) - 1,
        None,
        Ball(origin(2), 1.0),
        None,
    ),
    "detached": ("positive", lambda z: (z.detach() * z).sum(1), None, Ball(origin(2), 1.0), None),
}


@pytest.mark.parametrize("name", PROVED)
def test_true_claims_are_proved(name: str) -> None:
    assert isinstance(found := prove_claim(*PROVED[name]), Proof), found


class Flattering(torch.autograd.Function):
    """x^2 with a backward of the wrong sign."""

    @staticmethod
    def forward(ctx: object, z: Tensor) -> Tensor:
        return z.square()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return -gradients[0]


NOT_PROVED: dict[str, tuple[str, Function, Function | None, Region, float | None]] = {
    "a step down": (
        "decrease",
        lambda z: square(z) + (z[:, 0] > 0.5),
        lambda z: -z + 2 * z,
        Ball(origin(2), 1.0),
        None,
    ),
    "a step that hides growth": (
        "positive",
        lambda z: square(z) - 2.0 * (z[:, 0] > 0.9),
        None,
        Ball(origin(2), 1.0),
        None,
    ),
    "a detached part": ("decrease", lambda z: square(z) - 2 * square(z.detach()), zoo.sink, Ball(origin(2), 1.0), None),
    "a wrong backward": ("decrease", lambda z: -Flattering.apply(z).sum(1), zoo.sink, Ball(origin(2), 1.0), None),
    "a concave kink": ("positive", lambda z: square(z) - 0.01 * z.abs().sum(1), None, Ball(origin(2), 1.0), None),
    "a kink is not convex": ("convex", lambda z: square(z) - 0.01 * z[:, 0].abs(), None, Ball(origin(2), 1.0), None),
    "only semidefinite": ("decrease", lambda z: z[:, 0] ** 2, zoo.sink, Ball(origin(2), 1.0), None),
    "a valley": ("positive", lambda z: (z[:, 0] - z[:, 1]) ** 2, None, Ball(origin(2), 1.0), None),
    "undefined in part": (
        "positive",
        lambda z: square(z) + 0 * z[:, 0].add(0.5).log(),
        None,
        Ball(origin(2), 1.0),
        None,
    ),
    "no rest at the centre": ("decrease", square, lambda z: -z + 1e-9, Ball(origin(2), 1.0), None),
    "not closed": ("invariant", square, zoo.sink, Sublevel(Ball(origin(2), 1.0), square, 1.5), None),
    "a corner of the box": (
        "positive",
        lambda z: 2.9 - square(z),
        None,
        Box(origin(2), origin(2) - 1.3, origin(2)),
        None,
    ),
    "many dimensions": ("positive", square, None, Ball(origin(7), 1.0), None),
    "another region": ("positive", square, None, Pairs(Ball(origin(2), 1.0)), None),
}


@pytest.mark.parametrize("name", NOT_PROVED)
def test_false_or_unclear_claims_are_not_proved(name: str) -> None:
    assert isinstance(prove_claim(*NOT_PROVED[name], max_boxes=1500), Unproved)


def test_what_writes_into_a_tensor_is_named() -> None:
    found = prove_claim(
        "positive", lambda z: square(z) + torch.quantile(z.square(), 0.5, dim=1), None, Ball(origin(2), 1.0), None
    )
    assert isinstance(found, Unproved)
    assert re.search(r"the operation aten\.\w+_\.\w+ writes into a tensor", found.reason)


def test_the_levels_of_a_region_are_those_of_v() -> None:
    region = Sublevel(Ball(origin(1), 4.0), square, lower=1.0)
    with pytest.raises(ValueError, match="levels of another function"):
        prove_claim("positive", lambda z: square(z) - 9, None, region, None)


def test_a_claim_needs_what_it_is_about() -> None:
    ball = Ball(origin(2), 1.0)
    with pytest.raises(ValueError, match="dynamics"):
        prove_claim("decrease", square, None, ball, None)
    with pytest.raises(ValueError, match="rate"):
        prove_claim("decay", square, zoo.sink, ball, None)


entries = st.floats(-1, 1).map(lambda x: round(x, 2))


@given(st.lists(entries, min_size=10, max_size=10), st.sampled_from(["decrease", "decay", "positive", "convex"]))
@settings(max_examples=12, deadline=None)
def test_no_proof_contradicts_a_grid(c: list[float], claim: str) -> None:
    """Random cubic dynamics and quartic V: where a proof is given, a fine grid of the ball violates nothing."""

    def value(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return (1 + c[0]) * x**2 + c[1] * x * y + (1 + c[2]) * y**2 + 2 * c[3] * x**2 * y + c[4] * x**2 * y**2

    def velocity(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return torch.stack([-x + 2 * c[5] * y + c[6] * x * y, 2 * c[7] * x - y + c[8] * x**3 + c[9] * y**2], 1)

    proof = prove_claim(claim, value, velocity, Ball(origin(2), 1.0), 0.5, max_boxes=2000)
    if isinstance(proof, Unproved):
        return
    ticks = torch.linspace(-1, 1, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    grid = grid[(grid.norm(dim=1) <= 1) & (grid.norm(dim=1) > 0)].requires_grad_()
    v = value(grid)
    (gradient,) = torch.autograd.grad(v.sum(), grid)
    rate = (gradient * velocity(grid)).sum(1)
    if claim == "positive":
        assert bool((v > 0).all())
    elif claim == "decrease":
        assert bool((rate < 0).all())
    elif claim == "decay":
        assert bool((rate <= -0.5 * v + 1e-12).all())
    else:
        hessians = torch.vmap(torch.func.jacrev(torch.func.jacrev(lambda z: value(z[None])[0])))(grid.detach())
        assert float(torch.linalg.eigvalsh(hessians).min()) >= -1e-12


@given(st.lists(st.floats(-2, 2), min_size=9, max_size=9), st.floats(0, 0.3), st.integers(0, 100))
@settings(max_examples=100)
def test_definiteness_of_bounds_holds_for_matrices_between(entries: list[float], radius: float, seed: int) -> None:
    matrix = torch.tensor(entries, dtype=torch.float64).reshape(3, 3)
    matrix = matrix @ matrix.T
    bounds = Interval((matrix - radius)[None], (matrix + radius)[None])
    strict, weak = (bool(box_proofs.is_definite(bounds, strictly=strictly)) for strictly in (True, False))
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (64, 3, 3), generator=generator) * 2.0 - 1
    between = matrix + radius * torch.triu(signs) + radius * torch.triu(signs, 1).mT
    least = float(torch.linalg.eigvalsh(between).min())
    assert not strict or least > 0
    assert not weak or least >= -1e-12
    assert weak or not strict


def test_the_boxes_around_a_hole_fill_the_rest() -> None:
    low, high = torch.tensor([-1.0, -2.0, 0.0]).double(), torch.tensor([1.0, 2.0, 3.0]).double()
    hole = torch.tensor([-0.5, -2.0, 0.0]).double(), torch.tensor([0.25, 1.0, 1.0]).double()
    boxes_low, boxes_high = box_search.around(hole, (low, high))
    volume = (boxes_high - boxes_low).prod(1).sum() + (hole[1] - hole[0]).prod()
    assert float(volume) == float((high - low).prod())
    states = low + (high - low) * torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covered = ((states[:, None] >= boxes_low) & (states[:, None] <= boxes_high)).all(2).any(1)
    in_hole = ((states > hole[0]) & (states < hole[1])).all(1)
    assert torch.equal(covered, ~in_hole)


def test_a_search_covers_all_or_says_where_it_stopped() -> None:
    low, high = origin(2)[None] - 1, origin(2)[None] + 1
    never = torch.zeros(1, dtype=torch.bool)

    def small_enough(low: Tensor, high: Tensor, side: float = 0.25) -> Examined:
        closed = (high - low).amax(1) <= side
        return Examined(closed, never.expand(len(low)), torch.ones_like(low))

    def open_at_a_state(low: Tensor, high: Tensor) -> Examined:
        closed = ~((low <= 0.3) & (high >= 0.3)).all(1)
        return Examined(closed, never.expand(len(low)), torch.ones_like(low))

    # While fewer than 64 are open each becomes four, then two: 1 + 4 + 16 + 64, and down to sides of 1/32 128 + 256 + ... + 4096 more.
    assert cover(low, high, small_enough, max_boxes=1000).boxes == 85
    assert cover(low, high, partial(small_enough, side=1 / 32), max_boxes=10000).boxes == 8149
    spent = cover(low, high, open_at_a_state, max_boxes=50, deadline=float("inf"))
    assert "still open" in spent.fault
    tiny = cover(low, high, open_at_a_state, max_boxes=10**6, deadline=float("inf"))
    assert "too small" in tiny.fault
    assert tiny.state == pytest.approx((0.3, 0.3))
    assert "the time was up" in cover(low, high, small_enough, max_boxes=1000, deadline=0).fault
