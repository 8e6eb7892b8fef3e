"""Certificates of cells: each is checked anew in exact rational arithmetic, and whatever is not so is refused."""

from fractions import Fraction

import pytest
import torch
from exact_forms import combine, exact, gain_holds_exactly, holds_exactly, of_forms, product
from proof_cells import certified_cell, encloses, paper_cell, scalar_cell, states
from torch import Tensor

from analysis.measure.subject import solve_accurately
from analysis.proofs.cells import cheap_tests
from analysis.proofs.cells.decay import Decay, Shortfall, find_contraction, find_decay, proves_contraction, proves_decay
from analysis.proofs.cells.gain import find_gain, find_row_gains, proves_gain, slope_abscissa, smallest_gain
from analysis.proofs.cells.network import Equation, of_certified_cell, of_paper_cell
from analysis.proofs.matrices.enclosure import Enclosure

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
    each, _ = find_row_gains(equation, Enclosure.exact(rows), equation.injection, folded.scale)
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
