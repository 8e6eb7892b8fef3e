"""``python -m tools.soak.memory [--steps N] [--chunks N]``: the resident memory of a long training and of a long audit, and its slope.

A slope is that of the line fitted to the later half of the readings, in bytes a step: the first half fills caches. Linux only.
"""

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import stabdeq
from stabdeq.config import ArchitectureConfig
from stabdeq.config.kinds import model_config
from stabdeq.data import load_data
from stabdeq.model import StabilisedDEQ
from train.progress import Progress
from train.recipe import load_recipe
from train.trainer import train


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def slope(readings: list[tuple[int, int]]) -> float:
    """Return bytes a step, by least squares, of (step, bytes).

    >>> slope([(0, 10), (1, 10), (2, 10), (3, 13)])
    3.0
    """
    later = readings[len(readings) // 2 :]
    mean_x, mean_y = (sum(values) / len(later) for values in zip(*later, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in later)
    return sum((x - mean_x) * (y - mean_y) for x, y in later) / spread if spread else 0.0


def figures(readings: list[tuple[int, int]]) -> dict[str, float]:
    """Return how many steps were made, the resident memory at their end, its largest, and its slope, in bytes."""
    return {
        "steps": readings[-1][0],
        "last": readings[-1][1],
        "largest": max(size for _, size in readings),
        "slope": round(slope(readings), 1),
    }


class Watch(Progress):
    """A progress that shows nothing, and reads the resident memory every tenth step."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.readings: list[tuple[int, int]] = []

    def update(self, epoch: float, means: dict[str, float]) -> None:
        """Take a reading: a trainer calls it after ten steps, and at the end of an epoch."""
        super().update(epoch, means)
        self.readings.append((10 * (len(self.readings) + 1), resident()))


def trained(steps: int) -> dict[str, float]:
    """Train a small model for at least so many steps, and return the memory's figures; a step is one of the optimiser."""
    settings = ("model.state_dim=8", "model.lyapunov.hidden=8", "batch_size=32", "data.validation_fraction=0")
    watch, recipe = Watch(), load_recipe("digits", {"kind": "lyadeq", "epochs": 10**6, "seed": 0}, settings)
    data = load_data(recipe.data)
    epochs = -(-steps // (10 * -(-len(data.train) // 320)))
    with tempfile.TemporaryDirectory() as folder:
        train(replace(recipe, epochs=epochs), data, Path(folder) / "run", progress=watch)
    return figures(watch.readings)


def audited(chunks: int) -> dict[str, float]:
    """Audit one image so many times in this process, and return the memory's figures; a step is an audit."""
    torch.manual_seed(0)
    settings = model_config(
        "lyadeq", ArchitectureConfig(state_dim=8), image_shape=(1, 8, 8), classes=10, mean=(0.4,), std=(0.3,)
    )
    model, readings = StabilisedDEQ(settings).eval(), []
    images, labels = torch.rand(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
    for number in range(1, chunks + 1):
        stabdeq.audit(model, images, labels, checks=["equilibrium", "convergence"])
        readings.append((number, resident()))
    return figures(readings)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak.memory")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of training")
    parser.add_argument("--chunks", type=int, default=1_000, help="audits of one image")
    given = parser.parse_args()
    print(json.dumps({"training": trained(given.steps), "audits": audited(given.chunks)}, indent=1))


if __name__ == "__main__":
    main()
