"""Claims about the whole space: V grows without bound, and the centre is globally asymptotically stable."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stabdeq
from analysis.evidence.regions import Ball
from analysis.proofs.box_search import Proof
from analysis.proofs.polynomials import prove_polynomial
from analysis.proofs.tracing import read
from stabdeq.errors import ConfigError

Function = Callable[[Tensor], Tensor]


def is_proved(name: str, value: Function, motion: Function | None = None, dim: int = 2, **rest: Any) -> bool:
    base = Ball(torch.zeros(dim, dtype=torch.float64), 1.0)
    near = 0.1 * torch.arange(2, dtype=torch.float64)[:, None].expand(-1, dim)
    graphs = [None if function is None else read(function, near) for function in (value, motion)]
    assert graphs[0] is not None
    return isinstance(prove_polynomial(name, *graphs, base=base, **rest), Proof)


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (square, True),
        (lambda z: square(z) + 3, True),
        (lambda z: 1e-3 * z[:, 0] ** 2 + z[:, 1] ** 2, True),
        (lambda z: z[:, 0] ** 4 + 2 * z[:, 1] ** 2, True),
        (lambda z: z[:, 0] ** 2 + 2 * z[:, 0] ** 4 + (z[:, 1] - z[:, 0] ** 2) ** 2, True),
        (lambda z: square(z) ** 2 / (1 + square(z)), True),
        (lambda z: torch.log1p(z[:, 0] ** 2) + z[:, 1] ** 2, True),
        (lambda z: torch.log1p(square(z)), True),
        # Bounded along an axis, or a curve:
        (lambda z: z[:, 0] ** 2, False),
        (lambda z: z[:, 0] ** 2 * (1 + z[:, 1] ** 2), False),
        (lambda z: z[:, 0] ** 2 + (z[:, 0] * z[:, 1] - 1) ** 2, False),
        (lambda z: square(z) / (1 + square(z)), False),
        (lambda z: torch.log1p(z[:, 0] ** 2), False),
        (lambda z: torch.log1p(square(z)) - torch.log1p(z[:, 0] ** 2), False),
        (lambda z: -square(z), False),
        (lambda z: 0 * square(z), False),
        (lambda z: 0 * square(z) + 3, False),
        (lambda z: z[:, 0] + 0 * z[:, 1], False),
    ],
)
def test_growth_without_bound(value: Function, expected: bool) -> None:
    assert is_proved("proper", value) == expected


def lorenz(rho: float) -> Function:
    def motion(z: Tensor) -> Tensor:
        x, y, w = z.unbind(1)
        return torch.stack([10 * (y - x), x * (rho - w) - y, x * y - 8 / 3 * w], 1)

    return motion


def lorenz_value(z: Tensor) -> Tensor:
    return z[:, 0] ** 2 / 10 + z[:, 1] ** 2 + z[:, 2] ** 2


def without_polynomial(z: Tensor) -> Tensor:
    """No polynomial V is known on the whole plane (Ahmadi, Krstic, Parrilo, CDC 2011)."""
    x, y = z.unbind(1)
    return torch.stack([-x + x * y, -y], 1)


@pytest.mark.parametrize(
    ("value", "motion", "dim", "expected"),
    [
        (lorenz_value, lorenz(0.75), 3, True),
        (lorenz_value, lorenz(1.25), 3, False),
        (lambda z: torch.log1p(z[:, 0] ** 2) + z[:, 1] ** 2, without_polynomial, 2, True),
        (square, without_polynomial, 2, False),
        # V falls for |z| < 2 alone, and for all z but those of the x axis; it falls everywhere, and is bounded.
        (square, lambda z: -z * (4 - square(z))[:, None], 2, False),
        (square, lambda z: torch.stack([0 * z[:, 0], -z[:, 1]], 1), 2, False),
        (lambda z: square(z) / (1 + square(z)), lambda z: -z, 2, False),
    ],
)
def test_global_asymptotic_stability(value: Function, motion: Function, dim: int, expected: bool) -> None:
    assert is_proved("global", value, motion, dim) == expected


def test_along_steps() -> None:
    assert is_proved("global", square, lambda z: z / (1 + square(z))[:, None] / 2, in_steps=True)
    assert not is_proved("global", square, lambda z: 1.01 * z, in_steps=True)
    assert not is_proved("global", square, lambda z: z / 2 + z * square(z)[:, None], in_steps=True)


def test_the_verdicts() -> None:
    few: dict[str, Any] = {"samples": 500, "starts": 4, "claims": ["proper", "global"]}
    report = stabdeq.check(lorenz_value, lorenz(0.75), dim=3, **few)
    assert [finding.verdict.name for finding in report.findings] == ["PROVED", "PROVED"], report
    assert "whole space" in report["global"].findings[0].evidence
    report = stabdeq.check(lorenz_value, lorenz(28.0), dim=3, **few)
    assert [finding.verdict.name for finding in report.findings] == ["PROVED", "INCONCLUSIVE"], report
    # It falls in the region that is judged, and rises far out.
    report = stabdeq.check(square, lambda z: -z * (4 - square(z))[:, None], dim=2, radius=1.0, **few)
    assert report["global"].verdict.name == "INCONCLUSIVE"
    assert report["global"].findings[0].witness is not None
    report = stabdeq.check(square, lambda z: -z * (2 + torch.sin(z)), dim=2, **few)
    assert report["global"].verdict.name == "SUPPORTED"
    assert "sin.default makes no polynomial" in report["global"].findings[0].evidence


@pytest.mark.parametrize("options", [{"sublevel": 1.0}, {"inner_radius": 0.1}, {"sublevel": 1.0, "from_level": 0.1}])
def test_no_state_is_left_out_of_the_whole_space(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is of all states: leave out"):
        stabdeq.check(square, lambda z: -z, dim=2, claims=["global"], **options)


def test_it_needs_dynamics_without_disturbances() -> None:
    with pytest.raises(ConfigError, match="'global' needs dynamics"):
        stabdeq.check(square, dim=2, claims=["global"])
    with pytest.raises(ConfigError, match="'global' is not made of uncertain dynamics"):
        stabdeq.check(square, uncertain=lambda z, d: -z + d, disturbance=(-1, 1), box=(-1, 1), dim=2, claims=["global"])
