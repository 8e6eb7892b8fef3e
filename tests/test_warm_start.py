"""A solve that begins at known equilibria: the same answer within the tolerance, fewer evaluations, the same gradient."""

import pytest
import torch
from torch import Tensor

from stabdeq.config import AndersonConfig, ModelConfig
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import norm, solve
from stabdeq.solvers.picard import Picard


def monotone_model(tolerance: float = 1e-8) -> StabilisedDEQ:
    torch.manual_seed(0)
    config = ModelConfig(
        image_shape=(1, 3, 3),
        classes=3,
        mean=(0.5,),
        std=(0.3,),
        cell="monotone",
        state_dim=6,
        solver=AndersonConfig(tolerance=tolerance, max_evaluations=200),
    )
    return StabilisedDEQ(config).double().eval()


def features(seed: int = 0) -> Tensor:
    return 3 * torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_from_a_neighbours_equilibrium_it_finds_the_same_in_fewer_evaluations() -> None:
    model, h = monotone_model(), features()
    near = h + 1e-7 * features(1)
    known = model.solve(h).z.detach()
    cold, warm = model.solve(near), model.solve(near, known)
    assert cold.converged.all()
    assert warm.converged.all()
    # This cell's equilibria move no further than the residual does: both are within the tolerance of the one there is.
    assert (norm(warm.z - cold.z) <= 4e-8 * norm(cold.z).clamp(min=1)).all()
    assert (warm.evaluations < cold.evaluations).all()
    assert model.solve(h, known).evaluations.tolist() == [1] * len(h)


def test_from_another_samples_equilibrium_it_still_finds_its_own() -> None:
    model, h = monotone_model(), features()
    known = model.solve(h).z.detach()
    warm = model.solve(h, known.roll(1, 0))
    assert (norm(warm.z - known) <= 4e-8 * norm(known).clamp(min=1)).all()


def test_its_gradient_is_that_of_the_equilibrium_and_none_reaches_the_start() -> None:
    model, h = monotone_model(1e-11), features().requires_grad_()
    start = features(1).requires_grad_()
    cold, warm = (
        torch.autograd.grad(found.z.square().sum(), h)[0] for found in (model.solve(h), model.solve(h, start))
    )
    torch.testing.assert_close(warm, cold, rtol=1e-7, atol=1e-9)
    model.solve(h, start).z.sum().backward()
    assert start.grad is None


def test_where_there_are_two_equilibria_the_start_decides() -> None:
    """So a solve begins at 0 unless it is told otherwise."""
    ends = [
        solve(
            lambda z: torch.tanh(2 * z), torch.full((1, 1), z0), Picard(), tolerance=1e-5, max_evaluations=99
        ).z.item()
        for z0 in (0.1, -0.1)
    ]
    assert ends == [pytest.approx(0.9575, abs=1e-3), pytest.approx(-0.9575, abs=1e-3)]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (torch.zeros(7, 5, dtype=torch.float64), r"\(7, 6\) torch.float64 on cpu, not \(7, 5\) torch.float64 on cpu"),
        (torch.zeros(6, 6, dtype=torch.float64), r"not \(6, 6\)"),
        (torch.zeros(7, 6), r"not \(7, 6\) torch.float32"),
        (torch.full((7, 6), torch.nan, dtype=torch.float64), "7 of 7 starts are NaN or infinite"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(start: Tensor, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        monotone_model().solve(features(), start)


def test_a_start_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a list"):
        monotone_model().solve(features(), [1.0])
