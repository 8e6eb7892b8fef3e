"""Factorisations: of matrices that are not finite they are NaN, beside others they leave those alone, and none is called past them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import images, model
from torch import Tensor

import analysis
import stabdeq
import train
from analysis.certify import certify
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import DataConfig
from stabdeq.errors import CheckpointError, SolverError
from stabdeq.linear_algebra import (
    cholesky,
    eigenvalues,
    least_squares,
    singular_values,
    solved,
    solved_lyapunov,
    spectral_norm,
    symmetric_eigenvalues,
    symmetric_eigenvectors,
)
from stabdeq.model import StabilisedDEQ

BAD = [torch.nan, torch.inf, -torch.inf]
OF_BATCHES: dict[str, Callable[[Tensor], Tensor]] = {
    "eigenvalues": eigenvalues,
    "symmetric eigenvalues": symmetric_eigenvalues,
    "symmetric eigenvectors": lambda matrices: symmetric_eigenvectors(matrices).vectors,
    "singular values": singular_values,
    "spectral norm": spectral_norm,
    "solved": lambda matrices: solved(matrices, torch.ones(*matrices.shape[:-1], 2, dtype=torch.float64)),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def symmetric(*shape: int) -> Tensor:
    matrices = drawn(*shape, shape[-1])
    return matrices @ matrices.mT + torch.eye(shape[-1], dtype=torch.float64)


def of_torch(name: str, matrix: Tensor) -> Tensor:
    return {
        "eigenvalues": torch.linalg.eigvals,
        "symmetric eigenvalues": torch.linalg.eigvalsh,
        "symmetric eigenvectors": lambda one: torch.linalg.eigh(one).eigenvectors,
        "singular values": torch.linalg.svdvals,
        "spectral norm": lambda one: torch.linalg.matrix_norm(one, 2),
        "solved": lambda one: torch.linalg.solve(one, torch.ones(len(one), 2, dtype=torch.float64)),
    }[name](matrix)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", OF_BATCHES)
def test_what_is_not_finite_is_nan_and_its_neighbours_are_as_alone(name: str, bad: float) -> None:
    matrices = symmetric(5, 4)
    matrices[2, 1, 3] = matrices[2, 3, 1] = bad
    found = OF_BATCHES[name](matrices)
    assert bool(found[2].isnan().all())
    assert bool(OF_BATCHES[name](matrices[2]).isnan().all())
    for place in (0, 1, 3, 4):
        torch.testing.assert_close(found[place], of_torch(name, matrices[place]))
        torch.testing.assert_close(OF_BATCHES[name](matrices[place]), of_torch(name, matrices[place]))


@pytest.mark.parametrize("name", OF_BATCHES)
def test_batches_of_any_shape(name: str) -> None:
    matrices = symmetric(2, 3, 4)
    matrices[1, 2] = torch.nan
    found = OF_BATCHES[name](matrices)
    torch.testing.assert_close(found[0, 1], of_torch(name, matrices[0, 1]))
    assert bool(found[1, 2].isnan().all())
    assert len(OF_BATCHES[name](symmetric(0, 4))) == 0


@pytest.mark.parametrize("name", ["eigenvalues", "symmetric eigenvalues", "singular values", "spectral norm"])
def test_an_iteration_that_does_not_converge_is_nan_for_its_matrix_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {"eigenvalues": "eigvals", "symmetric eigenvalues": "eigvalsh", "singular values": "svdvals"}
    function = call.get(name, "matrix_norm")
    original = getattr(torch.linalg, function)

    def failing(matrices: Tensor, *rest: Any) -> Tensor:
        if bool((matrices == 7).any()):
            raise torch.linalg.LinAlgError("it does not converge")
        return original(matrices, *rest)

    matrices = symmetric(3, 4)
    expected = OF_BATCHES[name](matrices)
    matrices[1] = 7
    monkeypatch.setattr(torch.linalg, function, failing)
    found = OF_BATCHES[name](matrices)
    assert bool(found[1].isnan().all())
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert bool(OF_BATCHES[name](matrices[1]).isnan().all())


def test_cholesky_says_where_it_failed() -> None:
    matrices = symmetric(5, 3)
    matrices[1] *= -1
    matrices[2, 0, 0] = torch.nan
    matrices[3, 2, 0] = torch.inf
    factor, failed = cholesky(matrices)
    assert failed.tolist() == [False, True, True, True, False]
    assert torch.equal(factor[1:4], torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    torch.testing.assert_close(factor[0] @ factor[0].T, matrices[0])
    assert bool(cholesky(matrices[2]).failed)


def test_matrices_without_an_entry_have_their_empty_factors() -> None:
    """As the multipliers of a map without a ReLU."""
    for count in (1, 3):
        factor, failed = cholesky(torch.zeros(count, 0, 0, dtype=torch.float64))
        assert (factor.shape, failed.tolist()) == ((count, 0, 0), [False] * count)
        assert symmetric_eigenvalues(torch.zeros(count, 0, 0, dtype=torch.float64)).shape == (count, 0)
    assert cholesky(symmetric(0, 2)).failed.shape == (0,)


def test_a_singular_matrix_solves_nothing() -> None:
    right = torch.ones(2, 1, dtype=torch.float64)
    assert bool(solved(torch.ones(2, 2, dtype=torch.float64), right).isnan().all())


def test_least_squares() -> None:
    wide, right = drawn(2, 4), drawn(2, 3, seed=1)
    torch.testing.assert_close(least_squares(wide, right), torch.linalg.pinv(wide) @ right)
    torch.testing.assert_close(least_squares(torch.zeros(3, 3), torch.ones(3, 1)), torch.zeros(3, 1))
    right[0, 1] = torch.nan
    found = least_squares(wide, right)
    assert found.isnan().any(0).tolist() == [False, True, False]
    wide[1, 1] = torch.inf
    assert bool(least_squares(wide, right).isnan().all())


def test_lyapunov_equations() -> None:
    stable, right = drawn(4, 4) - 5 * torch.eye(4), -torch.eye(4, dtype=torch.float64)
    found = solved_lyapunov(stable, right)
    torch.testing.assert_close(stable @ found + found @ stable.T, right)
    for bad in (torch.full((4, 4), torch.nan).double(), torch.diag(torch.tensor([1.0, -1.0, 2.0, 3.0])).double()):
        assert bool(solved_lyapunov(bad, right).isnan().all())
    assert bool(solved_lyapunov(stable, torch.inf * right).isnan().all())


@pytest.mark.parametrize("name", ["symmetric eigenvalues", "spectral norm"])
def test_gradients_of_the_others_survive(name: str) -> None:
    matrices = symmetric(3, 4)
    matrices[1] = torch.inf
    leaf = matrices.clone().requires_grad_()
    found = OF_BATCHES[name](leaf)
    found[[0, 2]].sum().backward()
    alone = matrices[0].clone().requires_grad_()
    of_torch(name, alone).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad[0], alone.grad)
    assert torch.equal(leaf.grad[1], torch.zeros(4, 4, dtype=torch.float64))


# These are to call stabdeq.linear_algebra too; until they do, they see to it themselves that their matrices are finite.
ELSEWHERE = {
    "analysis/measure/spectrum.py",
}
ITERATIONS = (
    r"linalg\.(eig|svd|cond\b|pinv|matrix_rank|lstsq|norm\(.*, 2\)|matrix_norm\(.*, 2\))|scipy\.linalg|\bimport linalg"
)


def test_no_file_factorises_past_it() -> None:
    found = set()
    for package in (stabdeq, analysis, train):
        root = Path(package.__file__).parent  # pyrefly: ignore
        for file in root.rglob("*.py"):
            if file.name != "linear_algebra.py" and re.search(ITERATIONS, file.read_text()):
                found.add(f"{root.name}/{file.relative_to(root).as_posix()}")
    assert found <= ELSEWHERE


# Models whose weights are no numbers, or lie.


def negative_variance(network: StabilisedDEQ) -> None:
    network.cell.outer_norm.running_variance.fill_(-1)  # pyrefly: ignore


def undefined_state(network: StabilisedDEQ) -> None:
    network.cell.bias.fill_(torch.nan)  # pyrefly: ignore


def infinite_extractor(network: StabilisedDEQ) -> None:
    network.backbone[1].weight.fill_(torch.inf)  # pyrefly: ignore


def huge_cell(network: StabilisedDEQ) -> None:
    for weight in network.cell.parameters():
        weight.mul_(1e200)


def undefined_head(network: StabilisedDEQ) -> None:
    network.head.classifier.weight.fill_(torch.nan)


def no_spread(network: StabilisedDEQ) -> None:
    network.std.zero_()


@pytest.mark.parametrize(
    ("cell", "alter", "proved"),
    [
        ("batchnorm", negative_variance, set()),
        ("batchnorm", huge_cell, set()),
        ("interval", undefined_state, {"contraction", "stability", "gain", "well_posed"}),
        ("certified", infinite_extractor, {"contraction", "stability", "gain", "well_posed"}),
        ("certified", undefined_head, {"contraction", "stability", "gain", "well_posed", "affine_ball"}),
        ("interval", undefined_head, {"contraction", "stability", "gain", "well_posed", "affine_ball"}),
        ("interval", no_spread, {"contraction", "stability", "gain", "well_posed"}),
    ],
)
def test_weights_that_are_no_numbers_are_certified_of_nothing_that_reads_them(
    cell: str, alter: Callable[[StabilisedDEQ], None], proved: set[str]
) -> None:
    network = model(cell=cell).double().eval()
    with torch.no_grad():
        alter(network)
    report = certify(network, images(4), torch.zeros(4, dtype=torch.int64))
    assert {found.name for found in report.findings if found.verdict == "PROVED"} <= proved
    assert report.to_json()


def test_a_cell_whose_matrix_overflows_says_so() -> None:
    network = model(cell="certified").double().eval()
    with torch.no_grad():
        network.cell.log_multiplier.fill_(1e3)  # pyrefly: ignore
    with pytest.raises(SolverError, match="overflows or is singular"):
        certify(network, images(4), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("size", [40.0, 100.0, 200.0, 300.0])
def test_multipliers_at_the_edge_of_their_range_end_cleanly(size: float) -> None:
    network = model(cell="certified").double().eval()
    with torch.no_grad():
        network.cell.log_multiplier.copy_(torch.linspace(-size, size, 6))  # pyrefly: ignore
    report = certify(network, images(4), torch.zeros(4, dtype=torch.int64))
    assert report.to_json()


# Checkpoints.


def unlike_its_mean(network: StabilisedDEQ) -> None:
    network.mean.add_(1e-3)


def negative_std(network: StabilisedDEQ) -> None:
    network.std.fill_(-1)


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (negative_variance, r"variances in 'model.cell.outer_norm.running_variance' are negative"),
        (unlike_its_mean, r"the model's mean is \[0.40.*settings say \[0.4"),
        (negative_std, r"the model's std is \[-1.0\], and its settings say \[0.3"),
        (no_spread, r"the model's std is \[0.0\], and its settings say \[0.3"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    alter: Callable[[StabilisedDEQ], None], said: str, tmp_path: Path
) -> None:
    network = model()
    names = ("a", "b", "c")
    made = Checkpoint(model=network, data=DataConfig(), class_names=names, seed=0, epoch=0)
    save_checkpoint(tmp_path / "good", made)
    load_checkpoint(tmp_path / "good")
    with torch.no_grad():
        alter(network)
    save_checkpoint(tmp_path / "bad", made)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "bad")


def test_a_backbones_negative_variance_is_refused(tmp_path: Path) -> None:
    network = model(backbone="resnet20", image_shape=(1, 8, 8))
    network.backbone.stem[1].running_var[0] = -1e-9  # pyrefly: ignore
    made = Checkpoint(model=network, data=DataConfig(), class_names=("a", "b", "c"), seed=0, epoch=0)
    save_checkpoint(tmp_path / "bad", made)
    with pytest.raises(CheckpointError, match=r"variances in 'model.backbone.stem.1.running_var' are negative"):
        load_checkpoint(tmp_path / "bad")
