"""Adapters: models of functions and of TorchDEQ are audited as what they compute, and left as they were."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stabdeq
from stabdeq.adapters import from_functions
from stabdeq.errors import ConfigError
from stabdeq.solvers import Status

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


class Parts(nn.Module):
    """A linear contraction, whose equilibrium is known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.classifier = nn.Linear(16, 5), nn.Linear(5, 3)
        self.matrix = nn.Parameter(0.3 * torch.randn(5, 5))

    def features(self, x: Tensor) -> Tensor:
        return self.encoder(x.flatten(1))

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return z @ self.matrix.T + h


def exact(parts: Parts, h: Tensor) -> Tensor:
    return torch.linalg.solve(torch.eye(5) - parts.matrix, h.T).T


def test_equilibria_and_gradients_of_functions_are_exact() -> None:
    parts = Parts()
    model = from_functions(parts.features, parts.step, parts.classifier, tolerance=1e-6, max_evaluations=200)
    x = IMAGES.clone().requires_grad_()
    h = parts.features(x)
    solution = model.solve(h)
    torch.testing.assert_close(solution.z, exact(parts, h), rtol=0, atol=1e-4)
    (gradient,) = torch.autograd.grad(solution.z.sum(), x, retain_graph=True)
    (expected,) = torch.autograd.grad(exact(parts, h).sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model(IMAGES), parts.classifier(exact(parts, h)), rtol=0, atol=1e-4)


def test_a_model_of_functions_trains_all_its_weights() -> None:
    parts = Parts()
    model = from_functions(parts.features, parts.step, parts.classifier, tolerance=1e-6, max_evaluations=200)
    model(IMAGES).square().sum().backward()
    found = {name: value.grad for name, value in parts.named_parameters()}
    parts.zero_grad()
    parts.classifier(exact(parts, parts.features(IMAGES))).square().sum().backward()
    for name, value in parts.named_parameters():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-3, atol=1e-3)


def test_an_audit_of_functions_widens_their_modules_and_gives_them_back() -> None:
    parts = Parts()
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    model = from_functions(parts.features, parts.step, parts.classifier)
    report = stabdeq.audit(model, IMAGES, LABELS, checks=["equilibrium"])
    assert report.exit_code == 0
    assert report.named["equilibrium.exists"].verdict == "SUPPORTED"
    for name, value in parts.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_states_of_another_shape_than_the_features() -> None:
    def cell(z: Tensor, h: Tensor) -> Tensor:
        return 0.5 * torch.tanh(z) + h.unsqueeze(2).expand(-1, -1, 2)

    model = from_functions(lambda x: x.flatten(1)[:, :3], cell, lambda z: z.flatten(1), state_shape=(3, 2))
    assert model.solve(model.inject(IMAGES)).z.shape == (6, 3, 2)
    assert stabdeq.audit(model, IMAGES, LABELS, checks=["equilibrium"]).exit_code == 0


def test_a_method_that_a_derived_class_replaced_is_the_one_that_was_given() -> None:
    class Derived(Parts):
        def step(self, z: Tensor, h: Tensor) -> Tensor:
            return torch.zeros_like(z)

    derived = Derived()
    model = from_functions(derived.features, super(Derived, derived).step, derived.classifier)
    z, h = torch.ones(2, 5), torch.ones(2, 5)
    assert torch.equal(model.cell(z, h), Parts.step(derived, z, h))


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError, match="readout is a int: expected a function"):
        from_functions(lambda x: x, lambda z, h: h, 3)  # type: ignore[arg-type]


def test_a_state_that_is_no_number_has_not_run_out_of_evaluations() -> None:
    from stabdeq.adapters.torchdeq import TorchDEQModel, get_deq

    parts = Parts()
    model = TorchDEQModel(
        parts,
        get_deq(f_max_iter=20).eval(),
        inject=parts.features,
        cell=lambda z, h: torch.where(h[:, :1] > 0, torch.nan, z / 2),
        readout=parts.classifier,
    )
    h = torch.tensor([[1.0] * 5, [-1.0] * 5])
    assert model.solve(h).status.tolist() == [Status.nan, Status.converged]


class Convolutional(nn.Module):
    """A model as TorchDEQ's users write it, with weights that TorchDEQ normalises."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        import torchdeq

        torch.manual_seed(0)
        self.encoder, self.inner = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.classifier = nn.Linear(48, 3)
        self.deq = torchdeq.get_deq(ift=True, f_solver="anderson", f_max_iter=50, f_tol=1e-4, f_stop_mode="rel")
        torchdeq.apply_norm(self.inner, norm)

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(0.3 * self.inner(z) + h)

    def readout(self, z: Tensor) -> Tensor:
        return self.classifier(z.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)
        states, _ = self.deq(lambda z: self.step(z, h), torch.zeros_like(h))
        return self.readout(states[-1])


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_a_convolutional_torchdeq_model_with_normalised_weights(norm: str) -> None:
    pytest.importorskip("torchdeq")
    import torchdeq

    from stabdeq.adapters.torchdeq import TorchDEQModel

    model = Convolutional(norm).eval()
    for _ in range(50):  # a step of the power iteration each, as in training
        torchdeq.reset_deq(model)
    before = model(IMAGES).detach()
    parts: dict[str, Any] = {"inject": model.encoder, "cell": model.step, "readout": model.readout}
    adapter = TorchDEQModel(model, model.deq, tolerance=1e-3, **parts)
    torch.testing.assert_close(adapter(IMAGES), before, rtol=0, atol=1e-3)
    before = model(IMAGES).detach()
    report = stabdeq.audit(adapter, IMAGES, LABELS, checks=["equilibrium", "convergence", "spectrum"])
    verdicts = {name: str(finding.verdict) for name, finding in report.named.items()}
    assert verdicts == {
        "equilibrium.exists": "SUPPORTED",
        "equilibrium.unique": "SUPPORTED",
        "convergence.own solver": "SUPPORTED",
    }
    torch.testing.assert_close(model(IMAGES), before, rtol=0, atol=0)
