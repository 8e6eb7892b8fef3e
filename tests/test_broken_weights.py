"""An audit of weights that are zero or NaN ends with findings, none of them proved or refuted by what is no number."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import images, model
from torch import Tensor, nn
from torch.nn.utils import parametrize

from analysis.audit import audit
from analysis.measure import spectrum
from analysis.measure.embedding import embedding
from analysis.measure.subject import prepare
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Solution


def rotated(weight: Callable[[Tensor], Tensor]) -> StabilisedDEQ:
    """An anchored model whose orthogonal layer has the ``weight`` made of its own."""
    made = model("lyadeq-anchored")
    rotation = made.head.rotation
    assert isinstance(rotation, nn.Linear)
    parametrize.remove_parametrizations(rotation, "weight")
    with torch.no_grad():
        rotation.weight.copy_(weight(rotation.weight))
    return made


def labels() -> Tensor:
    return torch.arange(8) % 3


@pytest.mark.parametrize(
    ("weight", "verdict", "reason"),
    [
        (torch.zeros_like, "REFUTED", "the same after the orthogonal layer"),
        (lambda own: own * torch.nan, "INCONCLUSIVE", "not finite after the orthogonal layer"),
    ],
)
def test_an_orthogonal_layer_that_is_broken_is_audited_to_the_end(
    weight: Callable[[Tensor], Tensor], verdict: str, reason: str
) -> None:
    made = rotated(weight)
    assert audit(made, images(), labels(), checks=["separation"]).named["separation.isometry"].verdict == verdict
    assert reason in embedding(prepare(made, images(), labels()))["not_drawn"]


class Sharp(nn.Module):
    """A cell whose slope at its equilibrium 0 is infinite; V is the square."""

    alpha, centre = 1.0, "equilibrium"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @property
    def lyapunov(self) -> Any:
        return self

    def forward(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return offset.square().sum(1), 2 * offset

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.dim]

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        return z.abs().sqrt() + 0 * h

    def readout(self, z: Tensor) -> Tensor:
        return z

    def solve(self, h: Tensor) -> Solution:
        zeros = torch.zeros(len(h), dtype=torch.int64)
        return Solution(torch.zeros_like(h), torch.zeros(len(h), dtype=h.dtype), zeros, zeros)


@pytest.mark.parametrize("dense", [1024, 2])
def test_a_jacobian_that_is_not_finite_has_no_spectrum(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "DENSE", dense)
    subject = prepare(Sharp(10), images(), labels())
    assert not subject.equilibria.any()
    found = spectrum.spectrum_at(subject, 0)
    assert len(found.eigenvalues) == 0
    assert found.abscissa != found.abscissa
