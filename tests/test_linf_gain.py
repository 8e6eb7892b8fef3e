"""Certified l-infinity accuracy from gains weighted by pixel: bounds that no attack passes, and where they are exact."""

import math
from fractions import Fraction

import pytest
import torch
from certified_digits import trained
from proof_cells import certified_cell, states
from torch import Tensor

from analysis.certify import certify
from analysis.measure.subject import solve_accurately
from analysis.proofs.cells import linf_gain
from analysis.proofs.cells.gain import find_gain
from analysis.proofs.cells.l2_radii import ends_of
from analysis.proofs.cells.linf_gain import boxes_around, find_weighted_gain, gain_margins, linf_gains
from analysis.proofs.cells.linf_margins import linf_margins
from analysis.proofs.cells.network import of_certified_cell
from analysis.proofs.matrices.enclosure import Enclosure
from stabdeq.attacks import PGD
from stabdeq.cells.relu import FoldedReluCell
from stabdeq.config import DataConfig, ModelConfig
from stabdeq.data import load_data, to_unit
from stabdeq.model import StabilisedDEQ


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    test = load_data(DataConfig()).test
    return to_unit(test.images, torch.float64)[:150], test.labels[:150]


@pytest.fixture(scope="module")
def model() -> StabilisedDEQ:
    return trained()


def margins(model: StabilisedDEQ, images: Tensor, labels: Tensor, eps: float, moved: float = 0.0) -> Tensor:
    """The proved margins at ``eps``, from equilibria that are ``moved`` off theirs."""
    folded = model.cell.fold()
    assert isinstance(folded, FoldedReluCell)
    network, equation = of_certified_cell(folded)
    gain = find_gain(equation, equation.output, equation.injection, folded.scale)
    assert gain is not None
    boxes = boxes_around(images, eps)
    ends = ends_of(model)
    with torch.no_grad():
        h = model.inject(boxes.centre)
        z = solve_accurately(lambda z: model.cell(z, h), torch.zeros_like(h)).z
        z = z + moved * states(len(z), z.shape[1], 0)
        gains = linf_gains(ends, equation, gain, boxes)
        return gain_margins(ends, network, equation, gains, boxes, z, labels)


def turned_by_pgd(model: StabilisedDEQ, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    attacked = PGD(eps=eps, steps=20)(model, images, labels, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(attacked.images).argmax(1) != labels


@pytest.mark.parametrize("eps", [4 / 255, 0.1])
def test_no_attack_turns_a_certified_image(model: StabilisedDEQ, digits: tuple[Tensor, Tensor], eps: float) -> None:
    certified = margins(model, *digits, eps) > 0
    assert certified.double().mean() > (0.7 if eps < 0.1 else 0.02)
    assert not bool((certified & turned_by_pgd(model, *digits, eps)).any())


def test_more_is_certified_than_by_the_l2_ball_around_the_pixels(
    model: StabilisedDEQ, digits: tuple[Tensor, Tensor]
) -> None:
    report = certify(model, *digits)
    eps = report.series["certify"]["linf"]["eps"]
    radii = torch.tensor(report.series["certify"]["radii"]["radius"])
    right = torch.tensor(report.series["certify"]["radii"]["predicted"]) == digits[1]
    for name, flags in report.series["certify"]["linf"]["certified"].items():
        crude = right & (radii >= 8 * eps[name])
        certified = torch.tensor(flags)
        assert bool((certified >= crude).all())
        assert not bool((certified & ~right).any())
    finding = report["linf"].findings[0]
    assert finding.verdict == "PROVED"
    assert "a multiplier for each pair" in finding.evidence


def test_without_a_move_the_margins_are_those_of_the_logits(
    model: StabilisedDEQ, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits
    with torch.no_grad():
        logits = model.readout(
            solve_accurately(lambda z: model.cell(z, h), torch.zeros_like(h := model.inject(images))).z
        )
    others = logits.scatter(1, labels[:, None], -math.inf).amax(1)
    true = logits.gather(1, labels[:, None])[:, 0] - others
    proved = margins(model, images, labels, 0.0)
    assert bool((proved < true + 1e-12).all())
    torch.testing.assert_close(proved, true, rtol=0, atol=1e-6)


def test_equilibria_that_are_off_cost_margin_and_never_soundness(
    model: StabilisedDEQ, digits: tuple[Tensor, Tensor]
) -> None:
    good = margins(model, *digits, 0.02)
    for moved in (1e-8, 1.0, math.nan):
        poor = margins(model, *digits, 0.02, moved)
        # The centre of the bound is that of the moved state, which the bound on its error covers.
        assert not bool((poor > good + 1e-6).any())
        assert bool((poor > 0).any()) == (moved == 1e-8)


def test_one_multiplier_for_all_pairs_proves_almost_as_much(
    model: StabilisedDEQ, digits: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = margins(model, *digits, 0.05)
    monkeypatch.setattr(linf_gain, "MOST_WORK", 0)
    monkeypatch.setattr(linf_gain, "ROWS_AT_ONCE", 7)
    shared = margins(model, *digits, 0.05)
    assert own.mean() > shared.mean()
    assert (shared > 0).double().mean() > 0.5 * (own > 0).double().mean()
    assert not bool(((shared > 0) & turned_by_pgd(model, *digits, 0.05)).any())


def test_a_single_relu_gets_the_sum_of_its_weights() -> None:
    """w = relu(f'x): with |dx_k| <= r_k it moves by at most sum |f_k| r_k, and by no less where it is on."""
    one, f = torch.ones(1, dtype=torch.float64), states(1, 6, 0)
    _, equation = of_certified_cell(FoldedReluCell(0 * one[None], one, 0 * one))
    reach = torch.tensor([0.1, 0.2, 0.1, 0.05, 0.3, 0.1], dtype=torch.float64)
    gain = find_weighted_gain(equation, Enclosure.exact(2 * one[None]), Enclosure.exact(f), one, reach)
    bound, exact = float(gain.bound(reach[None], torch.zeros(1))), 2 * float((f.abs() * reach).sum())
    assert exact <= bound <= exact * 1.001


@pytest.mark.parametrize("work", [0, 1e9])
def test_no_corner_of_the_box_moves_a_row_further(work: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linf_gain, "MOST_WORK", work)
    folded = certified_cell(6, 1)
    _, equation = of_certified_cell(folded)
    injection, rows = states(6, 9, 2), states(4, 6, 3)
    reach = states(1, 9, 4)[0].abs() + 0.01
    gain = find_weighted_gain(equation, Enclosure.exact(rows), Enclosure.exact(injection), folded.scale, reach)
    bound = gain.bound(reach[None], torch.zeros(1, dtype=torch.float64))[0]

    def equilibria(x: Tensor) -> Tensor:
        h = folded.inject(x @ injection.mT)
        return solve_accurately(lambda z: folded(z, h), torch.zeros_like(h)).z

    moved = 0 * bound
    for seed in range(5):
        centre = states(1, 9, 10 + seed)
        corners = centre + reach * states(2000, 9, 20 + seed).sign()
        moved = torch.maximum(moved, ((equilibria(corners) - equilibria(centre)) @ rows.mT).abs().amax(0))
    assert bool((moved <= bound).all())
    assert bool((moved > 0.2 * bound).all())


def test_a_start_that_proves_nothing_bounds_nothing() -> None:
    folded = certified_cell(4, 0)
    _, equation = of_certified_cell(folded)
    start = torch.full((4,), math.nan, dtype=torch.float64)
    ones = torch.ones(4, dtype=torch.float64)
    gain = find_weighted_gain(equation, Enclosure.exact(states(3, 4, 0)), equation.injection, start, ones)
    assert bool((gain.scale == math.inf).all())
    assert not bool((gain.bound(ones[None], torch.zeros(1)) < math.inf).any())


@pytest.mark.parametrize("eps", [0.0, 2 / 255, 0.1, 1.0])
def test_boxes_hold_all_images_in_reach(eps: float) -> None:
    images = torch.rand(1, 1, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, :3] = torch.tensor([0.0, 1.0, 2 / 255])
    boxes = boxes_around(images, eps)
    exact = Fraction(2, 255) if eps == 2 / 255 else Fraction(eps)
    parts = (part.flatten().tolist() for part in (images, boxes.centre, boxes.reach))
    for pixel, centre, reach in zip(*parts, strict=True):
        low, high = max(Fraction(pixel) - exact, Fraction(0)), min(Fraction(pixel) + exact, Fraction(1))
        assert Fraction(centre) - Fraction(reach) <= low
        assert high <= Fraction(centre) + Fraction(reach)
        assert reach <= float((high - low) / 2) + 1e-15


def test_an_interval_cell_gets_the_better_of_two_proofs(digits: tuple[Tensor, Tensor]) -> None:
    data = load_data(DataConfig())
    config = ModelConfig(image_shape=(1, 8, 8), classes=10, mean=data.mean, std=data.std, cell="interval", state_dim=8)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = StabilisedDEQ(config).double().eval().requires_grad_(False)
    images = digits[0][:40]
    labels = model(images).argmax(1)
    report = certify(model, images, labels)
    gained = 0
    for name, flags in report.series["certify"]["linf"]["certified"].items():
        eps = report.series["certify"]["linf"]["eps"][name]
        by_intervals = linf_margins(model, images, labels, eps) > 0
        assert bool((torch.tensor(flags) >= by_intervals).all())
        gained += sum(flags) - int(by_intervals.sum())
    assert gained > 0
    evidence = report["linf"].findings[0].evidence
    assert "interval bounds" in evidence
    assert "matrix inequality" in evidence


def test_an_extractor_that_is_no_matrix_moves_by_its_lipschitz_constant(digits: tuple[Tensor, Tensor]) -> None:
    data = load_data(DataConfig())
    config = ModelConfig(image_shape=(1, 8, 8), classes=10, mean=data.mean, std=data.std, cell="certified", state_dim=16,
                         backbone="lipschitz-fcn", head="orthogonal", stability="anchored")  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = StabilisedDEQ(config).double().eval().requires_grad_(False)
    images = digits[0][:40]
    labels = model(images).argmax(1)
    report = certify(model, images, labels)
    series = report.series["certify"]
    radii = torch.tensor(series["radii"]["radius"])
    certified = {
        series["linf"]["eps"][name]: torch.tensor(flags) for name, flags in series["linf"]["certified"].items()
    }
    for eps, flags in certified.items():
        assert bool(
            (flags >= (radii >= 8.01 * eps)).all()
        )  # no pixel moves further than eps, so the image not further than 8 eps
        assert not bool((flags & turned_by_pgd(model, images, labels, eps)).any())
    assert bool(certified[2 / 255].any())
    assert not bool(certified[0.1].all())
    assert "times the l2 length of the pixels' move" in report["linf"].findings[0].evidence
