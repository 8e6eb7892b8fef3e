"""A function's graph as the list of operations that a proof file holds and ``stabdeq.checker`` reads.

The function meant is the one that the graph's operations define in real arithmetic, with its constants as they are. Sums of
registers times numbers are kept apart, exactly, until an operation needs them: so the products of a layer become one line.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flint import fmpq
from torch import fx

from analysis.proofs.balls.ball import array_of, each
from analysis.proofs.intervals.operations import STORAGE, aten
from analysis.proofs.polynomials import reading
from analysis.proofs.polynomials.polynomial import BeyondSquaresError, rational

MOST_PARTS = 3  # floats that an exact coefficient may be the sum of


class UnwrittenError(Exception):
    """A graph holds an operation that proof files have none for."""


def program(graph: fx.GraphModule, dim: int) -> dict[str, Any]:
    """Return the graph of one state (1, ``dim``), less the batch, as ``stabdeq.checker.programs`` reads it.

    Raises UnwrittenError at the first operation that has no form there.
    """
    lines = Lines(1 + dim)
    writer = _Writer(lines)
    state = np.empty((1, dim), dtype=object)
    state[0] = [Sum(lines, {place: fmpq(1)}) for place in range(1, 1 + dim)]
    known: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        arguments: Any = fx.map_arg((node.args, node.kwargs), lambda argument: known[argument])
        args, kwargs = arguments
        if node.op == "placeholder":
            known[node] = state
        elif node.op == "get_attr":
            known[node] = operator.attrgetter(str(node.target))(graph)
        elif node.op == "output":
            return {"code": lines.code, "results": writer.registers(array_of(writer.array(args[0])[0]))}
        elif node.target is operator.getitem:
            known[node] = operator.getitem(*args)
        else:
            known[node] = _operation(writer, node, args, kwargs)
    raise UnwrittenError("the graph has no output")


def _operation(writer: "_Writer", node: fx.Node, args: Any, kwargs: Any) -> Any:
    made = node.meta["val"]
    unwritten = UnwrittenError(f"proof files have no operation {node.target} with these arguments")
    if any(one.dtype != torch.float64 for one in (made if isinstance(made, list | tuple) else [made])):
        raise unwritten
    options = {name: value for name, value in kwargs.items() if name not in STORAGE | {"dtype"}}
    try:
        return OPERATIONS[node.target](writer, *args, **options)
    except BeyondSquaresError as error:
        raise UnwrittenError(f"{unwritten}: {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise unwritten from error


class Lines:
    """The lines written so far, each once; ``count`` registers are made."""

    def __init__(self, count: int) -> None:
        self.code: list[list[Any]] = []
        self.count = count
        self.made: dict[Any, int] = {}

    def constant(self, number: fmpq) -> "Sum":
        return Sum(self, {0: number} if number else {})

    def line(self, *words: Any) -> int:
        """Return the register that an operation on registers makes."""
        if words not in self.made:
            self.made[words] = self.count
            self.code.append(list(words))
            self.count += 1
        return self.made[words]

    def settle(self, sums: list["Sum"]) -> None:
        """Give each sum a register, those of the same registers by one line."""
        groups: dict[tuple[int, ...], dict[tuple[float, ...], list[Sum]]] = {}
        for one in sums:
            if one.register is None:
                places, row = one.row
                groups.setdefault(places, {}).setdefault(row, []).append(one)
        for places, rows in groups.items():
            new = [row for row in rows if (places, row) not in self.made]
            self.made |= {(places, row): self.count + i for i, row in enumerate(new)}
            self.count += len(new)
            if new:
                self.code.append(["affine", list(places), [[number.hex() for number in row] for row in new]])
            for row, same in rows.items():
                for one in same:
                    one.register = self.made[places, row]


class Sum:
    """The sum of registers times exact numbers; the first register is 1."""

    def __init__(self, lines: Lines, terms: dict[int, fmpq]) -> None:
        self.lines, self.terms = lines, {place: number for place, number in terms.items() if number}
        places = [place for place, number in self.terms.items() if number == 1]
        self.register: int | None = places[0] if len(self.terms) == len(places) == 1 else None

    @property
    def is_constant(self) -> bool:
        return set(self.terms) <= {0}

    @property
    def row(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The registers, and the floats that they are multiplied by: several where one is not exact."""
        parts = [(place, part) for place, number in sorted(self.terms.items()) for part in floats(number)]
        return tuple(place for place, _ in parts or [(0, 0.0)]), tuple(part for _, part in parts or [(0, 0.0)])

    def settled(self) -> int:
        self.lines.settle([self])
        assert self.register is not None
        return self.register

    def kept(self) -> "Sum":
        return Sum(self.lines, {self.settled(): fmpq(1)})

    def __add__(self, other: "Sum") -> "Sum":
        terms = dict(self.terms)
        for place, number in other.terms.items():
            terms[place] = terms.get(place, fmpq(0)) + number
        return Sum(self.lines, terms)

    def __sub__(self, other: "Sum") -> "Sum":
        return self + other * self.lines.constant(fmpq(-1))

    def __mul__(self, other: "Sum") -> "Sum":
        if self.is_constant:
            self, other = other, self
        if other.is_constant:
            factor = other.terms.get(0, fmpq(0))
            terms = {place: number * factor for place, number in self.terms.items()}
            if any(len(floats(number)) > 1 for number in terms.values()):
                terms = {self.settled(): factor}
            return Sum(self.lines, terms)
        places = sorted((self.settled(), other.settled()))
        line = ("square", places[0]) if places[0] == places[1] else ("mul", *places)
        return Sum(self.lines, {self.lines.line(*line): fmpq(1)})

    def __truediv__(self, other: "Sum") -> "Sum":
        return self * other.through("inverse")

    def __pow__(self, exponent: int) -> "Sum":
        if exponent < 0:
            return (self**-exponent).through("inverse")
        if exponent < 2:
            return self if exponent else self.lines.constant(fmpq(1))
        half = self ** (exponent // 2)
        return half * half * self if exponent % 2 else half * half

    def through(self, function: str) -> "Sum":
        number = self.terms.get(0)
        if (
            function == "inverse"
            and self.is_constant
            and number is not None
            and abs(number.p) & (abs(number.p) - 1) == 0
        ):
            return self.lines.constant(1 / number)
        return Sum(self.lines, {self.lines.line(function, self.settled()): fmpq(1)})


def floats(number: fmpq) -> list[float]:
    """Return floats whose sum is exactly a number."""
    parts: list[float] = []
    while number:
        try:
            parts.append(int(number.p) / int(number.q))
        except OverflowError as error:
            raise UnwrittenError("a constant of it lies beyond float64") from error
        number -= rational(parts[-1])
        if len(parts) > MOST_PARTS or not parts[-1]:
            raise UnwrittenError("a constant of it is no sum of a few floats")
    return parts or [0.0]


class _Writer(reading.Reader):
    """The operations on arrays of sums."""

    def __init__(self, lines: Lines) -> None:
        self.ring: Any = lines
        self.lines = lines

    def number(self, number: Any) -> Any:
        if isinstance(number, bool) or not isinstance(number, int | float) or float(number) != number:
            raise TypeError("expected a number that is exact in float64")
        return self.lines.constant(rational(number))

    def registers(self, sums: np.ndarray) -> list[int]:
        self.lines.settle(sums.reshape(-1).tolist())
        return [one.settled() for one in sums.reshape(-1).tolist()]

    def mul(self, a: Any, b: Any) -> np.ndarray:
        parts = [self.array(a), self.array(b)]
        if not any(one.is_constant for part in parts for one in part.reshape(-1).tolist()):
            for part in parts:
                self.registers(part)
        return array_of(parts[0] * parts[1])

    def through(self, name: str, x: Any) -> np.ndarray:
        """Return a function of ``stabdeq.checker.jets`` of each number."""
        sums = self.array(x)
        self.registers(sums)
        return each(lambda one: one.through(name), sums)

    def power(self, x: Any, exponent: float) -> np.ndarray:
        """x^(k / 2) = sqrt(x)^k for odd k."""
        if float(2 * exponent).is_integer() and not float(exponent).is_integer():
            return super().power(self.through("sqrt", x), 2 * exponent)
        return super().power(x, exponent)

    def maximum(self, a: Any, b: Any) -> np.ndarray:
        """max(a, b) = a + max(b - a, 0)."""
        return self.add(a, self.through("relu", self.sub(b, a)))

    def minimum(self, a: Any, b: Any) -> np.ndarray:
        return self.sub(a, self.through("relu", self.sub(a, b)))

    def clamp(self, x: Any, least: float | None = None, most: float | None = None) -> np.ndarray:
        x = x if least is None else self.maximum(x, least)
        return self.array(x if most is None else self.minimum(x, most))

    def leaky(self, x: Any, slope: float = 0.01) -> np.ndarray:
        """max(x, 0) + slope (x - max(x, 0))."""
        above = self.through("relu", x)
        return self.add(above, self.mul(self.sub(x, above), slope))

    def tan(self, x: Any) -> np.ndarray:
        return self.mul(self.through("sin", x), self.through("inverse", self.through("cos", x)))

    def extreme(self, choose: Callable[..., np.ndarray], x: Any, dims: Any = None, keepdim: bool = False) -> np.ndarray:
        x = self.array(x)
        for axis in sorted(dims or range(x.ndim)):
            parts = np.split(x, x.shape[axis], axis)
            x = parts[0]
            for part in parts[1:]:
                x = choose(x, part)
        return x if keepdim else array_of(np.squeeze(x, axis=tuple(dims or range(x.ndim))))


def _through(name: str) -> Callable[..., np.ndarray]:
    return lambda writer, x: writer.through(name, x)


OPERATIONS: dict[Any, Callable[..., Any]] = {
    **reading.OPERATIONS,
    **{
        getattr(aten, name).default: _through(name)
        for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "atan", "relu", "abs")
    },
    aten.mul.Tensor: _Writer.mul,
    aten.mul.Scalar: _Writer.mul,
    aten.pow.Tensor_Scalar: _Writer.power,
    aten.rsqrt.default: lambda writer, x: writer.power(x, -0.5),
    aten.expm1.default: lambda writer, x: writer.sub(writer.through("exp", x), 1),
    aten.log1p.default: lambda writer, x: writer.through("log", writer.add(x, 1)),
    aten.tan.default: _Writer.tan,
    aten.maximum.default: _Writer.maximum,
    aten.minimum.default: _Writer.minimum,
    aten.clamp.default: _Writer.clamp,
    aten.clamp_min.default: _Writer.clamp,
    aten.clamp_max.default: lambda writer, x, most: writer.clamp(x, None, most),
    aten.hardtanh.default: lambda writer, x, least=-1.0, most=1.0: writer.clamp(x, least, most),
    aten.leaky_relu.default: _Writer.leaky,
    aten.amax.default: lambda writer, *args, **options: writer.extreme(writer.maximum, *args, **options),
    aten.amin.default: lambda writer, *args, **options: writer.extreme(writer.minimum, *args, **options),
}
