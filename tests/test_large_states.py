"""States of more than 1024 numbers: no matrix of n x n, spectra from products, and words that claim no more than was seen."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from analysis.audit import audit
from analysis.checks import uniqueness
from analysis.evidence import shrink
from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.judge import EVALUATED, judge
from analysis.evidence.regions import Ball
from analysis.measure import rows
from analysis.measure.arnoldi import outer_spectrum
from analysis.measure.subject import Subject, prepare, solve_accurately
from stabdeq.adapters import from_functions
from stabdeq.lyapunov.claims import Violation
from stabdeq.model import EquilibriumModel
from stabdeq.solvers import Solution

N = 1200


@pytest.fixture(autouse=True)
def no_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(subject: Subject, z: Tensor, position: int) -> Tensor:
        raise AssertionError(f"a Jacobian of {subject.dim} x {subject.dim} was formed")

    monkeypatch.setattr(Subject, "jacobian", refused)


def model_of(cell: Callable[[Tensor, Tensor], Tensor], lyapunov: object = None) -> EquilibriumModel:
    """Return the model with states of 30 x 40 numbers that reads ten classes off the first of them."""
    inject = lambda x: x.expand(-1, 1, 30, 40).flatten(1)  # noqa: E731
    return from_functions(inject, cell, lambda z: z[:, :10], lyapunov=lyapunov)  # pyrefly: ignore


def images() -> tuple[Tensor, Tensor]:
    pixels = torch.rand(2, 1, 30, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return pixels, torch.tensor([0, 1])


class Quadratic:
    """V = ||z - c||^2 around the equilibrium."""

    alpha = 0.1
    centre = "equilibrium"

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return offset.square().sum(1), 2 * offset


def scaled(largest: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return z -> D z + h with the eigenvalues ``largest``, and 0.5 down to -0.9."""
    scale = torch.linspace(0.5, -0.9, N, dtype=torch.float64)
    scale[0] = largest
    return lambda z, h: scale * z + h


def test_arnoldi_finds_the_outer_eigenvalues_and_tells_their_residuals() -> None:
    found = outer_spectrum(prepare(model_of(scaled(0.7)), *images()), 0)
    assert found.is_partial
    assert found.abscissa == pytest.approx(0.7 - 1, abs=1e-10)
    assert found.radius == pytest.approx(0.9, abs=1e-10)
    assert found.numerical_abscissa == pytest.approx(0.7 - 1, abs=1e-8)
    assert len(found.residuals) == len(found.eigenvalues)
    assert found.residuals.max() < 1e-10
    assert found.error < 1e-8


def test_a_cell_that_ignores_its_state_has_the_spectrum_0() -> None:
    found = outer_spectrum(prepare(model_of(lambda z, h: torch.tanh(h) + 0 * z), *images()), 0)
    assert found.is_partial
    assert found.radius == 0
    assert found.abscissa == -1


def test_an_audit_of_a_convolutional_cell_says_what_of_its_spectrum_is_known() -> None:
    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inner, self.outer = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.norm = nn.GroupNorm(1, 3)

        def forward(self, z: Tensor, h: Tensor) -> Tensor:
            return torch.tanh(h + 0.3 * self.outer(self.norm(torch.relu(self.inner(z)))))

    pixels = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    model = from_functions(
        lambda x: x.expand(-1, 3, 20, 20),
        Convolution(),
        lambda z: z.flatten(1)[:, :10],
        lyapunov=Quadratic(),  # pyrefly: ignore
    )
    report = audit(model, pixels, torch.tensor([0, 1]), checks=["spectrum"])
    finding = report.named["spectrum.stable"]
    assert finding.verdict == "SUPPORTED"
    assert "others may have been missed" in finding.evidence
    assert max(report.series["spectrum"]["residuals"]) < 1e-8


def test_a_large_state_is_audited_without_a_square_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """V that grows too fast is refuted at its centre's sides; its witness is shrunk, and nothing of n x n numbers is made."""

    class Dented(Quadratic):
        def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
            sign = torch.where(offset.square().sum(1) > 1, -1.0, 1.0).double()
            return sign * offset.square().sum(1), 2 * sign[:, None] * offset

    sizes: list[int] = []
    new = torch.where

    def watched(*arguments: Tensor) -> Tensor:
        result = new(*arguments)
        sizes.append(result.numel())
        return result

    monkeypatch.setattr(shrink, "torch", SimpleNamespace(**vars(torch) | {"where": watched}))
    report = audit(model_of(scaled(0.7), Dented()), *images(), checks=["positivity"])
    assert report.named["positivity.positive"].verdict == "REFUTED"
    assert 0 < max(sizes) < 100 * N


def test_the_restarts_of_many_images_are_solved_in_parts_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def three(z: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(3 * z) + 0 * h

    solved: list[int] = []
    solve = uniqueness.solve_accurately

    def counted(f: Callable[..., Tensor], z0: Tensor, context: Tensor) -> Solution:
        solved.append(z0.numel())
        return solve(f, z0, context)

    pixels = torch.rand(9, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    subject = prepare(from_functions(lambda x: x.flatten(1), three, lambda z: z), pixels, torch.zeros(9).long())
    monkeypatch.setattr(uniqueness, "solve_accurately", counted)
    whole = uniqueness._restart(subject)
    monkeypatch.setattr(rows, "NUMBERS", 128)
    parts = uniqueness._restart(subject)
    assert solved == [288, 128, 128, 32]
    torch.testing.assert_close(parts.distance, whole.distance)
    assert len(parts.elsewhere) == len(whole.elsewhere) > 0
    distances = [[ended.distance for ended in found.elsewhere] for found in (parts, whole)]
    assert distances[0] == pytest.approx(distances[1])
    assert distances[0] == sorted(distances[0], reverse=True)


def test_a_judgement_evaluates_batches_of_one_size_whatever_the_samples() -> None:
    largest: list[int] = []
    for samples in (4096, 65536):
        seen: list[int] = []

        def violation(states: Tensor, seen: list[int] = seen) -> Violation:
            seen.append(states.numel())
            value = states.square().sum(1)
            return Violation(-value, value)

        claim = Claim(check="positivity", name="positive", sentence="V > 0.", violation=violation, tolerance=1e-12)
        effort = Effort(samples=samples, starts=4, steps=2)
        assert judge(claim, Ball(torch.zeros(64).double(), 1.0), seed=0, effort=effort).samples > samples
        largest.append(max(seen))
    assert largest[0] == largest[1] == EVALUATED


def test_of_large_states_fewer_are_tried_and_of_small_ones_all() -> None:
    assert Effort().affordable(64) == Effort()
    large = Effort().affordable(10**6)
    assert large.samples * 10**6 <= 2**28
    assert 0 < large.starts < Effort().starts


def test_where_anderson_fails_broyden_solves_for_those_samples_alone() -> None:
    """Where it is solved in one batch, the third sample's map gives NaN."""
    slope = torch.tensor([0.5, 0.5, -40.0, 0.5], dtype=torch.float64)[:, None]
    rows: list[int] = []

    def cell(z: Tensor, h: Tensor) -> Tensor:
        rows.append(len(z))
        return torch.where(h < 0, torch.nan if len(z) == 4 else 0.5, h) * z + 1

    solution = solve_accurately(cell, torch.zeros(4, 1).double(), slope)
    assert bool(solution.converged.all())
    torch.testing.assert_close(solution.z[:, 0], torch.full((4,), 2.0).double())
    assert rows[-1] == 1


def test_an_unstable_eigenvalue_of_a_large_state_refutes_and_replays() -> None:
    report = audit(model_of(scaled(1.5), Quadratic()), *images(), checks=["spectrum"])
    finding = report.named["spectrum.stable"]
    assert finding.verdict == "REFUTED"
    assert "residual of the pair" in finding.evidence
    assert finding.witness["abscissa"] == pytest.approx(0.5)


def test_where_the_residual_is_small_and_no_equilibrium_near_instability_refutes_nothing() -> None:
    """In its first component f(z) - z = sqrt((z + d)^2 + d^2) > 0, of 1.4 d at 0 and of the slope 0.7 there."""

    def cell(z: Tensor, h: Tensor) -> Tensor:
        rise = ((z[:, :1] + 1e-12).square() + 1e-24).sqrt()
        return torch.cat([z[:, :1] + rise, 0.5 * z[:, 1:]], 1)

    finding = audit(model_of(cell, Quadratic()), *images(), checks=["spectrum"]).named["spectrum.stable"]
    assert finding.verdict == "INCONCLUSIVE"
    assert "whether an equilibrium is near is not known" in finding.evidence
