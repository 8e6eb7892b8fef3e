"""The monotone and the interval cell: one equilibrium for all weights, the equilibria themselves, gradients, and proofs."""

from dataclasses import replace
from itertools import product
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from analysis.audit import audit
from analysis.certify import certify
from stabdeq.cells import CertifiedCell, IntervalCell, MonotoneCell
from stabdeq.cells.interval import CONTRACTION
from stabdeq.cells.monotone import MONOTONICITY
from stabdeq.cells.relu import contracting_step
from stabdeq.config import AndersonConfig, ArchitectureConfig, SolverConfig
from stabdeq.config.kinds import model_config
from stabdeq.errors import ConfigError, SolverError
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, Picard, Solver, solve

DIM = 6
SHAPE = (2, 3, 3)
TIGHT = AndersonConfig(tolerance=1e-13, max_evaluations=500)
KINDS = ("mondeq", "ibp-mondeq")
CELLS = (MonotoneCell, IntervalCell)
Made = TypeVar("Made", bound=MonotoneCell | IntervalCell)


def cell(make: type[Made], scale: float = 0.5, seed: int = 0, dim: int = DIM) -> Made:
    torch.manual_seed(seed)
    made = make(dim).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return made


def model(kind: str, solver: SolverConfig = TIGHT) -> StabilisedDEQ:
    torch.manual_seed(0)
    architecture = ArchitectureConfig(state_dim=DIM, solver=solver)
    config = model_config(kind, architecture, image_shape=SHAPE, classes=4, mean=(0.4, 0.5), std=(0.3, 0.2))
    return StabilisedDEQ(config).double()


def images(count: int = 5) -> Tensor:
    return torch.rand(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def features(count: int = 7, dim: int = DIM) -> Tensor:
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def equilibria(
    made: MonotoneCell | IntervalCell, h: Tensor, start: Tensor | None = None, solver: Solver | None = None
) -> Tensor:
    start = torch.zeros_like(h) if start is None else start
    limits = {"tolerance": 1e-13, "max_evaluations": 100_000}
    return solve(made, start, solver or Picard(), context=(h,), throw=True, **limits).z


def by_patterns(weight: Tensor, q: Tensor) -> list[Tensor]:
    """Return every solution of z = relu(W z + q), (n,), by trying each of the 2^n patterns of active ReLUs."""
    found = []
    for pattern in product((0.0, 1.0), repeat=len(q)):
        slopes = torch.tensor(pattern, dtype=torch.float64)
        z = torch.linalg.solve(torch.eye(len(q), dtype=torch.float64) - slopes[:, None] * weight, slopes * q)
        if bool((((weight @ z + q) > 0) == slopes.bool()).all()):
            found.append(z)
    return found


@settings(max_examples=40)
@given(scale=st.floats(0, 3), seed=st.integers(0, 1000))
def test_the_monotone_cell_is_monotone_and_contracts_for_all_weights(scale: float, seed: int) -> None:
    made = cell(MonotoneCell, scale, seed)
    with torch.no_grad():
        gap = torch.eye(DIM) - made.weight
        size = torch.linalg.matrix_norm(gap, 2)
        assert torch.linalg.eigvalsh((gap + gap.T) / 2)[0] >= MONOTONICITY - 1e-13 * size
        step = contracting_step(gap)
        # ||T||^2 <= 1 - s m for T = I - s M. In squares, since where the weights vanish, T is of the size of 1 - s m's square root,
        # and both are roundoff: of T's entries, eps, and of s, eps times the condition of H = (M + M') / 2 (Cholesky).
        roundoff = 8 * DIM * torch.finfo(torch.float64).eps * (1 + size / MONOTONICITY)
        assert torch.linalg.matrix_norm(made.fold().transition, 2) ** 2 <= 1 - step * MONOTONICITY + roundoff
        assert step >= MONOTONICITY / size**2 * (1 - 1e-12)


def test_the_step_is_the_best_known_one_where_the_matrix_is_symmetric() -> None:
    made = cell(MonotoneCell)
    with torch.no_grad():
        made.skew.zero_()
        torch.testing.assert_close(contracting_step(made.monotone), 1 / torch.linalg.matrix_norm(made.monotone, 2))


@settings(max_examples=40)
@given(scale=st.floats(0, 1e3), seed=st.integers(0, 1000))
def test_the_interval_cell_and_its_bounds_contract_for_all_weights(scale: float, seed: int) -> None:
    made = cell(IntervalCell, scale, seed)
    with torch.no_grad():
        for folded in (made.fold(), made.bounds()):
            assert folded.transition.abs().sum(0).max() <= CONTRACTION * (1 + 1e-14)


def test_rows_that_are_small_enough_stay_as_they_are() -> None:
    made = cell(IntervalCell, 0.01)
    assert torch.equal(made.weight, made.matrix)


@settings(max_examples=15)
@given(make=st.sampled_from(CELLS), scale=st.floats(0.1, 2), seed=st.integers(0, 1000))
def test_every_start_and_solver_ends_at_the_only_equilibrium(
    make: type[MonotoneCell | IntervalCell], scale: float, seed: int
) -> None:
    made, h = cell(make, scale, seed, dim=4), 3 * features(dim=4)
    starts = 10 * torch.randn(5, *h.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = []
        for row in h:
            solutions = by_patterns(made.weight, row + made.bias)
            assert len(solutions) == 1
            expected.append(solutions[0])
        for start, solver in zip(starts, (Picard(), Picard(), Picard(), Anderson(), Anderson()), strict=True):
            torch.testing.assert_close(equilibria(made, h, start, solver), torch.stack(expected), rtol=1e-9, atol=1e-10)


def test_peaceman_rachford_finds_the_same_equilibria() -> None:
    made, h = cell(MonotoneCell), features()
    with torch.no_grad():
        resolvent = torch.linalg.inv(torch.eye(DIM) + made.monotone).T
        u = torch.zeros_like(h)
        for _ in range(300):
            reflected = 2 * u.relu() - u
            u = 2 * (reflected + h + made.bias) @ resolvent - reflected
    torch.testing.assert_close(equilibria(made, h), u.relu(), rtol=0, atol=1e-11)


def test_the_gain_of_the_monotone_cell() -> None:
    made, h = cell(MonotoneCell), features(200)
    moved = h + torch.logspace(-6, 1, 200, dtype=torch.float64)[:, None] * features(200).flip(0)
    gain = (equilibria(made, h) - equilibria(made, moved)).norm(dim=1) / (h - moved).norm(dim=1)
    assert 0.3 < gain.max() <= 1 / MONOTONICITY


@pytest.mark.parametrize("make", CELLS)
def test_the_folded_map_and_its_pull_back_are_the_cells(make: type[MonotoneCell | IntervalCell]) -> None:
    made, h = cell(make), features()
    z, u = features().flip(0), features().roll(3, 0)
    folded = made.fold()
    expected, pull_back, *_ = torch.func.vjp(lambda z: made(z, h), z)
    injected = folded.inject(h)
    torch.testing.assert_close(folded(z, injected), expected, rtol=0, atol=1e-14)
    pull, rows = folded.linearise(z, injected)
    torch.testing.assert_close(pull(u, *rows), pull_back(u)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("training", "gradient"), [(True, "implicit"), (False, "implicit"), (True, "unrolled")])
def test_gradients_are_those_of_finite_differences(kind: str, training: bool, gradient: str) -> None:
    network = model(kind, replace(TIGHT, gradient=gradient, gradient_steps=300)).train(training)
    x, labels = images(), torch.arange(5) % 4

    def loss() -> Tensor:
        return functional.cross_entropy(network(x), labels)

    loss().backward()
    torch.manual_seed(3)
    for parameter in network.parameters():
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for step in (1e-5, -1e-5):
                parameter += step * direction
                values.append(loss())
                parameter -= step * direction
        assert parameter.grad is not None
        slope = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_alone_in_training_too(kind: str) -> None:
    network, x = model(kind).train(), images()
    alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(network(x), alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("make", [MonotoneCell, CertifiedCell])
@pytest.mark.parametrize("value", [1e200, float("inf"), float("nan")])
def test_weights_that_overflow_are_told(make: type[MonotoneCell | CertifiedCell], value: float) -> None:
    made = make(DIM).double()
    with torch.no_grad():
        made.symmetric.fill_(value)
    with pytest.raises(SolverError, match="too large"):
        made(features(), features())


@pytest.mark.parametrize(("kind", "norm"), [("mondeq", "Euclidean"), ("ibp-mondeq", "maximum")])
def test_its_audit_proves_the_only_equilibrium(kind: str, norm: str) -> None:
    found = audit(model(kind), images(), torch.arange(5) % 4, checks=["equilibrium", "spectrum"]).named
    assert {name: finding.verdict for name, finding in found.items()} == dict.fromkeys(found, "PROVED")
    assert all(f"in the {norm} norm" in finding.evidence for finding in found.values())
    assert {"equilibrium.exists", "equilibrium.unique"} <= set(found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_that_was_tampered_with_is_not_taken_at_its_word(kind: str) -> None:
    network = model(kind)
    network.cell.forward = lambda z, h: torch.relu(2 * z + h - 1)  # pyrefly: ignore
    report = audit(network, images(), torch.arange(5) % 4, checks=["equilibrium"])
    assert "PROVED" not in {finding.verdict for finding in report.findings}


def test_a_network_without_an_equilibrium_is_not_certified() -> None:
    architecture = ArchitectureConfig(state_dim=DIM)
    options = {"image_shape": (3, 8, 8), "classes": 4, "mean": (0.5,) * 3, "std": (0.3,) * 3}
    network = StabilisedDEQ(model_config("resnet20", architecture, **options))  # pyrefly: ignore
    with pytest.raises(ConfigError, match="this network has none"):
        certify(network, torch.rand(2, 3, 8, 8), torch.arange(2))
