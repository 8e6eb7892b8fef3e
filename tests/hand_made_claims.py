"""Claims made by hand, and searches of which one part is looked at."""

from collections.abc import Callable
from typing import Any

import torch
from plain_states import numbers
from solver_problems import generator
from torch import Tensor

from analysis.evidence.claim import Claim
from analysis.evidence.judge import _Search
from analysis.evidence.regions import Ball
from stabdeq.lyapunov.claims import Violation

TOLERANCE = 1e-12


REGION = Ball(numbers(1, 0), 2.0)  # nearer to its centre than 0.002, a strict claim is not judged
INNER = 0.002


def from_centre(z: Tensor) -> Tensor:
    return (z - REGION.centre).norm(dim=1)


def violation_of(excess: Callable[[Tensor], Tensor], scale: float = 1.0) -> Callable[[Tensor], Violation]:
    """The violation by ``excess`` of terms of the size ``scale``."""

    def violation(states: Tensor) -> Violation:
        return Violation(excess(states), torch.full((len(states),), scale, dtype=torch.float64))

    return violation


def claim_of(excess: Callable[[Tensor], Tensor], scale: float = 1.0, **changes: Any) -> Claim:
    words = {
        "check": "checked",
        "name": "named",
        "sentence": "It holds.",
        "tolerance": TOLERANCE,
        "violation": violation_of(excess, scale),
    }
    return Claim(**(words | changes))  # pyrefly: ignore


def search_of(excess: Callable[[Tensor], Tensor], **changes: Any) -> _Search:
    return _Search(claim_of(excess, **changes), REGION, generator())


def beyond_two(z: Tensor) -> Tensor:
    """Of the claim that no first coordinate is more than 2."""
    return z[:, 0] - 2
