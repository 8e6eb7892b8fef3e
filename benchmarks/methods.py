"""``python -m benchmarks.methods CHECKPOINT...``: every solver on trained cells and slow maps, as a table of Markdown.

Each cell of the table: the median of evaluations until the residual is at most the tolerance, the share of the samples that
arrive within 300 where that is not all, and the time of a solve of all, as the median of its ratios to Anderson's in
alternating runs. A second table has the evaluations of a solve in PGD on each checkpoint, 10 steps of 1/255 within 8/255, from
the second step on: begun at 0, and begun at the last step's equilibria.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor
from torch.nn import functional

from analysis.measure.sample import draw_images
from analysis.measure.solvers import SOLVERS
from benchmarks.contest import alternate, quartiles
from benchmarks.slow_maps import SlowMap, slow_maps
from benchmarks.table import table
from stabdeq.attacks.ball import build_ball
from stabdeq.checkpoint import load_checkpoint
from stabdeq.model import StabilisedDEQ
from stabdeq.percent import percent_in_digits
from stabdeq.solvers import Solution, Solver, solve

TOLERANCES = (1e-3, 1e-8)
MAX_EVALUATIONS = 300


def trained(path: Path, count: int = 128) -> SlowMap:
    """Return the cell of the checkpoint ``path`` on ``count`` of its test images."""
    loaded = load_checkpoint(path)
    images, _, _ = draw_images(loaded, None, count, 0)
    model = loaded.model.double().eval()
    with torch.no_grad():
        h = model.inject(images)
    return SlowMap(f"{loaded.kind} on {loaded.data.name}", model.cell, h, torch.zeros_like(h))


def run(problem: SlowMap, solver: Solver, tolerance: float) -> Solution:
    """Solve ``problem``."""
    return solve(
        problem.f,
        problem.start,
        solver,
        context=(problem.h,),
        tolerance=tolerance,
        max_evaluations=MAX_EVALUATIONS,
    )


def row(problem: SlowMap, tolerance: float) -> list[str]:
    """Return the row of the table."""
    runs = {name: partial(run, problem, solver, tolerance) for name, solver in SOLVERS.items()}
    found = {name: one() for name, one in runs.items()}
    times = alternate(runs)
    texts = []
    for name, solution in found.items():
        converged = solution.converged
        needed = torch.where(converged, solution.evaluations.double(), torch.inf)
        median = float(torch.quantile(needed, 0.5, interpolation="nearest"))
        evaluations = "-" if median == torch.inf else f"{median:.0f}"
        share = "" if bool(converged.all()) else f" ({percent_in_digits(float(converged.double().mean()), 2)})"
        ratio = quartiles(own / base for own, base in zip(times[name], times["anderson"], strict=True))[1]
        texts.append(f"{evaluations}{share}, {ratio:.2f}")
    return [problem.name, f"{tolerance:.0e}".replace("e-0", "e-"), *texts]


def attack_row(path: Path, count: int = 256) -> list[str]:
    """Return evaluations and what the model gets right after the attack, begun at 0 and begun at the last equilibria."""
    loaded = load_checkpoint(path)
    images, labels, _ = draw_images(loaded, None, count, 0)
    model, images = loaded.model.eval(), images.float()
    cold, warm = (_attacked(model, images, labels, warm=warm) for warm in (False, True))
    return [f"{loaded.kind} on {loaded.data.name}", *(f"{each:.2f}" for each, _ in (cold, warm)), cold[1], warm[1]]


def _attacked(model: StabilisedDEQ, images: Tensor, labels: Tensor, *, warm: bool) -> tuple[float, str]:
    ball, attacked, start, evaluations = build_ball(8 / 255, "linf"), images, None, []
    for _ in range(10):
        leaf = attacked.clone().requires_grad_()
        solution = model.solve(model.inject(leaf), start)
        loss = functional.cross_entropy(model.readout(solution.z), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        attacked = ball.project(attacked + gradient.sign() / 255, images)
        evaluations.append(float(solution.evaluations.double().mean()))
        start = solution.z.detach() if warm else None
    with torch.no_grad():
        right = float((model(attacked).argmax(1) == labels).double().mean())
    return mean(evaluations[1:]), percent_in_digits(right)


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("checkpoints", nargs="*", type=Path)
    paths = parser.parse_args(arguments).checkpoints
    torch.set_num_threads(1)
    problems = [*(trained(path) for path in paths), *slow_maps()]
    rows = [row(problem, tolerance) for problem in problems for tolerance in TOLERANCES]
    print(table(["map", "residual", *SOLVERS], rows), end="\n\n")
    if paths:
        heads = ["attacked", "evaluations from 0", "from the last equilibria", "right, from 0", "right, from the last"]
        print(table(heads, [attack_row(path) for path in paths]))


if __name__ == "__main__":
    main(sys.argv[1:])
