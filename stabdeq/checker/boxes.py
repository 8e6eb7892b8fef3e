"""Claims about functions of a state: inequalities on all of a box, shown on the leaves of a tree that bisects it."""

from collections.abc import Iterator
from typing import Any

from flint import arb, arb_mat, ctx

from .jets import HALF, ONE, Jet, constant, scaled, square, total
from .programs import Program, compiled, run
from .reading import fields, items, number, numbers, require

ABOUT = (
    "All is about the real functions that the listed operations define on real numbers, with their constants as they are; that they are "
    "those of a user's source is not verified. V-dot is the derivative of V along f, and z+ what step gives."
)
PRECISION = 64  # bits: balls of these are wide
RELATIONS = {"<": (arb.__lt__, arb.__ge__), "<=": (arb.__le__, arb.__gt__)}  # each with its contrary
RELATIONS |= {">": (arb.__gt__, arb.__le__), ">=": (arb.__ge__, arb.__lt__)}
Box = list[tuple[float, float]]
Inequality = tuple[list[tuple[float, str]], str, float]


def quantities(functions: dict[str, Program], dim: int) -> set[str]:
    """Return what a claim may be about: functions V of one result, along f and after step, results of these two, and distances."""
    vectors = [name for name in ("f", "step") if name in functions]
    ends = ["", *(end for name, end in (("f", "-dot"), ("step", "(z+)")) if name in functions)]
    found = {f"{name}{end}" for name in functions if name not in vectors for end in ends}
    found |= {f"{name}[{i}]" for name in vectors for i in range(dim)}
    return found | {"|z - c|^2"} | ({"|z+ - c|^2"} if "step" in functions else set())


class Claim:
    """That each inequality of ``then`` holds at every z of a box where all of ``given`` do, but for the centre if it is spared."""

    def __init__(self, group: Any, functions: dict[str, Program], centre: list[float], where: str) -> None:
        names = ("words", "box", "if", "then", "spares_centre", "tree")
        said, box, given, then, self.spares_centre, self.tree = fields(group, where, *names)
        self.functions, self.centre, self.where = functions, centre, where
        sides = [numbers(side, 2, f"{where}: box") for side in items(box, where, len(centre))]
        self.box: Box = [(low, high) for low, high in sides]
        require(all(low <= high for low, high in self.box), f"{where}: box: expected low <= high")
        self.given, self.then = ([self._inequality(one) for one in items(part, where)] for part in (given, then))
        require(len(then) > 0 and type(self.spares_centre) is bool, f"{where}: nothing is claimed")
        require(type(self.tree) is str, f"{where}: tree: expected a text")
        require(said in ("", self.words), f"{where}: expected the words {self.words!r}")

    def _inequality(self, group: Any) -> Inequality:
        terms, relation, bound = items(group, self.where, 3)
        require(type(relation) is str and relation in RELATIONS, f"{self.where}: unknown relation {relation!r:.60}")
        require(len(items(terms, self.where)) > 0, f"{self.where}: expected terms")
        read = [(number(factor, self.where), name) for factor, name in (items(term, self.where, 2) for term in terms)]
        known = quantities(self.functions, len(self.centre))
        for _, name in read:
            require(type(name) is str and name in known, f"{self.where}: unknown quantity {name!r:.60}")
        return read, relation, number(bound, self.where)

    @property
    def words(self) -> str:
        sides = " x ".join(f"[{low!r}, {high!r}]" for low, high in self.box)
        given = f" where {_said(self.given)}" if self.given else ""
        return f"{_said(self.then)} for every z in {sides}{given}{', but z = c' if self.spares_centre else ''}"

    def quantity(self, name: str, z: list[Jet]) -> Jet:
        """Return one of ``quantities`` at the coordinates ``z``."""
        if name in ("|z - c|^2", "|z+ - c|^2"):
            at = z if name == "|z - c|^2" else self._results("step", z)
            return total([square(scaled(u, ONE, -arb(c))) for u, c in zip(at, self.centre, strict=True)])
        if name.endswith("-dot"):
            return self._results(name[:-4], z, self._results("f", z))[0]
        if name.endswith("(z+)"):
            return self._results(name[:-4], self._results("step", z))[0]
        base, _, index = name.removesuffix("]").partition("[")
        return self._results(base, z)[int(index or 0)]

    def _results(self, name: str, z: list[Jet], tangents: list[Jet] | None = None) -> list[Jet]:
        """Return the results of a function, or their derivatives along ``tangents``."""
        return run(self.functions[name], z, tangents)[tangents is not None]

    def _left(self, terms: list[tuple[float, str]], z: list[Jet]) -> Jet:
        return total([scaled(self.quantity(name, z), arb(factor)) for factor, name in terms])

    def open_on(self, box: Box) -> list[Jet]:
        """Return the left sides that leave a box open: none where a condition holds nowhere on it, or what follows everywhere."""
        z, left = coordinates(box, [middle(side) for side in box]), []
        for terms, relation, bound in self.given:
            left.append(self._left(terms, z))
            if RELATIONS[relation][1](left[-1].r, arb(bound)):
                return []
        sides = [(self._left(terms, z), RELATIONS[relation][0], arb(bound)) for terms, relation, bound in self.then]
        found = [side for side, holds, bound in sides if not holds(side.r, bound)]
        return [*found, *left] if found else []

    def holds_around_centre(self, box: Box) -> bool:
        """Return whether on a box with the centre c each left side is d'Fd, d = z - c, of the right sign for all d but 0."""
        z = coordinates(box, self.centre)
        if not all(low <= c <= high for c, (low, high) in zip(self.centre, box, strict=True)) or not self.spares_centre:
            return False
        for terms, relation, bound in self.then:
            forms = [form for _, name in terms if (form := self._form(name, z)) is not None]
            if bound != 0 or len(forms) < len(terms):
                return False
            sign = 1 if relation in (">", ">=") else -1
            whole = total([form * arb(sign * factor) for form, (factor, _) in zip(forms, terms, strict=True)])
            if not is_positive_definite((whole + whole.transpose()).tolist()):
                return False
        return True

    def _form(self, name: str, z: list[Jet]) -> arb_mat | None:
        """Return matrices among which F has d'Fd = V, V(z+) or V-dot; None where that and its gradient are not surely 0 at c.

        grad V(c + d) = A d, and of shorter d so: V = d'Ad / 2 for a mean A. With f(c + d) = M d, V-dot = d'A'Md.
        """
        base, rows = name.removesuffix("-dot").removesuffix("(z+)"), []
        if base not in self.functions:
            return None
        for i in range(len(z)):
            inputs, ways = z, [constant(i == j, z[0]) for j in range(len(z))]
            if name.endswith("(z+)"):
                inputs, ways = self._results("step", z), self._results("step", z, ways)
            value, slope = (one[0] for one in run(self.functions[base], inputs, ways))
            if not (slope.c.is_zero() and (name.endswith("-dot") or value.c.is_zero())):
                return None
            rows.append(slope.s)
        if not name.endswith("-dot"):
            return arb_mat(rows) * HALF
        speed = self._results("f", z)
        return arb_mat(rows).transpose() * arb_mat([u.s for u in speed]) if all(u.c.is_zero() for u in speed) else None


def _said(part: list[Inequality]) -> str:
    said = []
    for terms, relation, bound in part:
        left = " + ".join(name if factor == 1 else f"({factor!r}) {name}" for factor, name in terms)
        said.append(f"{left} {relation} {bound!r}")
    return " and ".join(said)


def is_positive_definite(rows: list[list[arb]]) -> bool:
    """Return whether all symmetric matrices among these are, by the pivots of elimination."""
    for k, pivot in enumerate(rows):
        if not pivot[k] > 0:
            return False
        for row in rows[k + 1 :]:
            factor = row[k] / pivot[k]
            row[:] = [a - factor * b for a, b in zip(row, pivot, strict=True)]
    return True


def middle(side: tuple[float, float]) -> float:
    return min(max(side[0] / 2 + side[1] / 2, side[0]), side[1])


def coordinates(box: Box, about: list[float]) -> list[Jet]:
    """Return the coordinates as jets on a box, around one of its points."""
    sides = [arb(low).union(arb(high)) for low, high in box]
    h = [side - arb(at) for side, at in zip(sides, about, strict=True)]
    return [Jet(arb(at), sides[i], [arb(i == j) for j in range(len(h))], h) for i, at in enumerate(about)]


def halves(box: Box, axis: int) -> list[Box]:
    low, high = box[axis]
    cut = middle(box[axis])
    return [[*box[:axis], side, *box[axis + 1 :]] for side in ((low, cut), (cut, high))]


def leaves(tree: str, box: Box, where: str) -> Iterator[tuple[Box, str]]:
    """Yield the boxes of a tree and their marks, the first half first: a number halves a box along that axis, so that they cover it."""
    stack = [box]
    for mark in tree:
        require(len(stack) > 0 and mark in ".c0123456789"[: 2 + len(box)], f"{where}: tree: unexpected {mark!r}")
        cell = stack.pop()
        if mark in ".c":
            yield cell, mark
        else:
            stack += reversed(halves(cell, int(mark)))
    require(not stack, f"{where}: tree: it ends before its boxes cover the box")


def check_boxes(proof: dict[str, Any], checkpoint: bytes | None) -> list[str]:
    """Return what ``proof`` proves of the functions in it, in words; raise Failure at the first box on which it does not."""
    names = ("version", "kind", "about", "source", "centre", "functions", "claims")
    _, _, about, _, centre, functions, claims = fields(proof, "the proof", *names)
    require(checkpoint is None, "the proof is about functions, not about a checkpoint")
    require(about == ABOUT, f"about: expected {ABOUT!r}")
    centre, found = numbers(centre, len(items(centre, "centre")), "centre"), []
    require(0 < len(centre) <= 10 and type(functions) is dict, "expected 1 to 10 coordinates, and functions")
    require(all(name.isascii() and name.isidentifier() for name in functions), "functions: expected plain names")
    known = {name: compiled(function, len(centre), name) for name, function in functions.items()}
    for name, (_, results) in known.items():
        count = len(centre) if name in ("f", "step") else 1
        require(len(results) == count, f"functions: {name}: expected {count} results")
    with ctx.workprec(PRECISION):
        for i, group in enumerate(items(claims, "claims")):
            claim, count = Claim(group, known, centre, f"claims[{i}]"), 0
            for box, mark in leaves(claim.tree, claim.box, claim.where):
                shown = claim.holds_around_centre(box) if mark == "c" else not claim.open_on(box)
                require(shown, f"{claim.where}: not shown on the box {box}")
                count += 1
            found.append(f"{claim.words}: shown on {count} box{'es' * (count > 1)}.")
    require(bool(found), "claims: there are none")
    return [ABOUT, f"z has {len(centre)} coordinates, and c = {tuple(centre)!r}.", *found]
