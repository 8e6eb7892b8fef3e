"""What each claim about V says of given numbers: its excess, and the scale that rounding is measured by."""

import pytest
import torch
from plain_states import numbers
from small_models import generator

from stabdeq.cells.relu import Rates
from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import InputConvexLyapunov, build_lyapunov, proved_rate
from stabdeq.lyapunov.claims import Floored, Violation, convex, decay, positive, tolerance, zero


@pytest.mark.parametrize(
    ("violation", "excess", "scale"),
    [
        (zero(numbers(-3.0), numbers(5.0)), 3.0, 8.0),
        (positive(numbers(-2.0), numbers(7.0)), 9.0, 9.0),
        (convex(numbers(-10.0), numbers(4.0), numbers(-8.0)), -8.0, 16.0),
        (decay(numbers(3.0, 4.0)[None], numbers(0.0, 2.0)[None], numbers(-6.0), 0.5), 5.0, 13.0),
    ],
    ids=["zero", "positive", "convex", "decay"],
)
def test_excess_and_scale(violation: Violation, excess: float, scale: float) -> None:
    assert (violation.excess.item(), violation.scale.item()) == (excess, scale)


def test_relative_is_the_quotient_and_0_where_both_vanish() -> None:
    claim = Violation(numbers(0, -3, 3, torch.nan), numbers(0, 6, 6, 1))
    assert claim.relative[:3].tolist() == pytest.approx([0, -0.5, 0.5], rel=1e-12)
    assert claim.relative[3].isnan()
    floored = Floored(numbers(0, 3), numbers(8, 8), numbers(0, 6))
    assert floored.bare_relative.tolist() == [0, 0.5]


def test_the_tolerance_in_units_of_roundoff() -> None:
    assert tolerance(torch.float32, 3) == 16 * 7 * 2.0**-24
    assert tolerance(torch.float64, 0) == 64 * 2.0**-53


def test_without_a_rate_in_the_recipe_v_promises_1() -> None:
    def alpha(rate: float | None) -> float:
        return build_lyapunov(LyapunovConfig(hidden=2, alpha=rate), "origin", 3, None).alpha

    assert (alpha(None), alpha(0.25)) == (1.0, 0.25)


@pytest.mark.parametrize(("decay", "lipschitz"), [(0.5, 0.1), (0.2, 0.3), (0.9, 0.01), (3.0, 1e-3)])
def test_the_proved_rate_is_its_formula(decay: float, lipschitz: float) -> None:
    """alpha = 1 + a - sqrt((1 - a)^2 + c^2 K / (2 eta)), and 1 at most; K read from the function itself."""
    torch.manual_seed(0)
    function = InputConvexLyapunov(3, LyapunovConfig(hidden=4, eta=0.3), "equilibrium").double().requires_grad_(False)
    rates = Rates(lipschitz=numbers(lipschitz)[0], decay=numbers(decay)[0])
    bend = float(function.curvature_bound())
    expected = 1 + decay - ((1 - decay) ** 2 + lipschitz**2 * bend / 0.6) ** 0.5
    assert float(proved_rate(function, rates)) == pytest.approx(min(expected, 1.0), rel=1e-12)


def test_the_curvature_of_the_learned_part_is_its_formula() -> None:
    """||W0' diag(u) W0|| and the squares of P, each over the width, by the matrices themselves."""
    function = (
        InputConvexLyapunov(5, LyapunovConfig(hidden=4, smoothing=0.5), "equilibrium").double().requires_grad_(False)
    )
    for parameter in function.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator(3)))
    network = function.network
    weight, mix = network.inner.weight, network.mix
    steepest = torch.linalg.matrix_norm(weight, 2) * mix.norm() + network.skip.weight.norm()
    inner = torch.linalg.matrix_norm(weight.T @ mix.diag() @ weight, 2)
    assert float(function.network.slope_bounds()[0]) == pytest.approx(float(steepest), rel=1e-12)
    expected = (2 * steepest**2 + inner) / 0.5
    assert float(function.curvature_bound()) == pytest.approx(float(expected), rel=1e-12)
