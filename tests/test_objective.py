"""The training loss: cross-entropy, and the decay of V along the unprojected field, against a slow loop and known answers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from stabdeq.config import AndersonConfig, LyapunovConfig, ModelConfig
from stabdeq.config.kinds import KINDS
from stabdeq.model import Prediction, StabilisedDEQ
from stabdeq.solvers import Solution
from train.loss import decay_term, training_loss
from train.recipe import DecayConfig, Recipe

RADII = (0.01, 0.5, 2.0)
DIM = 6
SAMPLES = 9


def tiny_model(kind: str = "lyadeq-anchored", *, alpha: float = 2.0) -> StabilisedDEQ:
    torch.manual_seed(0)
    config = ModelConfig(
        image_shape=(1, 3, 3),
        classes=3,
        mean=(0.5,),
        std=(0.3,),
        state_dim=DIM,
        stability=KINDS[kind].stability,
        head=KINDS[kind].head,
        solver=AndersonConfig(tolerance=1e-12, max_evaluations=200),
        lyapunov=LyapunovConfig(alpha=alpha, hidden=5),
    )
    model = StabilisedDEQ(config).double()
    with torch.no_grad():  # values that no initialisation has, so that no term vanishes
        for parameter in model.cell.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        if model.lyapunov is not None:
            for parameter in model.lyapunov.parameters():
                parameter += 0.3
        for norm in (model.cell.inner_norm, model.cell.outer_norm):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_variance.uniform_(0.5, 2)
    return model


def predict(model: StabilisedDEQ) -> Prediction:
    return model.predict(torch.rand(SAMPLES, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def normalise(x: Tensor, mean: Tensor, variance: Tensor, norm: Any) -> Tensor:
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def slow_field(model: StabilisedDEQ, equilibria: Tensor, h: Tensor) -> Callable[[Tensor, int], Tensor]:
    """The unprojected field of one sample, from Eq. 11 written out; in training, normalised as the batch of equilibria is."""
    cell = model.cell

    def inner(z: Tensor) -> Tensor:
        return (cell.inner.weight @ z + cell.inner.bias).clamp(min=0)

    def outer(hidden: Tensor, features: Tensor) -> Tensor:
        return (features + cell.outer.weight @ hidden + cell.outer.bias).clamp(min=0)

    def moments(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
        mean = sum(rows) / len(rows)
        return cast(Tensor, mean), cast(Tensor, sum((row - mean) ** 2 for row in rows) / len(rows))

    first = cell.inner_norm.running_mean, cell.inner_norm.running_variance
    second = cell.outer_norm.running_mean, cell.outer_norm.running_variance
    if model.training:
        first = moments([inner(z) for z in equilibria])
        hidden = [normalise(inner(z), *first, cell.inner_norm) for z in equilibria]
        second = moments([outer(row, features) for row, features in zip(hidden, h, strict=True)])

    def field(z: Tensor, sample: int) -> Tensor:
        hidden = normalise(inner(z), *first, cell.inner_norm)
        return normalise(outer(hidden, h[sample]), *second, cell.outer_norm) - z

    return field


@torch.no_grad()
def slow_decay(model: StabilisedDEQ, prediction: Prediction) -> tuple[float, float]:
    """The decay term and the rate of violations, sample by sample, V-dot by central differences of V along the field."""
    assert model.lyapunov is not None
    lyapunov, generator = model.lyapunov, seeded()
    equilibria, h = prediction.solution.z, prediction.h
    field = slow_field(model, equilibria, h)
    terms, violations = [], 0

    def value(offset: Tensor) -> float:
        return float(lyapunov(offset[None])[0])

    for radius in RADII:
        directions = torch.randn(SAMPLES, DIM, generator=generator).double()
        for sample in range(SAMPLES):
            offset = directions[sample] * radius * DIM**0.5 / directions[sample].norm()
            velocity = field(equilibria[sample] + offset, sample)
            step = 1e-6 * offset.norm() / velocity.norm()
            slope = (value(offset + step * velocity) - value(offset - step * velocity)) / (2 * float(step))
            excess = slope + lyapunov.alpha * value(offset)
            violations += excess > 0
            terms.append(max(0.0, excess) / value(offset))
    return sum(terms) / len(terms), violations / len(terms)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("alpha", [1.8, 3.0])
def test_the_decay_term_is_that_of_a_slow_loop(training: bool, alpha: float) -> None:
    model = tiny_model(alpha=alpha).train(training)
    prediction = predict(model)
    term, rate = decay_term(model, prediction, RADII, seeded())
    slow_term, slow_rate = slow_decay(model, prediction)
    assert slow_term > 0
    assert term.item() == pytest.approx(slow_term, rel=1e-6)
    assert rate.item() == pytest.approx(slow_rate, rel=1e-6)  # the rate is a float32


def known_case(field: Callable[[Tensor], Tensor], alpha: float) -> tuple[Any, Prediction, list[Tensor]]:
    """V = ||offset||^2 around z* and the field F(offset): the term is then known exactly. Also the list of states visited."""
    generator = torch.Generator().manual_seed(1)
    equilibrium = torch.randn(SAMPLES, DIM, dtype=torch.float64, generator=generator)
    visited: list[Tensor] = []

    class Alone:
        def decoupled(self, z: Tensor, h: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
            return self

        def __call__(self, z: Tensor, h: Tensor) -> Tensor:
            offsets = z - equilibrium.repeat(len(z) // SAMPLES, 1)
            visited.extend(offsets.split(SAMPLES))
            return z + field(offsets)

    class Square:
        centre = "equilibrium"

        def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
            return offset.square().sum(1), 2 * offset

    lyapunov = Square()
    lyapunov.alpha = alpha  # type: ignore[attr-defined]
    nothing = torch.zeros(SAMPLES)
    solution = Solution(equilibrium, nothing, nothing, nothing)
    prediction = Prediction(torch.zeros(SAMPLES, 3), torch.zeros_like(equilibrium), solution)
    return SimpleNamespace(cell=Alone(), lyapunov=lyapunov, training=False), prediction, visited


@pytest.mark.parametrize(
    ("rate", "alpha", "expected"),
    [
        (1.0, 0.5, 2.5),  # F = offset: V-dot = 2 V
        (-0.2, 0.5, 0.1),  # V-dot = -0.4 V, and -0.5 V is asked for
        (-0.3, 0.5, 0.0),
        (-1.0, 1.9, 0.0),
        (0.0, 0.5, 0.5),
    ],
)
def test_the_decay_term_of_known_fields(rate: float, alpha: float, expected: float) -> None:
    model, prediction, _ = known_case(lambda offset: rate * offset, alpha)
    term, violations = decay_term(model, prediction, RADII, seeded())
    assert term.item() == pytest.approx(expected, abs=1e-12)
    assert violations.item() == (expected > 0)


def test_only_violations_count_and_each_radius_alike() -> None:
    """Within distance sqrt(n) / 10 of z* the field decays, beyond it V-dot = 2 V: two of the three radii violate."""

    def field(offset: Tensor) -> Tensor:
        return torch.where(offset.norm(dim=1, keepdim=True) < 0.1 * DIM**0.5, -offset, offset)

    model, prediction, _ = known_case(field, 0.5)
    term, violations = decay_term(model, prediction, RADII, seeded())
    assert term.item() == pytest.approx(2.5 * 2 / 3)
    assert violations.item() == pytest.approx(2 / 3)


def test_states_lie_at_the_radii_in_directions_of_their_own() -> None:
    model, prediction, visited = known_case(lambda offset: -offset, 0.5)
    decay_term(model, prediction, RADII, seeded())
    assert len(visited) == len(RADII)
    for radius, offsets in zip(RADII, visited, strict=True):
        torch.testing.assert_close(offsets.norm(dim=1), torch.full((SAMPLES,), radius * DIM**0.5).double())
    directions = torch.cat([offsets / offsets.norm(dim=1, keepdim=True) for offsets in visited])
    cosines = directions @ directions.T - torch.eye(len(directions))
    assert float(cosines.abs().amax()) < 0.999


def test_a_contracting_field_costs_nothing() -> None:
    """With W2 = 0 the field is z* - z, and a strongly convex V decays along it at rate 1 and more."""
    model = tiny_model(alpha=1.0).eval()
    with torch.no_grad():
        model.cell.outer.weight.zero_()
    term, violations = decay_term(model, predict(model), RADII, seeded())
    assert term.item() == 0
    assert violations.item() == 0
    model.lyapunov.alpha = 1e3  # type: ignore[union-attr]
    term, violations = decay_term(model, predict(model), RADII, seeded())
    assert term.item() > 0
    assert violations.item() == 1


# What the gradient reaches.


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_the_gradient_reaches_v_and_the_cell_alone(training: bool) -> None:
    model = tiny_model().train(training)
    prediction = predict(model)
    decay_term(model, prediction, RADII, seeded())[0].backward()
    assert prediction.solution.adjoint == []
    for name, parameter in model.named_parameters():
        if name.startswith(("backbone.", "head.")):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all()
    for name in ("cell.inner.weight", "cell.outer.weight", "lyapunov.network.inner.weight", "lyapunov.network.raw_mix"):
        assert model.get_parameter(name).grad.abs().amax() > 0, name


def test_the_gradient_is_that_of_finite_differences() -> None:
    model = tiny_model().eval()
    prediction = predict(model)
    parameters = [*model.lyapunov.parameters(), *model.cell.parameters()]  # type: ignore[union-attr]
    directions = [torch.randn_like(parameter) for parameter in parameters]

    def term() -> Tensor:
        return decay_term(model, prediction, RADII, seeded())[0]

    gradients = torch.autograd.grad(term(), parameters)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))

    def moved(step: float) -> float:
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
            return float(term())

    step = 1e-6
    ahead = moved(step)
    behind = moved(-2 * step)
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)


def test_the_whole_loss_reaches_every_parameter() -> None:
    model = tiny_model().train()
    labels = torch.arange(SAMPLES) % 3
    training_loss(model, predict(model), labels, Recipe(decay=DecayConfig(radii=RADII)), seeded()).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


# The sum.


def slow_cross_entropy(logits: Tensor, labels: Tensor) -> float:
    rows = zip(logits.detach(), labels.tolist(), strict=True)
    return sum(float(row.exp().sum().log() - row[label]) for row, label in rows) / len(labels)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_total_is_cross_entropy_and_weighted_decay(weight: float) -> None:
    model = tiny_model().train()
    prediction, labels = predict(model), torch.arange(SAMPLES) % 3
    loss = training_loss(model, prediction, labels, Recipe(decay=DecayConfig(weight=weight, radii=RADII)), seeded())
    term, rate = decay_term(model, prediction, RADII, seeded())
    assert loss.cross_entropy.item() == pytest.approx(slow_cross_entropy(prediction.logits, labels), rel=1e-12)
    assert loss.decay.item() == term.item()
    assert loss.violations.item() == rate.item()
    assert loss.total.item() == pytest.approx(loss.cross_entropy.item() + weight * term.item(), rel=1e-12)
    assert loss.total.requires_grad
    assert not any(part.requires_grad for part in (loss.cross_entropy, loss.decay, loss.violations))


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.cell == "batchnorm"])
def test_only_anchored_models_pay_for_decay(kind: str) -> None:
    model = tiny_model(kind).train()
    generator = seeded()
    loss = training_loss(model, predict(model), torch.arange(SAMPLES) % 3, Recipe(), generator)
    anchored = kind == "lyadeq-anchored"
    assert (loss.decay.item() > 0) == anchored
    assert (loss.total.item() > loss.cross_entropy.item()) == anchored
    assert torch.equal(generator.get_state(), seeded().get_state()) != anchored


def test_a_weight_of_zero_takes_no_decay() -> None:
    model = tiny_model().train()
    generator = seeded()
    loss = training_loss(
        model, predict(model), torch.arange(SAMPLES) % 3, Recipe(decay=DecayConfig(weight=0)), generator
    )
    assert loss.total.item() == loss.cross_entropy.item()
    assert loss.decay.item() == 0
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_the_decay_states_come_from_the_generator_alone() -> None:
    model = tiny_model().eval()
    prediction = predict(model)
    before = torch.get_rng_state()
    first = decay_term(model, prediction, RADII, seeded())[0]
    torch.rand(1)
    second = decay_term(model, prediction, RADII, seeded())[0]
    other = decay_term(model, prediction, RADII, torch.Generator().manual_seed(12))[0]
    torch.set_rng_state(before)
    assert first.item() == second.item() != other.item()


def test_the_running_statistics_stay() -> None:
    model = tiny_model().train()
    prediction = predict(model)
    before = {name: value.clone() for name, value in model.named_buffers()}
    decay_term(model, prediction, RADII, seeded())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
