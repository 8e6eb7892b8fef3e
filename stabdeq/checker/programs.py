"""A function as a list of operations, and what it and its derivative are on a box.

Registers hold the number 1, the coordinates of the state, and what each line makes in turn: ["affine", [register, ...],
[[number, ...], ...]] makes one register for each row, the sum of its numbers times the registers; ["mul", a, b] and
["tanh", a], or another of ``FUNCTIONS``, make one.
"""

from typing import Any

from flint import arb_mat

from .jets import FUNCTIONS, Jet, constant, of
from .reading import fields, items, numbers, place, require

Program = tuple[list[tuple[str, list[int], Any]], list[int]]


def compiled(function: Any, inputs: int, where: str) -> Program:
    """Return the lines of a function with their numbers read, and the registers that hold its results."""
    lines, results = fields(function, where, "code", "results")
    code: list[tuple[str, list[int], Any]] = []
    count = 1 + inputs
    for i, line in enumerate(items(lines, where)):
        at = f"{where}: line {i}"
        require(len(items(line, at)) > 1 and line[0] in ("affine", "mul", *FUNCTIONS), f"{at}: unknown: {line!r:.60}")
        name, rows = line[0], None
        if name == "affine":
            registers, rows = items(line[1], at), items(items(line, at, 3)[2], at)
            require(len(registers) > 0 and len(rows) > 0, f"{at}: expected registers and rows")
            rows = arb_mat([numbers(row, len(registers), at) for row in rows])
        else:
            registers = items(line[1:], at, 2 if name == "mul" else 1)
        code.append((name, [place(one, count, at) for one in registers], rows))
        count += 1 if rows is None else rows.nrows()
    require(len(items(results, where)) > 0, f"{where}: expected results")
    return code, [place(one, count, f"{where}: results") for one in results]


def run(program: Program, inputs: list[Jet], tangents: list[Jet] | None = None) -> tuple[list[Jet], list[Jet]]:
    """Return the results at ``inputs``, and their derivatives along ``tangents``; none without."""
    h, width = inputs[0].h, 2 + len(inputs[0].h)
    known = [constant(1, inputs[0]), *inputs]
    moved = [] if tangents is None else [constant(0, inputs[0]), *tangents]
    for name, registers, matrix in program[0]:
        if name == "affine":
            flat = [x for i in registers for jets in (known, moved) if jets for x in (jets[i].c, jets[i].r, *jets[i].s)]
            for row in (matrix * arb_mat(len(registers), len(flat) // len(registers), flat)).tolist():
                known.append(Jet(row[0], row[1], row[2:width], h).tight())
                if moved:
                    moved.append(Jet(row[width], row[width + 1], row[width + 2 :], h).tight())
            continue
        u, v = registers[0], registers[-1]
        known.append(known[u] * known[v] if name == "mul" else of(name, known[u]))
        if moved and name == "mul":
            moved.append(known[u] * moved[v] + known[v] * moved[u])
        elif moved:  # no derivative where a function is not defined, whatever its formula gives there
            slope = FUNCTIONS[name][1](known[u], known[-1]) if known[-1].r.is_finite() else known[-1]
            moved.append(slope * moved[u])
    return [known[i] for i in program[1]], [moved[i] for i in program[1]] if moved else []
