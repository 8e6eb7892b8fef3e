"""BatchNorm inside the cell: its statistics at the equilibrium, and when they change."""

from typing import Any

import pytest
import torch
from small_models import DIM, TIGHT, generator, images, model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stabdeq.cells import Cell
from stabdeq.cells.batchnorm import BatchStatistics, EquilibriumBatchNorm
from stabdeq.config import AndersonConfig, BroydenConfig, PicardConfig
from stabdeq.solvers import relative_residual

RUNNING = [
    "inner_norm.running_mean",
    "inner_norm.running_variance",
    "outer_norm.running_mean",
    "outer_norm.running_variance",
]


def running(cell: Cell) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in cell.state_dict().items() if name in RUNNING}


def test_statistics_at_the_equilibrium_are_those_of_pytorchs_batch_norm() -> None:
    """The cell of Eq. 11 from PyTorch's own layers, run once at the equilibrium: the same output and running statistics."""
    network = model(solver=TIGHT).double().train()
    cell = network.cell
    inner_norm, outer_norm = nn.BatchNorm1d(DIM).double(), nn.BatchNorm1d(DIM).double()
    for theirs, ours in ((inner_norm, cell.inner_norm), (outer_norm, cell.outer_norm)):
        theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias}, strict=False)
    for seed in range(3):
        prediction = network.predict(images(seed=seed).double())
        z, h = prediction.solution.z.detach(), prediction.h.detach()
        image = outer_norm(torch.relu(h + cell.outer(inner_norm(torch.relu(cell.inner(z))))))
        torch.testing.assert_close(image, z, rtol=0, atol=1e-9)
        for theirs, ours in ((inner_norm, cell.inner_norm), (outer_norm, cell.outer_norm)):
            torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(ours.running_variance, theirs.running_var, rtol=1e-12, atol=1e-14)


def test_evaluation_mode_normalises_as_pytorch_does() -> None:
    ours, theirs = EquilibriumBatchNorm(3, gain=0.7).eval(), nn.BatchNorm1d(3).eval()
    with torch.no_grad():
        ours.running_mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
        ours.running_variance.copy_(torch.tensor([0.1, 2.0, 1.0]))
        theirs.running_mean.copy_(ours.running_mean)
        theirs.running_var.copy_(ours.running_variance)
        theirs.weight.fill_(0.7)
    x = torch.randn(5, 3, generator=generator())
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.filterwarnings("ignore::stabdeq.solvers.implicit.InexactGradientWarning")  # of the small budgets
@pytest.mark.parametrize("config", [AndersonConfig, BroydenConfig, PicardConfig])
@pytest.mark.parametrize("budget", [1, 3, 40])
@pytest.mark.parametrize("gradients", [False, True])
def test_running_statistics_change_once_per_training_pass(config: Any, budget: int, gradients: bool) -> None:
    """However often the solver evaluates the cell, and the backward pass after it."""
    network = model(solver=config(tolerance=1e-5, max_evaluations=budget)).train()
    updates = []
    network.cell.update_running_statistics = lambda statistics: updates.append(statistics)
    before = running(network.cell)
    with torch.set_grad_enabled(gradients):
        prediction = network.predict(images())
    if gradients:
        cross_entropy(prediction.logits, torch.arange(8) % 3).backward()
    assert len(updates) == 1
    after = running(network.cell)
    assert all(torch.equal(before[name], after[name]) for name in RUNNING)
    Cell.update_running_statistics(network.cell, updates[0])
    assert not any(torch.equal(before[name], running(network.cell)[name]) for name in RUNNING)


def test_update_formula() -> None:
    """New = 0.9 old + 0.1 batch, the variance with Bessel's correction."""
    norm = EquilibriumBatchNorm(2)
    norm.update(BatchStatistics(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0]), 4))
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(norm.running_variance, torch.tensor([0.9 + 0.4, 0.9 + 0.8]))


def test_evaluation_mode_changes_nothing() -> None:
    network = model("lyadeq-anchored").eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cross_entropy(network(images()), torch.arange(8) % 3).backward()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_fixed_statistics_keep_the_equilibrium() -> None:
    network = model(solver=TIGHT).double().train()
    with torch.no_grad():
        h = network.inject(images().double())
        solution = network.solve(h)
        assert solution.converged.all()
        z = solution.z
        statistics = network.cell.statistics(z, h)
        fixed = network.cell(z, h, statistics)
        torch.testing.assert_close(fixed, network.cell(z, h), rtol=1e-12, atol=1e-12)
        assert (relative_residual(z, fixed) <= 1e-10).all()
        # With the statistics fixed samples no longer see one another.
        moved = network.cell(z, h.index_fill(0, torch.tensor([0]), 0.0), statistics)
        assert torch.equal(moved[1:], fixed[1:])
        assert not torch.equal(network.cell(z, h.index_fill(0, torch.tensor([0]), 0.0))[1:], fixed[1:])


def test_training_batches_are_solved_together() -> None:
    network = model(solver=AndersonConfig(tolerance=1e-5, max_evaluations=60)).train()
    solution = network.predict(images(16)).solution
    assert solution.converged.all()
    assert len(set(solution.evaluations.tolist())) == 1
    z, h = solution.z.detach(), network.inject(images(16)).detach()
    torch.testing.assert_close(solution.residual, relative_residual(z, network.cell(z, h)), rtol=1e-3, atol=1e-8)
