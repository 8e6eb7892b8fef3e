"""``python -m benchmarks.vnnlib``: claims about a V as VNN-LIB instances, of the kind of VNN-COMP's ``lsnc``, for other verifiers.

One ONNX file has the input z and the output (V(z), w(z), ...). In continuous time w = grad V . f; in discrete time
w(z) = V(z+) - (1 - kappa) V(z), and the output goes on with the next state z+. Of each claim the negation is written, on boxes that cover
the region: ``unsat`` on all of them is a proof, a state that satisfies one is a counterexample. All claims are strict, so that the
negations are closed, as VNN-LIB's <= and >= are:

- positive: V > 0 off the hole;
- decrease: w < 0 where V <= level, off the hole;
- closed (continuous time): V > level on the faces of the box;
- inside (discrete time): z+ lies inside the box where V <= level.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import torch
from torch import Tensor

from analysis.user_function.function import load_function
from benchmarks.onnx_export import export_onnx
from stabdeq.errors import ConfigError, StabdeqError
from stabdeq.files import replace_file

Bounds = list[tuple[float, float]]
TRIAL = 256  # states at which the recorded operations are held against the functions


@dataclass(frozen=True)
class Instance:
    """The negation of a claim on one box: outputs that satisfy all of ``conditions`` and one of ``violations``.

    Both are in VNN-LIB's words, Y_0 being V, Y_1 w and Y_2, Y_3, ... the next state.
    """

    claim: str
    box: Bounds
    conditions: list[str]
    violations: list[str]

    def text(self, outputs: int) -> str:
        """Return the file, of a function with this many ``outputs``."""
        lines = [f"; The negation of the claim {self.claim!r} on a box of states.", ""]
        lines += [f"(declare-const X_{place} Real)" for place in range(len(self.box))]
        lines += [f"(declare-const Y_{place} Real)" for place in range(outputs)]
        for place, (low, high) in enumerate(self.box):
            lines += [f"(assert (>= X_{place} {exact(low)}))", f"(assert (<= X_{place} {exact(high)}))"]
        lines += [f"(assert {one})" for one in self.conditions]
        lines += ["(assert (or", *(f"    (and {one})" for one in self.violations), "))", ""]
        return "\n".join(lines)


def exact(number: float) -> str:
    """Return all decimals of ``number``, without an exponent, which VNN-LIB has none of.

    >>> exact(-(2.0**-20))
    '-0.00000095367431640625'
    """
    return format(Decimal(number), "f")


def instances(box: Bounds, centre: list[float], hole: float, level: float, *, is_discrete: bool) -> list[Instance]:
    """Return the negations of all claims on the ``box``, less the open cube of half-side ``hole`` around the ``centre``."""
    below = [f"(<= Y_0 {exact(level)})"]
    off_centre, everywhere = around(box, centre, hole), [box]
    found = [Instance("positive", part, [], ["(<= Y_0 0.0)"]) for part in off_centre]
    found += [Instance("decrease", part, below, ["(>= Y_1 0.0)"]) for part in off_centre]
    if is_discrete:
        leaves = [
            words
            for place, (low, high) in enumerate(box)
            for words in (f"(<= Y_{place + 2} {exact(low)})", f"(>= Y_{place + 2} {exact(high)})")
        ]
        return found + [Instance("inside", part, below, leaves) for part in everywhere]
    faces = [[*box[:place], (end, end), *box[place + 1 :]] for place, ends in enumerate(box) for end in ends]
    return found + [Instance("closed", face, [], below) for face in faces]


def around(box: Bounds, centre: list[float], hole: float) -> list[Bounds]:
    """Return boxes that cover the ``box`` less the open cube of half-side ``hole`` around the ``centre``."""
    if hole == 0:
        return [box]
    parts, inner = [], [(one - hole, one + hole) for one in centre]
    for place, ((low, high), (begin, end)) in enumerate(zip(box, inner, strict=True)):
        for side in ((low, begin), (end, high)):
            if side[0] <= side[1]:
                parts.append([*inner[:place], side, *box[place + 1 :]])
    return parts


def outputs(
    value: Callable[[Tensor], Tensor],
    velocity: Callable[[Tensor], Tensor] | None,
    step: Callable[[Tensor], Tensor] | None,
    kappa: float,
) -> Callable[[Tensor], Tensor]:
    """Return the function (B, n) -> (B, k) of V, w and, in discrete time, the next state."""

    def continuous(states: Tensor) -> Tensor:
        assert velocity is not None
        with torch.enable_grad():
            at = states.detach().requires_grad_()
            found = value(at)
            (gradient,) = torch.autograd.grad(found.sum(), at)
        return torch.stack([found.detach(), (gradient * velocity(states)).sum(1)], 1)

    def discrete(states: Tensor) -> Tensor:
        assert step is not None
        found, after = value(states), step(states)
        return torch.cat([torch.stack([found, value(after) - (1 - kappa) * found], 1), after], 1)

    return continuous if step is None else discrete


def write(
    function: Callable[[Tensor], Tensor], found: list[Instance], folder: Path, name: str, timeout: float
) -> list[Path]:
    """Write the ONNX file, a VNN-LIB file for each instance and ``instances.csv`` to ``folder``; return the paths of all."""
    box = torch.tensor(found[0].box, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    states = box[:, 0] + (box[:, 1] - box[:, 0]) * torch.rand(TRIAL, len(box), generator=generator, dtype=torch.float64)
    network = folder / "onnx" / f"{name}.onnx"
    network.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(function, states, network)
    (folder / "vnnlib").mkdir(exist_ok=True)
    count = function(states[:1]).shape[1]
    paths, rows = [network], []
    for place, one in enumerate(found):
        path = folder / "vnnlib" / f"{name}_{one.claim}_{place}.vnnlib"
        replace_file(path, one.text(count).encode())
        paths.append(path)
        rows.append(f"onnx/{network.name},vnnlib/{path.name},{timeout:g}")
    table = folder / "instances.csv"
    replace_file(table, ("\n".join(rows) + "\n").encode())
    return [*paths, table]


def main(arguments: list[str]) -> None:
    """Write what the command line asks for."""
    options = _parser().parse_args(arguments)
    low, high, centre = (_coordinates(numbers, options.dim) for numbers in (options.low, options.high, options.centre))
    hole, box = options.hole, list(zip(low, high, strict=True))
    if not all(a < c - hole <= c + hole < b for (a, b), c in zip(box, centre, strict=True)) or hole < 0:
        raise ConfigError(
            f"expected low < centre - hole and centre + hole < high, hole at least 0, got {low}, {high}, {hole}"
        )
    value = load_function(options.value, options.dim, "value").function
    velocity, step = (
        None if given is None else load_function(given, options.dim, "velocity").function
        for given in (options.dynamics, options.step)
    )
    found = instances(box, centre, hole, options.level, is_discrete=step is not None)
    paths = write(outputs(value, velocity, step, options.kappa), found, options.out, options.name, options.timeout)
    print(f"{len(paths) - 2} instances: {paths[-1]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vnnlib", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("value", help="V as MODULE:NAME or an ONNX file")
    parser.add_argument("--dim", type=int, required=True, help="the number of coordinates of a state")
    time = parser.add_mutually_exclusive_group(required=True)
    time.add_argument("--dynamics", help="the velocity of a system in continuous time, as V is given")
    time.add_argument("--step", help="the next state of a system in discrete time, as V is given")
    parser.add_argument("--level", type=float, required=True, help="the claims are about {V <= LEVEL}")
    parser.add_argument("--low", type=float, nargs="+", required=True, help="the box: one number, or one a coordinate")
    parser.add_argument("--high", type=float, nargs="+", required=True)
    parser.add_argument("--centre", type=float, nargs="+", default=[0.0], help="where V vanishes")
    parser.add_argument("--hole", type=float, default=0.0, help="half the side of a cube around the centre, left out")
    parser.add_argument("--kappa", type=float, default=0.0, help="discrete time: V(z+) < (1 - KAPPA) V(z) is claimed")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for each instance, for instances.csv")
    parser.add_argument("--name", default="lyapunov", help="what the files are called")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    return parser


def _coordinates(numbers: list[float], dim: int) -> list[float]:
    if len(numbers) not in (1, dim):
        raise ConfigError(f"expected 1 or {dim} numbers, got {numbers}")
    return numbers if len(numbers) == dim else numbers * dim


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StabdeqError as error:
        sys.exit(f"error: {error}")
