"""Certificates: each is checked anew in exact rational arithmetic, and whatever is not so is refused."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from analysis.measure.subject import solve_accurately
from analysis.proofs.cells import cheap_tests
from analysis.proofs.cells.affine_ball import activations, find_affine_balls
from analysis.proofs.cells.decay import Decay, Shortfall, find_contraction, find_decay, proves_contraction, proves_decay
from analysis.proofs.cells.gain import Gain, find_gain, find_row_gains, proves_gain, slope_abscissa, smallest_gain
from analysis.proofs.cells.l2_radii import affine_ends, certified_radii
from analysis.proofs.cells.network import Equation, ReluNetwork, of_certified_cell, of_paper_cell
from analysis.proofs.cells.quadratic import NotPiecewiseAffineError, Quadratic, find_quadratic, read_network
from analysis.proofs.matrices.definiteness import proves_positive_definite
from analysis.proofs.matrices.enclosure import Enclosure, identity, spectral_norm_bound
from analysis.proofs.tracing import TraceError
from stabdeq.attacks import PGD
from stabdeq.cells import CertifiedCell
from stabdeq.cells.batchnorm import FoldedCell
from stabdeq.cells.relu import FoldedCertifiedCell
from stabdeq.config import DataConfig, ModelConfig, SolverConfig
from stabdeq.data import load_data, to_unit
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

Exact = list[list[Fraction]]


# An independent judge: everything in fractions.


def exact(matrix: Tensor) -> Exact:
    return [[Fraction(entry) for entry in row] for row in matrix.tolist()]


def product(a: Exact, b: Exact) -> Exact:
    return [
        [sum((x * y for x, y in zip(row, column, strict=True)), Fraction()) for column in zip(*b, strict=True)]
        for row in a
    ]


def combine(a: Exact, b: Exact, factor: Fraction | int = 1) -> Exact:
    return [[x + factor * y for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def transpose(a: Exact) -> Exact:
    return [list(column) for column in zip(*a, strict=True)]


def scaled(a: Exact, factor: Fraction) -> Exact:
    return [[factor * entry for entry in row] for row in a]


def joined(a: Exact, b: Exact, c: Exact, d: Exact) -> Exact:
    return [x + y for x, y in zip(a, b, strict=True)] + [x + y for x, y in zip(c, d, strict=True)]


def is_definite(matrix: Exact) -> bool:
    """Whether a symmetric matrix is positive definite, by the pivots of its LDL' factorisation."""
    rest = matrix
    while rest:
        if rest[0][0] <= 0:
            return False
        rest = [
            [rest[i][j] - rest[i][0] * rest[0][j] / rest[0][0] for j in range(1, len(rest))]
            for i in range(1, len(rest))
        ]
    return True


def of_forms(network: ReluNetwork) -> tuple[Exact, Exact, Exact, Exact]:
    """A, B, D, N: the centres, which are exact here (sums with 0 and products with 1), whatever error their radii allow for."""
    parts = (network.skip, network.state, network.output, network.hidden)
    assert all(float(part.radius.sum()) < 1e-13 for part in parts)
    A, B, D, N = (exact(part.centre) for part in parts)
    return A, B, D, N


def holds_exactly(network: ReluNetwork, proof: Decay, kind: str) -> bool:
    A, B, D, N = of_forms(network)
    P, L, rate = exact(proof.norm), exact(torch.diag(proof.multiplier)), Fraction(proof.rate)
    if not L:  # no activations
        PA = product(P, A)
        return is_definite(P) and is_definite(combine(combine(scaled(P, -2 * rate), PA, -1), transpose(PA), -1))
    LN = product(L, N)
    corner = combine(combine(scaled(L, Fraction(2)), LN, -1), transpose(LN), -1)
    if kind == "flow":
        PA = product(P, A)
        first = combine(combine(scaled(P, -2 * rate), PA, -1), transpose(PA), -1)
        mixed = scaled(combine(product(P, D), product(transpose(B), L)), Fraction(-1))
    else:
        AP = product(transpose(A), P)
        first = combine(scaled(P, rate * rate), product(AP, A), -1)
        mixed = scaled(combine(product(AP, D), product(transpose(B), L)), Fraction(-1))
        corner = combine(corner, product(product(transpose(D), P), D), -1)
    return is_definite(P) and is_definite(joined(first, mixed, transpose(mixed), corner))


def gain_holds_exactly(weight: Exact, output: Exact, injection: Exact, proof: Gain) -> bool:
    L = exact(torch.diag(proof.multiplier))
    LM, LU = product(L, weight), product(L, injection)
    S = combine(combine(scaled(L, Fraction(2)), LM, -1), transpose(LM), -1)
    room = combine(S, product(transpose(output), output), -1)
    columns = len(injection[0])
    square = [[Fraction(proof.value) ** 2 * (i == j) for j in range(columns)] for i in range(columns)]
    return is_definite(joined(room, scaled(LU, Fraction(-1)), scaled(transpose(LU), Fraction(-1)), square))


# What is certified.


def certified_cell(n: int, seed: int) -> FoldedCertifiedCell:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cell = CertifiedCell(n).double()
        with torch.no_grad():
            cell.log_multiplier.normal_(0, 0.3)
            cell.bias.normal_()
    return cell.fold()


def paper_cell(n: int, seed: int, size: float) -> FoldedCell:
    """A cell of the paper's form whose norms are about ``size`` each."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return FoldedCell(
        size / 2 / n**0.5 * draw(n, n), draw(n), size / 2 / n**0.5 * draw(n, n), draw(n), draw(n), draw(n)
    )


def scalar_cell(weight: float) -> ReluNetwork:
    """f(z, h) = relu(weight z + h)."""
    one = torch.ones(1, dtype=torch.float64)
    return of_certified_cell(FoldedCertifiedCell(weight * one[None], one, 0 * one))[0]


def states(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Definiteness.


@given(n=st.integers(1, 6), rank=st.integers(1, 6), shift=st.integers(-3, 3), seed=st.integers(0, 10**6))
def test_definiteness_agrees_with_exact_pivots(n: int, rank: int, shift: int, seed: int) -> None:
    """B'B of integers, singular where ``rank`` < n, moved by a few units of roundoff."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randint(-9, 10, (rank, n), generator=generator).double()
    gram = factor.mT @ factor
    matrix = gram + shift * torch.finfo(torch.float64).eps * float(gram.diagonal().sum()) * torch.eye(n).double()
    proved = bool(proves_positive_definite(matrix))
    assert not proved or is_definite(exact(matrix))
    away = gram + torch.eye(n)
    assert bool(proves_positive_definite(away))


def test_definiteness_refuses_what_is_indefinite_or_within_its_error_of_it() -> None:
    matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    assert proves_positive_definite(matrix)
    assert proves_positive_definite(matrix, 0.2)
    assert not proves_positive_definite(matrix, 0.6)
    assert not proves_positive_definite(matrix - 3 * torch.eye(2))
    assert not proves_positive_definite(matrix - torch.eye(2))
    assert proves_positive_definite(torch.stack([matrix, -matrix])).tolist() == [True, False]
    with pytest.raises(ValueError, match="transposes"):
        proves_positive_definite(torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64))


def test_what_overflowed_is_not_definite() -> None:
    huge = identity(2) * 1e200 * 1e200
    assert not bool(huge.is_positive_definite())


# Enclosures.


def encloses(enclosure: Enclosure, values: Exact) -> bool:
    centre, radius = exact(enclosure.centre), exact(enclosure.radius)
    return all(
        abs(value - middle) <= reach
        for rows in zip(values, centre, radius, strict=True)
        for value, middle, reach in zip(*rows, strict=True)
    )


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 5),
    magnitude=st.integers(-40, 40),
    spread=st.sampled_from([0.0, 1e-9, 0.3]),
)
def test_enclosures_hold_the_exact_results(seed: int, n: int, magnitude: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> tuple[Enclosure, Exact]:
        centre = torch.randn(n, n, generator=generator, dtype=torch.float64) * 2.0**magnitude
        radius = spread * centre.abs()
        sign = torch.randint(-1, 2, (n, n), generator=generator)
        member = [
            [Fraction(c) + int(s) * Fraction(r) for c, r, s in zip(*rows, strict=True)]
            for rows in zip(centre.tolist(), radius.tolist(), sign.tolist(), strict=True)
        ]
        return Enclosure(centre, radius), member

    (a, exact_a), (b, exact_b), (c, exact_c) = draw(), draw(), draw()
    assert encloses(a @ b + c, combine(product(exact_a, exact_b), exact_c))
    assert encloses(a - b.mT, combine(exact_a, transpose(exact_b), -1))
    entries = [[x * y for x, y in zip(*rows, strict=True)] for rows in zip(exact_a, exact_b, strict=True)]
    assert encloses(a * b, entries)
    assert encloses(a * 0.1, scaled(exact_a, Fraction(0.1)))
    assert encloses((a @ b) @ c, product(product(exact_a, exact_b), exact_c))
    known = Enclosure.exact(b.centre)
    assert encloses(known.reciprocal(), [[1 / Fraction(x) for x in row] for row in b.centre.tolist()])
    squares = sum((x * x for row in exact_a for x in row), Fraction())
    whole = Enclosure(a.centre.flatten(), a.radius.flatten())
    assert squares <= Fraction(float(whole.norm())) ** 2


def test_a_quotient_of_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="without error"):
        (identity(1) * 0.1).reciprocal()


@given(seed=st.integers(0, 1000), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_the_norm_bound_is_proved_and_tight(seed: int, rows: int, columns: int) -> None:
    matrix = states(rows, columns, seed)
    bound = spectral_norm_bound(Enclosure.exact(matrix))
    square = [[Fraction(bound) ** 2 * (i == j) for j in range(columns)] for i in range(columns)]
    assert is_definite(combine(square, product(transpose(exact(matrix)), exact(matrix)), -1))
    assert bound <= float(torch.linalg.matrix_norm(matrix, 2)) * (1 + 1e-5)
    assert spectral_norm_bound(Enclosure.exact(0 * matrix)) < 1e-9


# Decay and contraction.


@pytest.mark.parametrize("weight", [0.9, 0.5, -0.5])
def test_rates_of_a_scalar_cell(weight: float) -> None:
    """The slope of the ReLU is anything from 0 to 1: f contracts by |weight|, and decays at 1 - max(0, weight)."""
    network = scalar_cell(weight)
    contraction, decay = find_contraction(network), find_decay(network.flow())
    assert isinstance(contraction, Decay)
    assert isinstance(decay, Decay)
    assert abs(weight) <= contraction.rate <= abs(weight) + 0.02
    assert 1 - max(0.0, weight) - 0.02 <= decay.rate <= 1 - max(0.0, weight)
    assert holds_exactly(network, contraction, "map")
    assert holds_exactly(network.flow(), decay, "flow")


def test_a_stable_flow_whose_map_does_not_contract() -> None:
    network = scalar_cell(-3.0)  # z = relu(4 - 3z): Picard's iteration has a cycle, the flow is stable
    assert isinstance(find_decay(network.flow()), Decay)
    shortfall = find_contraction(network)
    assert isinstance(shortfall, Shortfall)
    assert shortfall.is_hopeless
    assert shortfall.limit == pytest.approx(3)


def test_what_expands_is_not_proved_and_said_to_be_hopeless() -> None:
    shortfall = find_decay(scalar_cell(1.5).flow())
    assert isinstance(shortfall, Shortfall)
    assert shortfall.is_hopeless
    assert shortfall.limit == pytest.approx(-0.5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", ["certified", "paper"])
def test_decay_and_contraction_hold_exactly_and_wrong_ones_are_refused(make: str, seed: int) -> None:
    network = (
        of_certified_cell(certified_cell(3, seed))[0]
        if make == "certified"
        else of_paper_cell(paper_cell(3, seed, 0.8))[0]
    )
    for kind, system, found, proves in (
        ("flow", network.flow(), find_decay(network.flow()), proves_decay),
        ("map", network, find_contraction(network), proves_contraction),
    ):
        assert isinstance(found, Decay)
        assert holds_exactly(system, found, kind)
        assert proves(system, found.norm, found.multiplier, found.rate)
        better = found.rate + 0.5 if kind == "flow" else 0.5 * found.rate
        assert not proves(system, found.norm, found.multiplier, better)
        assert not proves(system, -found.norm, found.multiplier, found.rate)
        assert not proves(system, found.norm, -found.multiplier, found.rate)
        assert not proves(system, found.norm, 0 * found.multiplier, found.rate)
        lopsided = found.norm + torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0.0]])
        assert not proves(system, lopsided, found.multiplier, found.rate)


@pytest.mark.parametrize("seed", range(2))
def test_trajectories_obey_the_rate(seed: int) -> None:
    cell = paper_cell(4, seed, 0.8)
    network, _ = of_paper_cell(cell)
    decay, contraction = find_decay(network.flow()), find_contraction(network)
    assert isinstance(decay, Decay)
    assert isinstance(contraction, Decay)
    first, second, h = 3 * states(200, 4, seed), 3 * states(200, 4, seed + 7), states(200, 4, seed + 11)
    injected = cell.inject(h)
    difference, moved = first - second, cell(first, injected) - cell(second, injected)

    def squared(x: Tensor, proof: Decay) -> Tensor:
        return ((x @ proof.norm) * x).sum(1)

    slope = 2 * ((difference @ decay.norm) * (moved - difference)).sum(1)
    assert bool((slope <= -2 * decay.rate * squared(difference, decay) + 1e-12).all())
    shrunk = squared(moved, contraction) - contraction.rate**2 * squared(difference, contraction)
    assert bool((shrunk <= 1e-12).all())


def test_a_contraction_proves_a_decay_where_the_solver_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.proofs.cells.decay._propose", lambda *arguments: None)
    network, _ = of_certified_cell(certified_cell(3, 0))
    contraction = find_contraction(network)
    assert isinstance(contraction, Decay)
    assert contraction.rate == pytest.approx(float(torch.linalg.matrix_norm(network.state.centre, 2)), rel=1e-4)
    decay = find_decay(network.flow(), contraction)
    assert isinstance(decay, Decay)
    assert decay.rate >= (1 - contraction.rate) * (1 - 1e-4)
    assert holds_exactly(network.flow(), decay, "flow")
    assert isinstance(find_decay(network.flow()), Shortfall)


# Gains.


@pytest.mark.parametrize("weight", [0.9, 0.5, 0.0, -2.0])
def test_the_gain_of_a_scalar_equation(weight: float) -> None:
    """z = relu(w z + h) has the slope 1 / (1 - w) where it is positive, and 0 elsewhere."""
    network = scalar_cell(weight)
    equation = Equation(network.state, network.injection, network.bias, network.output, network.shift)
    for start in (None, torch.ones(1, dtype=torch.float64)):
        found = find_gain(equation, equation.output, equation.injection, start)
        assert found is not None
        assert found.value == pytest.approx(1 / (1 - weight), rel=1e-2)
        assert found.value >= 1 / (1 - weight)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", ["certified", "paper"])
def test_gains_hold_exactly_and_wrong_multipliers_are_refused(make: str, seed: int) -> None:
    """The certified cell's W is rounded, so that the exact matrix is built from the fractions that it stands for."""
    if make == "certified":
        folded = certified_cell(3, seed)
        _, equation = of_certified_cell(folded)
        start: Tensor | None = folded.scale
        one = exact(torch.eye(3))
        inverse = [[(i == j) / Fraction(float(s)) for j in range(3)] for i, s in enumerate(folded.scale)]
        weight = combine(one, product(inverse, combine(one, exact(folded.transition.mT), -1)), -1)
    else:
        folded = paper_cell(3, seed, 0.8)
        network, equation = of_paper_cell(folded)
        start = None
        _, B, D, N = of_forms(network)
        weight = combine(N, product(B, D))
    assert encloses(equation.weight, weight)
    found = find_gain(equation, equation.output, equation.injection, start)
    assert found is not None
    output, injection = (exact(part.centre) for part in (equation.output, equation.injection))
    assert gain_holds_exactly(weight, output, injection, found)

    def proved(multiplier: Tensor, value: float) -> bool:
        return bool(
            proves_gain(
                equation, equation.output, equation.injection, multiplier, torch.tensor(value, dtype=torch.float64)
            )
        )

    least = float(smallest_gain(equation, equation.output.centre, equation.injection.centre, found.multiplier))
    assert proved(found.multiplier, found.value)
    assert not proved(found.multiplier, least * (1 - 1e-9))
    assert not proved(-found.multiplier, found.value)
    assert not proved(1e-3 * found.multiplier, found.value)
    assert not proved(found.multiplier, -found.value)
    wrong = found.multiplier.clone()
    wrong[0] = 0
    assert not proved(wrong, found.value)


@pytest.mark.parametrize("seed", range(2))
def test_equilibria_obey_the_gains(seed: int) -> None:
    folded = certified_cell(6, seed)
    _, equation = of_certified_cell(folded)
    whole = find_gain(equation, equation.output, equation.injection, folded.scale)
    rows = states(4, 6, seed)
    each = find_row_gains(equation, Enclosure.exact(rows), equation.injection, folded.scale)
    assert whole is not None
    assert whole.value < 1.01  # what the cell is made for
    assert bool((each <= rows.norm(dim=1) * whole.value * (1 + 1e-3)).all())
    h = states(400, 6, seed + 1)
    near = h + torch.logspace(-3, 1, 400, dtype=torch.float64)[:, None] * states(400, 6, seed + 2)

    def settle(h: Tensor) -> Tensor:
        injected = folded.inject(h)
        return solve_accurately(lambda z: folded(z, injected), torch.zeros_like(h)).z

    moved, step = settle(near) - settle(h), (near - h).norm(dim=1)
    assert bool((moved.norm(dim=1) <= whole.value * step + 1e-8).all())
    assert bool(((moved @ rows.mT).abs() <= each * step[:, None] + 1e-8).all())


def test_an_equation_with_several_solutions_gets_no_gain() -> None:
    network = scalar_cell(1.5)
    equation = Equation(network.state, network.injection, network.bias, network.output, network.shift)
    assert slope_abscissa(equation) == pytest.approx(1.5)
    assert find_gain(equation, equation.output, equation.injection) is None
    assert find_gain(equation, equation.output, equation.injection, torch.ones(1, dtype=torch.float64)) is None


# Tests without a solver.


def test_norm_and_perron_frobenius_tests() -> None:
    for seed in range(5):
        cell = paper_cell(4, seed, 0.7)
        network, equation = of_paper_cell(cell)
        norms = [float(torch.linalg.matrix_norm(part, 2)) for part in (cell.inner, cell.outer, torch.diag(cell.scale))]
        assert cheap_tests.norm_product(network) == pytest.approx(norms[0] * norms[1] * norms[2], rel=1e-6)
        radius, kappa = cheap_tests.spectral_radius(equation), cheap_tests.perron_frobenius(equation)
        stacked = cell.scale.abs()[:, None] * (cell.outer.mT.abs() @ cell.inner.mT.abs())
        assert radius**2 == pytest.approx(float(torch.linalg.eigvals(stacked).abs().max()))
        assert kappa == torch.inf if radius >= 1 else radius * (1 - 1e-9) <= kappa < 1
        product_ = cheap_tests.norm_product(network)
        gain = cheap_tests.norm_gain(network)
        assert gain == pytest.approx(norms[2] / (1 - product_)) if product_ < 1 else gain == torch.inf


# Affine balls.


@pytest.mark.parametrize("make", ["certified", "paper"])
def test_the_cell_is_affine_in_the_ball_and_no_further(make: str) -> None:
    folded = certified_cell(5, 3) if make == "certified" else paper_cell(5, 3, 0.8)
    network = (of_certified_cell if make == "certified" else of_paper_cell)(folded)[0]  # pyrefly: ignore
    h = states(40, 5, 1)
    injected = folded.inject(h)
    z = solve_accurately(lambda z: folded(z, injected), torch.zeros_like(h)).z
    balls = find_affine_balls(network, z, h)
    assert bool((balls.radius > 0).all())
    assert bool((balls.error < 1e-9).all())
    assert bool((balls.rate > 0).all())
    assert bool(((balls.attraction > 0) & (balls.attraction <= balls.radius)).all())

    def signs(offset: Tensor) -> Tensor:
        return activations(network, Enclosure.exact(z + offset), Enclosure.exact(h))[0].centre > 0

    for seed in range(20):
        direction = states(40, 5, 100 + seed)
        direction /= direction.norm(dim=1, keepdim=True)
        assert torch.equal(signs(0.999 * balls.radius[:, None] * direction), signs(0 * direction))
    # The ReLU that is nearest to its kink sits on it, straight ahead.
    leaf = z.clone().requires_grad_()
    base = leaf @ network.state.centre.mT + h @ network.injection.centre.mT + network.bias.centre
    entering = base + base.relu() @ network.hidden.centre.mT if network.depth == 2 else base
    changed = torch.zeros(40, dtype=torch.bool)
    for unit in range(entering.shape[1]):
        (gradient,) = torch.autograd.grad(entering[:, unit].sum(), leaf, retain_graph=True)
        ahead = -entering[:, unit].sign()[:, None] * gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-300)
        changed |= (signs(1.001 * balls.radius[:, None] * ahead.detach()) != signs(0 * z)).any(1)
    assert bool(changed.all())


def test_a_state_that_is_no_equilibrium_gets_no_ball() -> None:
    network = scalar_cell(0.5)  # at h = 1 the equilibrium is 2
    z = torch.tensor([[2.0], [2.1], [-1.0], [-1e9]], dtype=torch.float64)
    balls = find_affine_balls(network, z, torch.ones(4, 1, dtype=torch.float64))
    assert balls.radius[0] == pytest.approx(4)  # at z = -2 the ReLU's input is 0
    assert balls.rate[0] == pytest.approx(0.45)  # the proved part of 1 - 0.5
    assert balls.error[1] == pytest.approx(0.1, rel=0.02)
    assert balls.radius[1] == pytest.approx(4.0, rel=0.01)
    assert balls.radius[2:].tolist() == [0, 0]
    assert balls.rate[2:].tolist() == [-torch.inf, -torch.inf]


def test_an_unstable_equilibrium_gets_a_ball_and_no_rate() -> None:
    balls = find_affine_balls(scalar_cell(1.5), torch.full((1, 1), 2.0).double(), -torch.ones(1, 1).double())
    assert balls.radius[0] > 0
    assert balls.abscissa[0] == pytest.approx(0.5)
    assert balls.rate[0] == -torch.inf
    assert balls.attraction[0] == 0


# Radii.


@pytest.fixture(scope="module")
def model() -> StabilisedDEQ:
    """A certified model of the digits after a few seconds of training."""
    data = load_data(DataConfig())
    config = ModelConfig(image_shape=(1, 8, 8), classes=10, mean=data.mean, std=data.std, cell="certified", state_dim=12,
                         head="orthogonal", solver=SolverConfig(tolerance=1e-6, max_evaluations=300))  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        images, labels = to_unit(data.train.images), data.train.labels
        for _ in range(3):
            for batch in torch.randperm(len(images)).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimiser.step()
    return model.double().eval().requires_grad_(False)


def certify_radii(model: StabilisedDEQ, images: Tensor, z: Tensor | None = None):
    folded = model.cell.fold()
    assert isinstance(folded, FoldedCertifiedCell)
    network, equation = of_certified_cell(folded)
    gain = find_gain(equation, equation.output, equation.injection, folded.scale)
    assert gain is not None
    if z is None:
        h = model.inject(images)
        z = solve_accurately(lambda z: model.cell(z, h), torch.zeros_like(h)).z
    with torch.no_grad():
        return certified_radii(affine_ends(model), network, equation, gain, images, z)


def test_no_attack_succeeds_within_a_certified_radius(model: StabilisedDEQ) -> None:
    test = load_data(DataConfig()).test
    images, labels = to_unit(test.images, torch.float64)[:200], test.labels[:200]
    with torch.no_grad():
        radii = certify_radii(model, images)
        assert torch.equal(radii.predicted, model(images).argmax(1))
    correct = radii.predicted == labels
    assert correct.double().mean() > 0.85
    for eps in (0.1, 0.3):
        attacked = PGD(eps=eps, norm="l2", steps=15)(model, images, labels, generator=torch.Generator().manual_seed(0))
        distance = (attacked.images - images).flatten(1).norm(dim=1)
        assert bool((distance <= eps * (1 + 1e-6)).all())
        with torch.no_grad():
            turned = model(attacked.images).argmax(1) != radii.predicted
        certain = radii.radius >= distance
        assert not bool((turned & certain).any())
        certified = (correct & (radii.radius >= eps)).double().mean()
        assert certified <= (correct & ~turned).double().mean()
        assert certified > 0.2


def test_a_solver_that_stopped_early_costs_radius_and_never_soundness(model: StabilisedDEQ) -> None:
    images = to_unit(load_data(DataConfig()).test.images, torch.float64)[:50]
    with torch.no_grad():
        good = certify_radii(model, images)
        h = model.inject(images)
        z = solve_accurately(lambda z: model.cell(z, h), torch.zeros_like(h)).z
        for size in (1e-4, 1e-2, 1.0):
            rough = z + size * states(50, 12, 0)
            poor = certify_radii(model, images, rough)
            stepped = model.cell(rough, h)
            assert bool(((stepped - z).norm(dim=1) <= poor.error + 1e-9).all())
            same = poor.predicted == good.predicted
            assert bool((poor.radius <= good.radius * (1 + 1e-6) + 1e-9)[same].all())
            assert not bool((poor.radius > 0)[~same].any())


def test_what_is_not_affine_has_no_radius() -> None:
    common = {"image_shape": (1, 8, 8), "classes": 2, "mean": (0.5,), "std": (0.5,), "state_dim": 4}
    for options, said in (({"stability": "state"}, "not affine"), ({"backbone": "resnet20"}, "Lipschitz")):
        with pytest.raises(ConfigError, match=said):
            affine_ends(StabilisedDEQ(ModelConfig(**common, **options)))  # pyrefly: ignore


def test_many_classes_share_one_multiplier(model: StabilisedDEQ, monkeypatch: pytest.MonkeyPatch) -> None:
    images = to_unit(load_data(DataConfig()).test.images, torch.float64)[:20]
    with torch.no_grad():
        each = certify_radii(model, images)
        monkeypatch.setattr("analysis.proofs.cells.l2_radii.MOST_PAIRS", 0)
        shared = certify_radii(model, images)
    assert bool((shared.radius <= each.radius * (1 + 1e-3)).all())
    assert bool((shared.radius > 0).any())


# Quadratic Lyapunov functions of dynamics.

ROTATION = torch.tensor([[-1.0, -3.0, 0.0], [3.0, -1.0, 0.0], [0.5, 0.0, -2.0]], dtype=torch.float64)


def assembled(z: Tensor) -> Tensor:
    x, y, u = z.unbind(1)
    damped = torch.stack([-x - 3 * y, 3 * x - y, 0.5 * x - 2 * u], 1)
    return damped + 0.1 * torch.relu(z - 1) - torch.cat([z[:, 1:], z[:, :1]], 1).clamp(min=0) / 10


def layered() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    return network.requires_grad_(False)


def value_of(network: ReluNetwork, z: Tensor) -> Tensor:
    none = Enclosure.exact(torch.zeros(len(z), network.injection.centre.shape[1], dtype=torch.float64))
    leaving = activations(network, Enclosure.exact(z), none)[1].centre
    return z @ network.skip.centre.mT + leaving @ network.output.centre.mT + network.shift.centre


@pytest.mark.parametrize(
    "velocity", [lambda z: z @ ROTATION.T, assembled, layered(), lambda z: z - torch.zeros_like(z) + 1]
)
def test_what_is_read_is_the_function(velocity) -> None:
    z = 3 * states(50, 3, 0)
    torch.testing.assert_close(value_of(read_network(velocity, 3), z), velocity(z), rtol=0, atol=1e-13)


def test_a_linear_system_decays_at_its_abscissa() -> None:
    found = find_quadratic(lambda z: z @ ROTATION.T, 3)
    assert isinstance(found, Quadratic)
    assert 0.98 <= found.decay.rate <= 1
    assert found.reach < 1e-12
    assert holds_exactly(read_network(lambda z: z @ ROTATION.T, 3), found.decay, "flow")
    unstable = find_quadratic(lambda z: z @ -ROTATION.T, 3)
    assert isinstance(unstable, Shortfall)
    assert unstable.is_hopeless


def test_piecewise_affine_dynamics_decay_to_an_equilibrium_in_reach() -> None:
    found = find_quadratic(assembled, 3)
    assert isinstance(found, Quadratic)
    assert found.decay.rate > 0.5
    z = torch.zeros(1, 3, dtype=torch.float64)
    for _ in range(4000):
        z = z + 0.01 * assembled(z)
    assert float(z.norm()) <= found.reach
    moved = find_quadratic(lambda z: -(z - 2), 3)
    assert isinstance(moved, Quadratic)
    assert 12**0.5 <= moved.reach < 20


@pytest.mark.parametrize(
    "velocity",
    [
        lambda z: -(z**3),
        lambda z: -z / (1 + z.abs()),
        lambda z: -z + z.mean(0),
        lambda z: -z * z,
        lambda z: z.flip(0),
        lambda z: -z + torch.arange(len(z)).double()[:, None],
        lambda z: z.clamp(min=1),
        lambda z: -z + z[:1],
        lambda z: torch.zeros_like(z),
    ],
)
def test_what_is_not_piecewise_affine_is_refused(velocity) -> None:
    with pytest.raises((NotPiecewiseAffineError, TraceError)):
        read_network(velocity, 3)


def test_a_velocity_that_leaves_pytorch_is_not_read_as_a_constant() -> None:
    def by_numpy(z: Tensor) -> Tensor:
        return -z + torch.from_numpy(0.1 * z.detach().numpy().sum(0) ** 2)

    def by_python(z: Tensor) -> Tensor:
        return -z * (1 + float(z[0, 0]))

    for velocity in (by_numpy, by_python):
        with pytest.raises(TraceError, match="otherwise than by operations on tensors"):
            read_network(velocity, 2)
