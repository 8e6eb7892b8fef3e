"""The adjoint's solver has a history for each sample, and one for all where the samples are coupled."""

import torch
from implicit_problems import equilibrium
from solver_problems import normal
from torch import Tensor

from stabdeq.solvers import Anderson, Solution
from stabdeq.solvers.implicit import attach_gradient


def stretched(z: Tensor, weight: Tensor, h: Tensor) -> Tensor:
    """A linear map of each sample, whose slope grows from sample to sample."""
    return z @ weight.T * torch.linspace(0.1, 0.9, len(z), dtype=z.dtype)[:, None] + h


def adjoint_of(coupled: bool, last: float = 1.0, *, unsaid: bool = False) -> Solution:
    weight = (normal(6, 6) / 3).requires_grad_()
    h = normal(4, 6, seed=1).requires_grad_()
    attached, solution = equilibrium(stretched, weight, h, solver=Anderson(), tolerance=1e-10, coupled=coupled)
    if unsaid:
        limits = {"tolerance": 1e-10, "max_evaluations": 500}
        attached = attach_gradient(stretched, (weight, h), solution, Anderson(), **limits)
    probe = normal(4, 6, seed=2)
    probe[-1] += last * normal(6, seed=3)
    torch.autograd.grad((attached * probe).sum(), h)
    return solution.adjoint[0]


def test_a_sample_has_nothing_of_another() -> None:
    one, other = adjoint_of(coupled=False), adjoint_of(coupled=False, last=2.0)
    assert torch.equal(one.z[:-1], other.z[:-1])
    assert not torch.equal(one.z[-1], other.z[-1])
    assert len(set(one.evaluations.tolist())) > 1


def test_samples_are_coupled_only_where_that_is_said() -> None:
    assert torch.equal(adjoint_of(coupled=False, unsaid=True).z, adjoint_of(coupled=False).z)


def test_coupled_samples_go_together() -> None:
    assert len(set(adjoint_of(coupled=True).evaluations.tolist())) == 1
