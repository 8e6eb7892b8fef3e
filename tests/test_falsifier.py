"""Needles: violations that random states miss and that no gradient outside of them leads to."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.falsifier import hessians, polish
from analysis.evidence.judge import judge
from analysis.evidence.landmarks import landmarks
from analysis.evidence.regions import Ball, Box, Pairs, Region
from analysis.evidence.smoothing import smoothed
from analysis.findings import Finding, Verdict
from stabdeq.lyapunov import claims
from stabdeq.lyapunov.claims import Violation

RADIUS = 0.05
Value = Callable[[Tensor], Tensor]
SMALL = Effort(samples=2048, starts=32, steps=60)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def origin(dim: int) -> Tensor:
    return torch.zeros(dim, dtype=torch.float64)


def unit_box(dim: int) -> Region:
    return Box(origin(dim), origin(dim) - 1, origin(dim) + 1)


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


def judged(violation: Callable[[Tensor], Violation], region: Region, seed: int, *, strict: bool = True) -> Finding:
    tolerance = claims.tolerance(torch.float64, len(region.centre))
    claim = Claim(
        check="claim", name="claim", sentence="It holds.", violation=violation, tolerance=tolerance, strict=strict
    )
    return judge(claim, region, seed=seed, effort=SMALL)


def positive(value: Value) -> Callable[[Tensor], Violation]:
    def violation(z: Tensor) -> Violation:
        return Violation(-value(z), value(z).abs() + square(z))

    return violation


def pocket_centre(seed: int) -> Tensor:
    return 0.85 * (2 * torch.rand(8, generator=generator(seed), dtype=torch.float64) - 1)


def squared_distance(z: Tensor, point: list[float]) -> Tensor:
    """From numbers for each coordinate: no tensor of the function tells where it is."""
    return torch.stack([(z[:, i] - x).square() for i, x in enumerate(point)]).sum(0)


def pocket(kind: str, point: list[float], over: float) -> Value:
    """V = ||z||^2 but next to ``point``, where it is -(over - 1) times that."""
    size = sum(x * x for x in point)
    depth = over * size

    def inside(z: Tensor) -> Tensor:
        return 1 - squared_distance(z, point) / RADIUS**2

    kinds: dict[str, Value] = {
        "relu": lambda z: square(z) - depth * torch.relu(inside(z)),
        "squared relu": lambda z: square(z) - depth * inside(z).clamp(min=0) ** 2,
        "nested": lambda z: (
            square(z) - 4 * depth * functional.relu(functional.relu(1.25 - (1 - inside(z)).sqrt()) - 1.0)
        ),
        "mask": lambda z: square(z) * (1 - over * (inside(z) > 0)),
        "where": lambda z: torch.where(inside(z) > 0, square(z) - depth * inside(z), square(z)),
        "minimum": lambda z: torch.minimum(square(z), square(z) - depth * inside(z)),
        "sigmoid": lambda z: square(z) - depth * torch.sigmoid(20 * inside(z)),
        "bump": lambda z: square(z) - depth * torch.exp(6 * (inside(z) - 1)),
    }
    return kinds[kind]


KINDS = ["relu", "squared relu", "nested", "mask", "where", "minimum", "sigmoid", "bump"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_pocket_in_dimension_8(kind: str, seed: int) -> None:
    point = pocket_centre(seed)
    value = pocket(kind, point.tolist(), 1.2)
    finding = judged(positive(value), unit_box(8), seed)
    assert finding.verdict is Verdict.REFUTED, finding.evidence
    assert finding.witness is not None
    state = torch.tensor([finding.witness["state"]], dtype=torch.float64)
    assert float(value(state)) <= 0
    assert float((state - point).norm()) < 2 * RADIUS


@pytest.mark.parametrize("seed", range(3))
def test_a_shallow_pocket_and_one_whose_centre_can_be_read(seed: int) -> None:
    point = pocket_centre(seed)
    assert judged(positive(pocket("relu", point.tolist(), 1.02)), unit_box(8), seed).verdict is Verdict.REFUTED
    depth = 1.02 * float(point.square().sum()) / RADIUS**2

    def readable(z: Tensor) -> Tensor:
        return square(z) - depth * (RADIUS**2 - (z - point).square().sum(1)).clamp(min=0)

    assert judged(positive(readable), unit_box(8), seed).verdict is Verdict.REFUTED


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("is_readable", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_cone_in_dimension_64(power: int, is_readable: bool, seed: int) -> None:
    axis = functional.normalize(torch.randn(64, generator=generator(seed), dtype=torch.float64), dim=0)
    numbers = axis.tolist()

    def value(z: Tensor) -> Tensor:
        along = z @ axis if is_readable else torch.stack([z[:, i] * x for i, x in enumerate(numbers)]).sum(0)
        return square(z) - 1.1 * 100**power * torch.relu(along - 0.99 * z.norm(dim=1)) ** power

    finding = judged(positive(value), Ball(origin(64), 1.0), seed)
    assert finding.verdict is Verdict.REFUTED
    assert finding.witness is not None
    witness = torch.tensor(finding.witness["state"], dtype=torch.float64)
    assert float(witness @ axis) > 0.99 * float(witness.norm())


@pytest.mark.parametrize("seed", range(3))
def test_a_cone_in_which_trajectories_climb(seed: int) -> None:
    axis = functional.normalize(torch.randn(64, generator=generator(seed), dtype=torch.float64), dim=0).tolist()

    def violation(z: Tensor) -> Violation:
        along, length = torch.stack([z[:, i] * x for i, x in enumerate(axis)]).sum(0), z.norm(dim=1)
        pushed = 110 * torch.relu(along - 0.99 * length) / length
        return claims.decay(2 * z, z * (pushed - 1)[:, None], torch.zeros_like(z[:, 0]), 0.0)

    assert judged(violation, Ball(origin(64), 1.0), seed).verdict is Verdict.REFUTED


@pytest.mark.parametrize("seed", range(3))
def test_one_bad_unit_of_a_network(seed: int) -> None:
    torch.manual_seed(seed)
    inner, outer = nn.Linear(16, 32).double(), nn.Linear(32, 1, bias=False).double()
    with torch.no_grad():
        inner.weight[3] = functional.normalize(torch.randn(16, dtype=torch.float64), dim=0)
        inner.bias[3] = -0.95
        outer.weight.abs_()
        outer.weight[0, 3] = -60.0
    network = nn.Sequential(inner, nn.ReLU(inplace=True), outer).requires_grad_(False)

    def value(z: Tensor) -> Tensor:
        return square(z) + (network(z) - network(torch.zeros_like(z[:1]))).squeeze(1).clamp(max=1)

    finding = judged(positive(value), Ball(origin(16), 1.0), seed)
    assert finding.verdict is Verdict.REFUTED


@pytest.mark.parametrize("kind", ["relu", "nested"])
def test_a_pocket_makes_a_function_non_convex(kind: str) -> None:
    value = pocket(kind, pocket_centre(1).tolist(), 1.5)

    def violation(pairs: Tensor) -> Violation:
        a, b = pairs.chunk(2, 1)
        return claims.convex(value((a + b) / 2), value(a), value(b))

    assert judged(violation, Pairs(unit_box(8)), 1, strict=False).verdict is Verdict.REFUTED


@pytest.mark.parametrize("seed", range(3))
def test_one_slightly_negative_eigenvalue_among_64(seed: int) -> None:
    axes = torch.linalg.qr(torch.randn(64, 64, generator=generator(seed), dtype=torch.float64))[0]
    eigenvalues = torch.logspace(0, -3, 64, dtype=torch.float64)

    def judged_with(last: float) -> Verdict:
        eigenvalues[-1] = last
        matrix = axes @ eigenvalues.diag() @ axes.T
        return judged(positive(lambda z: ((z @ matrix) * z).sum(1)), Ball(origin(64), 1.0), seed).verdict

    assert judged_with(-1e-6) is Verdict.REFUTED
    assert judged_with(1e-6) is Verdict.SUPPORTED


def test_polishing_reaches_the_top_of_a_thin_ridge() -> None:
    steepness = torch.logspace(0, 6, 6, dtype=torch.float64)

    def violation(z: Tensor) -> Violation:
        return Violation(-(((z - 0.3) ** 2) * steepness).sum(1).add(1).log(), torch.ones(len(z), dtype=torch.float64))

    starts = torch.full((2, 6), 0.31, dtype=torch.float64)
    reach = torch.ones(2, dtype=torch.float64)
    top = polish(violation, starts, unit_box(6).project, reach=reach)
    assert float((top - 0.3).abs().max()) < 1e-6
    # Where nothing can be differentiated, no state gets worse.
    kept = polish(lambda z: violation(z.detach()), starts, unit_box(6).project, reach=reach)
    assert torch.equal(kept, starts)


def test_hessians_of_a_cubic() -> None:
    states = torch.tensor([[1.0, 2.0], [-0.5, 0.3]], dtype=torch.float64)
    found = hessians(lambda z: z[:, 0] ** 2 * z[:, 1], states, torch.full((2,), 1e-3, dtype=torch.float64))
    x, y = states.unbind(1)
    expected = torch.stack([2 * y, 2 * x, 2 * x, 0 * x], 1).view(2, 2, 2)
    torch.testing.assert_close(found, expected)


SMOOTHED: list[Value] = [
    torch.relu,
    functional.relu,
    lambda z: z.clamp(-0.5, 0.5),
    lambda z: torch.clamp(z, max=0.5),
    lambda z: z.clamp_max(0.5),
    functional.relu6,
    functional.hardtanh,
    lambda z: torch.maximum(z, -z),
    lambda z: torch.min(z, torch.zeros_like(z)),
    lambda z: torch.where(z > 0, z, 0.5 * z),
    lambda z: z * (z >= 0.1),
    lambda z: (z > 0.1).double() * z,
    torch.tanh,
    torch.sigmoid,
    lambda z: functional.softplus(z, beta=50.0),
    lambda z: z.amax(1, keepdim=True) + z.min(1, keepdim=True).values,
]


@pytest.mark.parametrize("function", SMOOTHED)
def test_smoothing_fades_with_its_width(function: Value) -> None:
    states = torch.randn(50, 3, generator=generator(), dtype=torch.float64).requires_grad_()

    def violation(z: Tensor) -> Violation:
        return Violation(function(z).sum(1), torch.ones(len(z), dtype=torch.float64))

    exact = violation(states).excess.detach()
    errors = [
        float((smoothed(violation, width)(states).excess.detach() - exact).abs().max()) for width in (1.0, 1e-2, 1e-8)
    ]
    assert errors[2] < 1e-7
    assert errors[0] >= errors[1] >= errors[2]
    # Without gradients nothing is smoothed.
    assert torch.equal(smoothed(violation, 1.0)(states.detach()).excess, exact)


def test_smoothing_gives_a_gradient_on_a_plateau() -> None:
    states = torch.tensor([[0.0, 0.0], [0.5, 0.5]], dtype=torch.float64).requires_grad_()

    def violation(z: Tensor) -> Violation:
        hidden = torch.relu(0.01 - (z - 0.9).square().sum(1)) ** 2
        return Violation(hidden, torch.ones_like(hidden))

    (gradient,) = torch.autograd.grad(smoothed(violation, 0.1)(states).excess.sum(), states)
    assert bool((gradient > 0).all())


def test_landmarks_are_constants_feet_of_kinks_and_axes() -> None:
    point = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    layer = nn.Linear(3, 2).double().requires_grad_(False)
    layer.weight.copy_(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
    layer.bias.copy_(torch.tensor([-1.0, -0.25]))

    def value(z: Tensor) -> Tensor:
        return square(z - point) + layer(z).relu().sum(1)

    found = landmarks(positive(value), unit_box(3), generator())
    expected = [point.tolist(), [0.0, 0.5, 0.0], [0.25, 0.0, 0.0], [0.0, 1.0, 0.0]]
    for state in torch.tensor(expected, dtype=torch.float64):
        assert float((found - state).norm(dim=1).min()) < 1e-12
    assert bool(unit_box(3).contains(found).all())
    pairs = landmarks(lambda pair: positive(value)((pair[:, :3] + pair[:, 3:]) / 2), Pairs(unit_box(3)), generator())
    assert float(((pairs[:, :3] + pairs[:, 3:]) / 2 - point).norm(dim=1).min()) < 0.1


def test_no_landmark_lies_where_an_offset_is_rounding() -> None:
    speck = torch.full((3,), 1e-12, dtype=torch.float64)
    found = landmarks(positive(lambda states: (states - speck).square().sum(1)), unit_box(3), generator())
    assert float(found.norm(dim=1).min()) > 1e-10


def test_a_function_that_cannot_be_traced_has_landmarks_all_the_same() -> None:
    def value(z: Tensor) -> Tensor:
        return square(z) if float(z.detach().sum()) > 0 else 2 * square(z)

    assert len(landmarks(positive(value), unit_box(3), generator()))
    by_array = landmarks(
        lambda z: positive(lambda y: torch.from_numpy(y.numpy() ** 2).sum(1))(z.detach()), unit_box(3), generator()
    )
    assert len(by_array)
