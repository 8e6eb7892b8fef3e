"""APGD and its losses: known values, the optimum of a linear model, another library."""

from typing import Any

import pytest
import torch
from attack_problems import SHAPE, TwoClassLinear, broken_by, generator, network, random_batch, random_split
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stabdeq.attacks import APGD, PGD, evaluate
from stabdeq.attacks.apgd import step_checkpoints
from stabdeq.attacks.losses import dlr, margin, other_class, targeted_dlr
from stabdeq.attacks.threat_model import STANDS, judge
from stabdeq.errors import ConfigError

# --- losses ---


def test_the_losses_have_their_known_values() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0], [5.0, 1.0, 3.0, 2.0]], dtype=torch.float64)
    labels = torch.tensor([0, 2])
    assert margin(logits, labels).tolist() == [-2.0, 2.0]
    assert dlr(logits, labels).tolist() == [-2 / 3, 2 / 3]
    assert targeted_dlr(logits, labels, torch.tensor([2, 1])).tolist() == [-2 / 3.5, -2 / 3.5]
    assert [other_class(logits, labels, rank).tolist() for rank in (1, 2, 3)] == [[2, 0], [3, 3], [1, 1]]


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-100, 100))
def test_dlr_stays_the_same_when_logits_are_shifted_and_scaled(seed: int, scale: float, shift: float) -> None:
    draws = generator(seed)
    logits = torch.randn(6, 5, generator=draws, dtype=torch.float64)
    labels = torch.randint(5, (6,), generator=draws)
    targets = other_class(logits, labels, 2)
    torch.testing.assert_close(dlr(scale * logits + shift, labels), dlr(logits, labels), rtol=1e-6, atol=1e-8)
    again = targeted_dlr(scale * logits + shift, labels, targets)
    torch.testing.assert_close(again, targeted_dlr(logits, labels, targets), rtol=1e-6, atol=1e-8)
    assert torch.equal(margin(logits, labels) > 0, logits.argmax(1) != labels)
    assert (dlr(logits, labels).sign() == margin(logits, labels).sign()).all()


def test_equal_logits_give_finite_ratios_and_gradients() -> None:
    logits = torch.zeros(2, 4, requires_grad=True)
    labels = torch.tensor([0, 1])
    for value in (dlr(logits, labels), targeted_dlr(logits, labels, torch.tensor([1, 2]))):
        assert value.tolist() == [0.0, 0.0]
        assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize(("classes", "loss"), [(2, "dlr"), (1, "targeted")])
def test_too_few_classes_for_the_loss_are_refused(classes: int, loss: Any) -> None:
    images, labels = random_batch(classes=classes)
    labels = network(classes)(images).argmax(1)
    with pytest.raises(ConfigError, match=f"has {classes} class.*or more"):
        APGD(eps=0.1, loss=loss)(network(classes), images, labels, generator=generator())


# --- APGD ---


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.004), ("linf", 0.02), ("l2", 0.02), ("l2", 0.1)])
def test_apgd_reaches_the_optimum_of_a_linear_model(norm: Any, eps: float) -> None:
    model = TwoClassLinear()
    images, _ = random_batch(64, classes=2, dtype=torch.float64)
    images = images / 2 + 0.25  # far enough from 0 and 1 that the box does not bind
    labels = model(images).argmax(1)
    found = APGD(eps=eps, steps=60, norm=norm)(model, images, labels, generator=generator())
    size = model.weight.detach().abs().sum() if norm == "linf" else model.weight.detach().norm()
    lowest = (model(images)[:, 1].abs() - eps * size).detach()  # what is left of the score, in absolute value
    stands = broken_by(found) == STANDS
    assert torch.equal(stands, lowest > 0)
    assert 0 < stands.sum() < 64
    reached = model(found.images)[:, 1].abs()[stands]
    torch.testing.assert_close(reached, lowest[stands], rtol=1e-3, atol=1e-3)
    assert not judge(model, found.images, labels)[0][stands].any()


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_apgd_takes_as_many_steps_as_it_says(steps: int) -> None:
    plain, seen = TwoClassLinear(), []

    def model(images: Tensor) -> Tensor:
        if images.requires_grad:
            seen.append(images.detach())
        return plain(images)

    images, _ = random_batch(3, classes=2, dtype=torch.float64)
    APGD(eps=1e-6, steps=steps)(model, images, plain(images).argmax(1), generator=generator())
    assert len(seen) == 1 + steps


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [10, 40])
def test_apgd_is_at_least_as_strong_as_pgd_with_the_same_steps(norm: Any, steps: int) -> None:
    model = network(scale=6)
    split = random_split(400)
    split = type(split)(split.images, model(split.images / 255).argmax(1))
    eps = 10 / 255 if norm == "linf" else 0.25
    settings: dict[str, Any] = {"eps": eps, "steps": steps, "norm": norm}
    by_apgd = evaluate(APGD(**settings), model, split, seed=0).robust_correct.sum()
    by_pgd = evaluate(PGD(**settings, step_size=2.5 * eps / steps), model, split, seed=0).robust_correct.sum()
    assert by_apgd <= by_pgd
    assert 20 < by_pgd < 380


@given(st.integers(1, 2000))
def test_step_checkpoints_increase_up_to_the_last_step(steps: int) -> None:
    found = step_checkpoints(steps)
    assert all(1 <= each <= steps for each in found)
    assert found == sorted(set(found))
    assert found[0] == -(-22 * steps // 100)


def test_apgd_towards_every_class_tries_each_once() -> None:
    """A model that gives only the fourth most likely class a chance."""
    logits = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])

    def model(x: Tensor) -> Tensor:
        bonus = 8 * (x.mean((1, 2, 3)) - 0.5)
        return logits + torch.nn.functional.one_hot(torch.tensor(3), 5) * bonus[:, None]

    images, labels = torch.full((4, *SHAPE), 0.5), torch.zeros(4, dtype=torch.int64)
    strong = APGD(eps=0.5, loss="targeted", steps=20)
    assert broken_by(strong(model, images, labels, generator=generator())).tolist() == [3] * 4
    weak = APGD(eps=0.5, loss="targeted", steps=20, targets=1)
    assert broken_by(weak(model, images, labels, generator=generator())).tolist() == [STANDS] * 4


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_agrees_with_torchattacks(loss: Any, norm: Any) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model = network(scale=6)
    images, _ = random_batch(300)
    labels = model(images).argmax(1)
    eps = 10 / 255 if norm == "linf" else 0.25
    settings: dict[str, Any] = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps, "steps": 20}
    targeted = loss == "targeted"
    theirs = (
        torchattacks.APGDT(model, n_classes=5, **settings)
        if targeted
        else torchattacks.APGD(model, loss=loss, **settings)
    )
    ours = APGD(eps=eps, steps=20, norm=norm, loss=loss)
    with torch.random.fork_rng():  # theirs seeds the global generator
        expected = judge(model, theirs(images, labels), labels)[0].double().mean()
    found = judge(model, ours(model, images, labels, generator=generator()).images, labels)[0].double().mean()
    assert abs(found - expected) <= 0.02
    assert 0.1 < expected < 0.9


def test_apgd_returns_the_point_of_largest_loss_of_all_it_saw() -> None:
    """On ridges that full steps leap over; 100 steps, since of fewer the last is one that goes back to the best point."""
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        pixel = x[:, 0, 0, 0]
        score = 2 - (60 * (pixel - 0.55)).cos()  # class 0 always has the larger
        seen.append(torch.stack([pixel.detach(), score.detach()]))
        return torch.stack([score, 0 * score], 1)

    images, labels = torch.full((5, 1, 1, 1), 0.5, dtype=torch.float64), torch.zeros(5, dtype=torch.int64)
    found = APGD(eps=0.3)(model, images, labels, generator=generator()).images[:, 0, 0, 0]
    pixels, scores = torch.stack(seen[:-1], 1)  # the last call judges what was found
    assert torch.equal(found, pixels.gather(0, scores.argmin(0)[None])[0])
    assert (pixels[-1] != found).all()
