"""The noise of a function, beside a plain median of its differences."""

import pytest
import torch
from plain_states import numbers
from solver_problems import generator
from torch import Tensor

from analysis.evidence import noise, sampling


@pytest.mark.parametrize("outputs", [1, 3])
def test_noise_is_a_median_of_sixth_differences(outputs: int) -> None:
    def function(z: Tensor) -> Tensor:
        found = (1e7 * z[:, 0] - 3e7 * z[:, 1] + torch.arange(outputs)[:, None]).sin().mT * (
            1 + z.norm(dim=1)[:, None] * 1e3
        )
        return found.squeeze(1)

    centre = numbers(0.5, -1)
    rays = sampling.directions(16, 2, generator())
    signs, levels = numbers(1, -6, 15, -20, 15, -6, 1), []
    for place in range(13):
        radius = 2 * 10 ** (-9 + place / 2)
        states = torch.stack([centre + radius * (1 + k / 1024) * ray for ray in rays for k in range(7)])
        values = function(states).view(16, 7, outputs)
        sizes = (values * signs[:, None]).sum(1).norm(dim=1).tolist()
        levels.append(sorted(sizes)[7] / 924**0.5)
    assert noise.rounding_noise(function, centre, 2.0, generator()) == pytest.approx(max(levels), rel=1e-4)
    assert max(levels) > 1e-3
    huge = 1e308 * torch.ones(1, dtype=torch.float64)
    assert noise.rounding_noise(lambda z: huge * (1e12 * z[:, 0]).sin().sign(), centre, 2.0, generator()) == 0
