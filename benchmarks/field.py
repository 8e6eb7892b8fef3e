"""``python -m benchmarks.field``: what ``stabdeq check`` says of published Lyapunov functions, and what each verdict costs.

With ``--field DIR``, of those in DIR too, whose ``systems.py`` has ``get(NAME)``: an object with V, its ``box`` of half sides, and
``f``, ``c1`` and ``c2``, or ``step``, ``rho`` and ``kappa``. It is code, and is run. With ``--engines``, the proofs
of their decrease alone, by linear bounds with jets behind them, as ``stabdeq check`` does, and by jets alone, in turn.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from math import inf, pi
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import stabdeq
from analysis.evidence.regions import Box, Outside, Region
from analysis.evidence.sampling import INNERMOST
from analysis.evidence.sublevel import Sublevel
from analysis.proofs.box_search import Proof
from analysis.proofs.boxes import prove_claim
from analysis.proofs.steps import prove_of_steps
from benchmarks.table import Record, table
from stabdeq.files import replace_file

ENGINES = ["system", "boxes, linear bounds", "CPU s", "boxes, jets alone", "CPU s, jets", "times faster"]
COLUMNS = ["system", "dimension", "claim", "verdict", "boxes", "proof, CPU s", "CPU s", "wall s"]
EXAMINED = re.compile(r"(\d+) boxes|one box that covers")
LEVELS = ("van", "double", "pend_big", "path_big")  # V-dot < 0 on c1 <= V <= c2
STEPS = ("pend_nn", "pend_quad", "path_quad")  # V(z+) <= (1 - kappa) V(z) on V <= rho, which no step leaves
INNER = {"pend_nn": 0.001}  # of the box, left out by the paper too


@dataclass(frozen=True)
class Case:
    """What is claimed of a published V, in the words of ``stabdeq.check``."""

    name: str
    V: Callable[[Tensor], Tensor]
    claims: tuple[str, ...]
    stated: dict[str, Any]
    dim: int = 2

    def judge(self, claim: str, boxes: int) -> list[str]:
        """Return the cells of one claim, as ``COLUMNS`` names them: boxes examined in all its parts, seconds of the whole call."""
        cpu, wall = process_time(), perf_counter()
        stated = {key: value for key, value in self.stated.items() if key != "kappa" or claim == "decrease"}
        with timed("analysis.user_function.proofs._by_squares_or_boxes") as proof:
            report = stabdeq.check(self.V, dim=self.dim, claims=[claim], boxes=boxes, **stated)
        spent = [proof.seconds, process_time() - cpu, perf_counter() - wall]
        (finding,) = report.findings
        examined = sum(int(found[1] or 1) for found in EXAMINED.finditer(finding.evidence))
        cells = [self.name, str(self.dim), finding.claim, finding.verdict.name, str(examined)]
        return [*cells, f"{spent[0]:.2f}", *(f"{seconds:.1f}" for seconds in spent[1:])]

    def engines(self, boxes: int) -> list[str]:
        """Return the cells of the proof of decrease, as ``ENGINES`` names them."""
        self._proof(boxes, by_jets=False)  # once before the clock counts
        runs = [self._proof(boxes, by_jets=by_jets) for by_jets in (False, True, False, True)]
        examined = [{found for found, _ in runs[first::2]} for first in (0, 1)]
        seconds = [median(spent for _, spent in runs[first::2]) for first in (0, 1)]
        cells = [cell for found, spent in zip(examined, seconds, strict=True) for cell in (*found, f"{spent:.2f}")]
        return [self.name, *cells, f"{seconds[1] / seconds[0]:.1f}"]

    def _proof(self, boxes: int, *, by_jets: bool) -> tuple[str, float]:
        """Return the boxes of the proof, or why there is none, and the CPU seconds."""
        sides = torch.tensor(self.stated["box"], dtype=torch.float64)
        base = Box(torch.zeros(self.dim, dtype=torch.float64), *sides.unbind(1))
        V, move = self.V, self.stated.get("f") or self.stated["step"]
        region: Region = Sublevel(base, V, self.stated["sublevel"], self.stated.get("from_level", -inf))
        began = process_time()
        with ExitStack() as stack:
            for engine in ("boxes.along_the_flow", "steps.along_steps") if by_jets else ():
                stack.enter_context(patch(f"analysis.proofs.{engine}", return_value=None))
            if "f" in self.stated:
                found = prove_claim("decrease", V, move, region, None, max_boxes=boxes)
            else:
                region = Outside(region, self.stated.get("inner_radius", INNERMOST * base.radius))
                found = prove_of_steps("decrease", V, move, region, self.stated["kappa"], max_boxes=boxes)
        return (str(found.boxes) if isinstance(found, Proof) else found.reason), process_time() - began


class Timed:
    """``function``, with the CPU seconds that its calls took; those within another are part of it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0
        self.is_running = False

    def __call__(self, *arguments: Any) -> Any:
        if self.is_running:
            return self.function(*arguments)
        began, self.is_running = process_time(), True
        try:
            return self.function(*arguments)
        finally:
            self.seconds += process_time() - began
            self.is_running = False


@contextmanager
def timed(place: str) -> Iterator[Timed]:
    """Time the calls of the function at ``place``, "module.name", for as long as the context lasts."""
    module, _, name = place.rpartition(".")
    function = Timed(getattr(importlib.import_module(module), name))
    with patch(place, function):
        yield function


def main(arguments: list[str]) -> None:
    """Judge the claims one after the other, print them as a table, and write them with ``--out``."""
    options = _parser().parse_args(arguments)
    cases = [*formulas(), *(published(options.field) if options.field else [])]
    names = [case.name for case in cases]
    if unknown := set(options.systems or ()) - set(names):
        raise SystemExit(f"unknown systems: {', '.join(sorted(unknown))}. Valid: {', '.join(names)}")
    cases = [case for case in cases if not options.systems or case.name in options.systems]
    next(iter(cases)).judge("zero", 1)  # modules are imported before the clock starts
    record: Record = {
        "title": "Published Lyapunov functions under `stabdeq check`",
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "commands": [f"python -m benchmarks.field{' --field DIR' * bool(options.field)} --boxes {options.boxes}"],
        "columns": COLUMNS,
        "rows": [],
        "note": (
            "CPU s are of the whole call, samples included, and before them of the proof alone; boxes are those of all parts of the "
            "claim, 0 where no proof was by boxes."
        ),
    }
    rows = (case.judge(claim, options.boxes) for case in cases for claim in case.claims)
    if options.engines:
        record |= {"title": "Linear bounds against jets alone", "columns": ENGINES}
        record["commands"] = [f"{record['commands'][0]} --engines"]
        record["note"] = (
            "CPU s of the proof of decrease, the reading of V and the dynamics included: medians of two runs each, in turn."
        )
        rows = (case.engines(options.boxes) for case in cases if case.name in (*LEVELS, *STEPS))
    for row in rows:
        print(" ".join(row), file=sys.stderr, flush=True)
        record["rows"].append(row)
        if options.out:  # so that an interrupted run is not lost
            replace_file(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(table(record["columns"], record["rows"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.field", description=__doc__)
    parser.add_argument("--field", type=Path, metavar="DIR", help="folder with systems.py")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--boxes", type=int, default=10**6, help="boxes examined at most in search of each proof")
    parser.add_argument("--engines", action="store_true", help="compare linear bounds with jets alone")
    parser.add_argument("--out", type=Path, help="where to write the results, as JSON")
    return parser


def published(folder: Path) -> list[Case]:
    """Return the systems of ``folder``, with the claims of their papers."""
    systems = _module(folder / "systems.py")
    cases = []
    for name in LEVELS:
        system = systems.get(name)
        stated = {"f": system.f, "box": _box(system), "from_level": system.c1, "sublevel": system.c2}
        cases.append(Case(name, system.V, ("decrease",), stated, len(system.box)))
    for name in STEPS:
        system = systems.get(name)
        stated = {"step": system.step, "box": _box(system), "sublevel": system.rho, "kappa": system.kappa}
        if name in INNER:
            stated["inner_radius"] = INNER[name] * max(system.box)
        cases.append(Case(name, system.V, ("decrease", "invariant", "attraction"), stated, len(system.box)))
    return cases


def formulas() -> list[Case]:
    """Return systems whose V is a formula.

    Those of LyZNet (Liu, Meng, Fitzsimmons, Zhou 2024), whose quadratic V it proves on a sublevel set; the second demonstration of
    SOSTOOLS, whose linear part is degenerate; and one in twelve dimensions of which the truth is known: it holds below level 1.
    """

    def van_der_pol(stiffness: float) -> Callable[[Tensor], Tensor]:
        return lambda z: torch.stack([-z[:, 1], z[:, 0] + stiffness * (z[:, 0] ** 2 - 1) * z[:, 1]], 1)

    def two_machines(z: Tensor) -> Tensor:
        rest = torch.tensor(pi / 3, dtype=z.dtype)
        return torch.stack([z[:, 1], -0.5 * z[:, 1] - (torch.sin(z[:, 0] + rest) - torch.sin(rest))], 1)

    def form(a: float, b: float, c: float) -> Callable[[Tensor], Tensor]:
        return lambda z: a * z[:, 0] ** 2 + b * z[:, 0] * z[:, 1] + c * z[:, 1] ** 2

    def ten(z: Tensor) -> Tensor:
        x = dict(enumerate(z.unbind(1), 1))
        pairs = [(-x[i] + x[i + 1] / 2, -x[i] / 2 - x[i + 1]) for i in range(1, 11, 2)]
        flow = dict(enumerate([velocity for pair in pairs for velocity in pair], 1))
        flow[1] = flow[1] - 0.1 * x[9] ** 2
        flow[3] = flow[3] - 0.1 * x[1] ** 2
        flow[5] = flow[5] + 0.1 * x[7] ** 2
        flow[10] = flow[10] + 0.1 * x[2] ** 2
        return torch.stack(list(flow.values()), 1)

    def degenerate(z: Tensor) -> Tensor:
        x, y, w = z.unbind(1)
        return torch.stack([-(x**3) - x * w**2, -y - x**2 * y, -w - 3 * w / (w**2 + 1) + 3 * x**2 * w], 1)

    def twelve(z: Tensor) -> Tensor:
        below = torch.arange(144, dtype=torch.float64).sin().reshape(12, 12).tril(-1)
        return -z + z**3 + z @ (below - below.mT)

    def weighted(z: Tensor) -> Tensor:
        return 5.5489 * z[:, 0] ** 2 + 4.1068 * z[:, 1] ** 2 + 1.7945 * z[:, 2] ** 2

    claims = ("decrease", "attraction")
    wide = {"f": ten, "sublevel": 250.0, "radius": 23.0}
    return [
        Case("reversed Van der Pol, mu 1", form(1.5, -1, 1), claims, {"f": van_der_pol(1), "sublevel": 2.3042}),
        Case("reversed Van der Pol, mu 3", form(11 / 6, -1, 1 / 3), claims, {"f": van_der_pol(3), "sublevel": 1.2581}),
        Case("two-machine power", form(2, 2, 3), claims, {"f": two_machines, "sublevel": 1.0404}),
        Case("LyZNet, ten dimensions", lambda z: z.square().sum(1) / 2, claims, wide, 10),
        Case("SOSTOOLS, demonstration 2", weighted, claims, {"f": degenerate, "sublevel": 1.0}, 3),
        Case("cubic, ours", lambda z: z.square().sum(1), claims, {"f": twelve, "sublevel": 0.999}, 12),
    ]


def _box(system: Any) -> list[tuple[float, float]]:
    return [(-side, side) for side in system.box]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"expected a folder with {path.name}, got {path.parent}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1:])
