"""Proofs of the claims about V on a set {h = 0}: V > 0, V-dot < 0, V-dot + alpha V <= 0, V(z+) < V(z), off the centre.

Each says that some w is negative where h = 0: on boxes, of which the linear bounds of h cut off what the set does not meet. Around the
centre, where w vanishes, w(z) + sum_i (l_i h_i(z) - m_i h_i(z)^2) stands for w: on the set it is the same for all numbers l and m. With l
its gradient at the centre is 0 where w's is normal to the set, and with m large enough its Hessian is negative definite where w's, with
l . h, is so on the tangent space, the kernel of Dh (Finsler). Then Taylor's theorem closes a box, as for steps.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, fx

from analysis.evidence.regions import Region
from analysis.findings import exactly
from analysis.proofs.box_search import Proof, Search, Unproved, falling, mean_value
from analysis.proofs.boxes import EXACTLY, is_definite, matrices, searched, size, weights
from analysis.proofs.falling import examination
from analysis.proofs.intervals.branch_and_bound import Examined
from analysis.proofs.intervals.graph import FunctionEnclosure
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.lie_derivative import composed, lie_derivative
from analysis.proofs.tracing import trace
from stabdeq.linear_algebra import least_squares

# Multiples of w's curvature at the centre by which the squares of h's components are taken off.
PENALTIES = (0.0, 1.0, 4.0, 16.0, 64.0)
LARGEST = 2.0**1000  # of them: beyond it, a product overflows
Function = Callable[[Tensor], Tensor]


def prove_on_a_set(
    name: str,
    value: Function,
    motion: Function | None,
    region: Region,
    rate: float | None,
    *,
    in_steps: bool,
    max_boxes: int,
    deadline: float = math.inf,
) -> Proof | Unproved:
    """Try to prove "positive", "decrease" or "decay" of V, (B, n) -> (B,), and the dynamics, (B, n) -> (B, n), on a ``Constrained`` region.

    ``rate`` is alpha of "decay", or kappa of "decrease" where the dynamics move ``in_steps``. Of a region outside a small ball around the
    centre, states in that ball are left out.
    """
    rate = rate if name == "decay" or (name == "decrease" and in_steps) else None
    proof = partial(_negative, name=name, in_steps=in_steps)
    return searched(proof, value, motion, region, rate, max_boxes, deadline)


def _negative(search: Search, *, name: str, in_steps: bool) -> Proof | Unproved:
    rate = search.rate or 0.0
    strictly = name != "decay" and not rate
    graph, symbol, words = _excess(search, name, rate, in_steps=in_steps)
    excess = _enclosure(search, graph)
    parts = [(excess, 1.0)]
    if rate:  # apart, so that what is exactly 0 of each is seen to be
        without = _excess(search, "decrease", 0.0, in_steps=in_steps)[0]
        parts = [(_enclosure(search, without), 1.0), (search.value, rate)]

    def examine(box: Interval, points: Interval) -> Examined:
        over_box, value = excess(box, 1), search.value(box, 1)
        at_points = excess(points, 0).value
        bounds, _ = search.value_on(box, points, value)
        found = over_box.value.intersected(mean_value(at_points, over_box.gradient, box - points))
        holds = found.high < 0 if strictly else found.high <= 0
        return Examined(search.is_outside(box, bounds) | holds, holds & False, weights(over_box.gradient))

    linear = examination(search, lambda: graph, strictly=strictly)
    if search.is_below(search.value.at(search.centre).value):
        return search.covered(examine, words, linear=linear)
    hole, facts = _hole(search, excess, parts, strictly)
    if isinstance(hole, Unproved) and not search.inner:
        return Unproved(f"of {symbol}, {hole.reason}")
    return search.covered(examine, words, None if isinstance(hole, Unproved) else hole, f"{symbol}{facts}", linear)


def _excess(search: Search, name: str, rate: float, *, in_steps: bool) -> tuple[fx.GraphModule, str, str]:
    """Return w, which is to be negative, as a graph of one state, its name, and what is shown of it in words."""
    value, state = search.value.graph, search.centre[None]
    if name == "positive":
        return trace(lambda states: -value(states), state), "-V", "V > 0"
    if in_steps:
        words = f"V(z+) <= (1 - {exactly(rate)}) V(z)" if rate else "V(z+) < V(z)"
        symbol = f"V(z+) - {f'(1 - {exactly(rate)}) ' if rate else ''}V(z)"
        return composed(value, search.motion.graph, rate, state), symbol, words
    derivative = lie_derivative(value, search.motion.graph, state)
    if name == "decrease" or not rate:
        return derivative, "V-dot", "V-dot < 0" if name == "decrease" else "V-dot <= 0"
    symbol = falling(rate)
    return trace(lambda states: derivative(states) + rate * value(states), state), symbol, f"{symbol} <= 0"


def _enclosure(search: Search, graph: fx.GraphModule) -> FunctionEnclosure:
    """Return the bounds of a ``graph`` of one state that is made of graphs which are held against their functions."""
    return search.enclosure(lambda states: torch.func.vmap(graph)(states[:, None]).flatten(), graph)


def _hole(
    search: Search, excess: FunctionEnclosure, terms: list[tuple[FunctionEnclosure, float]], strictly: bool
) -> tuple[tuple[Tensor, Tensor] | Unproved, str]:
    """Return the largest box around the centre on which w + l . h - m . h^2 is a negative form but for its value there, and its words.

    ``excess`` is w, the sum of ``terms`` with their factors.
    """
    components = search.constraint.components if search.constraint is not None else ()
    parts = [one.at(search.centre) for one in components]
    slopes = [part.gradient.low[:, 0] for part in parts]
    multipliers = [Interval.point(torch.zeros((), dtype=torch.float64))] * len(parts)
    value_at = Interval.point(torch.zeros(1, dtype=torch.float64))
    gradient_at = Interval.point(torch.zeros(len(search.centre), 1, dtype=torch.float64))
    for term, factor in terms:
        at_centre = term.at(search.centre)
        value, gradient = at_centre.value, at_centre.gradient
        for place, one in enumerate(least_squares(torch.stack(slopes, 1), -gradient.low)[:, 0].tolist()):
            value, gradient = value + parts[place].value.scaled(one), gradient + parts[place].gradient.scaled(one)
            own = Interval.point(torch.tensor(one, dtype=torch.float64)).scaled(factor)
            multipliers[place] = multipliers[place] + own
        value_at, gradient_at = value_at + value.scaled(factor), gradient_at + gradient.scaled(factor)
    curvature = float(excess(Interval.point(search.centre[None]), 2).hessian.magnitude.nan_to_num(0, 0, 0).max())
    found: list[tuple[float, tuple[Tensor, Tensor], str]] = []
    reason = f"that it is 0 at the centre, with a gradient normal to the set, cannot be shown exactly. {EXACTLY}"
    for multiple in PENALTIES:
        penalties = [_penalty(multiple * curvature, slope) for slope in slopes]
        value, gradient = value_at, gradient_at
        for part, penalty in zip(parts, penalties, strict=True):
            value = value + part.value.square().scaled(-penalty)
            gradient = gradient + (part.gradient * part.value).scaled(-2 * penalty)
        slack = search.slack(size(value), size(gradient))
        if slack == math.inf:
            continue
        reason = "it is not shown to be a negative form along the set on any box around the centre."

        def proves(box: Interval, penalties: list[float] = penalties, slack: Tensor | float = slack) -> Tensor:
            over_box = excess(box, 2)
            total, known = matrices(over_box.hessian), ~over_box.bends_up
            for factor, penalty, component in zip(multipliers, penalties, components, strict=True):
                part = component(box, 2)
                known &= ~(part.bends_up | part.bends_down)
                own, slope = matrices(part.hessian), part.gradient.moved(lambda bound: bound.mT)
                outer = slope.moved(lambda bound: bound[:, :, None]) * slope.moved(lambda bound: bound[:, None])
                bent = outer + own * part.value.moved(lambda bound: bound[:, None, None])
                total = total + own * factor + bent.scaled(-2 * penalty)
            return is_definite(-total, strictly, less=slack) & known

        hole = search.closed_at_centre(proves)
        if hole is not None:
            zero = "0" if slack == 0 else "nearly 0"
            words = (
                f"{_added([float(one.low) for one in multipliers], penalties)} and its gradient are {zero} at the centre and its Hessian "
                "is negative definite"
            )
            found.append((float((hole[1] - hole[0]).norm()), hole, words))
    if not found:
        return Unproved(reason), ""
    return max(found, key=lambda one: one[0])[1:]


def _penalty(curvature: float, slope: Tensor) -> float:
    """Return a power of two by whose multiple of h^2 a component with this ``slope`` (n,) curves by so much; 0 where there is none."""
    share = curvature / (float(slope.square().sum()) or math.inf)
    return 2.0 ** math.ceil(math.log2(share)) if 0 < share < LARGEST else 0.0


def _added(multipliers: list[float], penalties: list[float]) -> str:
    """Return what is added to w, in words: nothing, or such as " + 0.5 h - 2 h^2"."""
    names = ["h"] if len(multipliers) == 1 else [f"h{place + 1}" for place in range(len(multipliers))]
    terms = [(factor, name) for factor, name in zip(multipliers, names, strict=True) if factor]
    terms += [(-penalty, f"{name}^2") for penalty, name in zip(penalties, names, strict=True) if penalty]
    return "".join(f" {'+' if factor > 0 else '-'} {exactly(abs(factor))} {name}" for factor, name in terms)
