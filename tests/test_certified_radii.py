"""Balls in which a cell is affine, and the radii within which no attack succeeds."""

import pytest
import torch
from certified_digits import trained
from proof_cells import certified_cell, paper_cell, scalar_cell, states
from torch import Tensor

from analysis.measure.subject import solve_accurately
from analysis.proofs.cells.affine_ball import activations, find_affine_balls
from analysis.proofs.cells.gain import find_gain
from analysis.proofs.cells.l2_radii import certified_radii, ends_of
from analysis.proofs.cells.network import of_certified_cell, of_paper_cell
from analysis.proofs.matrices.enclosure import Enclosure
from stabdeq.attacks import PGD
from stabdeq.cells.relu import FoldedReluCell
from stabdeq.config import DataConfig, ModelConfig
from stabdeq.data import load_data, to_unit
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

# Affine balls.


@pytest.mark.parametrize("make", ["certified", "paper"])
def test_the_cell_is_affine_in_the_ball_and_no_further(make: str) -> None:
    folded = certified_cell(5, 3) if make == "certified" else paper_cell(5, 3, 0.8)
    network = (of_certified_cell if make == "certified" else of_paper_cell)(folded)[0]  # pyrefly: ignore
    h = states(40, 5, 1)
    injected = folded.inject(h)
    z = solve_accurately(lambda z: folded(z, injected), torch.zeros_like(h)).z
    balls = find_affine_balls(network, z, h)
    assert bool((balls.radius > 0).all())
    assert bool((balls.error < 1e-9).all())
    assert bool((balls.rate > 0).all())
    assert bool(((balls.attraction > 0) & (balls.attraction <= balls.radius)).all())

    def signs(offset: Tensor) -> Tensor:
        return activations(network, Enclosure.exact(z + offset), Enclosure.exact(h))[0].centre > 0

    for seed in range(20):
        direction = states(40, 5, 100 + seed)
        direction /= direction.norm(dim=1, keepdim=True)
        assert torch.equal(signs(0.999 * balls.radius[:, None] * direction), signs(0 * direction))
    # The ReLU that is nearest to its kink sits on it, straight ahead.
    leaf = z.clone().requires_grad_()
    base = leaf @ network.state.centre.mT + h @ network.injection.centre.mT + network.bias.centre
    entering = base + base.relu() @ network.hidden.centre.mT if network.depth == 2 else base
    changed = torch.zeros(40, dtype=torch.bool)
    for unit in range(entering.shape[1]):
        (gradient,) = torch.autograd.grad(entering[:, unit].sum(), leaf, retain_graph=True)
        ahead = -entering[:, unit].sign()[:, None] * gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-300)
        changed |= (signs(1.001 * balls.radius[:, None] * ahead.detach()) != signs(0 * z)).any(1)
    assert bool(changed.all())


def test_a_state_that_is_no_equilibrium_gets_no_ball() -> None:
    network = scalar_cell(0.5)  # at h = 1 the equilibrium is 2
    z = torch.tensor([[2.0], [2.1], [-1.0], [-1e9]], dtype=torch.float64)
    balls = find_affine_balls(network, z, torch.ones(4, 1, dtype=torch.float64))
    assert balls.radius[0] == pytest.approx(4)  # at z = -2 the ReLU's input is 0
    assert balls.rate[0] == pytest.approx(0.45)  # the proved part of 1 - 0.5
    assert balls.error[1] == pytest.approx(0.1, rel=0.02)
    assert balls.radius[1] == pytest.approx(4.0, rel=0.01)
    assert balls.radius[2:].tolist() == [0, 0]
    assert balls.rate[2:].tolist() == [-torch.inf, -torch.inf]


def test_an_unstable_equilibrium_gets_a_ball_and_no_rate() -> None:
    balls = find_affine_balls(scalar_cell(1.5), torch.full((1, 1), 2.0).double(), -torch.ones(1, 1).double())
    assert balls.radius[0] > 0
    assert balls.abscissa[0] == pytest.approx(0.5)
    assert balls.rate[0] == -torch.inf
    assert balls.attraction[0] == 0


# Radii.


@pytest.fixture(scope="module")
def model() -> StabilisedDEQ:
    return trained()


def certify_radii(model: StabilisedDEQ, images: Tensor, z: Tensor | None = None):
    folded = model.cell.fold()
    assert isinstance(folded, FoldedReluCell)
    network, equation = of_certified_cell(folded)
    gain = find_gain(equation, equation.output, equation.injection, folded.scale)
    assert gain is not None
    if z is None:
        h = model.inject(images)
        z = solve_accurately(lambda z: model.cell(z, h), torch.zeros_like(h)).z
    with torch.no_grad():
        return certified_radii(ends_of(model), network, equation, gain, images, z)


def test_no_attack_succeeds_within_a_certified_radius(model: StabilisedDEQ) -> None:
    test = load_data(DataConfig()).test
    images, labels = to_unit(test.images, torch.float64)[:200], test.labels[:200]
    with torch.no_grad():
        radii = certify_radii(model, images)
        assert torch.equal(radii.predicted, model(images).argmax(1))
    correct = radii.predicted == labels
    assert correct.double().mean() > 0.85
    for eps in (0.1, 0.3):
        attacked = PGD(eps=eps, norm="l2", steps=15)(model, images, labels, generator=torch.Generator().manual_seed(0))
        distance = (attacked.images - images).flatten(1).norm(dim=1)
        assert bool((distance <= eps * (1 + 1e-6)).all())
        with torch.no_grad():
            turned = model(attacked.images).argmax(1) != radii.predicted
        certain = radii.radius >= distance
        assert not bool((turned & certain).any())
        certified = (correct & (radii.radius >= eps)).double().mean()
        assert certified <= (correct & ~turned).double().mean()
        assert certified > 0.2


def test_a_solver_that_stopped_early_costs_radius_and_never_soundness(model: StabilisedDEQ) -> None:
    images = to_unit(load_data(DataConfig()).test.images, torch.float64)[:50]
    with torch.no_grad():
        good = certify_radii(model, images)
        h = model.inject(images)
        z = solve_accurately(lambda z: model.cell(z, h), torch.zeros_like(h)).z
        for size in (1e-4, 1e-2, 1.0):
            rough = z + size * states(50, 12, 0)
            poor = certify_radii(model, images, rough)
            stepped = model.cell(rough, h)
            assert bool(((stepped - z).norm(dim=1) <= poor.error + 1e-9).all())
            same = poor.predicted == good.predicted
            assert bool((poor.radius <= good.radius * (1 + 1e-6) + 1e-9)[same].all())
            assert not bool((poor.radius > 0)[~same].any())


def test_what_is_not_affine_has_no_radius() -> None:
    common = {"image_shape": (1, 8, 8), "classes": 2, "mean": (0.5,), "std": (0.5,), "state_dim": 4}
    for options, said in (({"stability": "state"}, "not affine"), ({"backbone": "resnet20"}, "Lipschitz")):
        with pytest.raises(ConfigError, match=said):
            ends_of(StabilisedDEQ(ModelConfig(**common, **options)))  # pyrefly: ignore


def test_many_classes_share_one_multiplier(model: StabilisedDEQ, monkeypatch: pytest.MonkeyPatch) -> None:
    images = to_unit(load_data(DataConfig()).test.images, torch.float64)[:20]
    with torch.no_grad():
        each = certify_radii(model, images)
        monkeypatch.setattr("analysis.proofs.cells.l2_radii.MOST_PAIRS", 0)
        shared = certify_radii(model, images)
    assert bool((shared.radius <= each.radius * (1 + 1e-3)).all())
    assert bool((shared.radius > 0).any())
