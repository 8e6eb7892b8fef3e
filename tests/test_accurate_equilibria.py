"""The audit's own equilibria, and what one broken image among sound ones does to a verdict."""

import math

import pytest
import torch
from test_audit import ForeignModel, Quadratic, images
from torch import Tensor

from analysis.checks import decay
from analysis.measure.subject import prepare, solve_accurately
from stabdeq.solvers import relative_residual


def test_the_audit_solves_to_eleven_digits() -> None:
    """z = cos z, whose root is known, and a slow linear map, whose error is a hundred times its residual."""
    solution = solve_accurately(torch.cos, torch.zeros(3, 1, dtype=torch.float64))
    assert solution.z.flatten().tolist() == pytest.approx([0.7390851332151607] * 3, abs=1e-11)
    rates = torch.tensor([0.3, 0.9, -0.9, 0.99], dtype=torch.float64)
    slow = prepare(ForeignModel(lambda z, h: rates * z + h, (4,)), *images())
    assert slow.solution.converged.all()
    assert (relative_residual(slow.solution.z, rates * slow.solution.z + slow.h) <= 1e-11).all()
    torch.testing.assert_close(slow.solution.z, slow.h / (1 - rates), rtol=1e-8, atol=1e-8)


def test_one_image_whose_field_is_not_finite_leaves_the_decay_open() -> None:
    """Around every other image the field is sound, so a worst image by numbers alone would be a sound one."""
    pixels, labels = images()
    own, far = pixels.flatten(1)[5, :2], 1.45  # further from any equilibrium than the solver's start, at the origin

    def cell(z: Tensor, h: Tensor) -> Tensor:
        broken = (h == own).all(1, keepdim=True) & ((z - h).norm(dim=1, keepdim=True) > far)
        return torch.where(broken, math.nan, 0.2 * z + 0.8 * h)

    subject = prepare(ForeignModel(cell, (2,), Quadratic("equilibrium")), pixels, labels)
    assert 5 in subject.found
    assert subject.radius > far
    found = decay._stabilised(subject)
    assert found.verdict == "INCONCLUSIVE"
    assert "not finite" in found.evidence
    sound = prepare(ForeignModel(lambda z, h: 0.2 * z + 0.8 * h, (2,), Quadratic("equilibrium")), pixels, labels)
    assert decay._stabilised(sound).verdict == "SUPPORTED"
