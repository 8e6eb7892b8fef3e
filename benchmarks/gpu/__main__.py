"""``python -m benchmarks.gpu``: each measurement in turn, the most telling first, its results written as they come.

Without a GPU the same code runs on the CPU, where ``--tiny`` makes it small enough for a test.
"""

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import cuda_tests, solving, table, training
from benchmarks.gpu.setting import FULL, TINY, Clock, Setting
from stabdeq.config import DataConfig
from stabdeq.data import DataSet, load_data
from stabdeq.files import replace_file

Measure = Callable[[Setting, DataSet, Clock], Iterator[Any]]  # of all that it has so far

MEASURES: dict[str, Measure] = {
    "training": training.measure,
    "training_compiled": training.measure_compiled,
    "solving": solving.measure,
    "solving_compiled": partial(solving.measure, mode="compiled"),
    "tests": cuda_tests.measure,
    "table": table.measure,
}
VERSIONS = ("torch", "torchvision", "torchdeq", "numpy", "stabdeq")


def main(arguments: list[str]) -> int:
    """Run all measurements in the time given; return 1 where one of them failed, 0 otherwise."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.out.exists():
        parser.error(f"--out {options.out} is there already: name a new folder, so that the results in it stay")
    clock = Clock(60 * options.minutes)
    setting = TINY if options.tiny else FULL
    options.out.mkdir(parents=True)
    setting = setting.writing_to(options.out)
    results: dict[str, Any] = {"schema": 1, "date": date.today().isoformat(), "machine": machine(), "failed": {}}
    data = load_data(DataConfig(name="folder", augment=True), data_dir=options.data_dir)
    results["read_seconds"] = round(clock.spent, 1)
    for name, measure in MEASURES.items():
        if name.endswith("compiled") and not setting.compiled:
            continue
        begin = clock.spent
        print(f"{name}: {clock.left / 60:.1f} min left", file=sys.stderr, flush=True)
        try:
            for found in measure(setting, data, clock):
                results[name] = found
                _write(results, options.out)
        except Exception as error:  # one measurement that fails must not cost the others
            results["failed"][name] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        results.setdefault("seconds", {})[name] = round(clock.spent - begin, 1)
        _write(results, options.out)
    print(json.dumps(results))
    return 1 if results["failed"] else 0


def _write(results: dict[str, Any], out: Path) -> None:
    replace_file(out / "gpu.json", (json.dumps(results, indent=1) + "\n").encode())


def machine() -> dict[str, str]:
    """Return the device and the versions that the figures depend on."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed" if name != "stabdeq" else "from the tree"
    found |= {"Python": platform.python_version(), "CUDA": str(torch.version.cuda), "cores": str(os.cpu_count())}
    if not torch.cuda.is_available():
        return {"device": f"no GPU: {platform.machine()}", **found}
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return {"device": f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB", **found}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with train/CLASS/* and test/CLASS/*")
    parser.add_argument("--out", type=Path, required=True, help="new folder for gpu.json and the trained models")
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("GPU_MINUTES", "9")))
    parser.add_argument("--tiny", action="store_true", help="the same code on a few images, for the tests")
    return parser


if __name__ == "__main__":
    started = time.monotonic()
    code = main(sys.argv[1:])
    print(f"{(time.monotonic() - started) / 60:.1f} min", file=sys.stderr)
    sys.exit(code)
