"""The cell that is certified by construction: its inequality, its equilibria, its gradients, and the bounds on its logits."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from analysis.audit import audit
from analysis.measure.contraction import proved_contraction
from analysis.measure.subject import prepare
from stabdeq.bounds import logit_difference_bound
from stabdeq.bounds.lipschitz import extractor_matrix
from stabdeq.cells import CertifiedCell
from stabdeq.cells.certified import MARGIN
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import AndersonConfig, ArchitectureConfig, DataConfig, SolverConfig
from stabdeq.config.kinds import KINDS, model_config
from stabdeq.errors import ConfigError, SolverError
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Picard, solve
from train.loss import training_loss
from train.recipe import MarginConfig, Recipe, load_recipe

DIM = 6
SHAPE = (2, 3, 3)
TIGHT = AndersonConfig(tolerance=1e-13, max_evaluations=500)


def cell(scale: float = 0.5, seed: int = 0, dim: int = DIM) -> CertifiedCell:
    torch.manual_seed(seed)
    made = CertifiedCell(dim).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return made


def model(kind: str = "deq", solver: SolverConfig = TIGHT) -> StabilisedDEQ:
    torch.manual_seed(0)
    architecture = ArchitectureConfig(state_dim=DIM, cell="certified", solver=solver)
    config = model_config(kind, architecture, image_shape=SHAPE, classes=4, mean=(0.4, 0.5), std=(0.3, 0.2))
    made = StabilisedDEQ(config).double()
    with torch.no_grad():
        for parameter in made.cell.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made


def images(count: int = 5) -> Tensor:
    return torch.rand(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def features(count: int = 7, dim: int = DIM) -> Tensor:
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def equilibria(made: CertifiedCell, h: Tensor) -> Tensor:
    limits = {"tolerance": 1e-13, "max_evaluations": 100_000}
    return solve(made, torch.zeros_like(h), Picard(), context=(h,), throw=True, **limits).z


@settings(max_examples=50)
@given(scale=st.floats(0, 3), seed=st.integers(0, 1000))
def test_the_inequality_holds_for_all_weights(scale: float, seed: int) -> None:
    made = cell(scale, seed)
    with torch.no_grad():
        multiplier, weight = torch.diag(made.multiplier), made.weight
        slack = 2 * multiplier - multiplier @ weight - weight.T @ multiplier - torch.eye(DIM) - multiplier @ multiplier
        least = torch.linalg.eigvalsh((slack + slack.T) / 2)[0]
        assert least >= MARGIN * (1 - 1e-6) - 1e-13 * torch.linalg.matrix_norm(multiplier @ weight, 2)
        # The map contracts at least as fast as its step promises.
        monotone = made.monotone
        smallest = torch.linalg.eigvalsh((monotone + monotone.T) / 2)[0]
        promised = (1 - (smallest / torch.linalg.matrix_norm(monotone, 2)) ** 2).sqrt()
        assert torch.linalg.matrix_norm(made.fold().transition, 2) <= promised + 1e-12
        assert promised < 1


def test_equilibria_are_those_of_the_plain_equation() -> None:
    made, h = cell(), features()
    z = equilibria(made, h)
    with torch.no_grad():
        again = torch.relu(z @ made.weight.T + h + made.bias)
    torch.testing.assert_close(z, again, rtol=0, atol=1e-11)
    assert (z > 0).any()


def test_the_gain_is_at_most_one() -> None:
    made, h = cell(1.0), features(200)
    moved = h + torch.logspace(-6, 1, 200, dtype=torch.float64)[:, None] * features(200).flip(0)
    gain = (equilibria(made, h) - equilibria(made, moved)).norm(dim=1) / (h - moved).norm(dim=1)
    assert gain.max() <= 1
    assert gain.max() > 0.2  # no vacuous bound


def test_the_folded_map_and_its_pull_back_are_the_cells() -> None:
    made, h = cell(), features()
    z, u = features().flip(0), features().roll(3, 0)
    folded = made.fold()
    expected, pull_back = torch.func.vjp(lambda z: made(z, h), z)
    injected = folded.inject(h)
    torch.testing.assert_close(folded(z, injected), expected, rtol=0, atol=1e-14)
    product, rows = folded.linearise(z, injected)
    torch.testing.assert_close(product(u, *rows), pull_back(u)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_gradients_are_those_of_finite_differences(training: bool, gradient: str) -> None:
    network = model(solver=replace(TIGHT, gradient=gradient, gradient_steps=300)).train(training)
    x, labels = images(), torch.arange(5) % 4
    names = ("symmetric", "skew", "log_multiplier", "bias")

    def loss() -> Tensor:
        return torch.nn.functional.cross_entropy(network(x), labels)

    loss().backward()
    for name in names:
        parameter = getattr(network.cell, name)
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for step in (1e-5, -1e-5):
                parameter += step * direction
                values.append(loss())
                parameter -= step * direction
        slope = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.cell == "batchnorm"])
def test_samples_are_alone_in_training_too(kind: str) -> None:
    network = model(kind).train()
    x = images()
    together = network(x)
    alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-11)
    training_loss(network, network.predict(x), torch.arange(5) % 4, Recipe(), torch.Generator()).total.backward()


@pytest.mark.parametrize("kind", ["deq", "deq-orth", "lyadeq-anchored"])
def test_no_change_of_pixels_beats_the_bound(kind: str) -> None:
    network = model(kind).eval()
    x, labels = images(), torch.arange(5) % 4
    bound = logit_difference_bound(network, labels).detach()

    # Towards all four classes at once: row 4 i + j moves image i so that its logit j gains on that of its label.
    towards = torch.arange(4).repeat(5)[:, None]

    def differences(x: Tensor) -> Tensor:
        logits = network(x)
        return (logits.gather(1, labels.repeat_interleave(4)[:, None]) - logits.gather(1, towards))[:, 0]

    start = x.repeat_interleave(4, 0)
    moved = start + 0.01 * torch.randn(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for _ in range(30):
        leaf = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(differences(leaf).sum(), leaf)
        flat = slope.flatten(1).norm(dim=1).clamp(min=1e-300)
        moved = leaf.detach() - 0.05 * slope / flat[:, None, None, None]
    with torch.no_grad():
        change = (differences(moved) - differences(start)).abs()
    largest = (change / (moved - start).flatten(1).norm(dim=1)).view(5, 4)
    assert (largest <= bound * (1 + 1e-9) + 1e-12).all()
    assert (largest / bound.clamp(min=1e-300)).max() > 0.3
    assert torch.equal(bound.gather(1, labels[:, None]), torch.zeros(5, 1, dtype=torch.float64))


def test_the_extractor_matrix_is_that_of_the_backbone() -> None:
    network, x = model(), images()
    with torch.no_grad():
        moved = network.inject(x) - network.inject(torch.zeros_like(x))
        torch.testing.assert_close(x.flatten(1) @ extractor_matrix(network).T, moved, rtol=0, atol=1e-12)


def test_the_margin_loss_is_that_of_a_slow_loop() -> None:
    network, x, labels = model().train(), images(), torch.arange(5) % 4
    recipe = Recipe(kind="deq", model=ArchitectureConfig(cell="certified"), margin=MarginConfig(radius=0.3))
    prediction = network.predict(x)
    found = training_loss(network, prediction, labels, recipe, torch.Generator())
    norm = torch.linalg.svdvals(extractor_matrix(network))[0]
    rows, losses = network.head.classifier.weight, []
    for logits, label in zip(prediction.logits, labels.tolist(), strict=True):
        raised = [
            logits[j] + (0.3 * norm * (rows[label] - rows[j]).norm() if j != label else 0.0) for j in range(len(rows))
        ]
        losses.append(torch.stack(raised).exp().sum().log() - logits[label])
    torch.testing.assert_close(found.total, sum(losses) / 5, rtol=1e-12, atol=0)
    found.total.backward()
    for parameter in (network.backbone.linear.weight, network.head.classifier.weight, network.cell.skew):
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).any()


def loss_with(network: Any, margin: MarginConfig) -> Any:
    recipe = Recipe(kind="deq", model=ArchitectureConfig(cell="certified"), margin=margin)
    x, labels = images(), torch.arange(5) % 4
    return training_loss(network, network.predict(x), labels, recipe, torch.Generator()).total


def test_the_margin_loss_of_distances_is_that_of_a_slow_loop() -> None:
    network, x, labels = model().train(), images(), torch.arange(5) % 4
    found = loss_with(network, MarginConfig(radius=0.3, sharpness=4.0))
    norm = torch.linalg.svdvals(extractor_matrix(network))[0]
    rows, losses = network.head.classifier.weight, []
    for logits, label in zip(network.predict(x).logits, labels.tolist(), strict=True):
        distances = [
            (logits[label] - logits[j]) / (norm * (rows[label] - rows[j]).norm())
            for j in range(len(rows))
            if j != label
        ]
        losses.append((1 + sum((4.0 * (0.3 - distance)).exp() for distance in distances)).log() / 4.0)
    torch.testing.assert_close(found, sum(losses) / 5, rtol=1e-9, atol=0)


def test_the_margin_loss_of_distances_does_not_change_with_the_scale_of_the_logits() -> None:
    network = model().train()
    margins = MarginConfig(radius=0.3, sharpness=4.0), MarginConfig(radius=0.3)
    before = [loss_with(network, margin) for margin in margins]
    with torch.no_grad():
        network.head.classifier.weight *= 3
        network.head.classifier.bias *= 3
    after = [loss_with(network, margin) for margin in margins]
    torch.testing.assert_close(after[0], before[0], rtol=1e-9, atol=0)
    assert (after[1] - before[1]).abs() > 1e-3


def test_the_margin_loss_of_distances_is_finite_for_equal_rows() -> None:
    network = model().train()
    with torch.no_grad():
        network.head.classifier.weight[1] = network.head.classifier.weight[0]
    loss = loss_with(network, MarginConfig(radius=0.3, sharpness=4.0))
    loss.backward()
    assert loss.isfinite()
    assert network.head.classifier.weight.grad.isfinite().all()


def test_a_sharpness_without_a_radius_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"margin.sharpness=4 is of the distances within margin.radius"):
        load_recipe("mnist-certified", settings=["margin.radius=0", "margin.sharpness=4"])


def test_a_model_without_a_bound_is_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"kind": "deq"},
        {"kind": "lyadeq", "model": ArchitectureConfig(cell="certified")},
        {"kind": "deq", "model": ArchitectureConfig(cell="certified", backbone="resnet20")},
    ]
    for values in bad:
        with pytest.raises(ConfigError, match=r"margin.radius needs .* model.cell=certified"):
            Recipe(margin=MarginConfig(radius=0.1), **values)
    with pytest.raises(ConfigError, match="stability state"):
        logit_difference_bound(model("lyadeq"), torch.zeros(1, dtype=torch.int64))


def test_weights_that_overflow_are_told() -> None:
    made = cell()
    with torch.no_grad():
        made.log_multiplier.fill_(1e4)
    with pytest.raises(SolverError, match="overflows"):
        made(features(), features())


def test_the_certified_recipe_reads() -> None:
    recipe = load_recipe("mnist-certified")
    assert recipe.model.cell == "certified"
    assert recipe.margin.radius > 0


@pytest.mark.parametrize("kind", ["deq", "lyadeq-anchored"])
def test_its_audit_proves_the_only_equilibrium(kind: str) -> None:
    found = audit(model(kind), images(), torch.arange(5) % 4, checks=["equilibrium", "spectrum"]).named
    assert found["equilibrium.unique"].verdict == "PROVED"
    exists = found["equilibrium.exists"]
    assert exists.verdict == "PROVED"
    assert "contracts by" in exists.evidence
    # What the words promise: the solver's state, and Banach's bound on its distance from the equilibrium.
    stated = re.search(r"within ([\d.e+-]+) of it", exists.evidence)
    assert stated is not None
    assert 0 < float(stated[1]) < 1e-8
    if kind == "lyadeq-anchored":
        assert found["spectrum.stable"].verdict == "PROVED"


def test_a_contraction_bounds_what_two_states_do() -> None:
    subject = prepare(model("deq"), images(), torch.arange(5) % 4)
    found = proved_contraction(subject)
    assert found is not None
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, subject.dim, generator=generator, dtype=torch.float64)
    cell = subject.model.cell
    moved = (cell(a, subject.h) - cell(b, subject.h)).norm(dim=1)
    assert bool((moved <= found.rate * (a - b).norm(dim=1)).all())
    assert 0.1 < found.rate < 1


def test_a_checkpoint_keeps_and_names_the_cell(tmp_path: Path) -> None:
    network, path = model("deq-orth", AndersonConfig()).eval(), tmp_path / "checkpoint.safetensors"
    save_checkpoint(
        path, Checkpoint(model=network.float(), data=DataConfig(), class_names=tuple("abcd"), seed=0, epoch=1)
    )
    loaded = load_checkpoint(path)
    assert loaded.kind == "deq-orth, certified cell"
    assert torch.equal(loaded.model(images().float()), network(images().float()))
