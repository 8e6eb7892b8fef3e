"""``python -m benchmarks``: race all cases, print the table of ratios and write the results (``benchmarks/schema.json``)."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.results_format import VERSION, Results
from benchmarks.table import markdown
from stabdeq.files import replace_file

if TYPE_CHECKING:  # the contestants are imported where they race: nobody needs them to read results
    from benchmarks.whole import Race

RESULTS = Path(__file__).with_name("results.json")


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    options = _parser().parse_args(arguments)
    if options.markdown:
        print(markdown(Results.model_validate_json(options.markdown.read_text()).as_written()), end="")
        return
    cases, skipped = _cases(options)
    results: dict[str, Any] = {
        "version": VERSION,
        "date": date.today().isoformat(),
        "machine": machine(),
        "command": " ".join(["python -m benchmarks", *(Path(argument).name for argument in arguments)]),
        "skipped": skipped,
        "records": [],
    }
    for case in _progress(cases):
        results["records"] += case.race()
        # At once, so that an interrupted run is not lost.
        replace_file(options.out, (json.dumps(results, indent=1) + "\n").encode())
    print(markdown(results), end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--digits", type=Path, help="checkpoint of a model trained on digits")
    parser.add_argument("--mnist", type=Path, help="checkpoint of a model trained on MNIST; needs --data-dir")
    parser.add_argument("--data-dir", type=Path, help="where MNIST lies")
    parser.add_argument(
        "--contestant",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a solver of your own, function(f, z0, tolerance, most_calls) -> z, raced forward against ours",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write the results")
    parser.add_argument("--quick", action="store_true", help="a few small cases, for the tests")
    parser.add_argument("--markdown", type=Path, metavar="RESULTS", help="print the tables of results written before")
    return parser


def _cases(options: argparse.Namespace) -> tuple[list["Race"], list[str]]:
    """Return what is to be measured, and what is skipped."""
    from benchmarks import contest
    from benchmarks.cases import quick_cases
    from benchmarks.whole import all_cases

    guests = {name: resolve_name(name) for name in options.contestant}
    if not options.quick:
        return all_cases(options, guests)
    contest.SECONDS = 0.1
    return quick_cases(guests), []


def _progress(cases: list["Race"]) -> Iterator["Race"]:
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
    import torch

    packages = {name: version(name) for name in ("torch", "torchdeq", "scipy")}
    cores = {
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "load at start": f"{os.getloadavg()[0]:.1f}",
    }
    return {"processor": platform.machine(), **cores, "Python": platform.python_version(), **packages}


if __name__ == "__main__":
    main(sys.argv[1:])
