"""APGD, Square, unrolled gradients, external attacks and their worst: known optima, other libraries, what they refuse."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_attacks import (
    SHAPE,
    TwoClassLinear,
    checkpoint,  # noqa: F401
    distance,
    equilibrium_model,
    generator,
    network,
    random_batch,
    random_split,
)
from torch import Tensor, nn

from analysis.commands.attack import attack as attack_command
from stabdeq.attacks import (
    APGD,
    ATTACKS,
    PGD,
    ExternalAttack,
    Intermediate,
    Outcome,
    Square,
    Unrolled,
    Worst,
    build_attack,
    evaluate,
    honest,
    square_moves,
)
from stabdeq.attacks.apgd import step_checkpoints
from stabdeq.attacks.ascent import loss_gradient
from stabdeq.attacks.losses import cross_entropy, dlr, margin, other_class, targeted_dlr
from stabdeq.attacks.square import SHARE, square_side
from stabdeq.attacks.threat_model import STANDS, Adversarial, judge
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


def broken_by(found: Adversarial | Outcome) -> Tensor:
    assert found.broken_by is not None
    return found.broken_by


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


@pytest.mark.parametrize(("classes", "loss"), [(2, "dlr"), (3, "targeted")])
def test_too_few_classes_for_the_ratio_are_refused(classes: int, loss: Any) -> None:
    images, labels = random_batch(classes=classes)
    labels = network(classes)(images).argmax(1)
    with pytest.raises(ConfigError, match=f"has {classes} classes.*or more; use the cross-entropy"):
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


# --- Square ---


@pytest.mark.parametrize("shape", [(28, 28), (5, 40)])
def test_squares_shrink_from_most_of_the_image_to_a_pixel(shape: tuple[int, int]) -> None:
    sides = [square_side(query / 1000, *shape, share=0.8) for query in range(1000)]
    assert sides[0] == min(round((0.8 * shape[0] * shape[1]) ** 0.5), *shape)
    assert sides[-1] == 1
    assert sides == sorted(sides, reverse=True)


def test_square_breaks_a_masked_model_that_gradients_cannot() -> None:
    """Logits in steps, which have no slope anywhere; gradients see the flat part of them."""
    plain = network(scale=6)

    def masked(x: Tensor) -> Tensor:
        return (plain(x) / 0.05).round() * 0.05 + 0 * x.sum()

    split = random_split(200)
    split = type(split)(split.images, masked(split.images / 255).argmax(1))
    eps = 16 / 255
    by_pgd = evaluate(PGD(eps=eps, steps=20, restarts=3), masked, split, seed=0)
    by_square = evaluate(Square(eps=eps, steps=300), masked, split, seed=0)
    unmasked = evaluate(PGD(eps=eps, steps=20, restarts=3), plain, split, seed=0)
    assert by_pgd.zero.all()
    assert not by_square.zero.any()
    assert by_square.robust_correct.sum() < 0.5 * by_pgd.robust_correct.sum()
    assert by_square.robust_correct.sum() <= unmasked.robust_correct.sum() + 20


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.35)])
def test_square_agrees_with_torchattacks(norm: Any, eps: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    weights = torch.randn(2, 100, 5, generator=generator(4)) / 10
    images = torch.rand(200, 2, 10, 10, generator=generator()) * 0.8 + 0.1

    def model(x: Tensor) -> Tensor:
        return torch.einsum("bcp,cpk->bk", (x.flatten(2) * 4).sin(), weights)

    labels = model(images).argmax(1)
    theirs = torchattacks.Square(
        nn.Identity(), norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, n_queries=200, p_init=SHARE[norm]
    )
    theirs.get_logits = model
    with torch.random.fork_rng():
        expected = judge(model, theirs(images, labels), labels)[0].double().mean()
    found = Square(eps=eps, steps=200, norm=norm)(model, images, labels, generator=generator())
    reached = judge(model, found.images, labels)[0].double().mean()
    assert reached >= expected - 0.05
    assert 0.1 < expected < 0.9


def test_bumps_are_concentric_squares_of_norm_one() -> None:
    edge, middle = 0.25, 1.25
    expected = [[edge] * 3, [edge, middle, edge], [edge] * 3]
    assert square_moves._bump(3, 3).tolist() == expected
    for side in (1, 2, 3, 8):
        both = square_moves._bumps(side, torch.zeros(1, dtype=torch.float64), generator())
        assert both.shape == (side, side)
        assert both.norm().item() == pytest.approx(1)
    assert abs(both.sum()) < 1e-12  # as much up as down, where the halves are alike


@pytest.mark.parametrize("side", [1, 3, 4])
def test_a_move_in_l2_keeps_the_norm_and_touches_two_windows(side: int) -> None:
    images = torch.full((6, 2, 9, 9), 0.5, dtype=torch.float64)
    moves, draws = square_moves.L2Moves(0.3), generator()
    best = moves.start(images, draws)
    for _ in range(20):
        found = moves.propose(images, best, side, draws)
        torch.testing.assert_close((found - images).flatten(1).norm(dim=1), images.new_full((6,), 0.3))
        touched = ((found - best).abs() > 1e-12).flatten(1).sum(1)
        assert (touched <= 2 * 2 * max(side + 1 - side % 2, 3) ** 2).all()
        best = found


def test_square_asks_the_model_as_often_as_it_says_and_never_for_gradients() -> None:
    images, _ = random_batch()
    calls: list[bool] = []

    def model(x: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return torch.eye(5)[torch.zeros(len(x), dtype=torch.int64)]

    Square(eps=0.1, steps=30)(model, images, torch.zeros(16, dtype=torch.int64), generator=generator())
    assert len(calls) == 30 + 2  # the clean image, and what was found
    assert not any(calls)


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


# --- the worst over attacks ---


class MovesTo:
    """An attack that sets images to a value, and records whom it was given."""

    def __init__(self, value: float) -> None:
        self.eps, self.value, self.seen = 1.0, value, torch.empty(0)

    def __call__(self, model: Any, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        self.seen = images.clone()
        no = torch.zeros_like(labels, dtype=torch.bool)
        return Adversarial(torch.full_like(images, self.value), no, no)


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


# --- the command ---


def test_the_command_reports_every_attack_of_the_honest_set(
    checkpoint: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "attack.json"
    attack_command(checkpoint, attack="honest", eps="16/255", steps=5, restarts=2, limit=30, json_file=file)
    printed = capsys.readouterr().out
    for text in ("honest (linf)", "eps = 0", "eps = 16/255", "after pgd", "after apgd-ce", "after intermediate"):
        assert text in printed
    result = json.loads(file.read_text())
    names = ["pgd", "apgd-ce", "apgd-t", "square", "intermediate"]
    assert list(result["attacks"]) == names
    assert result["attacks"]["square"]["steps"] == 50
    assert result["attacks"]["pgd"]["restarts"] == 2
    standing = [result["standing"][name] for name in names]
    assert standing == sorted(standing, reverse=True)
    assert standing[-1] == result["accuracy"]["worst"]
    samples = result["samples"]
    assert samples["eps_0_correct"] == samples["clean_correct"]
    assert [cause is None for cause in samples["broken_by"]] == samples["robust_correct"]
    assert [cause != "clean" for cause in samples["broken_by"]] == samples["clean_correct"]
    assert set(samples["broken_by"]) - {None} <= {"clean", *names}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_command_knows_every_attack(checkpoint: Path, tmp_path: Path, name: Any, norm: Any) -> None:  # noqa: F811
    file = tmp_path / "attack.json"
    if norm == "l2" and name == "ifgsm":
        with pytest.raises(ConfigError, match="l-infinity"):
            attack_command(checkpoint, attack=name, norm=norm)
        return
    attack_command(checkpoint, attack=name, norm=norm, eps="0.1", steps=2, limit=5, json_file=file)
    result = json.loads(file.read_text())
    assert (result["attack"], result["norm"], result["eps"]) == (name, norm, 0.1)
    assert result["samples"]["eps_0_correct"] == result["samples"]["clean_correct"]
    assert ("broken_by" in result["samples"]) == (name == "honest")
