"""``python -m benchmarks.scaling``: CPU seconds and memory of solves, judgements, spectra and audits against their size.

Each size is measured in a process of its own (by fork: Linux), which does the smallest size once before, so that neither imports nor
first calls count. The memory is the largest of that process beyond what it held when the work began.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from analysis.audit import audit
from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.judge import judge
from analysis.evidence.regions import Ball
from analysis.measure.arnoldi import outer_spectrum
from analysis.measure.subject import prepare
from benchmarks.scaling_page import FILE, record
from benchmarks.table import table
from stabdeq.adapters import from_functions
from stabdeq.adapters.functions import FunctionModel
from stabdeq.files import replace_file
from stabdeq.lyapunov.claims import Violation
from stabdeq.shard import Shard
from stabdeq.solvers import Anderson, solve

CHANNELS = 16
STATE = 64  # numbers in a state of an audit and of a judgement
SHARED = ("equilibrium", "spectrum", "convergence")  # checks that processes share
MACHINE = "one thread of 2 cores of an Intel Xeon, no GPU, beside other work"

Work = Callable[[], object]


class Measured(NamedTuple):
    """CPU seconds of a work, and MiB that it held beyond what was held before."""

    seconds: float
    mebibytes: float


class Convolution(nn.Module):
    """f(z, h) = tanh(h + w2 * relu(GroupNorm(w1 * z)) / 2) on states (B, 16, side, side), with weights as they are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.norm = nn.GroupNorm(4, CHANNELS)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the next state, of the shape of ``z``."""
        return torch.tanh(h + 0.5 * self.outer(torch.relu(self.norm(self.inner(z)))))


def convolutional() -> FunctionModel:
    """Return the model of this cell, with drawn weights."""
    torch.manual_seed(0)
    readout = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))
    return from_functions(nn.Conv2d(1, CHANNELS, 3, padding=1), Convolution(), readout)


def spectrum(size: int) -> list[Work]:
    """The outer eigenvalues at one equilibrium of ``size`` numbers."""
    subject = prepare(convolutional(), _pixels(1, size), torch.zeros(1, dtype=torch.long))
    return [lambda: outer_spectrum(subject, 0)]


def solving(batch: int, size: int = 1024) -> list[Work]:
    """A solve of ``batch`` states of ``size`` numbers, to a residual of 1e-9."""
    model = convolutional().double().requires_grad_(False)
    h = model.inject(_pixels(batch, size).double())
    start = torch.zeros_like(h)
    settings: dict[str, Any] = {"tolerance": 1e-9, "max_evaluations": 100, "context": (h,)}
    return [lambda: solve(model.cell, start, Anderson(), **settings)]


def judging(samples: int) -> list[Work]:
    """The judgement of ||z||^2 > 0 on ``samples`` states."""

    def violation(states: Tensor) -> Violation:
        value = states.square().sum(1)
        return Violation(-value, value)

    claim = Claim(check="positivity", name="positive", sentence="V > 0.", violation=violation, tolerance=1e-12)
    ball, effort = Ball(torch.zeros(STATE, dtype=torch.float64), 1.0), Effort(samples=samples)
    return [lambda: judge(claim, ball, seed=0, effort=effort)]


def auditing(images: int, checks: tuple[str, ...] = ("convergence",), processes: int = 1) -> list[Work]:
    """The shares of so many processes in an audit on ``images`` of 8 x 8 pixels."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(STATE, STATE, generator=generator, dtype=torch.float64) / (2 * STATE**0.5)
    cell = lambda z, h: torch.tanh(z @ weight.T + h)  # noqa: E731
    model = from_functions(lambda x: x.flatten(1), cell, lambda z: z[:, :10])
    pixels, labels = torch.rand(images, 1, 8, 8, generator=generator), torch.randint(10, (images,), generator=generator)
    shards = [Shard(index, processes) for index in range(1, processes + 1)]
    return [lambda shard=shard: audit(model, pixels, labels, checks=checks, shard=shard) for shard in shards]


def sharing(processes: int) -> list[Work]:
    """The shares of so many processes in an audit on 256 images."""
    return auditing(256, SHARED, processes)


def _pixels(count: int, size: int) -> Tensor:
    """Return images whose states are of ``size`` numbers."""
    side = round((size / CHANNELS) ** 0.5)
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(0))


# What grows, the work of each size, and the sizes.
GROUPS: dict[str, tuple[Callable[[int], list[Work]], tuple[int, ...]]] = {
    "batch of a solve, n = 1024": (solving, (16, 64, 256, 1024)),
    "n of a solve, batch 16": (lambda size: solving(16, size), (1024, 4096, 16384)),
    "n of a spectrum": (spectrum, (1024, 4096, 16384)),
    "states of a judgement, n = 64": (judging, (2**14, 2**16, 2**18, 2**20)),
    "images of an audit, n = 64": (auditing, (4096, 16384, 65536)),
    "processes of an audit": (sharing, (1, 2, 3)),
}


def main(arguments: list[str]) -> None:
    """Measure, print the table, and write the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file to write the numbers to")
    parser.add_argument("--quick", action="store_true", help="small sizes of two of them, for the tests")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a process that is forked has no other threads
    groups = GROUPS
    if options.quick:
        groups = {
            "batch of a solve, n = 1024": (solving, (1, 2, 4)),
            "images of an audit, n = 64": (auditing, (2, 4, 8)),
        }
    results: dict[str, Any] = {"date": date.today().isoformat(), "machine": MACHINE}
    results |= {"command": " ".join(["python -m benchmarks.scaling", *(["--quick"] if options.quick else [])])}
    results["groups"] = {}
    for name, (make, sizes) in groups.items():
        found = [_largest(make, size, sizes[0]) for size in sizes]
        results["groups"][name] = {"sizes": sizes} | {
            field: [round(getattr(one, field), 4) for one in found] for field in Measured._fields
        }
        print(name, results["groups"][name], file=sys.stderr, flush=True)
        replace_file(options.out, (json.dumps(results, indent=1) + "\n").encode())
    shown = record(results)
    print(table(shown["columns"], shown["rows"]))


def _largest(make: Callable[[int], list[Work]], size: int, smallest: int) -> Measured:
    """Return what the work of ``size`` takes, of several processes the one that takes most."""
    found, shares = [], 1
    while len(found) < shares:
        measured, shares = _apart(make, size, smallest, len(found))
        found.append(measured)
    return Measured(max(one.seconds for one in found), max(one.mebibytes for one in found))


def _apart(make: Callable[[int], list[Work]], size: int, smallest: int, share: int) -> tuple[Measured, int]:
    """Measure one of the works that ``make(size)`` gives, in a process of its own; return how many there are, too."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def measure() -> None:
        make(smallest)[0]()
        works = make(size)
        before, began = _resident(), time.process_time()
        works[share]()
        seconds, peak = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        there.send((Measured(seconds, max(0.0, peak - before)), len(works)))

    process = context.Process(target=measure)
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def _resident() -> float:
    """Return how many MiB of memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main(sys.argv[1:])
