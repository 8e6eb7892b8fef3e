"""Whole models: their samples, gradients and inputs, and networks without an equilibrium."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import DIM, TIGHT, WITH_EQUILIBRIUM, generator, images, model, settings, trained_statistics
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy

from stabdeq.config import AndersonConfig, ArchitectureConfig
from stabdeq.config.kinds import KINDS, kind_of, model_config
from stabdeq.errors import ConfigError, DataError
from stabdeq.lyapunov import centre_of
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, Broyden, Picard, Solver, Status, solve

# Whole models


@pytest.mark.parametrize("kind", WITH_EQUILIBRIUM)
def test_kinds(kind: str) -> None:
    network = model(kind).train()
    assert kind_of(network.config) == kind
    prediction = network.predict(images())
    assert prediction.logits.shape == (8, 3)
    assert prediction.h.shape == prediction.solution.z.shape == (8, DIM)
    cross_entropy(prediction.logits, torch.arange(8) % 3).backward()
    assert prediction.solution.adjoint[0].residual.isfinite().all()
    for name, parameter in network.named_parameters():
        if name.startswith("lyapunov") and KINDS[kind].stability == "anchored":
            assert parameter.grad is None  # V does not act on the prediction; the decay term of the loss trains it
        else:
            assert parameter.grad.isfinite().all(), name
    assert (network.lyapunov is None) == (KINDS[kind].stability == "none")
    assert (network.head.rotation is None) == (KINDS[kind].head == "linear")


def test_centres_of_the_kinds() -> None:
    equilibrium = torch.ones(2, DIM)
    anchored, paper = model("lyadeq-anchored").lyapunov, model("lyadeq").lyapunov
    assert torch.equal(centre_of(anchored, equilibrium), equilibrium)
    assert torch.equal(centre_of(paper, equilibrium), torch.zeros(2, DIM))


@pytest.mark.parametrize("kind", WITH_EQUILIBRIUM)
def test_samples_are_independent_in_evaluation_mode(kind: str) -> None:
    network = trained_statistics(model(kind, solver=TIGHT).double())
    with torch.no_grad():
        together = network.predict(images().double())
        assert together.solution.converged.all()
        for i in range(8):
            alone = network.predict(images().double()[i : i + 1])
            torch.testing.assert_close(alone.logits[0], together.logits[i], rtol=0, atol=1e-9)
            torch.testing.assert_close(alone.solution.z[0], together.solution.z[i], rtol=0, atol=1e-9)


def test_a_bad_image_leaves_its_neighbours_alone() -> None:
    network = trained_statistics(model("lyadeq-anchored"))
    x = images()
    with torch.no_grad():
        clean = network.predict(x)
        x[3] = torch.nan
        spoilt = network.predict(x)
    others = torch.arange(8) != 3
    assert torch.equal(spoilt.logits[others], clean.logits[others])
    assert torch.equal(spoilt.solution.status[others], clean.solution.status[others])
    assert not spoilt.solution.converged[3]


@pytest.mark.parametrize("kind", ["deq", "lyadeq", "lyadeq-noorth", "lyadeq-anchored"])
def test_input_gradients_in_evaluation_mode(kind: str) -> None:
    """What attacks need."""
    network = trained_statistics(model(kind, solver=AndersonConfig(tolerance=1e-13, max_evaluations=400)).double())
    x = images(3).double().requires_grad_()
    assert gradcheck(network, (x,), atol=1e-5, fast_mode=True)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_parameter_gradients_in_training_mode() -> None:
    """Coupled by BatchNorm: the adjoint equation is that of the whole batch."""
    network = model("lyadeq", solver=AndersonConfig(tolerance=1e-13, max_evaluations=400)).double().train()
    x, labels = images(5).double(), torch.arange(5) % 3

    def loss() -> Tensor:
        return cross_entropy(network(x), labels)

    loss().backward()
    step = 1e-5
    for name in ("cell.inner.weight", "cell.inner_norm.weight", "cell.outer.bias", "backbone.1.weight"):
        parameter = network.get_parameter(name)
        direction = torch.randn(parameter.shape, generator=generator(), dtype=torch.float64)
        with torch.no_grad():
            parameter += step * direction
            above = loss()
            parameter -= 2 * step * direction
            below = loss()
            parameter += step * direction
        slope = (above - below) / (2 * step)
        expected = (parameter.grad * direction).sum()
        torch.testing.assert_close(expected, slope, rtol=1e-5, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("shape", [(8, 1, 4, 5), (8, 2, 4, 4), (1, 4, 4), (8, 16)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"reads images \(B, 1, 4, 4\), not"):
        model().eval()(torch.zeros(shape))


def test_normalisation_is_inside() -> None:
    network = model().eval()
    same = replace(settings(), mean=(0.0,), std=(1.0,))
    plain = StabilisedDEQ(same).eval()
    plain.load_state_dict(network.state_dict() | {"mean": plain.mean, "std": plain.std})
    x = images()
    assert torch.equal(network.inject(x), plain.inject((x - network.mean) / network.std))


def test_mean_and_std_must_fit_the_channels() -> None:
    with pytest.raises(ConfigError, match="one number for each of 1 channels"):
        StabilisedDEQ(settings(mean=(0.5, 0.5)))


def test_backbone_alone_runs_in_bfloat16() -> None:
    network = model("lyadeq-anchored").eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        h = network.inject(images())
    assert h.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(h, network.inject(images()), rtol=0, atol=0.05)


def test_empty_batch() -> None:
    for kind in WITH_EQUILIBRIUM:
        assert model(kind).eval()(images(0)).shape == (0, 3)


def test_equilibrium_without_gradients_carries_none() -> None:
    network = model().eval()
    with torch.no_grad():
        assert not network.predict(images()).solution.z.requires_grad
    assert network.predict(images()).solution.z.requires_grad


# Networks without an equilibrium


def plain_network(**solver: Any) -> StabilisedDEQ:
    torch.manual_seed(0)
    architecture = ArchitectureConfig(solver=AndersonConfig(**solver))
    config = model_config("resnet20", architecture, image_shape=(1, 8, 8), classes=3, mean=(0.4,), std=(0.3,))
    return StabilisedDEQ(config)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_a_network_without_an_equilibrium_is_its_layers_alone(gradient: str, training: bool) -> None:
    """Backbone and classifier, one after the other: the same logits and gradients to the last bit."""
    network, x = plain_network(gradient=gradient).train(training), images(shape=(1, 8, 8))
    found, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    prediction = network.predict(found)
    cross_entropy(prediction.logits, torch.arange(8) % 3).backward()
    gradients = {name: one.grad.clone() for name, one in network.named_parameters()}
    network.zero_grad()
    logits = network.head.classifier(network.backbone((expected - network.mean) / network.std))
    cross_entropy(logits, torch.arange(8) % 3).backward()
    assert torch.equal(prediction.logits, logits)
    assert torch.equal(found.grad, expected.grad)
    assert gradients
    assert all(torch.equal(gradients[name], one.grad) for name, one in network.named_parameters())
    solution = prediction.solution
    assert solution.converged.all()
    assert solution.residual.tolist() == [0] * 8
    assert solution.evaluations.tolist() == [1] * 8
    assert solution.adjoint == []


@pytest.mark.parametrize("solver", [Anderson(), Broyden(), Picard()], ids=["anderson", "broyden", "picard"])
def test_every_solver_finds_the_constant_of_a_constant_cell(solver: Solver) -> None:
    network = plain_network().eval()
    h = network.inject(images(shape=(1, 8, 8))).detach()
    before = h.clone()
    solution = solve(network.cell, torch.zeros_like(h), solver, tolerance=1e-6, max_evaluations=10, context=(h,))
    assert solution.evaluations.tolist() == [2] * 8
    own = network.solve(h)
    for name in ("z", "residual", "status"):
        torch.testing.assert_close(getattr(own, name), getattr(solution, name), rtol=0, atol=0)
    assert torch.equal(h, before)


def test_a_network_without_an_equilibrium_hides_no_nan() -> None:
    network, x = plain_network().eval(), images(shape=(1, 8, 8))
    x[3] = torch.nan
    solution = network.predict(x).solution
    assert (solution.status == Status.nan).tolist() == [i == 3 for i in range(8)]
    assert solution.residual.isinf().tolist() == [i == 3 for i in range(8)]


def test_a_network_without_an_equilibrium_takes_no_images_too() -> None:
    network = plain_network().eval()
    assert network(images(0, shape=(1, 8, 8))).shape == (0, 3)
    with torch.no_grad():
        assert not network.predict(images(shape=(1, 8, 8))).solution.z.requires_grad
