"""Unrolled gradients and attacks on states; what every strong attack keeps to, and what it refuses."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from attack_problems import broken_by, distance, equilibrium_model, generator, network, random_batch, random_split
from torch import Tensor

from stabdeq.attacks import (
    APGD,
    PGD,
    ExternalAttack,
    Intermediate,
    Square,
    Unrolled,
    Worst,
    build_attack,
    evaluate,
    honest,
)
from stabdeq.attacks.ascent import loss_gradient
from stabdeq.attacks.losses import cross_entropy
from stabdeq.attacks.threat_model import STANDS
from stabdeq.errors import ConfigError, DataError
from stabdeq.solvers import Anderson, Solution, solve

STRONG = [
    lambda eps, norm: APGD(eps=eps, norm=norm, steps=8, restarts=2),
    lambda eps, norm: APGD(eps=eps, norm=norm, steps=8, loss="dlr"),
    lambda eps, norm: APGD(eps=eps, norm=norm, steps=8, loss="targeted", targets=2),
    lambda eps, norm: Square(eps=eps, norm=norm, steps=20, restarts=2),
    lambda eps, norm: Intermediate(eps=eps, norm=norm, steps=3, states=(0, 3, None), unrolled=(1, 3)),
    lambda eps, norm: honest(eps=eps, norm=norm, steps=2, restarts=2),
]
STRONG_NAMES = ["apgd-ce", "apgd-dlr", "apgd-t", "square", "intermediate", "honest"]
every_attack = pytest.mark.parametrize("build", STRONG, ids=STRONG_NAMES)


# --- intermediate states ---


def test_an_unrolled_classifier_is_what_it_says() -> None:
    model = equilibrium_model()
    images, _ = random_batch()
    h = model.inject(images)
    z = torch.zeros_like(h)
    for _ in range(3 + 5):
        z = 0.5 * z + 0.5 * model.cell(z, h)
    found = Unrolled(model, (12,), state=3, mixing=0.5, unrolled=5)(images)
    torch.testing.assert_close(found, model.readout(z))
    settled = Unrolled(model, (12,), state=None, mixing=1.0, unrolled=1)(images)
    torch.testing.assert_close(settled, model(images), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("state", [0, 4, None])
@pytest.mark.parametrize("mixing", [0.5, 1.0])
def test_unrolled_gradients_are_those_of_the_unrolled_steps(state: int | None, mixing: float) -> None:
    """Finite differences with the state that the steps start from held fast; where the state is 0, of the classifier."""
    model = equilibrium_model().double()
    images, labels = random_batch(3, dtype=torch.float64)
    unrolled = Unrolled(model, (12,), state, mixing, unrolled=5)
    with torch.no_grad():
        start = unrolled._state(model.inject(images))

    def loss(x: Tensor) -> Tensor:
        if state == 0:
            return cross_entropy(unrolled(x), labels)
        h = model.inject(x)
        z = start
        for _ in range(5):
            z = (1 - mixing) * z + mixing * model.cell(z, h)
        return cross_entropy(model.readout(z), labels)

    gradient = loss_gradient(unrolled, images, labels, cross_entropy)[2]
    direction = torch.randn(images.shape, generator=generator(7), dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        slope = (loss(images + step * direction) - loss(images - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slope, rtol=1e-5, atol=1e-8)
    plain = loss_gradient(model, images, labels, cross_entropy)[2]
    assert distance(gradient, plain) > 1e-6


def test_the_more_steps_are_unrolled_the_nearer_the_gradient_is_to_the_implicit_one() -> None:
    model = equilibrium_model().double()
    images, labels = random_batch(4, dtype=torch.float64)
    implicit = loss_gradient(model, images, labels, cross_entropy)[2]
    errors = [
        distance(loss_gradient(Unrolled(model, (12,), None, 1.0, m), images, labels, cross_entropy)[2], implicit)
        for m in (1, 5, 9)
    ]
    assert errors[0] > errors[1] > errors[2]


class StatesOfAnotherShape:
    """A model that is not a module, whose states have another shape than its features."""

    lyapunov = None

    def __init__(self) -> None:
        self.weight = torch.randn(32, 4, generator=generator(9)) / 3
        self.head = torch.randn(8, 5, generator=generator(10))

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        return (0.5 * z + h[:, None, :]).tanh()

    def solve(self, h: Tensor) -> Solution:
        return solve(
            lambda z: self.cell(z, h), h.new_zeros(len(h), 2, 4), Anderson(), tolerance=1e-5, max_evaluations=100
        )

    def readout(self, z: Tensor) -> Tensor:
        return z.flatten(1) @ self.head

    def __call__(self, x: Tensor) -> Tensor:
        return self.readout(self.solve(self.inject(x).detach()).z)  # no gradient: its solver hides it


def test_unrolled_gradients_attack_a_foreign_model_whose_own_gradient_is_hidden() -> None:
    model = StatesOfAnotherShape()
    images, _ = random_batch(64)
    labels = model(images).argmax(1)
    with pytest.raises(ConfigError, match="do not depend on the images"):
        PGD(eps=0.1, steps=5)(model, images, labels, generator=generator())
    attack = Intermediate(eps=0.1, steps=5, states=(0, None), unrolled=(1, 5))
    found = attack(model, images, labels, generator=generator())
    assert torch.equal(broken_by(found) != STANDS, model(found.images).argmax(1) != labels)
    assert (broken_by(found) != STANDS).double().mean() > 0.3


def test_a_model_without_equilibrium_is_refused_by_the_attack_on_states() -> None:
    images, labels = random_batch()
    with pytest.raises(ConfigError, match="no inject, cell, readout, solve"):
        Intermediate(eps=0.1)(network(), images, labels, generator=generator())
    assert set(honest(eps=0.1, equilibrium=False).attacks) == {"pgd", "apgd-ce", "apgd-t", "square"}
    assert set(honest(eps=0.1, norm="l2").attacks) == set(honest(eps=0.1).attacks)


# --- all of them ---


@every_attack
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_ball_and_box_are_respected(build: Callable, norm: Any, dtype: torch.dtype, eps: float) -> None:
    model = equilibrium_model().to(dtype)
    images, _ = random_batch(8, dtype=dtype)
    labels = model(images).argmax(1)
    found = build(eps, norm)(model, images, labels, generator=generator())
    assert found.images.dtype == dtype
    assert not found.images.requires_grad
    assert ((found.images >= 0) & (found.images <= 1)).all()
    change = (found.images - images).double().flatten(1)
    length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (length <= eps * (1 + 4 * torch.finfo(dtype).eps) + 4 * torch.finfo(dtype).eps).all()
    assert (broken_by(found) == STANDS).all() if eps == 0 else (length > 0).any()


@every_attack
def test_the_seed_decides_and_nothing_else_is_changed(build: Callable) -> None:
    model = equilibrium_model()
    images, _ = random_batch(8)
    labels = model(images).argmax(1)
    first, *others = model.parameters()
    first.grad = torch.ones_like(first)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    original, draws = images.clone(), torch.get_rng_state()
    attack = build(0.02, "linf")
    once, again, other = (attack(model, images, labels, generator=generator(s)).images for s in (7, 7, 8))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert torch.equal(draws, torch.get_rng_state())
    assert torch.equal(images, original)
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(parameter.grad is None for parameter in others)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.training


@every_attack
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_off(build: Callable, context: Callable[[], torch.no_grad]) -> None:
    model = equilibrium_model()
    images, _ = random_batch(8)
    labels = model(images).argmax(1)
    expected = build(0.05, "linf")(model, images, labels, generator=generator()).images
    with context():
        assert torch.equal(build(0.05, "linf")(model, images, labels, generator=generator()).images, expected)


@every_attack
def test_bad_batches_and_models_in_training_mode_are_refused(build: Callable) -> None:
    images, labels = random_batch()
    attack = build(0.1, "linf")
    with pytest.raises(ConfigError, match=r"model.eval\(\)"):
        attack(equilibrium_model().train(), images, labels, generator=generator())
    with pytest.raises(DataError, match="NaN or outside"):
        attack(equilibrium_model(), images + 0.5, labels, generator=generator())
    with pytest.raises(DataError, match="for a model of 5 classes"):
        attack(equilibrium_model(), images, labels + 5, generator=generator())


@pytest.mark.parametrize(
    "build",
    [
        lambda restarts: APGD(eps=8 / 255, steps=2, restarts=restarts),
        lambda restarts: APGD(eps=8 / 255, steps=2, restarts=restarts, loss="targeted", targets=2),
        lambda restarts: Square(eps=8 / 255, steps=5, restarts=restarts),
        lambda restarts: honest(eps=8 / 255, steps=2, restarts=restarts, equilibrium=False),
    ],
)
def test_more_restarts_are_never_better_for_the_model(build: Callable) -> None:
    model = network(scale=8)
    split = random_split(96)
    split = type(split)(split.images, model(split.images / 255).argmax(1))
    rights = [evaluate(build(n), model, split, seed=1, batch_size=32).robust_correct for n in (1, 2, 4)]
    assert all(not (more & ~fewer).any() for fewer, more in pairwise(rights))
    assert rights[2].sum() < rights[0].sum()


@pytest.mark.parametrize("build", STRONG[:4], ids=STRONG_NAMES[:4])
def test_nan_logits_count_as_broken(build: Callable) -> None:
    def model(x: Tensor) -> Tensor:
        logits = network()(x)
        return torch.where((x[:, 0, 0, 0] > 0.5)[:, None], torch.nan, logits)

    images, _ = random_batch()
    images[:, 0, 0, 0] = 0.49
    found = build(0.05, "linf")(model, images, model(images).argmax(1), generator=generator())
    assert found.images.isfinite().all()
    assert ((found.images[:, 0, 0, 0] > 0.5) <= (broken_by(found) != STANDS)).all()
    assert (broken_by(found) != STANDS).any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: APGD(eps=8), "above 1"),
        (lambda: APGD(eps=0.1, steps=0), "steps = 0"),
        (lambda: APGD(eps=0.1, restarts=True), "restarts = True"),
        (lambda: APGD(eps=0.1, targets=0), "targets = 0"),
        (lambda: APGD(eps=0.1, loss="drl"), "did you mean 'dlr'"),  # type: ignore[arg-type]
        (lambda: APGD(eps=0.1, norm="l1"), "unknown norm 'l1'"),  # type: ignore[arg-type]
        (lambda: Square(eps=0.1, steps=1.5), "steps = 1.5"),  # type: ignore[arg-type]
        (lambda: Square(eps=-0.1), "from 0 to 1"),
        (lambda: Intermediate(eps=0.1, steps=0), "steps = 0"),
        (lambda: Intermediate(eps=0.1, unrolled=(1, 0)), "steps = 0"),
        (lambda: Intermediate(eps=0.1, states=(-1,)), "states"),
        (lambda: Intermediate(eps=0.1, mixings=(0.0,)), "mixings"),
        (lambda: ExternalAttack(build=print, eps=3.0), "above 1"),
        (lambda: PGD(eps=0.1, samples=0), "samples = 0"),
        (lambda: honest(eps=0.1, steps=0), "steps = 0"),
        (lambda: Worst({}), "one attack or more"),
        (lambda: Worst({"a": PGD(eps=0.1), "b": PGD(eps=0.2)}), "all with the same eps"),
        (lambda: build_attack("apgd", eps=0.1), "unknown attack"),
        (lambda: build_attack("intermediate", eps=0.1, restarts=2), "intermediate has none"),
    ],
)
def test_bad_settings_are_refused(build: Callable, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()
