"""What holds of a cell by its make is proved without a solver, and its balls without a matrix of their own."""

from dataclasses import replace

import pytest
import torch
from exact_forms import holds_exactly
from proof_cells import certified_cell, paper_cell, scalar_cell, states

from analysis.measure.subject import prepare, solve_accurately
from analysis.proofs.cells import affine_ball, decay, gain, l2_radii, rate_descent
from analysis.proofs.cells.affine_ball import find_affine_balls
from analysis.proofs.cells.decay import Decay, Shortfall, find_contraction, find_decay, proves_decay
from analysis.proofs.cells.gain import Gain, find_gain, find_row_gains, proves_gain, smallest_gain
from analysis.proofs.cells.network import ReluNetwork, forms_of, of_certified_cell, of_paper_cell
from analysis.proofs.cells.rate_descent import descended, smallest_theta
from analysis.proofs.matrices.enclosure import Enclosure
from stabdeq.cells import CertifiedCell, IntervalCell, MonotoneCell, certified
from stabdeq.config import ModelConfig
from stabdeq.linear_algebra import spectral_norm, symmetric_eigenvalues
from stabdeq.model import StabilisedDEQ


@pytest.fixture
def no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a solver, or patterns of slopes, were asked")

    for name in ("_propose", "_limit"):
        monkeypatch.setattr(decay, name, refuse)
    monkeypatch.setattr(gain, "_solve_gain", refuse)


def euclidean(network: ReluNetwork) -> tuple[torch.Tensor, torch.Tensor]:
    n = len(network.shift.centre)
    return torch.eye(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)


# Rates.


@pytest.mark.usefixtures("no_solver")
@pytest.mark.parametrize("make", [CertifiedCell, MonotoneCell, IntervalCell])
def test_what_a_cell_is_made_for_is_proved_without_a_solver(make: type) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        cell = make(5).double()
    network, equation, start = forms_of(cell)
    contraction = find_contraction(network, start)
    assert isinstance(contraction, Decay)
    assert holds_exactly(network, contraction, "map")
    assert contraction.rate <= float(spectral_norm(network.state.centre)) * (1 + 1e-6)
    found = find_decay(network.flow(), contraction, start)
    assert isinstance(found, Decay)
    assert holds_exactly(network.flow(), found, "flow")
    one = torch.eye(5, dtype=torch.float64)
    assert found.rate >= (1 - float(spectral_norm(one + network.state.centre)) ** 2 / 4) * (1 - 1e-5)
    assert find_gain(equation, equation.output, equation.injection, start) is not None


@pytest.mark.usefixtures("no_solver")
def test_a_cell_that_contracts_in_the_maximum_norm_alone_is_proved_by_its_dominating_multiplier() -> None:
    """Every state reads the same one, by 1/2: in the Euclidean norm the map does not contract."""
    cell = IntervalCell(9).double()
    with torch.no_grad():
        cell.matrix.zero_()
        cell.matrix[:, 0] = 0.5
    network, _, start = forms_of(cell)
    assert float(spectral_norm(network.state.centre)) == pytest.approx(1.5)
    contraction = find_contraction(network, start)
    assert isinstance(contraction, Decay)
    assert holds_exactly(network, contraction, "map")
    assert isinstance(find_decay(network.flow(), contraction, start), Decay)


def test_a_contraction_proves_its_decay() -> None:
    network, _ = of_certified_cell(certified_cell(3, 0))
    contraction = find_contraction(network)
    assert isinstance(contraction, Decay)
    theta = smallest_theta(network.flow(), contraction.norm, contraction.multiplier / contraction.rate, "flow")
    assert theta <= -2 * (1 - contraction.rate) * (1 - 1e-6)


@pytest.mark.parametrize("kind", ["flow", "map"])
def test_the_descent_comes_close_to_what_a_solver_finds(kind: decay.Kind) -> None:
    network, _ = of_certified_cell(certified_cell(6, 2))
    network = network.flow() if kind == "flow" else network
    start = euclidean(network)
    before = smallest_theta(network, *start, kind)
    after = smallest_theta(network, *descended(network, *start, kind), kind)
    solved = decay._search(network, kind, before, start)
    assert isinstance(solved, Decay)
    best = -2 * solved.rate if kind == "flow" else solved.rate**2
    assert after < before
    assert before - after >= 0.9 * (before - best)


def test_a_descent_keeps_a_start_that_proves_nothing() -> None:
    network = scalar_cell(1.5)
    norm, multiplier = euclidean(network)
    kept = descended(
        network, norm, 0.1 * multiplier, "map"
    )  # 2 L < P: outside of the feasible set, and no step leads back
    assert torch.equal(kept[0], norm)
    assert torch.equal(kept[1], 0.1 * multiplier)
    assert isinstance(find_contraction(network), Shortfall)


# Balls.


@pytest.mark.parametrize("make", ["certified", "paper"])
def test_balls_by_a_global_decay_are_those_by_matrices_of_their_own(make: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folded = certified_cell(5, 3) if make == "certified" else paper_cell(5, 3, 0.8)
    network = (of_certified_cell if make == "certified" else of_paper_cell)(folded)[0]  # pyrefly: ignore
    found = find_decay(network.flow())
    assert isinstance(found, Decay)
    h = states(40, 5, 1)
    injected = folded.inject(h)
    z = solve_accurately(lambda z: folded(z, injected), torch.zeros_like(h)).z
    own = find_affine_balls(network, z, h)
    monkeypatch.setattr(affine_ball, "eigenvalues", None)  # no image is asked for any
    monkeypatch.setattr(affine_ball, "solved_lyapunov", None)
    balls = find_affine_balls(network, z, h, found)
    assert balls.abscissa is None
    assert own.abscissa is not None
    assert bool((balls.error < 1e-9).all())
    torch.testing.assert_close(balls.radius, own.radius, rtol=0, atol=1e-9)
    assert balls.rate.tolist() == [found.rate] * 40
    assert bool((own.abscissa <= -found.rate).all())
    values = symmetric_eigenvalues(found.norm)
    torch.testing.assert_close(balls.attraction, balls.radius * (values[0] / values[-1]).sqrt(), rtol=1e-4, atol=0)


def test_the_error_of_a_state_is_bounded_by_a_global_decay() -> None:
    network = scalar_cell(0.5)  # at h = 1 the equilibrium is 2; by slopes 0 and 1/2, f(z) - z falls by 1/2 at least
    found = find_decay(network.flow())
    assert isinstance(found, Decay)
    z = torch.tensor([[2.0], [2.1], [-1.0], [-1e9]], dtype=torch.float64)
    balls = find_affine_balls(network, z, torch.ones(4, 1, dtype=torch.float64), found)
    assert bool((balls.error >= (z[:, 0] - 2).abs()).all())
    assert balls.error[1] == pytest.approx(0.1, rel=0.05)
    assert balls.radius[:2].tolist() == pytest.approx([4, 4], rel=0.01)
    assert balls.radius[3] == 0
    assert balls.rate[3] == -torch.inf
    assert balls.attraction[3] == 0


# Gains.


def test_gains_of_rows_are_as_small_as_by_a_slow_descent() -> None:
    folded = certified_cell(6, 1)
    _, equation = of_certified_cell(folded)
    rows, injection = states(4, 6, 0), Enclosure.exact(states(6, 9, 1))
    values, _ = find_row_gains(equation, Enclosure.exact(rows), injection, folded.scale)
    for row, value in zip(rows, values, strict=True):
        exponent = (folded.scale * 2).log().requires_grad_()
        optimiser = torch.optim.Adam([exponent], lr=0.02)
        best = torch.inf
        for _ in range(1500):
            slow = smallest_gain(equation, row[None], injection.centre, exponent.exp())
            if not bool(slow < torch.inf):
                with torch.no_grad():
                    exponent += 0.1  # in the direction of more room
                continue
            best = min(best, float(slow.detach()))
            optimiser.zero_grad()
            slow.log().backward()
            optimiser.step()
        assert float(value) <= best * (1 + 2e-3)


def test_a_multiplier_is_scaled_to_its_smallest_gain_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = certified_cell(6, 1)
    _, equation = of_certified_cell(folded)
    arguments = equation, equation.output.centre, equation.injection.centre
    asked = []

    def counted(*given: torch.Tensor) -> torch.Tensor:
        asked.append(given)
        return smallest_gain(*given)  # pyrefly: ignore

    monkeypatch.setattr(gain, "smallest_gain", counted)
    for size in (1e-2, 1.0, 1e2):
        asked.clear()
        rescaled = gain._rescaled(*arguments, size * folded.scale)
        assert len(asked) <= 25
        sizes = torch.logspace(-0.5, 0.5, 401, dtype=torch.float64)
        least = min(float(smallest_gain(*arguments, one * rescaled)) for one in sizes)
        assert float(smallest_gain(*arguments, rescaled)) <= least * (1 + 1e-5)


def test_the_gain_from_features_is_that_from_everywhere_where_each_relu_reads_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folded = certified_cell(6, 1)
    _, equation = of_certified_cell(folded)
    found = find_gain(equation, equation.output, equation.injection, folded.scale)
    assert found is not None
    other = replace(equation, injection=Enclosure.exact(2 * equation.injection.centre))
    searched = l2_radii._gain_everywhere(other, Gain(2 * found.value, found.multiplier))
    assert searched is not None
    assert searched.value == pytest.approx(found.value, rel=1e-3)
    monkeypatch.setattr(l2_radii, "find_gain", None)  # it is not searched for again
    assert l2_radii._gain_everywhere(equation, found) is found


@pytest.mark.parametrize("kind", ["flow", "map"])
def test_what_needs_no_product_is_the_product(kind: decay.Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = of_certified_cell(certified_cell(5, 2))
    network = network.flow() if kind == "flow" else network
    root = states(5, 5, 3)
    at = root @ root.mT + torch.eye(5, dtype=torch.float64), 20 + states(1, 5, 4)[0].abs()
    spared = smallest_theta(network, *at, kind)
    monkeypatch.setattr(rate_descent, "_product", torch.matmul)
    assert spared < torch.inf
    assert spared == pytest.approx(smallest_theta(network, *at, kind), rel=1e-12)


def test_one_output_has_at_most_its_length_times_the_gain_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the search for a multiplier of its own comes to nothing."""
    folded = certified_cell(6, 1)
    _, equation = of_certified_cell(folded)
    found = find_gain(equation, equation.output, equation.injection, folded.scale)
    assert found is not None
    rows = states(8, 6, 0) * torch.logspace(-2, 2, 8, dtype=torch.float64)[:, None]
    monkeypatch.setattr(gain.gain_descent, "descended", lambda *given: given[-1])
    monkeypatch.setattr(gain.gain_descent, "balanced", lambda *given: given[-1].expand(len(given[1]), -1))
    values, _ = find_row_gains(equation, Enclosure.exact(rows), equation.injection, found.multiplier)
    assert bool((values <= rows.norm(dim=1) * found.value * (1 + 2e-6)).all())


def test_many_outputs_are_proved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = certified_cell(6, 1)
    _, equation = of_certified_cell(folded)
    arguments = equation, Enclosure.exact(states(7, 6, 0))[:, None, :], equation.injection, folded.scale.expand(7, -1)
    values, multipliers = gain._find_gains(*arguments)
    assert bool(proves_gain(equation, arguments[1], equation.injection, multipliers, values).all())
    monkeypatch.setattr(gain, "ENTRIES", 100)
    again, _ = gain._find_gains(*arguments)
    torch.testing.assert_close(again, values, rtol=1e-6, atol=0)


def test_outputs_that_nothing_moves_have_the_gain_nothing() -> None:
    folded = certified_cell(6, 1)
    _, equation = of_certified_cell(folded)
    none = Enclosure.exact(torch.zeros(6, 3, dtype=torch.float64))
    found = find_gain(equation, equation.output, none, folded.scale)
    assert found is not None
    assert found.value < 1e-9


def test_weights_that_are_not_numbers_prove_nothing() -> None:
    network, equation = of_certified_cell(certified_cell(3, 0))
    broken = replace(network, state=Enclosure.exact(network.state.centre * torch.nan))
    assert isinstance(find_contraction(broken), Shortfall)
    assert isinstance(find_decay(broken.flow()), Shortfall)
    wrong = replace(equation, weight=Enclosure.exact(equation.weight.centre * torch.nan))
    assert find_gain(wrong, wrong.output, wrong.injection, torch.ones(3, dtype=torch.float64)) is None
    assert not proves_decay(broken.flow(), *euclidean(broken), 0.1)


@pytest.mark.parametrize("seed", range(3))
def test_the_gain_of_a_certified_cell_is_below_1_in_many_dimensions(seed: int) -> None:
    """What (1 + margin) (I + L^2) leaves of it: so many directions have the largest gain that no descent finds them all."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cell = CertifiedCell(40).double()
        with torch.no_grad():
            cell.log_multiplier.normal_(0, 0.3)
            cell.symmetric[30:] = 0
    _, equation, start = forms_of(cell)
    found = find_gain(equation, equation.output, equation.injection, start)
    assert found is not None
    assert found.value < 0.9998


def test_the_matrix_of_a_cell_is_not_computed_at_every_step_of_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(image_shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.4,), state_dim=6, cell="certified")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config).double()
    images = states(4, 64, 0).abs().clamp(max=1).reshape(4, 1, 8, 8)
    calls = []
    step = certified.forward_backward

    def counted(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(arguments)
        return step(*arguments)

    monkeypatch.setattr(certified, "forward_backward", counted)
    subject = prepare(model, images, torch.zeros(4).long())
    assert len(calls) <= 4
    assert bool(subject.solution.converged.all())
    assert float((model.cell(subject.solution.z, subject.h) - subject.solution.z).abs().max()) < 1e-9
