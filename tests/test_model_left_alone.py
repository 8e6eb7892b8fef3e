"""An audit, a certification and a replay work in float64 and in evaluation mode, and leave a caller's model as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import images, model
from torch import Tensor, nn

from analysis.audit import audit
from analysis.certify import certify
from analysis.findings.catalogue import CHECKS
from analysis.measure.subject import Subject
from analysis.replay import Replayer
from analysis.report.report import Report
from stabdeq.errors import DataError
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, Solution, solve

pytestmark = pytest.mark.usefixtures("short_hunts")


class Foreign(nn.Module):
    """Somebody's model: a parameter shared by two names, batch statistics, and a tensor that is none of both."""

    lyapunov = None

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.linear = nn.Linear(4, 4)
        self.tied = self.linear
        self.register_buffer("mask", torch.tensor([True, True, False, True]))
        self.register_buffer("unsaved", torch.ones(4), persistent=False)
        self.narrow = nn.Parameter(torch.zeros(1, dtype=torch.float16))

    def inject(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(1)[:, :4])

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        return 0.1 * torch.tanh(self.tied(z)) * self.mask + h * self.unsaved + self.narrow

    def readout(self, z: Tensor) -> Tensor:
        return z

    def solve(self, h: Tensor) -> Solution:
        return solve(lambda z: self.cell(z, h), torch.zeros_like(h), Anderson(), tolerance=1e-6, max_evaluations=100)


def trained(make: Callable[[], nn.Module]) -> Any:
    """Return a model in the midst of training: some parts frozen, some in evaluation mode, some with gradients."""
    made = make().train()
    parts = list(made.modules())
    parts[len(parts) // 2].training = False
    for place, parameter in enumerate(made.parameters()):
        parameter.requires_grad_(place % 3 != 1)
        if place % 2 == 0:
            parameter.grad = torch.full_like(parameter, 0.25)
    return made


def tensors(made: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from made.named_parameters(remove_duplicate=False)
    yield from made.named_buffers(remove_duplicate=False)


@contextmanager
def left_alone(made: nn.Module) -> Iterator[None]:
    """Fail unless ``made`` is, at the end, what it is at the beginning, down to the memory of its tensors."""
    parts = [(part, part.training) for part in made.modules()]
    before = [(name, one, one.dtype, one.requires_grad, one.data_ptr(), one.clone()) for name, one in tensors(made)]
    gradients = [(one, one.grad, None if one.grad is None else one.grad.clone()) for one in made.parameters()]
    yield
    assert [(part, part.training) for part in made.modules()] == parts
    after = list(tensors(made))
    assert [name for name, _ in after] == [name for name, *_ in before]
    for (name, one), (_, was, dtype, requires_grad, place, value) in zip(after, before, strict=True):
        assert one is was, name
        assert (one.dtype, one.requires_grad, one.data_ptr()) == (dtype, requires_grad, place), name
        assert torch.equal(one, value), name
    for one, gradient, value in gradients:
        assert one.grad is gradient
        assert gradient is None or (gradient.dtype == one.dtype and torch.equal(gradient, value))


def sample() -> tuple[Tensor, Tensor]:
    return images(6).double(), torch.arange(6) % 3


def fetch(places: list[int]) -> tuple[Tensor, Tensor]:
    x, labels = sample()
    return x[places], labels[places]


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "anchored": lambda: model("lyadeq-anchored"),
    "paper": lambda: model("lyadeq"),
    "foreign": Foreign,
}


@pytest.mark.parametrize("maker", MAKERS)
def test_an_audit_leaves_the_model_as_it_was(maker: str) -> None:
    made = trained(MAKERS[maker])
    with left_alone(made):
        report = audit(made, *sample(), checks=["equilibrium", "separation", "spectrum", "convergence"])
    assert {item.dtype for item in report.findings} == {"float64"}


def test_the_whole_audit_leaves_the_model_as_it_was() -> None:
    made = trained(MAKERS["anchored"])
    with left_alone(made):
        assert audit(made, *sample()).findings


@pytest.mark.parametrize("cell", ["batchnorm", "certified", "monotone", "interval"])
def test_a_certification_leaves_the_model_as_it_was(cell: str) -> None:
    made = trained(lambda: model("lyadeq-anchored", cell=cell))
    assert isinstance(made, StabilisedDEQ)
    with left_alone(made):
        assert certify(made, *sample()).findings


def test_the_model_answers_and_trains_on_as_before() -> None:
    made, untouched = trained(MAKERS["anchored"]), trained(MAKERS["anchored"])
    audit(made, *sample(), checks=["equilibrium"])
    assert torch.equal(made(images(6)), untouched(images(6)))
    made(images(6)).sum().backward()
    assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in made.parameters())


class BrokenError(Exception):
    """What a check raises here."""


@pytest.mark.parametrize("maker", MAKERS)
def test_a_check_that_raises_leaves_the_model_as_it_was(maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: Subject) -> None:
        assert isinstance(subject.model, nn.Module)
        assert not any(part.training for part in subject.model.modules())
        assert {one.dtype for one in subject.model.parameters()} == {torch.float64}
        raise BrokenError

    monkeypatch.setitem(CHECKS._registered, "broken", replace(CHECKS["equilibrium"], name="broken", run=broken))
    made = trained(MAKERS[maker])
    with left_alone(made), pytest.raises(BrokenError):
        audit(made, *sample(), checks=["broken"])


def test_a_certification_that_raises_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise BrokenError

    monkeypatch.setattr("analysis.from_weights.cell.find_contraction", broken)
    made = trained(MAKERS["anchored"])
    with left_alone(made), pytest.raises(BrokenError):
        certify(made, *sample())


def test_a_model_that_refuses_its_images_is_left_as_it_was() -> None:
    made = trained(Foreign)
    with left_alone(made), pytest.raises(DataError):
        audit(made, torch.zeros(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64))


def test_a_replay_leaves_the_model_as_it_was() -> None:
    report = audit(model("lyadeq"), *sample(), checks=["equilibrium"])
    refuted = report.named["equilibrium.preserved"]
    made = trained(MAKERS["paper"])
    with left_alone(made):
        again = Replayer(
            report=Report.parse({"sample": report.sample, "images": report.images}), model=made, fetch=fetch
        )
        assert again.replay(refuted).refutes
