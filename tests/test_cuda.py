"""What runs on a GPU gives what it gives on the CPU; each test here has its twin on the CPU, so that it is known to run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import PowerCutError, at_call, fail_when, metrics_of, tiny_data, tiny_recipe

from stabdeq.attacks import PGD, evaluate
from stabdeq.checkpoint import load_checkpoint
from stabdeq.solvers import Anderson, Broyden, Picard, Solver, fixed_point
from train.trainer import CHECKPOINT_NAME, train


def on_gpu(*values: Any) -> Any:
    """A case that needs a GPU."""
    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    return pytest.param(*values, marks=[pytest.mark.cuda, missing])


DEVICES = ["cpu", on_gpu("cuda")]


def contraction(dimension: int) -> Tensor:
    matrix = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 0.9 * matrix / torch.linalg.matrix_norm(matrix, 2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("solver", [Anderson(), Broyden(), Picard()], ids=lambda solver: type(solver).__name__)
def test_equilibria_and_gradients_are_those_of_a_linear_solve(device: str, solver: Solver) -> None:
    matrix = contraction(8).to(device)
    h = torch.randn(5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device).requires_grad_()

    def f(z: Tensor, h: Tensor) -> Tensor:
        return z @ matrix.T + h

    solution = fixed_point(f, torch.zeros_like(h), solver, inputs=(h,), tolerance=1e-10, max_evaluations=500)
    identity = torch.eye(8, dtype=torch.float64, device=device)
    exact = torch.linalg.solve(identity - matrix, h.T).T
    assert solution.converged.all()
    assert solution.z.device.type == device
    torch.testing.assert_close(solution.z, exact, rtol=0, atol=1e-8)
    (gradient,) = torch.autograd.grad(solution.z.sum(), h)
    expected = torch.linalg.solve((identity - matrix).T, torch.ones_like(h).T).T
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("device", "compiled"), [("cpu", False), *(on_gpu("cuda", compiled) for compiled in (False, True))]
)
def test_a_training_its_scores_and_its_attack(
    device: str, precision: str, compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cpu":  # compiled training on the CPU has its own tests
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = tiny_data()
    recipe = tiny_recipe(epochs=2, precision=precision)
    solver = replace(recipe.model.solver, compiled=compiled)
    recipe = replace(recipe, model=replace(recipe.model, solver=solver))
    scores = train(recipe, data, tmp_path)
    assert metrics_of(tmp_path)[1]["loss"] < metrics_of(tmp_path)[0]["loss"]
    model = load_checkpoint(tmp_path / CHECKPOINT_NAME).model.to(device).eval()
    outcome = evaluate(PGD(eps=0.1, steps=2, step_size=0.1), model, data.test, seed=0, device=device)
    assert outcome.clean_correct.double().mean().item() == pytest.approx(
        scores.accuracy, abs=0.06
    )  # an image on the edge
    assert not outcome.nonfinite.any()


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_goes_on_from_its_checkpoint(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe, data = tiny_recipe(epochs=2), tiny_data()
    train(recipe, data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        fail_when(patch, "train_epoch", at_call(2))
        with pytest.raises(PowerCutError):
            train(recipe, data, tmp_path / "cut")
    train(recipe, data, tmp_path / "cut", resume=True)
    losses = [[line["loss"] for line in metrics_of(tmp_path / name)[:2]] for name in ("whole", "cut")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
