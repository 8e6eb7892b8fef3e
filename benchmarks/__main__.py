"""``python -m benchmarks``: race all cases, print the table of ratios and write the results."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch

import stabdeq
from benchmarks import contest
from benchmarks.attacking import AttackCase
from benchmarks.cases import Record, model_cases, other_cases, quick_cases
from benchmarks.overhead import FoldedCase, MemoryCase, OverheadCase
from benchmarks.table import markdown
from benchmarks.training import TrainingCase
from stabdeq.config import DataConfig
from stabdeq.data import Split, load_data
from stabdeq.files import replace_file
from stabdeq.model import StabilisedDEQ

RESULTS = Path(__file__).with_name("results.json")
BATCHES = (1, 128, 1024, 8192)


class Race(Protocol):
    """Anything that can be measured."""

    def race(self) -> list[Record]:
        """Return its records."""
        ...


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    options = _parser().parse_args(arguments)
    if options.markdown:
        print(markdown(json.loads(options.markdown.read_text())), end="")
        return
    if options.quick:
        contest.SECONDS = 0.1
    cases, skipped = (quick_cases(), []) if options.quick else _all_cases(options)
    results: Record = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "command": " ".join(["python -m benchmarks", *(Path(argument).name for argument in arguments)]),
        "skipped": skipped,
        "records": [],
    }
    for case in _progress(cases):
        results["records"] += case.race()
        replace_file(
            options.out, (json.dumps(results, indent=1) + "\n").encode()
        )  # so that an interrupted run is not lost
    print(markdown(results), end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--digits", type=Path, help="checkpoint of a model trained on digits")
    parser.add_argument("--mnist", type=Path, help="checkpoint of a model trained on MNIST; needs --data-dir")
    parser.add_argument("--data-dir", type=Path, help="where MNIST lies")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write the results")
    parser.add_argument("--quick", action="store_true", help="two small cases, for the tests")
    parser.add_argument("--markdown", type=Path, metavar="RESULTS", help="print the tables of results written before")
    return parser


def _all_cases(options: argparse.Namespace) -> tuple[list[Race], list[str]]:
    """Return all cases whose models are there, and what is skipped."""
    cases: list[Race] = [*other_cases()]
    skipped = []
    for name, checkpoint in (("digits", options.digits), ("mnist", options.mnist)):
        if checkpoint is None:
            skipped.append(f"{name} skipped: no checkpoint was given")
            continue
        model = stabdeq.load(checkpoint).eval()
        images = load_data(DataConfig(name=name), data_dir=options.data_dir).test
        cases += _of_model(name, model, images)
    return cases, skipped


def _of_model(name: str, model: StabilisedDEQ, images: Split) -> list[Race]:
    return [
        *model_cases(name, model, images, BATCHES),
        TrainingCase(name, model, images),
        AttackCase(name, model, images),
        FoldedCase(name, model, images),
        OverheadCase(name, model, images),
        *(MemoryCase(name, model, images, batch) for batch in BATCHES[2:]),
    ]


def _progress(cases: list[Race]) -> Iterator[Race]:
    """Yield all cases, telling on stderr how far it is."""
    begin = perf_counter()
    for done, case in enumerate(cases):
        spent = perf_counter() - begin
        left = f", about {spent / done * (len(cases) - done) / 60:.0f} min left" if done else ""
        print(f"[{done + 1}/{len(cases)}] {case}{left}", file=sys.stderr, flush=True)
        yield case
    print(f"{(perf_counter() - begin) / 60:.1f} min", file=sys.stderr)


def machine() -> dict[str, str]:
    """Return what the times depend on."""
    packages = {name: version(name) for name in ("torch", "torchdeq", "scipy")}
    cores = {
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "load at start": f"{os.getloadavg()[0]:.1f}",
    }
    return {"processor": platform.machine(), **cores, "Python": platform.python_version(), **packages}


if __name__ == "__main__":
    main(sys.argv[1:])
