"""The contract that ``stabdeq.testing.assert_attack`` holds attacks to: ours keep to it, and each planted fault is named."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stabdeq.attacks import PGD, Adversarial, Attack, ExternalAttack, Worst, build_attack
from stabdeq.config import ModelConfig
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ
from stabdeq.radius import NormName
from stabdeq.testing import assert_attack

STEPS = {"intermediate": 1, "honest": 1, "square": 12}


def equilibrium_model() -> StabilisedDEQ:
    """A model with an equilibrium that is sure of class 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(
            ModelConfig(
                image_shape=(3, 6, 6), classes=5, mean=(0.5,) * 3, std=(0.3,) * 3, cell="certified", state_dim=8
            )
        )
    with torch.no_grad():
        model.head.classifier.bias[0] += 100
    return model.eval()


IN_BOTH_NORMS = ["pgd", "apgd-ce", "apgd-t", "square", "intermediate", "honest"]


@pytest.mark.parametrize(
    ("name", "norm"), [("ifgsm", "linf"), *((name, norm) for name in IN_BOTH_NORMS for norm in ("linf", "l2"))]
)
def test_ours_keep_to_it(name: str, norm: NormName) -> None:
    model = equilibrium_model() if name in ("intermediate", "honest") else None
    assert_attack(
        lambda eps: build_attack(name, eps=eps, steps=STEPS.get(name, 4), norm=norm), eps=0.1, norm=norm, model=model
    )


def test_several_in_turn_and_one_from_elsewhere_keep_to_it() -> None:
    assert_attack(lambda eps: Worst({"one": PGD(eps=eps, steps=2), "two": PGD(eps=eps, steps=3, restarts=2)}))

    def run_standard_evaluation(images: Tensor, labels: Tensor, bs: int, eps: float) -> Tensor:
        return (images + eps * torch.rand(images.shape).mul(2).sub(1)).clamp(0, 1)

    def external(eps: float) -> Attack:
        def evaluation(images: Tensor, labels: Tensor, bs: int) -> Tensor:
            return run_standard_evaluation(images, labels, bs, eps)

        return ExternalAttack(build=lambda model: SimpleNamespace(run_standard_evaluation=evaluation), eps=eps)

    assert_attack(external)


@dataclass
class Faulty:
    """One signed step from a random point, as it should be, with ``fault`` worked into it."""

    eps: float
    fault: Callable[..., Adversarial | None]

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        right = PGD(eps=self.eps, steps=1, step_size=0.1)(model, images, labels, generator=generator)
        made = self.fault(right, model=model, images=images, labels=labels, eps=self.eps)
        return right if made is None else made


def outside_the_ball(right: Adversarial, *, images: Tensor, eps: float, **_: Any) -> Adversarial:
    return replace(right, images=(images + 1.1 * (right.images - images)).clamp(0, 1))


def outside_the_unit_interval(right: Adversarial, *, images: Tensor, eps: float, **_: Any) -> Adversarial:
    return replace(right, images=images - eps)


def moving_at_zero(right: Adversarial, *, images: Tensor, eps: float, **_: Any) -> Adversarial | None:
    return replace(right, images=(images + 1e-3).clamp(0, 1)) if eps == 0 else None


def leaving_training_mode(right: Adversarial, *, model: nn.Module, **_: Any) -> None:
    model.train()


def leaving_gradients(right: Adversarial, *, model: nn.Module, images: Tensor, labels: Tensor, **_: Any) -> None:
    cross_entropy(model(images), labels).backward()


def freezing(right: Adversarial, *, model: nn.Module, **_: Any) -> None:
    model.requires_grad_(False)


def moving_weights(right: Adversarial, *, model: nn.Module, **_: Any) -> None:
    with torch.no_grad():
        next(model.parameters()).add_(1)


def writing_into_images(right: Adversarial, *, images: Tensor, **_: Any) -> None:
    images.clamp_(0.2, 0.8)


def writing_into_labels(right: Adversarial, *, labels: Tensor, **_: Any) -> None:
    labels.fill_(2)


def drawing_globally(right: Adversarial, **_: Any) -> None:
    torch.rand(1)


def counting() -> Callable[..., Adversarial]:
    runs = iter(range(100))

    def remembering(right: Adversarial, *, images: Tensor, eps: float, **_: Any) -> Adversarial:
        return replace(right, images=torch.lerp(images, right.images, 1 / (1 + next(runs))))

    return remembering


def coupling(right: Adversarial, *, images: Tensor, eps: float, **_: Any) -> Adversarial:
    change = right.images - images
    mean = change.mean(0, keepdim=True)  # within the ball too, since balls are convex
    return replace(right, images=(images + mean).clamp(0, 1))


FAULTS: list[tuple[Callable[..., Adversarial | None], str]] = [
    (outside_the_ball, "leaves its ball"),
    (outside_the_unit_interval, "leaves \\[0, 1\\]"),
    (moving_at_zero, "at eps = 0 the attack changes an image by 0.001"),
    (leaving_training_mode, "in another mode"),
    (leaving_gradients, "gradients of the model's parameters"),
    (freezing, "require gradients"),
    (moving_weights, "the model's 1.weight"),
    (writing_into_images, "changes the images that it is given"),
    (writing_into_labels, "changes the labels"),
    (drawing_globally, "global generator"),
    (counting(), "equal generators differ"),
    (coupling, "with the others in its batch"),
    (lambda right, **_: replace(right, zero=right.zero[:1]), "flags zero are \\(1,\\)"),
    (lambda right, **_: replace(right, nonfinite=right.zero.float()), "flags nonfinite are .* of torch.float32"),
    (lambda right, **_: replace(right, broken_by=right.zero), "flags broken_by are .* of torch.bool"),
    (lambda right, **_: replace(right, broken_by=right.zero.long() - 2), "broken_by holds -2"),
    (lambda right, **_: replace(right, images=right.images.double()), "images .* of torch.float64"),
    (lambda right, **_: replace(right, images=right.images.clone().requires_grad_()), "require gradients: detach"),
    (lambda right, **_: replace(right, images=right.images * torch.nan), "NaN or infinite"),
    (lambda right, **_: torch.set_grad_enabled(False) and None, "grad mode"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_planted_fault_is_named(fault: Callable[..., Adversarial | None], message: str) -> None:
    assert_attack(lambda eps: Faulty(eps, lambda right, **_: None))
    try:
        with pytest.raises(AssertionError, match=message):
            assert_attack(lambda eps: Faulty(eps, fault))
    finally:
        torch.set_grad_enabled(True)


def test_another_eps_than_asked_for_is_named() -> None:
    with pytest.raises(AssertionError, match=r"made for eps = 0\.1 says that its eps is 8"):
        assert_attack(lambda eps: SimpleNamespace(eps=8), eps=0.1)  # type: ignore[arg-type, return-value]


def test_bad_arguments_are_refused() -> None:
    def attack(eps: float) -> Attack:
        return PGD(eps=eps, steps=1)

    with pytest.raises(ConfigError, match="above 0"):
        assert_attack(attack, eps=0.0)
    with pytest.raises(ConfigError, match="training mode"):
        assert_attack(attack, model=equilibrium_model().train())
