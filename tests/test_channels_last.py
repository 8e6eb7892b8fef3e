"""States that lie channels last in memory stay so on their way, and have the same equilibria and gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stabdeq.solvers import Anderson, Broyden, Implicit, Picard, Solver, fixed_point, solve
from stabdeq.solvers.iteration import lie_channels_last

LIMITS = {"tolerance": 1e-10, "max_evaluations": 200}


def features(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


WEIGHT = features(4, 4, 3, 3) / 12


def convolution(z: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(functional.conv2d(z, WEIGHT, padding=1) + h)


def pointwise_3d(z: Tensor, h: Tensor) -> Tensor:
    return 0.5 * torch.cos(z) + h


@pytest.mark.parametrize("solver", [Anderson(), Broyden(), Picard()])
def test_every_state_lies_as_the_first(solver: Solver) -> None:
    h = features(3, 4, 5, 6)
    seen = []

    def observed(z: Tensor, h: Tensor) -> Tensor:
        seen.append(lie_channels_last(z))
        return convolution(z, h)

    expected = solve(convolution, torch.zeros_like(h), solver, context=[h], **LIMITS)
    assert not lie_channels_last(expected.z)
    h = h.to(memory_format=torch.channels_last)
    found = solve(observed, torch.zeros_like(h), solver, context=[h], **LIMITS)
    assert all(seen)
    assert lie_channels_last(found.z)
    assert found.z.shape == expected.z.shape
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-9)


def test_volumes_too() -> None:
    h = features(2, 3, 2, 4, 5)
    expected = solve(pointwise_3d, torch.zeros_like(h), Anderson(), context=[h], **LIMITS)
    h = h.to(memory_format=torch.channels_last_3d)
    found = solve(pointwise_3d, torch.zeros_like(h), Anderson(), context=[h], **LIMITS)
    assert lie_channels_last(found.z)
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-9)


@pytest.mark.parametrize("faster", [False, True])
def test_the_adjoint_lies_as_the_equilibrium_whatever_the_loss_hands_back(faster: bool) -> None:
    seen = []

    def linearise(z: Tensor) -> tuple[object, tuple[Tensor, ...]]:
        slope = 1 - convolution(z, h.detach()).square()

        def pull_back(u: Tensor, slope: Tensor) -> Tensor:
            seen.append(lie_channels_last(u))
            return functional.conv_transpose2d(u * slope, WEIGHT, padding=1)

        return pull_back, (slope,)

    gradients = []
    loss_weight = features(3, 4, 5, 6)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        h = features(3, 4, 5, 6).to(memory_format=memory_format).requires_grad_()
        adjoint = Implicit(linearise=linearise) if faster else Implicit()
        solution = fixed_point(convolution, torch.zeros_like(h), Anderson(), inputs=[h], adjoint=adjoint, **LIMITS)
        gradients += torch.autograd.grad(solution.z, h, loss_weight)
        if faster:
            assert seen
            assert all(seen) == (memory_format is torch.channels_last)
            seen.clear()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-8)


def test_a_solve_in_parts_and_one_that_fails_keep_the_places() -> None:
    h = features(6, 8, 64, 64).float()  # two at a time on a CPU
    h[3] = torch.nan
    found = solve(
        pointwise_3d,
        torch.zeros_like(h).to(memory_format=torch.channels_last),
        Anderson(),
        context=[h],
        tolerance=1e-4,
        max_evaluations=40,
    )
    assert found.converged.tolist() == [True, True, True, False, True, True]
    sound = found.converged
    torch.testing.assert_close(found.z[sound], pointwise_3d(found.z, h)[sound], rtol=0, atol=1e-2)
