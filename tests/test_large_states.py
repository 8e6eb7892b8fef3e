"""States of more than 1024 numbers: no matrix of n x n, spectra from products, and words that claim no more than was seen."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from analysis.audit import audit
from analysis.measure.arnoldi import outer_spectrum
from analysis.measure.subject import Subject, prepare
from stabdeq.adapters import from_functions
from stabdeq.model import EquilibriumModel

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
