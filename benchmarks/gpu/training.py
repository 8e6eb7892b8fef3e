"""An epoch of training as users run it: LyaDEQ beside a plain ResNet20, and beside the same model solved by TorchDEQ."""

import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.nn import functional

from benchmarks.contest import finish
from benchmarks.contestants import DEFAULT_STEPS, their_deq
from benchmarks.contestants import Setting as SolverSetting
from benchmarks.gpu.setting import Clock, Setting, device, first, part_of
from stabdeq.config import kinds
from stabdeq.config.kinds import model_config
from stabdeq.data import DataSet, augment, batches, resident, to_unit
from stabdeq.model import StabilisedDEQ
from train.precision import PrecisionName, backbone_in
from train.recipe import Recipe, load_recipe
from train.trainer import METRICS_NAME, train

EPOCHS = 3  # the first warms up
PRECISIONS: tuple[PrecisionName, ...] = ("float32", "bfloat16")
KINDS = ("resnet20", "deq", "lyadeq-anchored")
COMPILED = "lyadeq-anchored, compiled solver"
RIVAL = "deq by TorchDEQ"
GOALS = (
    ("lyadeq-anchored", "resnet20", "at most 1.5"),
    (COMPILED, "resnet20", "at most 1.5"),
    (RIVAL, "deq", "at least 3"),
)


def measure(setting: Setting, data: DataSet, clock: Clock) -> Iterator[dict[str, Any]]:
    """Yield seconds of an epoch of the whole training set, by precision and contestant."""

    def contest(precision: PrecisionName, some: DataSet) -> dict[str, float]:
        seconds = {
            kind: epoch_seconds(recipe_of(setting, kind, precision), some, setting.out / "timed") for kind in KINDS
        }
        return seconds | {RIVAL: _their_epoch(recipe_of(setting, "deq", precision), some)}

    return _by_precision(contest, setting, data, clock)


def measure_compiled(setting: Setting, data: DataSet, clock: Clock) -> Iterator[dict[str, Any]]:
    """Yield the same for a compiled solver, which needs a compiler and so may fail where all else runs."""

    def contest(precision: PrecisionName, some: DataSet) -> dict[str, float]:
        recipe = recipe_of(setting, "lyadeq-anchored", precision, "model.solver.compiled=true")
        return {COMPILED: epoch_seconds(recipe, some, setting.out / "timed")}

    return _by_precision(contest, setting, data, clock)


def _by_precision(
    contest: Callable[[PrecisionName, DataSet], dict[str, float]], setting: Setting, data: DataSet, clock: Clock
) -> Iterator[dict[str, Any]]:
    # The trainer's seconds count the scoring of the validation images, which the rival's do not.
    some = replace(part_of(data, setting.images), validation=first(data.validation, 2))
    scale = len(data.train) / len(some.train)
    found: dict[str, Any] = {"images": len(some.train), "epoch_seconds": {}}
    for precision in PRECISIONS:
        seconds = contest(precision, some)
        found["epoch_seconds"][precision] = {name: round(scale * value, 3) for name, value in seconds.items()}
        yield found
        if clock.left < 0:
            return


def recipe_of(setting: Setting, kind: str, precision: PrecisionName, *settings: str, epochs: int = EPOCHS) -> Recipe:
    """Return the CIFAR-10 recipe of ``kind``, its images from a folder."""
    own = ["data.name=folder", f"precision={precision}", *settings]
    if not kinds.KINDS[kind].backbone:
        own.append(f"model.backbone={setting.backbone}")
    return load_recipe("cifar10", {"kind": kind, "epochs": epochs}, own)


def epoch_seconds(recipe: Recipe, data: DataSet, out: Path) -> float:
    """Return the median seconds of an epoch of ``data`` after the first, by the trainer's own account; ``out`` is left empty."""
    shutil.rmtree(out, ignore_errors=True)
    train(recipe, data, out)
    lines = [json.loads(line) for line in (out / METRICS_NAME).read_text().splitlines()]
    shutil.rmtree(out)
    return statistics.median(line["seconds"] for line in lines[1:EPOCHS])


def _their_epoch(recipe: Recipe, data: DataSet) -> float:
    """Return the median seconds of an epoch of the same model, batches and precision, its equilibria by TorchDEQ."""
    where = device()
    config = model_config(
        recipe.kind,
        recipe.model,
        image_shape=data.image_shape,
        classes=len(data.classes),
        mean=data.mean,
        std=data.std,
    )
    model = StabilisedDEQ(config).to(where).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    images = replace(data, train=resident(data.train, where)).train
    deq = their_deq("anderson", SolverSetting(config.solver.stopping_tolerance, DEFAULT_STEPS)).to(where)

    def epoch() -> None:
        generator = torch.Generator().manual_seed(0)
        for pixels, labels in batches(images, recipe.batch_size, generator=generator):
            x = to_unit(augment(pixels, generator))
            _their_step(model, deq, optimiser, x, labels, backbone_in(recipe.precision, model.backbone, where))
        finish()

    return statistics.median([_seconds(epoch) for _ in range(EPOCHS)][1:])


def _their_step(
    model: StabilisedDEQ,
    deq: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    x: torch.Tensor,
    labels: torch.Tensor,
    precision: AbstractContextManager[None],
) -> None:
    with precision:
        h = model.inject(x)
    (z,), _ = deq(lambda z: model.cell(z, h), torch.zeros_like(h))
    model.cell.at_equilibrium(z, h)
    optimiser.zero_grad(set_to_none=True)
    functional.cross_entropy(model.readout(z), labels).backward()
    optimiser.step()


def _seconds(run: Callable[[], None]) -> float:
    begin = perf_counter()
    run()
    return perf_counter() - begin
