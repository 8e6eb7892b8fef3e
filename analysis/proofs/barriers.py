"""Proofs of the claims about a barrier B, by interval bounds on boxes: its sign on a set {g <= 0}, and that it falls where it is 0."""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

from analysis.evidence.regions import Ball, Box
from analysis.proofs.box_search import Proof, Search, Unproved, mean_value
from analysis.proofs.boxes import searched, weights
from analysis.proofs.intervals.branch_and_bound import Examined
from analysis.proofs.intervals.interval import Interval

Function = Callable[[Tensor], Tensor]


def prove_on_set(
    value: Function,
    bound: Function,
    base: Ball | Box,
    words: str,
    *,
    strictly_positive: bool,
    max_boxes: int,
    deadline: float = math.inf,
) -> Proof | Unproved:
    """Try to prove that ``value`` (B, n) -> (B,) is > 0, where ``strictly_positive``, else <= 0, on {``bound`` <= 0} within ``base``.

    ``words`` say so.
    """
    proof = partial(_on_set, bound_function=bound, words=words, strictly_positive=strictly_positive)
    return searched(proof, value, None, base, None, max_boxes, deadline)


def prove_barrier(
    value: Function, velocity: Function, base: Ball | Box, *, max_boxes: int, deadline: float = math.inf
) -> Proof | Unproved:
    """Try to prove that B, ``value``, falls along z' = ``velocity``(z) wherever it is 0 within ``base``."""
    return searched(_falls_where_zero, value, velocity, base, None, max_boxes, deadline)


def _on_set(search: Search, *, bound_function: Function, words: str, strictly_positive: bool) -> Proof | Unproved:
    bound = search.enclosure(bound_function)

    def examine(box: Interval, points: Interval) -> Examined:
        over_box, of_set = search.value(box, 1), bound(box, 1)
        value, at_points = search.value_on(box, points, over_box)
        bound_at_points = bound(points, 0).value
        reach = of_set.value.intersected(mean_value(bound_at_points, of_set.gradient, box - points))
        holds = value.low > 0 if strictly_positive else value.high <= 0
        fails = at_points.high <= 0 if strictly_positive else at_points.low > 0
        violated = fails & (bound_at_points.high <= 0) & search.is_inside(points, at_points)
        slopes = weights(over_box.gradient) + weights(of_set.gradient)
        return Examined(search.is_outside(box) | (reach.low > 0) | holds, violated, slopes)

    return search.covered(examine, words)


def _falls_where_zero(search: Search) -> Proof | Unproved:
    def examine(box: Interval, points: Interval) -> Examined:
        value, velocity = search.value(box, 2), search.motion(box, 1)
        bounds, _ = search.value_on(box, points, value)
        derivative, _, gradient = search.excess_on(box, points, value, velocity)
        closed = search.is_outside(box) | (bounds.low > 0) | (bounds.high < 0) | (derivative.high < 0)
        # That a state has B = 0 cannot be seen at a box's middle: none is said to violate.
        return Examined(closed, closed & False, weights(gradient) + weights(value.gradient))

    return search.covered(examine, "B-dot < 0 wherever B = 0")
