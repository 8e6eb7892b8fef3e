"""Training objectives: known answers on a linear classifier, what they leave alone, and the settings that they refuse."""

import contextlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stabdeq.bounds import logit_difference_bound, worst_logits
from stabdeq.cells import Cell
from stabdeq.config import AndersonConfig, ModelConfig, parse_config
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ
from train.loss import training_loss
from train.objectives import OBJECTIVES, Outcome
from train.objectives.cross_entropy import CrossEntropy
from train.objectives.ibp import IntervalTraining
from train.objectives.modes import evaluating, predict_beside
from train.objectives.pgd_at import PGDTraining
from train.objectives.trades import Trades, divergence
from train.recipe import MarginConfig, Recipe, load_recipe, plain_recipe

COUNT = 6
CRAFTING = [Trades(), PGDTraining()]


def network(**settings: Any) -> StabilisedDEQ:
    """A model of 1 x 4 x 4 images and 3 classes, in training mode; with a constant cell its logits are linear in the pixels."""
    torch.manual_seed(3)
    options: dict[str, Any] = {"image_shape": (1, 4, 4), "classes": 3, "mean": (0.5,), "std": (0.25,), "state_dim": 8}
    return StabilisedDEQ(ModelConfig(**options | {"solver": AndersonConfig(tolerance=1e-5)} | settings)).train()


def batch(size: int = 4) -> tuple[Tensor, Tensor]:
    """Images away from 0 and 1, so that no ball of 0.1 is cut."""
    generator = torch.Generator().manual_seed(1)
    images = 0.2 + 0.6 * torch.rand(COUNT, 1, size, size, generator=generator)
    return images, torch.arange(COUNT) % 3


def run(objective: Any, model: StabilisedDEQ, *, fraction: float = 0.0, size: int = 4) -> Outcome:
    images, labels = batch(size)
    return objective(model, images, labels, generator=torch.Generator().manual_seed(7), fraction=fraction)


def linear_map(model: StabilisedDEQ) -> tuple[Tensor, Tensor]:
    """Weights (classes, pixels) and bias (classes,) of a model whose logits are linear in the pixels, by evaluating it."""
    with torch.no_grad():
        bias = model.eval()(torch.zeros(1, 1, 4, 4))[0]
        weights = (model(torch.eye(16).view(16, 1, 4, 4)) - bias).T
    model.train()
    return weights, bias


# Known answers: two classes and linear logits, whose worst case is a corner.


def test_pgd_training_finds_the_corner() -> None:
    model = network(cell="constant", classes=2)
    weights, bias = linear_map(model)
    images, labels = batch()
    labels = labels % 2
    for eps, steps, step_size in ((0.031, 7, 0.00784), (0.1, 3, 0.1)):
        objective = PGDTraining(eps=eps, steps=steps, step_size=step_size)
        outcome = objective(model, images, labels, generator=torch.Generator().manual_seed(0), fraction=0.0)
        slope = (weights[1 - labels] - weights[labels]).view(COUNT, 1, 4, 4)  # of the other logit minus the label's
        # Seven steps of 0.00784 cover 0.055, less than from one face to the other, 0.062.
        corner = images + eps * slope.sign()
        expected = corner.flatten(1) @ weights.T + bias
        found = outcome.prediction.logits
        if steps * step_size >= 2 * eps:
            assert torch.allclose(found, expected, atol=1e-5)
        else:
            worst, clean = ((one.flatten(1) @ weights.T + bias) for one in (corner, images))
            gain = (found - clean).gather(1, 1 - labels[:, None]) - (found - clean).gather(1, labels[:, None])
            most = (worst - clean).gather(1, 1 - labels[:, None]) - (worst - clean).gather(1, labels[:, None])
            assert bool((gain <= most + 1e-5).all())
            assert bool((gain > 0.75 * most).all())
        assert float(outcome.term) == 0
        assert not outcome.beside


def test_trades_at_the_corner() -> None:
    """The divergence grows away from the image on both sides: the start's noise decides to which corner."""
    model = network(cell="constant", classes=2)
    weights, bias = linear_map(model)
    images, labels = batch()
    outcome = Trades()(model, images, labels % 2, generator=torch.Generator().manual_seed(5), fraction=0.0)
    slope = weights[1] - weights[0]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(5)).flatten(1)
    side = (noise @ slope).sign()
    expected = 0.0
    for image, sign in zip(images, side, strict=True):
        clean = image.flatten() @ slope + bias[1] - bias[0]
        moved = float(clean + sign * 0.031 * slope.abs().sum())
        p, q = (1 / (1 + math.exp(-one)) for one in (float(clean), moved))
        expected += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert float(outcome.term.detach()) == pytest.approx(6 * expected / COUNT, rel=1e-3)
    assert torch.allclose(outcome.prediction.logits, images.flatten(1) @ weights.T + bias, atol=1e-5)


def test_the_divergence_is_from_clean_to_crafted() -> None:
    clean, crafted = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]])
    # p = (1/2, 1/2), q = (1/4, 3/4)
    assert float(divergence(crafted, clean)) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert float(divergence(clean, crafted)) == pytest.approx(0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2))
    assert float(divergence(clean, clean)) == 0
    certain = torch.tensor([[500.0, -500.0]])
    assert float(divergence(certain, certain)) == 0
    assert float(divergence(clean, certain)) == pytest.approx(math.log(2))


def test_the_divergence_is_differentiated_on_both_sides() -> None:
    model = network(cell="constant", head="linear")
    outcome = run(Trades(), model)
    (adversarial,) = outcome.beside
    p, q = outcome.prediction.logits.softmax(1), adversarial.logits.softmax(1)
    to_clean, to_crafted = torch.autograd.grad(
        outcome.term, (outcome.prediction.logits, adversarial.logits), retain_graph=True
    )
    assert torch.allclose(to_crafted, 6 * (q - p) / COUNT, atol=1e-6)
    ratio = (p / q).log()
    assert torch.allclose(to_clean, 6 * p * (ratio - (p * ratio).sum(1, keepdim=True)) / COUNT, atol=1e-6)


@pytest.mark.parametrize(("fraction", "ramp"), [(0.0, 0.0), (0.125, 0.25), (0.5, 1.0), (0.9, 1.0)])
def test_interval_training_is_ramped_up(fraction: float, ramp: float) -> None:
    model = network(cell="interval")
    images, labels = batch()
    outcome = run(IntervalTraining(eps=0.05, kappa=0.25), model, fraction=fraction)
    clean = functional.cross_entropy(model(images), labels)
    worst = functional.cross_entropy(worst_logits(model, images, labels, 0.05 * ramp), labels)
    kappa = 1 - 0.75 * ramp
    assert torch.allclose(clean + outcome.term, kappa * clean + (1 - kappa) * worst, atol=1e-6)
    assert float(outcome.metrics["eps"]) == pytest.approx(0.05 * ramp)
    if ramp:
        assert bool(worst > clean)


def test_cross_entropy_is_the_model_alone() -> None:
    model = network()
    images, _ = batch()
    outcome = run(CrossEntropy(), model)
    assert torch.equal(outcome.prediction.logits, network()(images))
    assert (float(outcome.term), outcome.beside, outcome.metrics) == (0, (), {})


# Crafted images.


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", [Trades, PGDTraining])
@pytest.mark.parametrize("cell", ["constant", "batchnorm"])
def test_crafted_images_stay_in_the_ball_and_in_the_unit_interval(
    kind: Any, norm: str, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, Tensor]] = []
    original = StabilisedDEQ.inject
    monkeypatch.setattr(
        StabilisedDEQ, "inject", lambda model, x: (seen.append((model.training, x.detach())), original(model, x))[1]
    )
    model = network(cell=cell)
    images = torch.rand(COUNT, 1, 4, 4, generator=torch.Generator().manual_seed(2)).round()  # 0 or 1
    objective = kind(norm=norm, eps=0.3, steps=4, step_size=0.2)
    objective(model, images, torch.arange(COUNT) % 3, generator=torch.Generator().manual_seed(0), fraction=0.0)
    assert model.training
    crafting = [x for training, x in seen if not training]
    # TRADES looks at the clean images once more, in each mode; neither looks at the last image while crafting.
    assert len(crafting) == 4 + (kind is Trades)
    assert len(seen) - len(crafting) == 1 + (kind is Trades)
    for _, x in seen:
        assert bool(((x >= 0) & (x <= 1)).all())
        change = (x - images).flatten(1)
        assert float((change.norm(dim=1) if norm == "l2" else change.abs().amax(1)).max()) <= 0.3 + 1e-6
    assert not torch.equal(seen[-1][1], images)
    assert not seen[-1][1].requires_grad


@pytest.mark.parametrize("objective", CRAFTING)
def test_crafting_leaves_no_gradient_on_parameters(objective: Any) -> None:
    model = network()
    outcome = run(objective, model)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    # And none flows into the loss but through the passes in training mode.
    (outcome.prediction.logits.sum() + outcome.term).backward()
    assert model.training
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())


@pytest.mark.parametrize("objective", CRAFTING)
def test_only_the_generator_is_random(objective: Any) -> None:
    state = torch.get_rng_state()
    images, labels = batch()
    first, again, other = (
        objective(network(), images, labels, generator=torch.Generator().manual_seed(seed), fraction=0.0)
        for seed in (1, 1, 2)
    )
    torch.set_rng_state(state)
    passes = [(one.beside or (one.prediction,))[0].logits for one in (first, again, other)]
    assert torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[0], passes[2])


# Statistics.


def buffers(model: StabilisedDEQ) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


@pytest.mark.parametrize("backbone", ["fcn", "resnet20"])
@pytest.mark.parametrize("objective", [CrossEntropy(), *CRAFTING], ids=["cross-entropy", "trades", "pgd-at"])
def test_the_running_statistics_are_updated_once_by_the_prediction(
    objective: Any, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clean images in TRADES, by the crafted ones in PGD-AT: as one plain pass on these images does."""
    settings = {"backbone": backbone, "image_shape": (1, 8, 8)}
    updates: list[int] = []
    original = Cell.update_running_statistics
    monkeypatch.setattr(
        Cell, "update_running_statistics", lambda cell, statistics: (updates.append(1), original(cell, statistics))
    )
    given: list[Tensor] = []
    predict = StabilisedDEQ.predict
    monkeypatch.setattr(
        StabilisedDEQ,
        "predict",
        lambda model, x: (given.append(x) if model.training else None, predict(model, x))[1],
    )
    model = network(**settings)
    run(objective, model, size=8)
    assert len(updates) == len(given) == 1
    assert torch.equal(given[0], batch(8)[0]) == (not isinstance(objective, PGDTraining))
    other = network(**settings)
    other.predict(given[0])
    expected = buffers(other)
    for name, value in buffers(model).items():
        assert torch.equal(value, expected[name]), name


def test_a_pass_beside_is_a_pass_in_training_mode_that_changes_nothing() -> None:
    model = network(backbone="resnet20", image_shape=(1, 8, 8))
    before = buffers(model)
    beside = predict_beside(model, batch(8)[0])
    for name, value in buffers(model).items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(beside.logits, model.predict(batch(8)[0]).logits)
    assert not torch.equal(buffers(model)["backbone.stem.1.running_mean"], before["backbone.stem.1.running_mean"])


def test_a_model_is_back_in_training_mode_after_an_error() -> None:
    model = network()
    with contextlib.suppress(RuntimeError), evaluating(model):
        assert not model.training
        raise RuntimeError
    assert all(part.training for part in model.modules())


# Together with the other parts of the loss.


@pytest.mark.parametrize("name", ["cross-entropy", "trades", "pgd-at"])
def test_objectives_with_a_margin(name: str) -> None:
    model = network(cell="certified")
    outcome = run(OBJECTIVES[name](), model)
    labels = batch()[1]
    recipe = Recipe(kind="deq", model={"cell": "certified"}, margin=MarginConfig(radius=0.1))  # type: ignore[arg-type]
    loss = training_loss(model, outcome.prediction, labels, recipe, torch.Generator())
    raised = outcome.prediction.logits + 0.1 * logit_difference_bound(model, labels)
    assert torch.allclose(loss.total, functional.cross_entropy(raised, labels))


@pytest.mark.parametrize("objective", CRAFTING)
def test_images_crafted_without_a_gradient_are_counted(objective: Any) -> None:
    """A model of NaN gives none, and its loss is NaN, which stops training; a model that is constant gives none either."""
    for value in (float("nan"), 0.0):
        model = network()
        with torch.no_grad():
            model.head.classifier.weight.fill_(value)
        outcome = run(objective, model)
        assert float(outcome.metrics["crafting_blind"]) == 1
        assert bool((outcome.prediction.logits.sum() + outcome.term).isfinite()) == (value == 0)
    assert float(run(objective, network()).metrics["crafting_blind"]) == 0


# Settings.


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_what_is_not_given_is_the_objectives_own(name: str) -> None:
    own = OBJECTIVES[name]()
    assert parse_config(Recipe, {"objective": {"name": name}}, "it").objective == own
    stored = plain_recipe(Recipe(objective=own))["objective"]
    assert stored["name"] == name
    assert None not in stored.values()
    assert parse_config(Recipe, {"objective": stored}, "it").objective == own


def test_the_defaults_are_those_of_the_paper() -> None:
    assert Trades() == Trades(norm="linf", eps=0.031, steps=10, step_size=0.007, beta=6.0)
    assert PGDTraining() == PGDTraining(norm="linf", eps=0.031, steps=7, step_size=0.00784)
    assert IntervalTraining().kappa == 0.5


def test_settings_of_a_recipe() -> None:
    settings = ["objective.name=pgd-at", "objective.norm=l2", "objective.eps=0.5", "objective.step_size=0.1"]
    recipe = load_recipe("digits", {}, settings)
    assert recipe.objective == PGDTraining(norm="l2", eps=0.5, steps=7, step_size=0.1)
    assert Recipe(**plain_recipe(recipe)) == recipe
    assert load_recipe("digits").objective == CrossEntropy()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "pgd-at", "beta": 6.0}, "objective.beta = 6.0 means nothing to pgd-at"),
        ({"name": "cross-entropy", "eps": 0.1}, "which has no settings"),
        ({"name": "ibp", "norm": "l2"}, "objective.norm = 'l2' means nothing to ibp"),
        ({"name": "trades", "norm": "l2", "eps": 0.5}, "needs objective.eps and objective.step_size"),
        ({"name": "trades", "eps": 8}, "for 8 of 255 levels give 8/255"),
        ({"name": "ibp", "eps": 8}, "for 8 of 255 levels give 8/255"),
        ({"name": "pgd-at", "eps": 2.0}, "for 2 of 255 levels give 2/255"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Recipe, {"objective": settings}, "it")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["steps=0", "step_size=0", "beta=-1", "kappa=1.5", "eps=nan", "name=trade", "bata=6"]
)
def test_settings_out_of_range(setting: str) -> None:
    with pytest.raises(ConfigError, match="objective"):
        load_recipe("digits", {}, ["objective.name=trades", f"objective.{setting}"])
