"""Claims at states so small that what is computed underflows: what rounds to a subnormal number violates nothing."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stabdeq import testing
from stabdeq.lyapunov import claims


def states(size: float, smallest: float, dtype: torch.dtype) -> Tensor:
    """From ``size`` down to where every square is 0, in all directions."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.logspace(math.log10(size), math.log10(smallest), 400, dtype=torch.float64)
    return (lengths[:, None] * torch.randn(400, 2, generator=generator, dtype=torch.float64)).to(dtype)


everywhere = pytest.mark.parametrize(
    "state", [states(1e-150, 1e-164, torch.float64), states(1e-18, 1e-24, torch.float32)], ids=["float64", "float32"]
)


def half_square(z: Tensor) -> Tensor:
    return z.square().sum(1) / 2


def tenth(z: Tensor) -> Tensor:
    return 0.1 * z.square().sum(1) + 0.2 * (z[:, 0] * z[:, 1])


@everywhere
def test_what_decays_exactly_at_its_rate(state: Tensor) -> None:
    testing.assert_decay(half_square, lambda z: -z, state, alpha=2.0)
    testing.assert_decay(tenth, lambda z: -0.3 * z, state, alpha=0.6)
    testing.assert_decay(tenth, lambda z: -3e5 * z, state, alpha=6e5)


@everywhere
def test_what_is_a_parabola(state: Tensor) -> None:
    testing.assert_convex(tenth, state, 0.7 * state)
    testing.assert_contraction(lambda z: 0.3 * z, state, -0.7 * state, factor=0.3)
    positive = state[half_square(0.5 * state) > 0]  # 0 violates the strict claim
    testing.assert_positive_definite(lambda z: 0.3 * half_square(z), positive, eta=0.15)


@pytest.mark.parametrize("size", [1.0, 1e-100, 1e-140])
def test_a_true_violation_is_seen_as_long_as_it_is_resolved(size: float) -> None:
    state = torch.tensor([[size, size]], dtype=torch.float64)
    for fails in (
        lambda: testing.assert_decay(half_square, lambda z: -z, state, alpha=2.0001),
        lambda: testing.assert_convex(lambda z: -tenth(z), state, -state),
        lambda: testing.assert_contraction(lambda z: 0.30001 * z, state, -state, factor=0.3),
    ):
        require_failure(fails)


def require_failure(check: Callable[[], None]) -> None:
    with pytest.raises(AssertionError):
        check()


def test_a_strict_claim_is_judged_by_its_sign() -> None:
    """Underflow is no excuse to fail: V-dot = -1e-310 is negative."""
    state = torch.tensor([[1e-155, 0.0]], dtype=torch.float64)
    testing.assert_decrease(half_square, lambda z: -z, state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_counts_as_underflow(dtype: torch.dtype) -> None:
    """8 (dim + 4) of the smallest normal number, beside the roundoff of the terms."""
    tiny, dim = torch.finfo(dtype).tiny, 2
    excess = torch.tensor([0.0, tiny, 47 * tiny, 49 * tiny, -tiny, torch.nan], dtype=dtype)
    scale = torch.tensor([0.0, tiny, tiny, tiny, tiny, tiny], dtype=dtype)
    relative = claims.Violation(excess, scale).relative
    passes = relative <= claims.tolerance(dtype, dim)
    assert passes.tolist() == [True, True, True, False, True, False]
    assert relative[0] == 0
    assert relative[4] == -1
    assert relative[5].isnan()
