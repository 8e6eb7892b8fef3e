"""An equilibrium is one where Newton's map carries a ball into itself; two are two where such balls lie apart; else nothing is said."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import images as pictures
from small_models import model as our_model
from torch import Tensor

from analysis.audit import audit
from analysis.findings import Finding
from analysis.measure import equilibria
from analysis.measure.newton import Located, locate
from analysis.replay import Replayer
from analysis.report.report import Report
from stabdeq.cells import CertifiedCell
from stabdeq.lyapunov import LyapunovFunction
from stabdeq.solvers import Anderson, Solution, solve

Cell = Callable[[Tensor, Tensor], Tensor]
DOUBLE = torch.float64


class Foreign:
    """Somebody's model: the cell given, pixels as features."""

    def __init__(self, cell: Cell, dim: int, lyapunov: LyapunovFunction | None = None) -> None:
        self.cell, self.dim, self.lyapunov = cell, dim, lyapunov

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.dim]

    def readout(self, z: Tensor) -> Tensor:
        return z.repeat(1, 4)[:, :4]

    def solve(self, h: Tensor) -> Solution:
        return solve(lambda z: self.cell(z, h), torch.zeros_like(h), Anderson(), tolerance=1e-4, max_evaluations=100)


class Square:
    """V = ||z||^2, around the origin or the equilibrium."""

    alpha = 1.0

    def __init__(self, centre: str) -> None:
        self.centre = centre

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return offset.square().sum(1), 2 * offset


def images(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 1, 4, 4, generator=generator, dtype=DOUBLE), torch.arange(count) % 4


def found(model: Any, *checks: str) -> dict[str, Finding]:
    return audit(model, *images(), checks=checks or ("equilibrium",)).named


def linear(a: list[float], b: list[float], c: list[float]) -> Cell:
    slope, gain, shift = (torch.tensor(values, dtype=DOUBLE) for values in (a, b, c))
    return lambda z, h: z * slope + h * gain + shift


def located(cell: Callable[[Tensor], Tensor], z: list[float]) -> Located:
    """``cell`` maps (B, n) to (B, n)."""
    state = torch.tensor(z, dtype=DOUBLE)
    jacobian = lambda w: torch.autograd.functional.jacobian(lambda v: cell(v[None])[0], w)  # noqa: E731
    with torch.enable_grad():
        return locate(lambda w: cell(w) - w, enabled(jacobian), state, torch.Generator().manual_seed(0))


def enabled(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def with_gradient(z: Tensor) -> Any:
        with torch.enable_grad():
            return function(z)

    return with_gradient


# --- Newton's map ---


@pytest.mark.parametrize(
    ("cell", "z", "truth"),
    [
        (lambda z: 0.5 * z + 1, [2 + 1e-9], 2.0),
        (lambda z: 0.5 * torch.cos(z), [0.4501836112948736], 0.4501836112948736),
        (lambda z: -7 * z + 8, [1.0], 1.0),
        (lambda z: (1 - 1e-6) * z + 1e-6, [1 + 1e-9], 1.0),
        (lambda z: 0.5 * torch.relu(z), [0.0], 0.0),  # on a kink, across which the map contracts
    ],
)
def test_the_ball_holds_the_equilibrium(cell: Callable[[Tensor], Tensor], z: list[float], truth: float) -> None:
    ball = located(cell, z)
    assert ball.is_shown
    assert abs(z[0] - truth) <= ball.radius <= 1e-3


@pytest.mark.parametrize(
    ("cell", "z", "reason"),
    [
        (lambda z: z * torch.tensor([0.5, 1 - 2.0**-53], dtype=DOUBLE), [0.0, 0.0], "singular"),
        (lambda z: z * (1 - 2.0**-50), [1.0], "singular"),
        (lambda z: z + 1e-12, [1.0], "singular"),
        (lambda z: torch.relu(z), [0.0], "moves Newton's map|jumps"),  # all states above are equilibria
        (lambda z: z - 0.1 * z**3, [1e-4], "Newton's map|step"),
        (lambda z: z + torch.exp(-z), [25.0], "step"),
        (lambda z: z - 1e-9 * z - 1e-10, [1.0], "step"),
        (lambda z: torch.where(z >= 1, 0.5 * z + 0.5, 0.5 * z), [1.0], "moves Newton's map|jumps"),
        (lambda z: z * torch.nan, [1.0], "finite"),
        (lambda z: torch.where(z == 0, 0.0, torch.sqrt(z.abs())), [0.0], "finite|jumps|moves"),
    ],
)
def test_what_cannot_be_enclosed_is_not_shown(cell: Callable[[Tensor], Tensor], z: list[float], reason: str) -> None:
    ball = located(cell, z)
    assert not ball.is_shown
    assert any(word in ball.reason for word in reason.split("|"))


def test_a_kink_in_many_dimensions_is_seen() -> None:
    """A unit with the slope 2 switches on at the state itself: to one side there is no equilibrium."""
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(50, generator=generator, dtype=DOUBLE)
    direction /= direction.norm()
    assert not located(lambda z: 2 * torch.relu(z @ direction)[:, None] * direction, [0.0] * 50).is_shown
    assert located(lambda z: 0.5 * torch.relu(z @ direction)[:, None] * direction, [0.0] * 50).is_shown


# --- what an audit says ---


@pytest.mark.parametrize(
    "cell",
    [
        linear([0.5, 1 - 2.0**-53], [1.0, 0.0], [0.0, 0.0]),  # one equilibrium, nearly flat
        linear([0.5, 1 - 2.0**-51], [1.0, 0.0], [0.0, 0.0]),
        linear([0.5, 1.0], [1.0, 0.0], [0.0, 1e-12]),  # none: one state drifts
        lambda z, h: torch.stack([0.5 * z[:, 0] + h[:, 0], z[:, 1] + 1e-13 * torch.cos(z[:, 1])], 1),
    ],
)
def test_what_is_flat_to_rounding_neither_exists_nor_is_two(cell: Cell) -> None:
    said = found(Foreign(cell, 2))
    assert said["equilibrium.exists"].verdict == "INCONCLUSIVE"
    assert said["equilibrium.unique"].verdict == "INCONCLUSIVE"
    assert "singular" in said["equilibrium.exists"].evidence
    assert "singular" in said["equilibrium.unique"].evidence


def test_a_cell_without_equilibrium_that_drifts_slowly_has_none_found_nor_two() -> None:
    said = found(Foreign(linear([0.5, 1.0, 0.5], [1.0, 0.0, 1.0], [0.0, 1e-6, 0.0]), 3))
    assert said["equilibrium.exists"].verdict == "INCONCLUSIVE"
    assert said["equilibrium.unique"].verdict == "INCONCLUSIVE"


def three(z: Tensor, h: Tensor) -> Tensor:
    """Equilibria at 0, 1.5 and 3, shifted with the image."""
    return 3 * torch.relu(z - 1 + h / 100) - 3 * torch.relu(z - 2 + h / 100)


def test_two_equilibria_are_refuted_by_balls_that_are_apart_and_again_by_a_replay() -> None:
    model = Foreign(three, 1)
    report = Report.parse(json.loads(audit(model, *images(), checks=["equilibrium"]).to_json()))
    unique = report.named["equilibrium.unique"]
    assert unique.verdict == "REFUTED"
    assert "ball" in unique.evidence
    fetch = lambda places: tuple(part[places] for part in images())  # noqa: E731
    assert Replayer(report=report, model=model, fetch=fetch).replay(unique).refutes
    assert report.named["equilibrium.exists"].verdict == "SUPPORTED"


def test_a_cell_that_is_certified_by_its_make_is_never_refuted_whatever_its_weights() -> None:
    model = our_model("lyadeq", cell="certified")
    assert isinstance(model.cell, CertifiedCell)
    for multiplier in (0.0, 20.0, 200.0):
        with torch.no_grad():
            model.cell.log_multiplier[0] = multiplier
        said = audit(model, pictures(), torch.arange(8) % 3, checks=["equilibrium"]).named["equilibrium.unique"]
        assert said.verdict in ("PROVED", "INCONCLUSIVE"), multiplier
        if not multiplier:
            assert said.verdict == "PROVED"
    assert "by its make" in said.evidence


def test_what_was_not_compared_supports_no_uniqueness() -> None:
    """On images that are bright at one pixel the cell drifts, and nothing is known of them."""

    def cell(z: Tensor, h: Tensor) -> Tensor:
        return torch.where(h[:, 1:] > 0.7, z + 1, 0.5 * torch.tanh(z)) + 0 * h

    model = Foreign(cell, 2)
    dark = int((images()[0].flatten(1)[:, 1] <= 0.7).sum())
    assert 0 < dark < 12
    unique = found(model)["equilibrium.unique"]
    assert unique.verdict == "INCONCLUSIVE"
    assert f"{dark} of 12 images" in unique.evidence
    assert f"of {12 * 8} restarts" in unique.evidence


def test_restarts_of_which_many_fail_support_no_uniqueness() -> None:
    """The cell has one equilibrium, and beyond the distance 3 nothing but a drift away."""

    def cell(z: Tensor, h: Tensor) -> Tensor:
        away = z + z / z.norm(dim=1, keepdim=True).clamp(min=1)
        return torch.where(z.norm(dim=1, keepdim=True) > 3, away, 0.3 * torch.tanh(z)) + 0 * h

    unique = found(Foreign(cell, 2))["equilibrium.unique"]
    assert unique.verdict == "INCONCLUSIVE"
    assert "12 of 12 images" in unique.evidence
    assert "of 96 restarts" in unique.evidence


def test_the_stability_of_a_state_that_is_no_equilibrium_is_not_refuted() -> None:
    """z + exp(z) has none; far to the left its residual is small, and its slope above 1."""
    runaway = Foreign(lambda z, h: z + torch.exp(-25 + z), 2, Square("equilibrium"))  # residual e^-25 at z = 0
    assert found(runaway, "spectrum")["spectrum.stable"].verdict == "INCONCLUSIVE"
    unstable = Foreign(lambda z, h: 2 * z + h, 2, Square("equilibrium"))
    assert found(unstable, "spectrum")["spectrum.stable"].verdict == "REFUTED"


def test_large_states_are_judged_by_their_residual_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("analysis.measure.equilibria", "analysis.checks.equilibrium", "analysis.checks.uniqueness"):
        monkeypatch.setattr(f"{module}.DENSE", 1)
    said = found(Foreign(linear([0.5, 0.5], [1.0, 1.0], [0.0, 0.0]), 2))
    assert said["equilibrium.exists"].verdict == "SUPPORTED"
    assert equilibria.TOO_LARGE in said["equilibrium.exists"].evidence
    assert said["equilibrium.unique"].verdict == "SUPPORTED"
    said = found(Foreign(lambda z, h: three(z, h), 2))
    assert said["equilibrium.unique"].verdict == "INCONCLUSIVE"
    assert equilibria.TOO_LARGE in said["equilibrium.unique"].evidence
