"""Several processes train one model: as one process does, on whatever number of them it goes on, and with a clean end."""

import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from process_runs import exit_codes, in_a_group
from torch import Tensor, nn
from training_runs import PowerCutError, Run, fail_when, metrics_of, tiny_architecture, tiny_data, tiny_recipe

from stabdeq import processes
from stabdeq.__main__ import main
from stabdeq.cells import Cell
from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import AndersonConfig, BroydenConfig, DataConfig
from stabdeq.data import DataSet
from stabdeq.errors import ConfigError, LostProcessError
from stabdeq.model import StabilisedDEQ
from stabdeq.shared_batch import mean_and_variance, shared
from stabdeq.solvers import Anderson, fixed_point
from train import trainer
from train.objectives import OBJECTIVES, CrossEntropy, PGDTraining, RegisteredObjective, Trades, register_objective
from train.recipe import JacobianConfig, Recipe
from train.together import joined, require_shareable
from train.trainer import CHECKPOINT_NAME, train

EXACT = AndersonConfig(tolerance=1e-5)


def recipe_of(**changes: Any) -> Recipe:
    """Two steps an epoch, of 25 and 10 images: of the former, one process has one more than the other."""
    options = {"epochs": 1, "batch_size": 25, "model": replace(tiny_architecture(), solver=EXACT)}
    return tiny_recipe(**options | changes)


RECIPES = {
    "deq": recipe_of(kind="deq", epochs=2),
    "lyadeq-anchored": recipe_of(data=DataConfig(augment=True), jacobian=JacobianConfig(weight=0.1)),
    "lyadeq": recipe_of(
        kind="lyadeq",
        model=replace(tiny_architecture(), solver=BroydenConfig(tolerance=1e-5)),
        objective=Trades(steps=1),
    ),
    "resnet20": recipe_of(
        kind="deq",
        seed=1,  # with whose weights the solve is short: in a long one, rounding decides after how many evaluations it ends, or whether
        model=replace(tiny_architecture(backbone="resnet20"), solver=EXACT),
        objective=PGDTraining(steps=1),
    ),
    "lyadeq-certified": recipe_of(kind="lyadeq-certified"),
}


def data_of(recipe: Recipe) -> DataSet:
    """One image held out: of two processes, one has none to score."""
    is_deep = recipe.model.backbone == "resnet20"
    return tiny_data(train=25 if is_deep else 35, validation=1, size=8 if is_deep else 4)


def trained(recipe: Recipe, out: Path, **options: Any) -> dict[str, Tensor]:
    """The weights and statistics that this process has at the end."""
    found: list[StabilisedDEQ] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            trainer,
            "_finish",
            lambda run, progress, finish=trainer._finish: (found.append(run.model), finish(run, progress)),
        )
        train(recipe, data_of(recipe), out, **options)
    return {name: value.clone() for name, value in found[0].state_dict().items()}


def all_trained(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {name: trained(recipe, folder / name) for name, recipe in RECIPES.items()}


def assert_alike(first: Path, second: Path) -> None:
    """The same metrics but for rounding, and but for the evaluations, which rounding may decide."""
    for ours, theirs in zip(metrics_of(first), metrics_of(second), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"evaluations"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), (first.name, name)


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest relative distance between two tensors of the same name."""
    return max(
        float((ours[name] - value).norm() / value.norm().clamp(min=1e-3))
        for name, value in theirs.items()
        if value.is_floating_point()
    )


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    first, second = in_a_group(2, all_trained, tmp_path / "store", tmp_path / "two")
    alone = all_trained(tmp_path / "one")
    for name in RECIPES:
        assert_alike(tmp_path / "two" / name, tmp_path / "one" / name)
        assert distance(first[name], second[name]) == 0
        # Adam's first steps are as long where a gradient is nothing but rounding, as for some weights before a BatchNorm.
        assert distance(first[name], alone[name]) < (1e-2 if name == "resnet20" else 1e-4), name


def agreed_precision(out: Path) -> str:
    """What "auto" is in this process, of which the first one's CPU alone multiplies bfloat16."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("train.precision.multiplies_bfloat16", processes.is_first)
        patched.setattr(trainer, "_finish", lambda run, progress: run.recipe.precision)
        recipe = replace(RECIPES["resnet20"], precision="auto")
        return train(recipe, data_of(recipe), out)  # type: ignore[return-value]


def test_processes_on_different_machines_train_in_one_precision(tmp_path: Path) -> None:
    assert in_a_group(2, agreed_precision, tmp_path / "store", tmp_path / "run") == ["bfloat16", "bfloat16"]


def coupled_solve() -> tuple[Tensor, Tensor, list[int]]:
    """Equilibria of five samples that pull at each other, of which this process has its own, their gradient, and the evaluations."""
    h = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with shared(5) as own:
        mine = h[own].requires_grad_()
        solution = fixed_point(
            lambda z, h: 0.3 * z.sin() - 0.5 * mean_and_variance(z)[0] + h,
            torch.zeros_like(mine),
            Anderson(window=3),
            inputs=[mine],
            tolerance=1e-10,
            max_evaluations=100,
            coupled=True,
        )
        solution.z.square().sum().backward()
    assert bool(solution.converged.all() & solution.adjoint[0].converged.all())
    assert mine.grad is not None
    return solution.z.detach(), mine.grad, [int(one.evaluations[0]) for one in (solution, *solution.adjoint)]


def test_coupled_samples_in_two_processes_are_one_system(tmp_path: Path) -> None:
    first, second = in_a_group(2, coupled_solve, tmp_path / "store")
    z, gradient, evaluations = coupled_solve()
    assert [len(first[0]), len(second[0])] == [3, 2]
    torch.testing.assert_close(torch.cat([first[0], second[0]]), z, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), gradient, rtol=0, atol=1e-12)
    assert first[2] == second[2] == evaluations


def cut(folder: Path) -> None:
    """Train one epoch of two."""
    with pytest.MonkeyPatch.context() as patched:
        fail_when(patched, "step", lambda run, *_: run.epoch == 1)
        with pytest.raises(PowerCutError):
            trained(RECIPES["deq"], folder)


def cut_and_go_on(folder: Path) -> dict[str, Tensor]:
    cut(folder / "from two")
    return trained(RECIPES["deq"], folder / "from one", resume=True)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    whole = trained(RECIPES["deq"], tmp_path / "whole")
    cut(tmp_path / "from one")
    gone_on, _ = in_a_group(2, cut_and_go_on, tmp_path / "store", tmp_path)
    assert load_checkpoint(tmp_path / "from two" / CHECKPOINT_NAME).epoch == 1
    back = trained(RECIPES["deq"], tmp_path / "from two", resume=True)
    for name, weights in {"from one": gone_on, "from two": back}.items():
        assert_alike(tmp_path / name, tmp_path / "whole")
        assert distance(weights, whole) < 1e-4
        assert load_checkpoint(tmp_path / name / CHECKPOINT_NAME).epoch == 2


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def torchrun_says(place: int, count: int, port: int) -> dict[str, str]:
    """What torchrun tells a process in its environment."""
    return {
        "TORCHELASTIC_RUN_ID": "none",
        "RANK": str(place),
        "LOCAL_RANK": str(place),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


DIGITS = ["train", "digits", "--kind", "deq", "--epochs", "2", "--set", "batch_size=1365"]


def fail_in_the_second_epoch(place: int, port: int, folder: Path) -> None:
    os.environ |= torchrun_says(place, 2, port)
    for name in ("stdout", "stderr"):
        setattr(sys, name, (folder / f"{name}{place}").open("w"))
    step = Run.step

    def fails(run: Any, *arguments: Any) -> dict[str, Tensor]:
        if place == 1 and run.epoch == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return step(run, *arguments)

    Run.step = fails
    main([*DIGITS, "--out", str(folder / "run")])


def test_where_a_process_fails_the_others_end_and_the_last_epoch_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_codes(2, fail_in_the_second_epoch, free_port(), tmp_path) == [1, 2]
    lost, failed = ((tmp_path / f"stderr{place}").read_text() for place in range(2))
    kept = f"{tmp_path}/run/{CHECKPOINT_NAME} holds the last whole epoch: add --resume to go on"
    assert lost.startswith("stabdeq: process 1 of 2 has lost another, which ended or does not answer (")
    assert lost.endswith(f"; {kept}\n")
    assert failed == (
        f"stabdeq: out of memory (CUDA out of memory); {kept} with more processes (torchrun) or more memory, or train anew with "
        "batch_size below 1365\n"
    )
    assert "1/2" in (tmp_path / "stdout0").read_text()
    assert (tmp_path / "stdout1").read_text() == ""
    main([*DIGITS, "--out", str(tmp_path / "run"), "--resume"])
    assert "resuming after epoch 1 of 2" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT_NAME).epoch == 2


def test_a_process_that_torchrun_ends_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in torchrun_says(0, 1, free_port()).items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(LostProcessError, match=r"process 1 of 1 was ended \(SIGTERM\)"), joined():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # the error is yet to be told
    finally:
        signal.signal(signal.SIGTERM, before)
        dist.destroy_process_group()


@pytest.mark.parametrize("total", [0, 1, 5, 8])
def test_each_row_is_one_process_s(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 3)
    taken = []
    for place in range(3):
        monkeypatch.setattr(processes, "place", lambda place=place: place)
        taken.append(list(range(total))[processes.rows(total)])
    assert [len(rows) for rows in taken] == list(processes.sizes(total))
    assert [row for rows in taken for row in rows] == list(range(total))
    assert max(processes.sizes(total)) - min(processes.sizes(total)) <= 1


def refusal(recipe: Recipe, model: StabilisedDEQ, images: int = 60) -> str:
    with pytest.raises(ConfigError) as caught:
        require_shareable(recipe, model, images)
    return str(caught.value)


def test_what_several_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["deq"]
    model = StabilisedDEQ(trainer._model_config(recipe, data_of(recipe)))
    require_shareable(recipe, model, images=3)  # alone
    monkeypatch.setattr(processes, "count", lambda: 4)
    require_shareable(recipe, model, images=60)
    require_shareable(recipe, model, images=51)  # the last of them joins the batch before it
    assert "has 3 of 3 images" in refusal(recipe, model, images=3)
    assert "has 2 of 52 images (batch_size = 25), which 4 processes cannot share: start 2 at most" in refusal(
        recipe, model, images=52
    )
    compiled = replace(recipe, model=replace(recipe.model, solver=replace(EXACT, compiled=True)))
    assert "leave out model.solver.compiled" in refusal(compiled, model)
    with monkeypatch.context() as patched:
        patched.setattr(Cell, "shares_batches", False)
        assert "set shares_batches = True" in refusal(recipe, model)
    with monkeypatch.context() as patched:
        patched.setattr(OBJECTIVES, "_registered", {})
        register_objective("mine", CrossEntropy)
        assert "the objective 'mine'" in refusal(replace(recipe, objective=RegisteredObjective(name="mine")), model)
    model.backbone = nn.Sequential(model.backbone, nn.Dropout())
    assert "Dropout draws other numbers in each process" in refusal(recipe, model)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["python", "gpu", "cpu"],
)
def test_memory_that_runs_out_is_no_fault_of_ours(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(words: list[str]) -> None:
        raise error

    monkeypatch.setattr("stabdeq.__main__._run", run)
    with pytest.raises(SystemExit) as caught:
        main(["audit"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("stabdeq: out of memory")
