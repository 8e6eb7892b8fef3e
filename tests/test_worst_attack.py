"""The worst over attacks, attacks from elsewhere, and expectations over a random model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attack_problems import broken_by, distance, equilibrium_model, generator, network, random_batch, random_split
from torch import Tensor

from stabdeq.attacks import PGD, ExternalAttack, Worst, evaluate, honest
from stabdeq.attacks.ascent import loss_gradient
from stabdeq.attacks.losses import cross_entropy
from stabdeq.attacks.threat_model import STANDS, Adversarial
from stabdeq.errors import DataError

# --- the worst over attacks ---


class MovesTo:
    """An attack that sets images to a value, and records whom it was given."""

    def __init__(self, value: float) -> None:
        self.eps, self.value, self.seen = 1.0, value, torch.empty(0)

    def __call__(self, model: Any, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        self.seen = images.clone()
        no = torch.zeros_like(labels, dtype=torch.bool)
        return Adversarial(torch.full_like(images, self.value), no, no)


class Misled:
    """An attack that changes nothing, and says whose gradient held NaN, and whose was 0."""

    def __init__(self, nonfinite: list[bool], zero: list[bool]) -> None:
        self.eps, self.nonfinite, self.zero = 1.0, torch.tensor(nonfinite), torch.tensor(zero)

    def __call__(self, model: Any, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        return Adversarial(images, self.nonfinite, self.zero)


def test_each_attack_gets_what_still_stands_and_the_one_that_broke_it_is_told() -> None:
    def model(x: Tensor) -> Tensor:  # class 0 below 0.5, class 1 above; class 2 never
        return torch.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5, x[:, 0, 0, 0] * 0 - 9], dim=1)

    images = torch.tensor([0.1, 0.2, 0.8, 0.9]).view(4, 1, 1, 1)
    labels = torch.tensor([0, 1, 1, 0])
    up, down, idle = MovesTo(1.0), MovesTo(0.0), MovesTo(0.4)
    found = Worst({"up": up, "down": down, "idle": idle})(model, images, labels, generator=generator())
    assert broken_by(found).tolist() == [1, 0, 2, 0]
    assert found.images.flatten().tolist() == pytest.approx([1.0, 0.2, 0.0, 0.9])
    assert up.seen.flatten().tolist() == pytest.approx([0.1, 0.8])
    assert down.seen.flatten().tolist() == pytest.approx([0.8])
    assert not idle.seen.numel()


def test_a_sample_that_stands_keeps_its_worst_image() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 0, 0] + 1, 0 * x[:, 0, 0, 0]], dim=1)

    images, labels = torch.full((2, 1, 1, 1), 0.5), torch.zeros(2, dtype=torch.int64)
    attacks = {str(value): MovesTo(value) for value in (0.7, 0.2, 0.4)}
    found = Worst(attacks)(model, images, labels, generator=generator())
    assert broken_by(found).tolist() == [STANDS] * 2
    assert found.images.flatten().tolist() == pytest.approx([0.2, 0.2])


def test_whose_gradient_misled_one_of_the_attacks_is_told() -> None:
    def model(x: Tensor) -> Tensor:  # class 0 wherever the image is
        return torch.stack([0 * x[:, 0, 0, 0] + 1, 0 * x[:, 0, 0, 0]], dim=1)

    images, labels = torch.full((4, 1, 1, 1), 0.5), torch.zeros(4, dtype=torch.int64)
    attacks = {"first": Misled([True, False, False, False], [False, True, False, False])}
    attacks["second"] = Misled([False, True, False, False], [False, False, True, False])
    found = Worst(attacks)(model, images, labels, generator=generator())
    assert found.nonfinite.tolist() == [True, True, False, False]
    assert found.zero.tolist() == [False, True, True, False]


def test_once_seen_wrong_a_random_model_is_counted_wrong() -> None:
    calls = []

    def model(x: Tensor) -> Tensor:  # right on clean images and at the end, wrong when the attack judges
        calls.append(len(x))
        return torch.eye(5)[torch.full((len(x),), int(len(calls) == 3))]

    split = random_split(8)
    split = type(split)(split.images, torch.zeros(8, dtype=torch.int64))
    outcome = evaluate(Worst({"idle": MovesTo(0.5)}), model, split, seed=0)
    assert outcome.clean_correct.all()
    assert broken_by(outcome).tolist() == [1] * 8
    assert not outcome.robust_correct.any()


def test_the_worst_is_below_each_attack_and_its_counts_fit() -> None:
    model = equilibrium_model()
    split = random_split(60)
    split = type(split)(split.images, model(split.images / 255).argmax(1))
    attacks = honest(eps=12 / 255, steps=10)
    worst = evaluate(attacks, model, split, seed=0)
    assert torch.equal(broken_by(worst) == STANDS, worst.robust_correct)
    for name, single in attacks.attacks.items():
        alone = evaluate(single, model, split, seed=0).robust_correct.sum()
        assert worst.robust_correct.sum() <= alone + 2, name  # the starts are others
    assert 0 < worst.robust_correct.sum() < 60


# --- attacks from elsewhere ---


class Fake:
    """Has what AutoAttack has: it seeds itself, and is called with ``bs``."""

    def __init__(self, model: Any, shift: float) -> None:
        self.model, self.shift = model, shift

    def run_standard_evaluation(self, x: Tensor, y: Tensor, bs: int = 250) -> Tensor:
        assert bs == len(x) == len(y)
        assert torch.is_grad_enabled()
        gradient = torch.autograd.grad(cross_entropy(self.model(x.requires_grad_()), y).sum(), x)[0]
        return (x + self.shift * gradient.sign() * torch.rand(1)).clamp(0, 1)


def test_an_external_attack_runs_in_the_place_of_ours() -> None:
    images, labels = random_batch()
    model = network()
    attack = ExternalAttack(build=lambda model: Fake(model, 0.1), eps=0.1)
    draws = torch.get_rng_state()
    with torch.no_grad():
        first, again, other = (attack(model, images, labels, generator=generator(s)).images for s in (1, 1, 2))
    assert torch.equal(draws, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad
    outcome = evaluate(Worst({"fake": attack, "pgd": PGD(eps=0.1)}), model, random_split(), seed=0)
    assert (broken_by(outcome) == 1).any()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: (x + 0.11).clamp(0, 1), "moved an image by 0.11"),
        (lambda x: x - 0.05, "pixels from -0.05"),
        (lambda x: x * torch.nan, "moved an image by nan"),
        (lambda x: x[1:], r"returned \(15, 2, 4, 4\)"),
        (lambda x: (x, 1), "returned tuple"),
    ],
)
def test_an_external_attack_that_leaves_the_ball_is_refused(returned: Callable, message: str) -> None:
    class Careless:
        def run_standard_evaluation(self, x: Tensor, y: Tensor, bs: int) -> Any:
            return returned(x)

    images, labels = random_batch()
    with pytest.raises(DataError, match=message):
        ExternalAttack(build=lambda _: Careless(), eps=0.1)(network(), images, labels, generator=generator())


# --- expectation over randomness ---


def test_gradients_of_a_random_model_are_means_over_evaluations() -> None:
    images, labels = random_batch(4, dtype=torch.float64)
    plain = network().double()
    noise = generator(3)
    calls = []

    def model(x: Tensor) -> Tensor:
        calls.append(1)
        return plain(x + 0.3 * torch.randn(x.shape, generator=noise, dtype=x.dtype))

    expected = loss_gradient(model, images, labels, cross_entropy, samples=4000)[2]
    errors = [distance(loss_gradient(model, images, labels, cross_entropy, samples=n)[2], expected) for n in (1, 200)]
    assert errors[1] < errors[0] / 4
    calls.clear()
    PGD(eps=0.1, steps=3, samples=7)(model, images, labels, generator=generator())
    assert len(calls) == 21
