"""``python -m benchmarks.scaling``: CPU seconds of solves, judgements and spectra against batch, samples and size, with exponents."""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from analysis.evidence.claim import Claim
from analysis.evidence.judge import Effort, judge
from analysis.evidence.regions import Ball
from analysis.measure.arnoldi import outer_spectrum
from analysis.measure.subject import prepare
from benchmarks.table import table
from stabdeq.adapters import from_functions
from stabdeq.adapters.functions import FunctionModel
from stabdeq.lyapunov.claims import Violation
from stabdeq.solvers import Anderson, solve

CHANNELS = 16
Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured:
    """CPU ``seconds`` at a ``size`` of what grows, and the largest ``residual`` of an eigenpair, where there is one."""

    what: str
    size: int
    seconds: float
    residual: float | None = None


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


def spectrum(side: int) -> Measured:
    """Measure the outer eigenvalues at one equilibrium with 16 ``side``^2 numbers."""
    images = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    subject = prepare(convolutional(), images, torch.zeros(1, dtype=torch.long))
    found, seconds = _timed(lambda: outer_spectrum(subject, 0))
    return Measured("spectrum, n", subject.dim, seconds, float(found.residuals.max()))


def solving(batch: int) -> Measured:
    """Measure a solve of ``batch`` states of 1024 numbers."""
    model = convolutional().double().requires_grad_(False)
    h = model.inject(torch.rand(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    start = torch.zeros_like(h)
    _, seconds = _timed(lambda: solve(model.cell, start, Anderson(), tolerance=1e-9, max_evaluations=100, context=(h,)))
    return Measured("solve, batch", batch, seconds)


def judging(samples: int) -> Measured:
    """Measure the judgement of ||z||^2 > 0 on ``samples`` states of 64 numbers."""

    def violation(states: Tensor) -> Violation:
        value = states.square().sum(1)
        return Violation(-value, value)

    claim = Claim(check="positivity", name="positive", sentence="V > 0.", violation=violation, tolerance=1e-12)
    ball, effort = Ball(torch.zeros(64, dtype=torch.float64), 1.0), Effort(samples=samples)
    _, seconds = _timed(lambda: judge(claim, ball, seed=0, effort=effort))
    return Measured("judgement, samples", samples, seconds)


def exponent(rows: list[Measured]) -> float:
    """Return the slope of log seconds over log size, by least squares."""
    x, y = ([math.log(value) for value in column] for column in zip(*((r.size, r.seconds) for r in rows), strict=True))
    middle = sum(x) / len(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def main() -> None:
    """Measure, print a table with the exponents, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON file to write the numbers to")
    out = parser.parse_args().out
    spectrum(8)  # imports and the first call of all are not measured
    sizes = {spectrum: (8, 16, 32), solving: (16, 64, 256), judging: (2**14, 2**16, 2**18)}
    groups = [[measure(size) for size in some] for measure, some in sizes.items()]
    rows = [
        [
            row.what,
            str(row.size),
            f"{row.seconds:.2f}",
            "" if row.residual is None else f"{row.residual:.0e}",
            f"{fit:.2f}",
        ]
        for group in groups
        for fit in [exponent(group)]
        for row in group
    ]
    head = ("what grows", "size", "CPU seconds", "largest residual", "exponent")
    print(table(head, rows), end="")
    if out:
        out.write_text(json.dumps({"columns": head, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
