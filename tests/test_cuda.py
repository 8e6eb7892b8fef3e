"""What runs on a GPU gives what it gives on the CPU; without one each test runs on a pretended GPU (``pretended_gpu``)."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_runs import (
    PowerCutError,
    at_call,
    fail_when,
    metrics_of,
    tiny_architecture,
    tiny_data,
    tiny_recipe,
)

import stabdeq
from stabdeq.attacks import PGD, evaluate
from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import DataConfig
from stabdeq.config.kinds import KINDS
from stabdeq.solvers import Anderson, Broyden, Picard, Solver, fixed_point
from train.objectives import OBJECTIVES
from train.recipe import JacobianConfig, MarginConfig, Recipe
from train.trainer import CHECKPOINT_NAME, train


def contraction(dimension: int) -> Tensor:
    matrix = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 0.9 * matrix / torch.linalg.matrix_norm(matrix, 2)


@pytest.mark.parametrize("solver", [Anderson(), Broyden(), Picard()], ids=lambda solver: type(solver).__name__)
def test_equilibria_and_gradients_are_those_of_a_linear_solve(gpu: torch.device, solver: Solver) -> None:
    matrix = contraction(8).to(gpu)
    h = torch.randn(5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(gpu).requires_grad_()

    def f(z: Tensor, h: Tensor) -> Tensor:
        return z @ matrix.T + h

    solution = fixed_point(f, torch.zeros_like(h), solver, inputs=(h,), tolerance=1e-10, max_evaluations=500)
    identity = torch.eye(8, dtype=torch.float64, device=gpu)
    exact = torch.linalg.solve(identity - matrix, h.T).T
    assert solution.converged.all()
    assert solution.z.is_cuda
    torch.testing.assert_close(solution.z, exact, rtol=0, atol=1e-8)
    (gradient,) = torch.autograd.grad(solution.z.sum(), h)
    expected = torch.linalg.solve((identity - matrix).T, torch.ones_like(h).T).T
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_its_scores_and_its_attack(gpu: torch.device, precision: str, tmp_path: Path) -> None:
    trained_and_attacked(tiny_recipe(epochs=2, precision=precision), gpu, tmp_path)


def test_images_that_do_not_fit_are_copied_batch_by_batch(
    gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 1))
    trained_and_attacked(tiny_recipe(epochs=2), gpu, tmp_path)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_with_a_compiled_solver(precision: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=2, precision=precision)
    model = replace(recipe.model, solver=replace(recipe.model.solver, compiled=True))
    trained_and_attacked(replace(recipe, model=model), torch.device("cuda"), tmp_path)


def trained_and_attacked(recipe: Recipe, gpu: torch.device, out: Path) -> None:
    """The loss falls, and an attack's clean images are as right as the scores say."""
    data = tiny_data()
    scores = train(recipe, data, out)
    assert metrics_of(out)[1]["loss"] < metrics_of(out)[0]["loss"]
    model = load_checkpoint(out / CHECKPOINT_NAME).model.to(gpu).eval()
    outcome = evaluate(PGD(eps=0.1, steps=2, step_size=0.1), model, data.test, seed=0, device=gpu)
    assert outcome.clean_correct.double().mean().item() == pytest.approx(
        scores.accuracy, abs=0.06
    )  # an image on the edge
    assert not outcome.nonfinite.any()


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.backbone is None])
def test_every_kind_trains_and_is_attacked_from_its_checkpoint(gpu: torch.device, kind: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(kind=kind, epochs=1, data=DataConfig(augment=True), jacobian=JacobianConfig(weight=0.1))
    data = tiny_data()
    train(recipe, data, tmp_path)
    test = data.test
    result = stabdeq.attack(tmp_path / CHECKPOINT_NAME, test.images, test.labels, name="pgd", eps="8/255", samples=6)
    assert result.accuracies["robust"] <= result.accuracies["clean"]


def test_every_attack_of_the_honest_set(gpu: torch.device, whole_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("stabdeq.attacks.honest"), "STEPS", 2)
    test = tiny_data().test
    result = stabdeq.attack(whole_run / CHECKPOINT_NAME, test.images, test.labels, name="honest", samples=6)
    assert result.accuracies["worst"] <= result.accuracies["clean"]


def test_the_fault_on_purpose(gpu: torch.device, whole_run: Path) -> None:
    test = tiny_data().test
    stabdeq.attack(whole_run / CHECKPOINT_NAME, test.images, test.labels, samples=6, clamp_normalised=True)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "cross-entropy"])
def test_every_objective_trains(gpu: torch.device, name: str, tmp_path: Path) -> None:
    steps = {} if name == "ibp" else {"steps": 2}
    recipe = tiny_recipe(kind="ibp-mondeq" if name == "ibp" else "deq", epochs=1, objective=OBJECTIVES[name](**steps))
    train(recipe, tiny_data(), tmp_path)


@pytest.mark.parametrize("backbone", ["lipschitz-fcn", "lipschitz-cnn"])
def test_a_margin_trains(gpu: torch.device, backbone: str, tmp_path: Path) -> None:
    model = tiny_architecture(backbone=backbone)
    recipe = tiny_recipe(kind="lyadeq-certified", epochs=1, model=model, margin=MarginConfig(radius=0.1, sharpness=4.0))
    train(recipe, tiny_data(size=8), tmp_path)


def test_a_run_goes_on_from_its_checkpoint(gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, data = tiny_recipe(epochs=2), tiny_data()
    train(recipe, data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        fail_when(patch, "train_epoch", at_call(2))
        with pytest.raises(PowerCutError):
            train(recipe, data, tmp_path / "cut")
    train(recipe, data, tmp_path / "cut", resume=True)
    losses = [[line["loss"] for line in metrics_of(tmp_path / name)[:2]] for name in ("whole", "cut")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
