"""What makes the honest set fast leaves its results: samples that leave at their first mistake, and equilibria that are followed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_problems import broken_by, equilibrium_model, generator, network, random_batch
from torch import Tensor

from stabdeq.attacks import APGD, PGD, Square, Worst, honest
from stabdeq.attacks.ascent import loss_gradient
from stabdeq.attacks.followed import Followed
from stabdeq.attacks.losses import cross_entropy
from stabdeq.attacks.settling import STRIDE, settle
from stabdeq.attacks.standing import Standing
from stabdeq.attacks.threat_model import STANDS, Adversarial, judge
from stabdeq.config import AndersonConfig, ModelConfig
from stabdeq.model import StabilisedDEQ


def certified_model(**solver: Any) -> StabilisedDEQ:
    torch.manual_seed(3)
    config = ModelConfig(
        image_shape=(2, 4, 4),
        classes=5,
        mean=(0.5, 0.4),
        std=(0.3, 0.2),
        cell="certified",
        state_dim=12,
        solver=AndersonConfig(tolerance=1e-6, max_evaluations=200, **solver),
    )
    return StabilisedDEQ(config).eval().double()


class Counting:
    """A classifier that records how many images each call asks about."""

    def __init__(self, classifier: Any) -> None:
        self.classifier, self.sizes = classifier, []

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return self.classifier(images)


# --- samples leave ---


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.3, steps=20, step_size=0.05, until_broken=True),
        APGD(eps=0.1, steps=20),
        APGD(eps=0.1, steps=20, loss="targeted"),
        Square(eps=0.3, steps=20),
    ],
)
def test_each_step_asks_about_those_that_stand_alone(attack: Any) -> None:
    images, _ = random_batch(40)
    model = Counting(network())
    found = attack(model, images, network()(images).argmax(1), generator=generator())
    broken = broken_by(found) != STANDS
    assert broken.any()
    assert judge(network(), found.images, network()(images).argmax(1))[0][broken].all()
    asked = sum(model.sizes)
    assert asked < 0.8 * 40 * len(model.sizes)


def test_a_mistake_on_the_way_breaks_a_sample_though_the_last_image_is_right() -> None:
    """Class 1 within a thin shell that the ascent passes: PGD as the paper counts it stands, until_broken does not."""

    def model(x: Tensor) -> Tensor:
        p = x[:, 0, 0, 0]
        inside = ((p > 0.55) & (p < 0.65)).to(p.dtype)
        return torch.stack([1 - p, p - 1 + 2 * inside], dim=1)

    images, labels = torch.full((3, 1, 1, 1), 0.5), torch.zeros(3, dtype=torch.int64)
    images[2] = 0.3
    paper = PGD(eps=0.2, steps=8, step_size=0.05)
    found = paper(model, images, labels, generator=generator())
    assert found.broken_by is None
    assert not judge(model, found.images, labels)[0].any()
    stopped = replace(paper, until_broken=True)(model, images, labels, generator=generator())
    assert broken_by(stopped)[:2].tolist() == [1, 1]
    assert judge(model, stopped.images, labels)[0].tolist() == (broken_by(stopped) != STANDS).tolist()
    several = replace(paper, until_broken=True, restarts=3)(model, images, labels, generator=generator())
    assert broken_by(several)[:2].tolist() == [1, 1]


def test_those_that_leave_change_nothing_for_the_others() -> None:
    """A survivor's image is what it is where the sample beside it never breaks."""
    model = network().double()
    images, _ = random_batch(16, dtype=torch.float64)
    labels = model(images).argmax(1)

    def apgd(labels: Tensor) -> Adversarial:
        return APGD(eps=0.1, steps=10)._run(cross_entropy, model, images, labels, generator=generator())

    def pgd(labels: Tensor) -> Adversarial:
        return PGD(eps=0.1, steps=10, until_broken=True)(model, images, labels, generator=generator())

    for attacked in (apgd, pgd):
        plain = attacked(labels)
        stands = broken_by(plain) == STANDS
        assert 0 < stands.sum() < 16
        wrong = torch.where(stands, labels, (labels + 1) % 5)  # these leave at once
        assert torch.allclose(attacked(wrong).images[stands], plain.images[stands], atol=1e-12)


def test_a_random_model_that_was_wrong_once_is_counted_wrong() -> None:
    calls = []

    def model(x: Tensor) -> Tensor:  # wrong at the first step of PGD alone
        calls.append(1)
        return torch.eye(5, dtype=x.dtype)[torch.full((len(x),), int(len(calls) == 2))] + 0 * x.sum((1, 2, 3))[:, None]

    images, _ = random_batch(4)
    attack = Worst({"pgd": PGD(eps=0.1, steps=3, step_size=0.1, until_broken=True)})
    found = attack(model, images, torch.zeros(4, dtype=torch.int64), generator=generator())
    assert broken_by(found).tolist() == [1] * 4


def test_the_paper_counts_the_last_iterate_of_pgd_and_the_honest_set_any() -> None:
    assert not PGD(eps=0.1).until_broken
    assert honest(eps=0.1).attacks["pgd"].until_broken  # type: ignore[attr-defined]


def test_pgd_until_broken_works_where_gradients_are_off() -> None:
    model = certified_model()
    images, labels = random_batch(8, dtype=torch.float64)
    attack = PGD(eps=0.1, steps=4, until_broken=True)
    expected = attack(model, images, labels, generator=generator()).images
    with torch.inference_mode():
        assert torch.equal(attack(model, images, labels, generator=generator()).images, expected)


# --- equilibria are followed ---


@pytest.mark.parametrize("build", [certified_model, lambda: equilibrium_model().double()])
def test_followed_logits_and_gradients_are_those_of_the_model(build: Any) -> None:
    model = build()
    images, labels = random_batch(16, dtype=torch.float64)
    followed = Followed.of(model)
    assert followed is not None
    tolerance = model.config.solver.stopping_tolerance
    for step in range(4):
        if step == 2:
            rows = torch.tensor([1, 4, 9])
            images, labels = images[rows], labels[rows]
            followed.keep(rows)
        expected = loss_gradient(model, images, labels, cross_entropy)
        found = loss_gradient(followed, images, labels, cross_entropy)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=100 * tolerance, rtol=100 * tolerance)
        images = (images + 0.01 * found[2].sign()).clamp(0, 1)


def test_where_plain_steps_do_not_settle_the_models_own_solver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stabdeq.attacks.settling.STEPS", STRIDE)
    model = certified_model()
    images, labels = random_batch(8, dtype=torch.float64)
    followed = Followed.of(model)
    assert followed is not None
    expected = loss_gradient(model, images, labels, cross_entropy)
    found = loss_gradient(followed, images, labels, cross_entropy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_state_does_not_depend_on_how_long_the_others_take() -> None:
    """z <- a z + 1 at rates a from fast to never: each rests near 1 / (1 - a), the last not at all."""
    rates = torch.tensor([0.1, 0.5, 0.8, 1.0], dtype=torch.float64)[:, None].expand(4, 2000)

    def f(z: Tensor, rate: Tensor) -> Tensor:
        return rate * z + 1

    found, rests = settle(f, torch.zeros_like(rates), (rates,), tolerance=1e-4)
    assert rests.tolist() == [True, True, True, False]
    torch.testing.assert_close(found[:3], 1 / (1 - rates[:3]), rtol=1e-3, atol=0)
    for row in range(3):
        alone, _ = settle(f, torch.zeros_like(rates[:1]), (rates[row : row + 1],), tolerance=1e-4)
        assert torch.equal(alone[0], found[row])


def test_of_no_gradient_the_adjoint_is_zero_to_the_last_bit() -> None:
    model = certified_model()
    images, labels = random_batch(4, dtype=torch.float64)
    followed = Followed.of(model)
    assert followed is not None
    loss_gradient(followed, images, labels, cross_entropy)
    gradient = loss_gradient(followed, images, labels, lambda logits, _: 0 * logits.sum(1))[2]
    assert (gradient == 0).all()


def test_models_whose_gradient_is_another_are_asked_themselves() -> None:
    assert Followed.of(certified_model(gradient="unrolled")) is None
    assert Followed.of(network()) is None
    assert Followed.of(certified_model().train()) is None


def test_the_model_itself_says_who_is_broken() -> None:
    """A followed model that is wrong everywhere, or right by less than the margin, breaks nobody that the model gets right."""
    model = certified_model()
    images, _ = random_batch(6, dtype=torch.float64)
    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 5  # the model gets this one wrong
    for lead in (-1.0, 1e-3):  # of the label's logit over another
        standing = Standing(model, images, labels)
        assert standing._followed is not None
        one = torch.eye(5, dtype=images.dtype)
        logits = (1 + lead) * one[labels] + one[(labels + 1) % 5]
        standing._followed.readout = lambda _, logits=logits: logits  # type: ignore[method-assign]
        standing.margins(images)
        assert standing.samples.tolist() == [1, 2, 3, 4, 5]
