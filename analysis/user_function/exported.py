"""The file of ``stabdeq check --proof``: what was proved of a user's functions, so that ``stabdeq.checker`` can check it.

It holds the functions as lists of operations, and for each claim a tree of boxes that bisects the region. The tree is grown here by the
checker's own bounds: those of ``analysis.proofs`` close other boxes, cut by linear bounds, that are no bisections of the region.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from flint import ctx

from analysis.evidence.regions import Ball
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding, Skipped, Verdict
from analysis.proofs import MOST_DIMENSIONS
from analysis.proofs.programs import UnwrittenError, program
from analysis.proofs.tracing import TraceError, read, size_of, stands_for
from analysis.user_function.function import ForeignFunction
from analysis.user_function.sentences import NEEDS_DYNAMICS, OF_A_BARRIER, OFF_CENTRE
from analysis.user_function.subject import COMPARED, TRACED, Subject
from stabdeq.checker import boxes
from stabdeq.checker.door import VERSION
from stabdeq.checker.jets import Jet
from stabdeq.checker.programs import compiled
from stabdeq.files import replace_or_remove

WRITTEN = ("zero", "positive", "equilibrium", "decrease", "decay", "invariant", *OF_A_BARRIER)
Plain = dict[str, Any]
Term = tuple[float, str]


def write_proof(
    path: Path, subject: Subject, findings: Sequence[Finding], on_claim: Callable[[str], object]
) -> tuple[list[Finding], list[Skipped]]:
    """Write what ``findings`` prove of ``subject`` to ``path``; return them with what was written, and the claims left out.

    Where nothing is proved, or nothing can be shown by the checker's bounds, there is no file, nor one of an earlier check: its proof
    would be taken for one of these functions.
    """
    functions: dict[str, Plain] = {}
    claims: list[Plain] = []
    found, skipped = [], []
    for finding in findings:
        if finding.verdict is Verdict.PROVED:
            on_claim(f"{finding.check}, for the proof file")
            try:
                functions |= _functions(subject, finding.check, functions)
                new = [_grown(claim, functions, subject) for claim in _claims(subject, finding.check)]
            except (TraceError, UnwrittenError) as error:
                skipped.append(Skipped(check=finding.check, reason=f"not in the proof file: {error}."))
            else:
                claims += new
                count = sum(one["tree"].count(mark) for one in new for mark in ".c")
                said = f"The proof file shows the claim on {count} box{'es' * (count > 1)}."
                finding = replace(finding, evidence=f"{finding.evidence} {said}")
        else:
            skipped.append(Skipped(check=finding.check, reason="not in the proof file: it is not proved."))
        found.append(finding)
    proof = {
        "version": VERSION,
        "kind": "boxes",
        "about": boxes.ABOUT,
        "source": {name: function.source for name, function in _named(subject).items() if name in functions},
        "centre": [number.hex() for number in subject.centre.tolist()],
        "functions": functions,
        "claims": claims,
    }
    replace_or_remove(path, (json.dumps(proof, separators=(",", ":")) + "\n").encode() if claims else None)
    return found, skipped


def _named(subject: Subject) -> dict[str, ForeignFunction]:
    """Return the functions by the names that the file gives them."""
    motion = {} if subject.motion is None else {"step" if subject.in_steps else "f": subject.motion}
    return {"B" if subject.sets else "V": subject.value, **motion, **subject.sets}


def _functions(subject: Subject, name: str, known: Plain) -> dict[str, Plain]:
    """Return the functions that the claim ``name`` is about and that are not ``known``, as operations that stand for them."""
    if name not in WRITTEN:
        raise UnwrittenError("the checker has no claim of this kind")
    if len(subject.centre) > MOST_DIMENSIONS:
        raise UnwrittenError(f"proofs on boxes are for at most {MOST_DIMENSIONS} coordinates")
    states = subject.base.sample(COMPARED, torch.Generator().manual_seed(subject.seed))
    needed = {"V", "B"} - ({"V", "B"} if name == "equilibrium" else set())
    needed |= {"f", "step"} if name in (*NEEDS_DYNAMICS, "barrier") else {name}
    made = {}
    for key, function in _named(subject).items():
        if key in needed and key not in known:
            graph = read(function, states[:TRACED])
            if not stands_for(graph, function, states, size_of(function, states)):
                raise UnwrittenError(f"{function.name} does not give what its operations do")
            made[key] = program(graph, len(subject.centre))
    return made


def _claims(subject: Subject, name: str) -> list[Plain]:
    """Return what the claim ``name`` says as inequalities on boxes, without their trees."""
    V, n = "B" if subject.sets else "V", len(subject.centre)
    at_centre = [(number, number) for number in subject.centre.tolist()]
    whole, distance = _base(subject), "|z - c|^2"
    inside: list[Plain] = []
    outer = Fraction(subject.base.radius) ** 2
    if isinstance(subject.base, Ball):
        inside.append(_inequality([(1.0, distance)], "<=", _rounded(outer, up=True)))
    if name == "zero":
        return [_claim(at_centre, [], [_inequality([(1.0, V)], sign, 0.0) for sign in ("<=", ">=")])]
    if name == "equilibrium":
        of = [("step" if subject.in_steps else "f", number if subject.in_steps else 0.0) for number, _ in at_centre]
        rests = [_inequality([(1.0, f"{f}[{i}]")], sign, to) for i, (f, to) in enumerate(of) for sign in ("<=", ">=")]
        return [_claim(at_centre, [], rests)]
    falls = [_inequality([(1.0, f"{V}-dot")], "<", 0.0)]
    if name in OF_A_BARRIER:
        sets = [(name, "<=")] if name != "barrier" else [(V, "<=")] if subject.in_steps else [(V, "<="), (V, ">=")]
        then = {"initial": [_inequality([(1.0, V)], "<=", 0.0)], "unsafe": [_inequality([(1.0, V)], ">", 0.0)]}
        then["barrier"] = [_inequality([(1.0, f"{V}(z+)")], "<=", 0.0)] if subject.in_steps else falls
        return [_claim(whole, [*inside, *(_inequality([(1.0, g)], sign, 0.0) for g, sign in sets)], then[name])]
    level = [_inequality([(1.0, V)], "<=", subject.level)] if subject.level < math.inf else []
    if name == "invariant" and subject.in_steps:
        return [_claim(whole, [*inside, *level], _stays(subject) + [_after(one) for one in level])]
    if name == "invariant":
        above = [_inequality([(1.0, V)], ">", subject.level)]
        on_level = [*inside, *level, _inequality([(1.0, V)], ">=", subject.level)]
        if isinstance(subject.base, Ball):
            sphere = [*inside, _inequality([(1.0, distance)], ">=", _rounded(outer, up=False))]
            return [_claim(whole, sphere, above), _claim(whole, on_level, falls)]
        faces = [[*whole[:i], (end, end), *whole[i + 1 :]] for i in range(n) for end in whole[i]]
        return [*(_claim(face, [], above) for face in faces), _claim(whole, on_level, falls)]
    assert name in OFF_CENTRE
    lower = subject.region.lower if isinstance(subject.region, Sublevel) else -math.inf
    given = [*inside, *level, *([_inequality([(1.0, V)], ">=", lower)] if lower > -math.inf else [])]
    if subject.hole:
        given.append(_inequality([(1.0, distance)], ">=", _rounded(Fraction(subject.hole) ** 2, up=False)))
    rate = [(subject.rate, V)] if subject.rate else []
    then = {"positive": [_inequality([(1.0, V)], ">", 0.0)], "decrease": falls}
    then["decay"] = [_inequality([(1.0, f"{V}-dot"), *rate], "<=", 0.0)]
    if subject.in_steps:
        terms = [(1.0, f"{V}(z+)"), (-1.0, V), *rate]
        then["decrease"] = [_inequality(terms, "<=" if rate else "<", 0.0)]
    is_whole = not subject.hole and lower == -math.inf
    return [
        _claim(whole, given, then[name], spares_centre=is_whole),
        *([_claim(at_centre, [], then[name])] if is_whole and name == "decay" else []),
    ]


def _stays(subject: Subject) -> list[Plain]:
    """Return that the next state is in the ball or the box."""
    if isinstance(subject.base, Ball):
        outer = Fraction(subject.base.radius) ** 2
        return [_inequality([(1.0, "|z+ - c|^2")], "<=", _rounded(outer, up=False))]
    ends = enumerate(_base(subject))
    return [
        _inequality([(1.0, f"step[{i}]")], sign, end)
        for i, side in ends
        for sign, end in zip((">=", "<="), side, strict=True)
    ]


def _after(level: Any) -> Any:
    """Return an inequality of V as one of V(z+)."""
    terms, relation, bound = level
    return [[[factor, f"{name}(z+)"] for factor, name in terms], relation, bound]


def _base(subject: Subject) -> boxes.Box:
    """Return the box, or one that holds the ball, that the region lies in."""
    base = subject.base
    if not isinstance(base, Ball):
        return list(zip(base.low.tolist(), base.high.tolist(), strict=True))
    radius, centre = Fraction(base.radius), map(Fraction, base.centre.tolist())
    return [(_rounded(number - radius, up=False), _rounded(number + radius, up=True)) for number in centre]


def _rounded(number: Fraction, *, up: bool) -> float:
    if abs(number) > sys.float_info.max:
        raise UnwrittenError("the region is so large that a bound of it lies beyond float64")
    nearest = float(number)
    is_past = Fraction(nearest) < number if up else Fraction(nearest) > number
    return math.nextafter(nearest, math.inf if up else -math.inf) if is_past else nearest


def _inequality(terms: Sequence[Term], relation: str, bound: float) -> Any:
    return [[[factor.hex(), name] for factor, name in terms], relation, float(bound).hex()]


def _claim(box: boxes.Box, given: list[Any], then: list[Any], *, spares_centre: bool = False) -> Plain:
    sides = [[low.hex(), high.hex()] for low, high in box]
    return {"words": "", "box": sides, "if": given, "then": then, "spares_centre": spares_centre, "tree": ""}


def _grown(plain: Plain, functions: dict[str, Plain], subject: Subject) -> Plain:
    """Return the claim with the tree of boxes on which the checker's bounds show it; raise UnwrittenError where they do not."""
    centre = subject.centre.tolist()
    known = {name: compiled(function, len(centre), name) for name, function in functions.items()}
    claim = boxes.Claim(plain, known, centre, "the claim")
    tree, open_boxes = [], [claim.box]
    with ctx.workprec(boxes.PRECISION):
        while open_boxes:
            if len(tree) >= subject.boxes or time.monotonic() > subject.deadline:
                raise UnwrittenError(f"after {len(tree)} boxes the checker's bounds leave {open_boxes[-1]} open")
            box = open_boxes.pop()
            is_central = claim.spares_centre and all(a <= c <= b for c, (a, b) in zip(centre, box, strict=True))
            if is_central and claim.holds_around_centre(box):
                tree.append("c")
            elif left := claim.open_on(box):
                axis = _axis(left, box, claim.box)
                tree.append(str(axis))
                open_boxes += reversed(boxes.halves(box, axis))
            else:
                tree.append(".")
    return plain | {"words": claim.words, "tree": "".join(tree)}


def _axis(left: list[Jet], box: boxes.Box, whole: boxes.Box) -> int:
    """Return the axis along which what is left open changes most, of those that have a number inside to halve the box at."""
    axes = [axis for axis, (low, high) in enumerate(box) if low < boxes.middle((low, high)) < high]
    if not axes:
        raise UnwrittenError(f"the checker's bounds leave {box} open, too small to halve")
    changes = [[float((a * b).abs_upper()) for a, b in zip(jet.s, jet.h, strict=True)] for jet in left]
    known = [one for one in changes if 0 < sum(one) < math.inf]
    widths = [(b - a) / (B - A) if B > A else 0.0 for (a, b), (A, B) in zip(box, whole, strict=True)]
    shares = [sum(one[i] / sum(one) for one in known) for i in range(len(box))] if known else widths
    return max(axes, key=lambda axis: (shares[axis], widths[axis]))
