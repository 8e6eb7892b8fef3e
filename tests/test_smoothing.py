"""Functions smoothed, each beside its plain formula."""

from collections.abc import Callable

import pytest
import torch
from plain_states import close, numbers, random
from torch import Tensor

from analysis.evidence.smoothing import smoothed
from stabdeq.lyapunov.claims import Violation

WIDTH = 0.7


def blur(argument: Tensor) -> Tensor:
    return WIDTH * argument.square().mean(0, keepdim=True).sqrt()


def ramp(argument: Tensor) -> Tensor:
    return (argument + (argument.square() + blur(argument).square()).sqrt()) / 2


def step(argument: Tensor) -> Tensor:
    return (1 + argument / (argument.square() + blur(argument).square()).sqrt()) / 2


def clamped(z: Tensor, low: float, high: float) -> Tensor:
    raised = low + ramp(z - low)
    return high - ramp(high - raised)


def other_of(z: Tensor) -> Tensor:
    return z.flip(1) / 2 + 0.3


BLURRED: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
    (torch.relu, ramp),
    (lambda z: torch.nn.functional.relu(z.clone(), inplace=True), ramp),
    (lambda z: z.clamp(-0.5, 1), lambda z: clamped(z, -0.5, 1)),
    (lambda z: z.clip(min=-0.5), lambda z: -0.5 + ramp(z + 0.5)),
    (lambda z: z.clamp_min(-0.5), lambda z: -0.5 + ramp(z + 0.5)),
    (lambda z: z.clamp_max(1), lambda z: 1 - ramp(1 - z)),
    (lambda z: z.clamp(max=1), lambda z: 1 - ramp(1 - z)),
    (torch.nn.functional.hardtanh, lambda z: clamped(z, -1, 1)),
    (lambda z: torch.nn.functional.hardtanh(z, -2, 0.5), lambda z: clamped(z, -2, 0.5)),
    (torch.nn.functional.relu6, lambda z: clamped(z, 0, 6)),
    (lambda z: torch.maximum(z, other_of(z)), lambda z: other_of(z) + ramp(z - other_of(z))),
    (lambda z: torch.min(z, other_of(z)), lambda z: other_of(z) - ramp(other_of(z) - z)),
    (lambda z: torch.where(z > other_of(z), z, 2 * z), lambda z: step(z - other_of(z)) * z + (1 - step(z - other_of(z))) * 2 * z),
    (lambda z: torch.where(z <= 0.2, z, 2 * z), lambda z: step(0.2 - z) * z + (1 - step(0.2 - z)) * 2 * z),
    (lambda z: 3 * (z >= 0.2), lambda z: 3 * step(z - 0.2)),
    (lambda z: (z < 0.2) * z, lambda z: step(0.2 - z) * z),
    (lambda z: (z > 0) * (z < 0.2), lambda z: step(z) * step(0.2 - z)),
    (lambda z: (z > 0.1).float(), lambda z: step(z - 0.1)),
    (torch.exp, lambda z: (z / blur(z).clamp(min=1)).exp()),
    (lambda z: torch.tanh(5 * z), lambda z: (5 * z / blur(5 * z).clamp(min=1)).tanh()),
    (lambda z: torch.sigmoid(5 * z), lambda z: (5 * z / blur(5 * z).clamp(min=1)).sigmoid()),
    (lambda z: torch.nn.functional.softplus(5 * z), lambda z: blur(5 * z).clamp(min=1) * (5 * z / blur(5 * z).clamp(min=1)).exp().log1p()),
    (lambda z: torch.nn.functional.softplus(z, beta=0.5), lambda z: 2 * (z / 2).exp().log1p()),
    (lambda z: torch.relu(torch.relu(z) - 0.5), lambda z: ramp(ramp(z) - 0.5)),
    (lambda z: torch.max(z, 1, keepdim=True).values + 0 * z, lambda z: z.amax(1, keepdim=True) + 0 * z),
    (lambda z: torch.min(z, 1, keepdim=True).values + 0 * z, lambda z: z.amin(1, keepdim=True) + 0 * z),
]  # fmt: skip


@pytest.mark.parametrize(("function", "reference"), BLURRED)
def test_a_function_is_blurred_by_what_it_meets(
    function: Callable[[Tensor], Tensor], reference: Callable[[Tensor], Tensor]
) -> None:
    def violation(z: Tensor) -> Violation:
        found = function(z)
        return Violation((found.double() if found.dtype != torch.float64 else found).sum(1), 7 * torch.ones(len(z)))

    states = 1.5 * random(6).requires_grad_()
    blurred = smoothed(violation, WIDTH)
    first = blurred(states)
    close(first.excess.detach(), reference(states).sum(1).detach(), 1e-7)
    assert first.scale.tolist() == [1] * 6
    # What was measured in the first call holds in later ones, of any size.
    again = blurred(states[2:3])
    close(again.excess.detach(), first.excess[2:3].detach())
    assert blurred(states[2:3].detach()).excess.tolist() == pytest.approx(
        violation(states[2:3].detach()).excess.tolist()
    )


def test_what_does_not_depend_on_the_states_is_not_blurred() -> None:
    fixed = numbers(-1, 2)

    def violation(z: Tensor) -> Violation:
        found = z + torch.relu(fixed) + fixed.clamp(0, 1) + torch.maximum(fixed, -fixed) + torch.minimum(fixed, -fixed)
        found = found + torch.exp(fixed) + torch.nn.functional.softplus(fixed) + torch.where(fixed > 0, fixed, 0)
        return Violation(found.sum(1), torch.ones(len(z)))

    states = random(5).requires_grad_()
    close(smoothed(violation, 1.0)(states).excess.detach(), violation(states).excess.detach())


def test_a_function_that_is_0_everywhere_is_blurred_by_next_to_nothing() -> None:
    def violation(z: Tensor) -> Violation:
        return Violation(torch.where(0 * z > 0, 1.0, -1.0).sum(1), torch.ones(len(z)))

    states = random(5).requires_grad_()
    found = smoothed(violation, 1.0)(states).excess
    (slope,) = torch.autograd.grad(found.sum(), states)
    assert bool(slope.isfinite().all() & found.isfinite().all())
