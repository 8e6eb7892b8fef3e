"""The folded cell, and other roads to the equilibrium and its gradient."""

import shutil
from dataclasses import replace

import pytest
import torch
from small_models import DIM, TIGHT, generator, images, model, trained_statistics
from torch import Tensor
from torch.nn.functional import cross_entropy

from stabdeq.cells import Cell
from stabdeq.config import AndersonConfig, PicardConfig
from stabdeq.solvers import Anderson, relative_residual, solve


def drawn_cell(dtype: torch.dtype) -> Cell:
    """In evaluation mode, with nothing at its initial value."""
    torch.manual_seed(0)
    cell = Cell(DIM).eval().to(dtype)
    with torch.no_grad():
        for tensor in (*cell.parameters(), *cell.buffers()):
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator(len(tensor))).to(dtype))
        for norm in (cell.inner_norm, cell.outer_norm):
            norm.running_variance.abs_().add_(0.05)
    return cell


@pytest.mark.parametrize(("dtype", "roundoff"), [(torch.float32, 5e-6), (torch.float64, 1e-14)], ids=str)
def test_folded_cell_is_the_cell(dtype: torch.dtype, roundoff: float) -> None:
    cell = drawn_cell(dtype)
    before = {name: value.clone() for name, value in cell.state_dict().items()}
    z, h = (3 * torch.randn(50, DIM, generator=generator(seed), dtype=dtype) for seed in (1, 2))
    inputs = z.clone(), h.clone()
    with torch.no_grad():
        folded = cell.fold()
        found, expected = folded(z, folded.inject(h)), cell(z, h)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=roundoff, atol=roundoff)
    assert torch.equal(z, inputs[0])
    assert torch.equal(h, inputs[1])
    for name, value in cell.state_dict().items():
        assert torch.equal(value, before[name]), name
    # Nor does it share their memory: a step of training must not reach into a solve, nor the reverse.
    theirs = {value.untyped_storage().data_ptr() for value in cell.state_dict().values()}
    assert not any(getattr(folded, name).untyped_storage().data_ptr() in theirs for name in folded.__dataclass_fields__)


def test_evaluation_mode_solves_the_plain_cell() -> None:
    """What the folded cell finds is the plain cell's equilibrium, with its residual; and it is folded anew each time."""
    network = trained_statistics(model(solver=TIGHT).double())
    for seed in (3, 4):
        with torch.no_grad():
            h = network.inject(images(seed=seed).double())
            found = network.solve(h)
            expected = solve(
                lambda z, h=h: network.cell(z, h),
                torch.zeros_like(h),
                Anderson(),
                tolerance=1e-11,
                max_evaluations=400,
            )
            assert found.converged.all()
            torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-9)
            assert (found.evaluations - expected.evaluations).abs().max() <= 1
            assert (relative_residual(found.z, network.cell(found.z, h)) <= 2e-11).all()
            network.cell.outer.weight.mul_(0.9)


def test_input_gradients_in_evaluation_mode_are_those_of_the_plain_cell() -> None:
    network = trained_statistics(model("lyadeq-anchored", solver=TIGHT).double())
    x = images(4).double().requires_grad_()
    (found,) = torch.autograd.grad(network(x).square().sum(), x)
    direction = torch.randn(x.shape, generator=generator(5), dtype=torch.float64)
    with torch.no_grad():
        above, below = (network(x + sign * 1e-6 * direction).square().sum() for sign in (1, -1))
    torch.testing.assert_close((found * direction).sum(), (above - below) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["deq", "lyadeq-anchored"])
@pytest.mark.parametrize("training", [False, True])
def test_hessian_vector_products_by_the_image(kind: str, training: bool) -> None:
    """By the differences of the gradient; in training mode through the whole batch's statistics too."""
    settings = AndersonConfig(tolerance=1e-13, max_evaluations=400)
    network = trained_statistics(model(kind, solver=settings).double()).train(training)
    x, labels = images(4).double(), torch.arange(4) % 3
    direction = torch.randn(x.shape, generator=generator(5), dtype=torch.float64)

    def slope(x: Tensor, *, create_graph: bool = False) -> Tensor:
        x = x if x.requires_grad else x.requires_grad_()
        return torch.autograd.grad(cross_entropy(network(x), labels), x, create_graph=create_graph)[0]

    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(slope(leaf, create_graph=True), leaf, direction)
    step = 1e-5
    expected = (slope(x + step * direction) - slope(x - step * direction)) / (2 * step)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("training", [False, True])
def test_unrolled_gradient_in_a_model(training: bool) -> None:
    """Of a few steps at the equilibrium; of many, the implicit one."""
    x, labels = images().double(), torch.arange(8) % 3
    gradients = {}
    for gradient, steps in (("implicit", 1), ("unrolled", 1), ("unrolled", 60)):
        solver = replace(TIGHT, gradient=gradient, gradient_steps=steps)
        network = trained_statistics(model(solver=TIGHT).double()).train(training)
        network.config = replace(network.config, solver=solver)
        prediction = network.predict(x)
        cross_entropy(prediction.logits, labels).backward()
        assert len(prediction.solution.adjoint) == (gradient == "implicit")
        gradients[gradient, steps] = {name: one.grad for name, one in network.named_parameters()}
    for name, exact in gradients["implicit", 1].items():
        torch.testing.assert_close(gradients["unrolled", 60][name], exact, rtol=1e-6, atol=1e-9)
    shortened = gradients["unrolled", 1]["cell.inner.weight"]
    assert not torch.allclose(shortened, gradients["implicit", 1]["cell.inner.weight"], rtol=1e-3, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_residual_is_that_of_the_state_with_an_unrolled_gradient(training: bool) -> None:
    """The Solution's word: ``residual`` is the residual of the very state in ``z``, whatever the gradient."""
    loose = AndersonConfig(tolerance=1e-2, gradient="unrolled", gradient_steps=5)
    network = trained_statistics(model(solver=loose).double()).train(training)
    h = network.inject(images().double()).detach()
    solution = network.solve(h)
    true = relative_residual(solution.z.detach(), network.cell(solution.z, h).detach())
    torch.testing.assert_close(solution.residual, true, rtol=1e-6, atol=1e-12)


def test_predictions_do_not_depend_on_whether_gradients_are_recorded() -> None:
    for gradient in ("implicit", "unrolled"):
        loose = AndersonConfig(tolerance=1e-2, gradient=gradient)
        network = trained_statistics(model(solver=loose).double())
        with torch.no_grad():
            expected = network(images().double())
        torch.testing.assert_close(network(images().double()), expected, rtol=0, atol=1e-12, msg=gradient)


def test_compiled_model() -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler")
    network = trained_statistics(model(solver=TIGHT).double())
    x = images().double().requires_grad_()
    plain = network(x)
    (expected,) = torch.autograd.grad(plain.square().sum(), x)
    network.config = replace(
        network.config,
        solver=PicardConfig(tolerance=TIGHT.tolerance, max_evaluations=TIGHT.max_evaluations, compiled=True),
    )
    logits = network(x)
    torch.testing.assert_close(logits, plain, rtol=0, atol=1e-9)
    (found,) = torch.autograd.grad(logits.square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    # Weights that change are seen: they are no constants of the compiled code.
    with torch.no_grad():
        network.cell.outer.weight.mul_(0.5)
        again = network(x)
        network.config = replace(network.config, solver=TIGHT)
        torch.testing.assert_close(again, network(x), rtol=0, atol=1e-9)
    assert not torch.allclose(again, logits, rtol=0, atol=1e-6)
