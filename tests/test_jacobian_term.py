"""The estimate of ||df/dz||_F^2 and its gradient: the exact one beside it, finite differences, and a training that uses it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from solver_problems import normal
from test_objective import SAMPLES, predict, seeded, tiny_model
from torch import Tensor
from training_runs import metrics_of, tiny_data, tiny_recipe

from stabdeq.errors import ConfigError
from stabdeq.solvers import Anderson, fixed_point, squared_jacobian_norm
from train.loss import jacobian_term, training_loss
from train.recipe import JacobianConfig, Recipe, load_recipe
from train.trainer import train


def cell(z: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    return torch.tanh(z @ weight + h)


def exact(z: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    """||J||_F^2 (B,), each sample's Jacobian written out: J = diag(1 - f^2) W'."""
    slopes = 1 - cell(z, h, weight).square()
    return (slopes.square() * weight.square().sum(0)).sum(1)


def test_its_mean_is_the_squared_norm() -> None:
    z, h, weight = normal(2, 5), normal(2, 5, seed=1), normal(5, 5, seed=2)
    draws = torch.stack(
        [
            squared_jacobian_norm(lambda z: cell(z, h, weight), z, generator=torch.Generator().manual_seed(s))
            for s in range(400)
        ]
    ).detach()
    error = draws.std(0) / 20
    assert (error > 0).all()
    assert ((draws.mean(0) - exact(z, h, weight)).abs() <= 4 * error).all()
    whole = squared_jacobian_norm(lambda z: cell(z, h, weight), z, generator=seeded(), probes=400)
    assert ((whole - exact(z, h, weight)).abs() <= 5 * error).all()


def test_a_diagonal_jacobian_is_estimated_without_error() -> None:
    """Signs are their own inverses: ||J' e||^2 of a diagonal J is its squared norm, and the gradient is its gradient."""
    scale = normal(4).requires_grad_()
    z = normal(3, 4, seed=1)
    found = squared_jacobian_norm(lambda z: torch.sin(scale * z), z)
    expected = (scale * torch.cos(scale * z)).square().sum(1)
    torch.testing.assert_close(found, expected)
    one, other = (torch.autograd.grad(value.sum(), scale, retain_graph=True)[0] for value in (found, expected))
    assert float(one.norm()) > 0.1
    torch.testing.assert_close(one, other)


def test_the_gradient_is_that_of_the_estimate_at_a_moving_equilibrium() -> None:
    """By finite differences of the estimate itself, the solve included: z* moves with the weights and the features."""

    def estimate(h: Tensor, weight: Tensor) -> Tensor:
        z = fixed_point(
            cell,
            torch.zeros_like(h),
            Anderson(),
            inputs=[h],
            parameters=[weight],
            tolerance=1e-14,
            max_evaluations=300,
        ).z
        return squared_jacobian_norm(lambda z: cell(z, h, weight), z, generator=seeded(), probes=2)

    inputs = (normal(2, 3, seed=1).requires_grad_(), (0.3 * normal(3, 3)).requires_grad_())
    assert torch.autograd.gradcheck(estimate, inputs)


def test_the_gradient_comes_near_the_exact_one() -> None:
    h, weight = normal(2, 3, seed=1), normal(3, 3).requires_grad_()
    z = normal(2, 3, seed=4)
    found = squared_jacobian_norm(lambda z: cell(z, h, weight), z, generator=seeded(), probes=1500)
    (gradient,) = torch.autograd.grad(found.sum(), weight)
    (expected,) = torch.autograd.grad(exact(z, h, weight).sum(), weight)
    assert float((gradient - expected).norm() / expected.norm()) < 0.1


def test_a_map_that_reads_no_state_and_too_few_probes() -> None:
    assert squared_jacobian_norm(lambda z: torch.ones(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]
    h = torch.ones(2, 3, requires_grad=True)
    assert squared_jacobian_norm(lambda z: 2 * h, torch.zeros(2, 3)).tolist() == [0, 0]
    with pytest.raises(ConfigError, match="probes = 0: expected at least 1"):
        squared_jacobian_norm(lambda z: z, torch.zeros(2, 3), probes=0)


def test_the_term_of_a_model_is_that_of_its_dense_jacobians() -> None:
    model = tiny_model("deq").train()
    prediction = predict(model)
    z, h = prediction.solution.z.detach(), prediction.h.detach()
    with torch.no_grad():
        fixed = model.cell.decoupled(z, h)
    dense = torch.stack(
        [torch.func.jacrev(lambda one, k=k: fixed(one[None], h[k : k + 1])[0])(z[k]) for k in range(SAMPLES)]
    )
    generator = seeded()
    draws = torch.stack([jacobian_term(model, prediction, generator).detach() for _ in range(100)])
    expected = dense.detach().square().sum((1, 2)).mean() / z.shape[1]
    assert float((draws.mean() - expected).abs()) <= 4 * float(draws.std()) / 10


def test_the_total_holds_it_and_nothing_is_drawn_without_it() -> None:
    model, labels = tiny_model("deq").train(), torch.arange(SAMPLES) % 3
    prediction = predict(model)
    generator = seeded()
    plain = training_loss(model, prediction, labels, Recipe(), generator)
    assert torch.equal(generator.get_state(), seeded().get_state())
    assert plain.jacobian.item() == 0
    loss = training_loss(model, prediction, labels, Recipe(jacobian=JacobianConfig(weight=0.5)), seeded())
    term = jacobian_term(model, prediction, seeded())
    assert loss.jacobian.item() == pytest.approx(term.item(), rel=1e-12)
    assert loss.total.item() == pytest.approx(plain.total.item() + 0.5 * term.item(), rel=1e-12)
    term.backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("cell.inner", "backbone")):  # through J itself, and through where the equilibria lie
            assert parameter.grad is not None, name


def test_training_with_it_leaves_a_smaller_jacobian(tmp_path: Path) -> None:
    recipe = replace(tiny_recipe(), kind="deq", epochs=3)
    train(replace(recipe, jacobian=JacobianConfig(weight=10.0)), tiny_data(), tmp_path / "with")
    train(recipe, tiny_data(), tmp_path / "without")
    first, *_, last = metrics_of(tmp_path / "with")[:3]
    assert last["jacobian"] < 0.5 * first["jacobian"]
    assert last["loss"] == pytest.approx(last["cross_entropy"] + 10 * last["jacobian"], rel=1e-5)
    plain = metrics_of(tmp_path / "without")[2]
    assert "jacobian" not in plain
    assert last["evaluations"] < plain["evaluations"]


def test_a_network_without_an_equilibrium_refuses_it() -> None:
    with pytest.raises(ConfigError, match=r"jacobian.weight needs a kind with an equilibrium, and resnet20"):
        load_recipe("digits", {"kind": "resnet20"}, ["jacobian.weight=1"])
    with pytest.raises(ConfigError, match=r"jacobian.weight = -1"):
        load_recipe("digits", settings=["jacobian.weight=-1"])


def test_a_sum_of_squares_that_half_precision_cannot_hold_is_taken_in_float32() -> None:
    found = squared_jacobian_norm(lambda z: 6 * z, torch.zeros(2, 2000, dtype=torch.float16))
    assert found.tolist() == [72000.0, 72000.0]


def test_a_map_may_write_into_its_state() -> None:
    z = torch.ones(2, 5)
    assert squared_jacobian_norm(lambda z: z.mul_(2), z).tolist() == [20.0, 20.0]
    assert z.tolist() == torch.ones(2, 5).tolist()
