"""The small faults that can be planted in a file: each replaces one node of its syntax tree."""

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
# Methods and arguments that name one end of something, and the other end.
ENDS = {
    "min": "max",
    "amin": "amax",
    "argmin": "argmax",
    "minimum": "maximum",
    "any": "all",
    "low": "high",
    "lower": "upper",
}
ENDS |= {other: one for one, other in ENDS.items()}


class Edit(NamedTuple):
    """What is put in the place of one node: that at ``position`` of the list ``field`` of ``parent``, or ``field`` itself."""

    parent: ast.AST
    field: str
    position: int | None
    old: ast.stmt | ast.expr
    new: ast.AST
    lines: range  # of the statement that it is in, or of that statement's head

    def __str__(self) -> str:
        return f"{self.old.lineno}: {_head(self.old)} -> {_head(self.new)}"

    def make(self) -> None:
        """Change the tree that the edit was found in."""
        ast.fix_missing_locations(ast.copy_location(self.new, self.old))
        if self.position is None:
            setattr(self.parent, self.field, self.new)
        else:
            getattr(self.parent, self.field)[self.position] = self.new


def edits(tree: ast.Module) -> list[Edit]:
    """Return all edits of ``tree``, in the order of its nodes, which is the same for the same source."""
    found: list[Edit] = []
    lines = range(0)
    for parent, field, position, child in _children(tree):
        if isinstance(child, ast.stmt):
            lines = _lines(child)
        found += [Edit(parent, field, position, child, new, lines) for new in _replacements(child)]
    return found


def _head(node: ast.AST) -> str:
    return ast.unparse(node).splitlines()[0]


def _lines(statement: ast.stmt) -> range:
    body: list[ast.stmt] = getattr(statement, "body", [])
    end = max(statement.lineno, body[0].lineno - 1) if body else statement.end_lineno or statement.lineno
    return range(statement.lineno, end + 1)


def _children(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, Any]]:
    """Give every statement and expression that computes something, below ``node``, with its place."""
    for field, value in ast.iter_fields(node):
        # Annotations and decorators compute nothing; the words of an error are for people to read.
        if field in ("annotation", "returns", "decorator_list", "exc", "cause") or isinstance(node, ast.Assert):
            continue
        for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _is_inert(child):
                continue
            if isinstance(child, ast.stmt | ast.expr):
                yield node, field, position, child
            yield from _children(child)


def _is_inert(node: ast.AST) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr)


def _replacements(node: ast.stmt | ast.expr) -> list[ast.AST]:
    match node:
        case ast.Compare(left=left, ops=[one], comparators=[other]):
            return [ast.Compare(left, [new()], [other]) for new in COMPARED[type(one)]]
        case ast.Compare(left=left, ops=[*ops], comparators=others):
            return [
                ast.Compare(left, [*ops[:place], COMPARED[type(one)][0](), *ops[place + 1 :]], others)
                for place, one in enumerate(ops)
            ]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in COMPUTED:
            return [] if _is_type(node) else [ast.BinOp(left, COMPUTED[type(op)](), right)]
        case ast.BoolOp(op=op, values=values):
            return [ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)]
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
            return [operand]
        case ast.Constant(value=value):
            return [ast.Constant(other) for other in _other_values(value)]
        case ast.Attribute(value=value, attr=name, ctx=ctx) if name in ENDS and isinstance(ctx, ast.Load):
            return [ast.Attribute(value, ENDS[name], ctx)]
        case ast.Call(func=function, args=arguments, keywords=keywords) if any(word.arg in ENDS for word in keywords):
            swapped = [ast.keyword(ENDS.get(word.arg or "", word.arg), word.value) for word in keywords]
            return [ast.Call(function, arguments, swapped)]
        case ast.IfExp(test=test, body=body, orelse=other):
            return [ast.IfExp(test, other, body)]
        case ast.If(test=test, body=body, orelse=other):
            return [ast.If(ast.Constant(value), body, other) for value in (True, False)]
        case ast.Return(value=value) if value is not None and not _is_none(value):
            return [ast.Return(ast.Constant(None))]
        case ast.Continue():
            return [ast.Break()]
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Break():
            return [ast.Pass()]
    return []


def _other_values(value: object) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1] if value < 2 else [value + 1, value - 1]
    if isinstance(value, float) and value:
        return [2 * value, value / 2]
    return [1.0] if isinstance(value, float) else []


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_type(node: ast.BinOp) -> bool:
    """Whether ``node`` is a union of types, as ``isinstance`` takes them, which are written like a bitwise or."""
    return isinstance(node.op, ast.BitOr) and (
        any(
            isinstance(side, ast.Name | ast.Attribute) and _last(side)[:1].isupper() for side in (node.left, node.right)
        )
    )


def _last(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr
