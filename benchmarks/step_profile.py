"""Where a training step's time goes: ``python -m benchmarks.step_profile mnist --data-dir DIR``.

The same batches train each contestant in turns: our kinds, the plain network of the same extractor, and `deq` with its equilibria by
TorchDEQ. Printed are medians of seconds a step, and of ours the shares of its parts.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.contestants import DEFAULT_STEPS, Setting, their_deq
from benchmarks.table import table
from stabdeq.config.kinds import model_config
from stabdeq.data import DataSet, Split, batches, load_data, to_unit
from stabdeq.model import Prediction, StabilisedDEQ
from stabdeq.percent import percent
from train.loss import training_loss
from train.recipe import Recipe, load_recipe

KINDS = ("deq", "lyadeq", "lyadeq-anchored")
PARTS = ("extractor", "equilibrium", "statistics, readout and loss", "backward", "optimiser")
WARMING = 30  # steps before those that count: at first a cell is solved in few evaluations
RIVAL, PLAIN = "deq by TorchDEQ", "extractor and a linear layer"

Step = Callable[[Tensor, Tensor], dict[str, float]]  # images, labels -> seconds by part


def main(arguments: list[str]) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_profile", description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--steps", type=int, default=100, help="steps of each that count")
    options = parser.parse_args(arguments)
    seconds = profile(options.recipe, options.data_dir, options.steps)
    print(table(("contestant", "ms a step", f"over {PLAIN}", *PARTS), rows(seconds)))


def profile(recipe: str, data_dir: Path | None, steps: int) -> dict[str, list[dict[str, float]]]:
    """Return the seconds by part of ``steps`` steps of each contestant, taken in turns."""
    made = {kind: load_recipe(recipe, {"kind": kind}) for kind in KINDS}
    data = load_data(made["deq"].data, data_dir=data_dir)
    models = {kind: _model(own, data) for kind, own in made.items()}
    contestants: dict[str, Step] = {kind: _our_step(models[kind], made[kind]) for kind in KINDS}
    contestants[RIVAL] = _their_step(_model(made["deq"], data), made["deq"])
    contestants[PLAIN] = _plain_step(_model(made["deq"], data), made["deq"])
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for count, (images, labels) in enumerate(_forever(data.train, made["deq"].batch_size)):
        if count == WARMING + steps:
            return seconds
        for name, step in contestants.items():
            parts = step(to_unit(images), labels)
            if count >= WARMING:
                seconds[name].append(parts)
    raise AssertionError("the batches end")


def rows(seconds: dict[str, list[dict[str, float]]]) -> Iterator[list[str]]:
    """Yield a row for each contestant: the median step, its ratio to the plain network's, and the shares of its parts."""
    whole = {name: [sum(parts.values()) for parts in steps] for name, steps in seconds.items()}
    for name, steps in seconds.items():
        ratio = median(own / plain for own, plain in zip(whole[name], whole[PLAIN], strict=True))
        shares = [median(parts.get(part, 0) for parts in steps) / median(whole[name]) for part in PARTS]
        yield [
            name,
            f"{1e3 * median(whole[name]):.1f}",
            f"{ratio:.2f}",
            *(percent(share, 0) if share else "" for share in shares),
        ]


class Clock:
    """Seconds by part: each ``mark`` ends one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = perf_counter()

    def mark(self, part: str) -> None:
        """Book the time since the last mark."""
        now = perf_counter()
        self.seconds[part], self.last = now - self.last, now


def _our_step(model: StabilisedDEQ, recipe: Recipe) -> Step:
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    generator = torch.Generator().manual_seed(0)

    def step(x: Tensor, labels: Tensor) -> dict[str, float]:
        clock = Clock()
        h = model.inject(x)
        clock.mark("extractor")
        solution = model.solve(h)
        clock.mark("equilibrium")
        model.cell.at_equilibrium(solution.z, h)
        prediction = Prediction(model.readout(solution.z), h, solution)
        loss = training_loss(model, prediction, labels, recipe, generator).total
        clock.mark("statistics, readout and loss")
        return _finish(loss, optimiser, clock)

    return step


def _their_step(model: StabilisedDEQ, recipe: Recipe) -> Step:
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    deq = their_deq("anderson", Setting(recipe.model.solver.stopping_tolerance, DEFAULT_STEPS))

    def step(x: Tensor, labels: Tensor) -> dict[str, float]:
        clock = Clock()
        h = model.inject(x)
        clock.mark("extractor")
        (z,), _ = deq(lambda z: model.cell(z, h), torch.zeros_like(h))
        clock.mark("equilibrium")
        model.cell.at_equilibrium(z, h)
        loss = functional.cross_entropy(model.readout(z), labels)
        clock.mark("statistics, readout and loss")
        return _finish(loss, optimiser, clock)

    return step


def _plain_step(model: StabilisedDEQ, recipe: Recipe) -> Step:
    head = nn.Linear(model.config.state_dim, model.config.classes)
    optimiser = torch.optim.Adam([*model.backbone.parameters(), *head.parameters()], lr=recipe.learning_rate)

    def step(x: Tensor, labels: Tensor) -> dict[str, float]:
        clock = Clock()
        h = model.inject(x)
        clock.mark("extractor")
        loss = functional.cross_entropy(head(h), labels)
        clock.mark("statistics, readout and loss")
        return _finish(loss, optimiser, clock)

    return step


def _finish(loss: Tensor, optimiser: torch.optim.Optimizer, clock: Clock) -> dict[str, float]:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    clock.mark("backward")
    optimiser.step()
    clock.mark("optimiser")
    return clock.seconds


def _model(recipe: Recipe, data: DataSet) -> StabilisedDEQ:
    torch.manual_seed(0)
    shape, classes = data.image_shape, len(data.classes)
    config = model_config(recipe.kind, recipe.model, image_shape=shape, classes=classes, mean=data.mean, std=data.std)
    return StabilisedDEQ(config).train()


def _forever(split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield whole batches of ``split``, from the start again in another order where it ends."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from (batch for batch in batches(split, size, generator=generator) if len(batch[1]) == size)


if __name__ == "__main__":
    main(sys.argv[1:])
