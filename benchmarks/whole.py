"""All that ``python -m benchmarks`` measures, in order."""

import argparse
from collections.abc import Mapping
from typing import Protocol

import stabdeq
from benchmarks.attacking import AttackCase
from benchmarks.cases import Record, model_cases, other_cases
from benchmarks.contestants import Guest
from benchmarks.overhead import FoldedCase, MemoryCase, OverheadCase
from benchmarks.training import TrainingCase
from stabdeq.config import DataConfig
from stabdeq.data import Split, load_data
from stabdeq.model import StabilisedDEQ

BATCHES = (1, 128, 1024, 8192)


class Race(Protocol):
    """Anything that can be measured."""

    def race(self) -> list[Record]:
        """Return its records."""
        ...


def all_cases(options: argparse.Namespace, guests: Mapping[str, Guest]) -> tuple[list[Race], list[str]]:
    """Return all cases whose models are there, and what is skipped."""
    cases: list[Race] = [*other_cases(guests)]
    skipped = []
    for name, checkpoint in (("digits", options.digits), ("mnist", options.mnist)):
        if checkpoint is None:
            skipped.append(f"{name} skipped: no checkpoint was given")
            continue
        model = stabdeq.load(checkpoint).eval()
        images = load_data(DataConfig(name=name), data_dir=options.data_dir).test
        cases += _of_model(name, model, images, guests)
    return cases, skipped


def _of_model(name: str, model: StabilisedDEQ, images: Split, guests: Mapping[str, Guest]) -> list[Race]:
    return [
        *model_cases(name, model, images, BATCHES, guests),
        TrainingCase(name, model, images),
        AttackCase(name, model, images),
        FoldedCase(name, model, images),
        OverheadCase(name, model, images),
        *(MemoryCase(name, model, images, batch) for batch in BATCHES[2:]),
    ]
