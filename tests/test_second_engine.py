"""Interval jets held against ball arithmetic, another engine: on random programs, and on the leaves of proofs."""

import os
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import zoo
from flint import arb, ctx
from torch import Tensor, fx

from analysis.evidence.regions import Ball
from analysis.evidence.sublevel import Sublevel
from analysis.proofs import box_search, boxes
from analysis.proofs.balls import evaluate, exact
from analysis.proofs.intervals.graph import FunctionEnclosure, UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.tracing import TraceError, read
from analysis.user_function.function import load_function

PROGRAMS = int(os.environ.get("PROGRAMS", "200"))
LEAVES = int(os.environ.get("LEAVES", "300"))  # of each proof, drawn at random where there are more
BITS = 128

UNARY: list[Callable[[Tensor], Tensor]] = [
    torch.sin,
    torch.cos,
    torch.tanh,
    torch.atan,
    torch.sigmoid,
    torch.relu,
    torch.abs,
    torch.square,
    lambda u: torch.exp(-u.abs()),
    lambda u: torch.log1p(u**2),
    lambda u: torch.sqrt(1 + u**2),
    lambda u: u / (1 + u**2),
    lambda u: u**3,
    lambda u: torch.nn.functional.softplus(u),
    lambda u: torch.expm1(torch.tanh(u)),
]
BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add,
    torch.sub,
    torch.mul,
    torch.maximum,
    torch.minimum,
    lambda u, v: u / (1 + v**2),
    lambda u, v: torch.where(u > v, u * v, v - u),
]


def program(seed: int) -> Callable[[Tensor], Tensor]:
    """A function of two coordinates made of some ten random operations, with random constants."""
    draw = random.Random(seed)
    steps: list[Any] = []
    for place in range(2, 2 + draw.randint(3, 10)):
        if draw.random() < 0.5:
            steps.append((draw.choice(UNARY), (draw.randrange(place),), draw.uniform(-2, 2), draw.uniform(-2, 2)))
        else:
            pair = (draw.randrange(place), draw.randrange(place))
            steps.append((draw.choice(BINARY), pair, draw.uniform(-2, 2), draw.uniform(-2, 2)))

    def function(z: Tensor) -> Tensor:
        values = [z[:, 0], z[:, 1]]
        for operation, places, factor, shift in steps:
            values.append(operation(*(values[place] for place in places)) * factor + shift)
        return values[-1]

    return function


def states_of(seed: int) -> Tensor:
    return torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@cache
def graph_of(seed: int) -> fx.GraphModule:
    """The program's graph, recorded once for all tests: recording is what takes their time. Raises TraceError."""
    return read(program(seed), states_of(seed))


def is_within(number: arb, low: float, high: float) -> bool:
    """Whether bounds hold a ball, or overlap it where it is as wide as they are; unknown bounds hold anything."""
    if low != low or high != high:
        return True
    if not number.is_finite():
        return not (low > -float("inf") and high < float("inf")) or bool(number.rad() > 1e300)
    return bool(not number < arb(low) and not number > arb(high))


@pytest.fixture(autouse=True)
def _bits() -> Any:
    before, ctx.prec = ctx.prec, BITS
    yield
    ctx.prec = before


def test_random_programs_are_within_their_bounds() -> None:
    """Values and slopes at points of boxes of many sizes; a program that cannot be bounded is passed over, and few are."""
    passed_over = 0
    for seed in range(PROGRAMS):
        states, generator = states_of(seed), torch.Generator().manual_seed(1000 + seed)
        try:
            graph = graph_of(seed)
            enclosure = FunctionEnclosure(program(seed), states, graph)
        except (TraceError, UnboundedError):
            passed_over += 1
            continue
        widths = torch.tensor([0.0, 1e-9, 1e-3, 0.5], dtype=torch.float64)[:, None]
        bounds = enclosure(Interval(states - widths, states + widths), 1)
        inside = states + widths * (2 * torch.rand(4, 2, dtype=torch.float64, generator=generator) - 1)
        for row, state in enumerate(inside):
            for place in range(2):
                direction = torch.eye(2, dtype=torch.float64)[place]
                found = evaluate(graph, exact(state), exact(direction))
                low, high = float(bounds.value.low[row]), float(bounds.value.high[row])
                assert is_within(found.value.reshape(-1)[0], low, high), seed
                slope = arb(0) if found.slope is None else found.slope.reshape(-1)[0]
                low, high = (float(bound[place, row]) for bound in (bounds.gradient.low, bounds.gradient.high))
                assert is_within(slope, low, high) or slope.is_nan(), seed
    assert passed_over <= PROGRAMS / 10


PROVABLE = [case for case in zoo.CASES if case.is_valid and case.dim <= 2 and not case.value.endswith("_of_array")]


@pytest.mark.parametrize("case", PROVABLE, ids=str)
def test_the_leaves_of_proofs_hold_in_ball_arithmetic(case: zoo.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """On each box that a proof closed as inside the region, the claim holds at its middle, by the other engine."""
    leaves: list[Tensor] = []
    cover = box_search.cover

    def recorded(low: Tensor, high: Tensor, examine: Any, **limits: Any) -> Any:
        def examined(low: Tensor, high: Tensor) -> Any:
            found = examine(low, high)
            leaves.append((low + (high - low) / 2)[found.closed])
            return found

        return cover(low, high, examined, **limits)

    monkeypatch.setattr(box_search, "cover", recorded)
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    value = load_function(f"zoo:{case.value}", case.dim, "value")
    assert not value.is_numpy  # there is no proof of NumPy functions
    velocity = load_function(f"zoo:{case.dynamics}", case.dim, "velocity") if case.dynamics else None
    centre = torch.zeros(case.dim, dtype=torch.float64)
    region: Any = Ball(centre, case.radius or 1.0)
    if case.sublevel is not None:
        region = Sublevel(Ball(centre, 4.0), value, case.sublevel)
    outcome = boxes.prove_claim(case.claim, value, velocity, region, case.alpha, max_boxes=20_000)
    if not isinstance(outcome, box_search.Proof) or not leaves or case.claim not in ("positive", "decrease", "decay"):
        return
    points = torch.cat(leaves)
    points = points[region.contains(points) & ((points - centre).norm(dim=1) > 0)]
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:LEAVES]]
    trial = region.sample(4, torch.Generator().manual_seed(0))
    graphs = [None if function is None else read(function, trial) for function in (value, velocity)]
    for point in points:
        z = exact(point)
        if case.claim == "positive":
            assert graphs[0] is not None
            assert evaluate(graphs[0], z).value.reshape(-1)[0] > 0
            continue
        assert graphs[0] is not None
        assert graphs[1] is not None
        along = evaluate(graphs[0], z, evaluate(graphs[1], z).value)
        slope = arb(0) if along.slope is None else along.slope.reshape(-1)[0]
        alpha = (case.alpha or 0.0) if case.claim == "decay" else 0.0
        excess = slope + arb(alpha) * along.value.reshape(-1)[0]
        assert slope.is_nan() or not excess > 0
        assert case.claim == "decay" or slope.is_nan() or excess < 0
