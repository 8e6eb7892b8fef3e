"""Interval bounds of logits: against a slow reference, against attacks, their gradients, and their proofs."""

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from analysis.certify import certify
from analysis.proofs.cells.linf_margins import contraction_bound, linf_margins
from stabdeq.attacks import PGD
from stabdeq.bounds import worst_logits
from stabdeq.bounds.interval import backbone_layers, equilibrium_bounds
from stabdeq.cells import IntervalCell
from stabdeq.config import AndersonConfig, ArchitectureConfig, ModelConfig, SolverConfig
from stabdeq.config.kinds import model_config
from stabdeq.errors import ConfigError, SolverError
from stabdeq.model import StabilisedDEQ

DIM = 5
CLASSES = 4
TIGHT = AndersonConfig(tolerance=1e-13, max_evaluations=500)
SHAPES = {"fcn": (2, 3, 3), "cnn": (2, 11, 10)}


def model(backbone: str = "fcn", seed: int = 0, solver: SolverConfig = TIGHT) -> StabilisedDEQ:
    torch.manual_seed(seed)
    architecture = ArchitectureConfig(state_dim=DIM, solver=solver, backbone=backbone)  # pyrefly: ignore
    options = {"image_shape": SHAPES[backbone], "classes": CLASSES, "mean": (0.4, 0.5), "std": (0.3, 0.2)}
    made = StabilisedDEQ(model_config("ibp-mondeq", architecture, **options)).double()  # pyrefly: ignore
    with torch.no_grad():
        cell_of(made).bias.add_(0.3)
    return made


def images(backbone: str = "fcn", count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    # Some pixels are at 0 and 1, where the ball is cut.
    return (1.4 * torch.rand(count, *SHAPES[backbone], dtype=torch.float64, generator=generator) - 0.2).clamp(0, 1)


def labels(count: int = 4) -> Tensor:
    return torch.arange(count) % CLASSES


def cell_of(network: StabilisedDEQ) -> IntervalCell:
    assert isinstance(network.cell, IntervalCell)
    return network.cell


def slow_affine(low: Tensor, high: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bounds of ``weight`` x + ``bias``, each coefficient taking the end that is worst for it."""
    ends = [
        [sum(worst(w * a, w * b) for w, a, b in zip(row, low, high, strict=True)) for row in weight]
        for worst in (min, max)
    ]
    return torch.tensor(ends[0]) + bias, torch.tensor(ends[1]) + bias


def slow_worst_logits(network: StabilisedDEQ, image: Tensor, label: int, eps: float) -> Tensor:
    """Return the bounds (classes,) for one image, by loops; a convolution is the matrix of its Jacobian."""
    low, high = ((image + move).clamp(0, 1) for move in (-eps, eps))
    low, high = ((end[None] - network.mean) / network.std for end in (low, high))
    for layer in backbone_layers(network):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            zero = torch.zeros_like(low)
            offset = layer(zero)
            matrix = torch.func.jacrev(layer)(zero).reshape(offset.numel(), -1)
            low, high = slow_affine(low.flatten(), high.flatten(), matrix, offset.flatten())
            low, high = low.view_as(offset), high.view_as(offset)
        else:
            low, high = layer(low), layer(high)
    below = above = torch.zeros(DIM, dtype=torch.float64)
    for _ in range(60):
        least, most = slow_affine(below, above, cell_of(network).weight, cell_of(network).bias)
        below, above = (least + low[0]).relu(), (most + high[0]).relu()
    rows, bias = network.head.classifier.weight, network.head.classifier.bias
    return slow_affine(below, above, rows - rows[label], bias - bias[label])[1]


@pytest.mark.parametrize(("backbone", "eps"), [("fcn", 0.0), ("fcn", 0.05), ("fcn", 1.0), ("cnn", 0.02)])
def test_the_bounds_are_those_of_a_slow_loop(backbone: str, eps: float) -> None:
    network, x = model(backbone).eval(), images(backbone, 4 if backbone == "fcn" else 1)
    with torch.no_grad():
        found = worst_logits(network, x, labels(len(x)), eps)
        expected = [slow_worst_logits(network, image, label, eps) for label, image in enumerate(x)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-10, atol=1e-10)


def test_without_a_move_they_are_the_logits() -> None:
    network, x = model(), images()
    logits = network(x)
    expected = logits - logits.gather(1, labels()[:, None])
    torch.testing.assert_close(worst_logits(network, x, labels(), 0.0), expected, rtol=0, atol=1e-11)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), eps=st.floats(0, 0.3), backbone=st.sampled_from(["fcn", "cnn"]))
def test_nothing_in_the_ball_passes_the_bounds(seed: int, eps: float, backbone: str) -> None:
    network, x = model(backbone, seed).eval(), images(backbone)
    with torch.no_grad():
        bound, wider = worst_logits(network, x, labels(), eps), worst_logits(network, x, labels(), eps + 0.1)
        assert (wider >= bound - 1e-10).all()
        assert torch.equal(bound.gather(1, labels()[:, None]), torch.zeros(4, 1, dtype=torch.float64))
        generator = torch.Generator().manual_seed(seed)
        for corner in (False, True):
            for _ in range(10):
                move = 2 * torch.rand(x.shape, dtype=torch.float64, generator=generator) - 1
                moved = (x + eps * (move.sign() if corner else move)).clamp(0, 1)
                logits = network(moved)
                assert (logits - logits.gather(1, labels()[:, None]) <= bound + 1e-10).all()


def test_the_bounds_of_the_equilibrium_are_reached_where_all_signs_agree() -> None:
    network = model()
    with torch.no_grad():
        cell_of(network).matrix.abs_()
        low = torch.rand(3, DIM, dtype=torch.float64)
        high = low + torch.rand(3, DIM, dtype=torch.float64)
        found = equilibrium_bounds(network, low, high)
        for ends, h in zip(found, (low, high), strict=True):
            torch.testing.assert_close(ends, network.solve(h).z, rtol=0, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backbone", ["fcn", "cnn"])
def test_gradients_are_those_of_finite_differences(backbone: str, training: bool) -> None:
    network, x = model(backbone).train(training), images(backbone)
    leaf = x.clone().requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return functional.cross_entropy(worst_logits(network, x, labels(), 0.03), labels())

    loss(leaf).backward()
    torch.manual_seed(3)
    for parameter in network.parameters():
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for step in (1e-6, -1e-6):
                parameter += step * direction
                values.append(loss(x))
                parameter -= step * direction
        assert parameter.grad is not None
        slope = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=1e-5, atol=1e-8)
    assert leaf.grad is not None
    assert (leaf.grad != 0).any()


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_float32_with_usual_settings_is_near(gradient: str) -> None:
    network, x = model(), images()
    expected = worst_logits(network, x, labels(), 0.03)
    rough = model(solver=AndersonConfig(gradient=gradient)).float()  # pyrefly: ignore
    found = worst_logits(rough, x.float(), labels(), 0.03)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.01)
    found.logsumexp(1).sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in rough.parameters())  # pyrefly: ignore


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cell": "monotone"}, "cell monotone"),
        ({"head": "orthogonal"}, "head orthogonal"),
        ({"stability": "state"}, "stability state"),
        ({"backbone": "resnet20", "image_shape": (2, 8, 8)}, "resnet20 has no interval bounds"),
    ],
)
def test_models_without_bounds_are_refused(changes: dict[str, Any], said: str) -> None:
    config: ModelConfig = replace(model().config, **changes)
    network = StabilisedDEQ(config).double().eval()
    x = torch.rand(2, *config.image_shape, dtype=torch.float64)
    for bounds in (worst_logits, linf_margins):
        with pytest.raises(ConfigError, match=said):
            bounds(network, x, labels(2), 0.1)


@pytest.mark.parametrize("eps", [-0.1, 8, float("nan")])
def test_a_radius_that_is_none_is_refused(eps: float) -> None:
    for bounds in (worst_logits, linf_margins):
        with pytest.raises(ConfigError, match="eps"):
            bounds(model(), images(), labels(), eps)


@pytest.mark.parametrize("backbone", ["fcn", "cnn"])
@pytest.mark.parametrize("eps", [0.0, 8 / 255, 0.3])
def test_proved_margins_are_just_below_the_computed_ones(backbone: str, eps: float) -> None:
    network, x = model(backbone).eval(), images(backbone)
    with torch.no_grad():
        worst = worst_logits(network, x, labels(), eps).scatter(1, labels()[:, None], -torch.inf).amax(1)
        gap = -worst - linf_margins(network, x, labels(), eps)
    assert (gap > 0).all()
    assert gap.max() < 1e-7


def test_a_proved_margin_is_below_the_exact_one() -> None:
    """In rational numbers, of one pixel at all 33 moves of a grid: the equilibrium by trying patterns of active ReLUs."""
    torch.manual_seed(0)
    config = ModelConfig(
        image_shape=(1, 1, 1), classes=2, mean=(0.3,), std=(0.7,), state_dim=2, cell="interval", solver=TIGHT
    )
    network = StabilisedDEQ(config).double().eval()
    eps, x = 0.1, torch.full((1, 1, 1, 1), 0.95, dtype=torch.float64)
    with torch.no_grad():
        margins = [float(linf_margins(network, x, torch.tensor([label]), eps)) for label in (0, 1)]
        wide, fixed = Fraction(eps), [Fraction(1, 32) * step for step in range(-16, 17)]
        pixels = [min(Fraction(1), Fraction(float(x)) + 2 * wide * step) for step in fixed]
        exact = [exact_difference(network, pixel) for pixel in pixels]
    assert margins[0] <= min(exact)
    assert margins[1] <= min(-difference for difference in exact)
    assert max(margins[0] - min(exact), margins[1] + max(exact)) > -0.5


def exact_difference(network: StabilisedDEQ, pixel: Fraction) -> Fraction:
    """Return logit 0 - logit 1 of the real function whose weights are the model's float64 numbers, n = 2."""

    def exact(values: Tensor) -> list[Any]:
        return [exact(value) if value.dim() else Fraction(float(value)) for value in values]

    layer, head = backbone_layers(network)[1], network.head.classifier
    assert isinstance(layer, nn.Linear)
    normal = (pixel - Fraction(float(network.mean))) / Fraction(float(network.std))
    weight, cell_bias = exact(cell_of(network).fold().transition.mT), exact(cell_of(network).bias)
    pairs = zip(exact(layer.weight), exact(layer.bias), cell_bias, strict=True)
    q = [row[0] * normal + bias + more for row, bias, more in pairs]
    for s, t in itertools.product((0, 1), repeat=2):
        a, b, c, d = 1 - s * weight[0][0], -s * weight[0][1], -t * weight[1][0], 1 - t * weight[1][1]
        det = a * d - b * c
        z = [(d * s * q[0] - b * t * q[1]) / det, (a * t * q[1] - c * s * q[0]) / det]
        entering = [sum(w * v for w, v in zip(weight[i], z, strict=True)) + q[i] for i in range(2)]
        if [value > 0 for value in entering] == [bool(s), bool(t)]:
            rows, bias = exact(head.weight), exact(head.bias)
            logits = [sum(w * v for w, v in zip(rows[i], z, strict=True)) + bias[i] for i in range(2)]
            return logits[0] - logits[1]
    raise AssertionError("no equilibrium")


def test_a_cell_that_does_not_contract_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model().eval()
    monkeypatch.setattr("stabdeq.cells.interval.CONTRACTION", 1.5)
    with torch.no_grad():
        cell_of(network).matrix.copy_(1.5 * torch.eye(DIM))
        assert contraction_bound(cell_of(network)) >= 1.5
        assert (linf_margins(network, images(), labels(), 0.01) == -torch.inf).all()
        cell_of(network).matrix.fill_(torch.nan)
        assert (linf_margins(network, images(), labels(), 0.01) == -torch.inf).all()


def test_a_cell_that_was_tampered_with_is_refused() -> None:
    network = model().eval()
    cell_of(network).forward = lambda z, h: torch.relu(-3 * h)  # pyrefly: ignore
    derived = model().eval()
    derived.cell = type("Derived", (IntervalCell,), {"forward": lambda self, z, h: torch.relu(-3 * h)})(DIM).double()
    hooked = model().eval()
    hooked.cell.register_forward_hook(lambda cell, given, z: -z)
    for changed in (network, derived, hooked):
        for bounds in (worst_logits, linf_margins):
            with pytest.raises(ConfigError, match=r"the cell .* its weights do not tell what it computes"):
                bounds(changed, images(), labels(), 0.01)


def test_an_unfinished_iteration_bounds_nothing() -> None:
    network = model(solver=AndersonConfig(tolerance=1e-13, max_evaluations=2))
    with pytest.raises(SolverError, match=r"raise .*max_evaluations"):
        worst_logits(network, images(), labels(), 0.1)


def test_certify_takes_only_cells_as_they_were_made() -> None:
    network = model().eval()
    network.cell.register_forward_hook(lambda cell, given, z: -z)
    with pytest.raises(ConfigError, match="the cell has a forward hook"):
        certify(network, images(), labels())


def test_proofs_are_in_float64_alone() -> None:
    network, x = model().eval(), images().float()
    with torch.no_grad():
        # In float32 an eps of 1e-9 is lost beside a pixel.
        assert torch.equal(linf_margins(network, x, labels(), 1e-9), linf_margins(network, x.double(), labels(), 1e-9))
        with pytest.raises(ConfigError, match="float64"):
            linf_margins(network.float(), x, labels(), 1e-9)


def test_a_box_that_is_not_mapped_into_itself_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = model().eval(), images()
    with torch.no_grad():
        assert (linf_margins(network, x, labels(), 0.01) > -torch.inf).all()
        monkeypatch.setattr("analysis.proofs.cells.linf_margins.MOST_STEPS", 1)
        assert (linf_margins(network, x, labels(), 0.01) == -torch.inf).all()


@pytest.mark.parametrize("backbone", ["fcn", "cnn"])
def test_no_certified_image_is_turned(backbone: str) -> None:
    """The weights are trained a little first, so that there is something to certify and to attack."""
    network = model(backbone)
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(48) % CLASSES
    centres = torch.rand(CLASSES, *SHAPES[backbone], dtype=torch.float64, generator=generator)
    noise = torch.randn(48, *SHAPES[backbone], dtype=torch.float64, generator=generator)
    x = (centres[y] + 0.15 * noise).clamp(0, 1)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        functional.cross_entropy(worst_logits(network, x, y, 0.02), y).backward()
        optimiser.step()
    network.eval().requires_grad_(False)
    seen = []
    for eps in (0.01, 0.03, 0.06, 0.1):
        certified = linf_margins(network, x, y, eps) > 0
        attacked = PGD(eps=eps, steps=20, step_size=eps / 5)(network, x, y, generator=generator)
        turned = network(attacked.images).argmax(1) != y
        assert not (certified & turned).any()
        seen += [certified, turned]
    assert any(bool(flags.any()) for flags in seen[::2])
    assert any(bool(flags.any()) for flags in seen[1::2])
