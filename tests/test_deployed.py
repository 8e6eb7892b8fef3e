"""Certified radii of a model as it runs: rounding and the solver's tolerance are bounded, and models that exploit them get none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from deployed_models import DETECTORS, ones, order_detector
from test_certify_command import findings, run, save, untrained
from torch import Tensor
from torch.nn import functional

from analysis.certify import certify
from analysis.findings.four_digits import at_most
from analysis.from_weights import deployed as judgement
from analysis.measure.subject import solve_accurately
from analysis.proofs.cells.deployed import Arithmetic, Near, distance, equilibria, linear, lost_margins
from analysis.proofs.cells.deployed_extractor import _through, features
from analysis.proofs.matrices.enclosure import Enclosure
from analysis.report.report import Report
from stabdeq.backbones.lipschitz import Residual, ResidualConvolution, ResidualLinear
from stabdeq.cells import CertifiedCell
from stabdeq.config import AndersonConfig, PicardConfig
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Solution

COARSE = torch.bfloat16  # of float32's range, with a roundoff that shows


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coarse(values: Tensor) -> Tensor:
    """The float64 numbers nearest to ``values`` that the coarse dtype has, too."""
    return values.to(COARSE).double()


def summed(x: Tensor, weight: Tensor, bias: Tensor | None, seed: int) -> Tensor:
    """W x + b in the coarse dtype, its terms added one by one in a random order."""
    terms = [x[:, i, None].to(COARSE) * weight[:, i].to(COARSE) for i in range(x.shape[1])]
    terms += [] if bias is None else [bias.to(COARSE).expand(len(x), -1)]
    total = torch.zeros_like(terms[0])
    for i in torch.randperm(len(terms), generator=torch.Generator().manual_seed(seed)).tolist():
        total = total + terms[i]
    return total.double()


def around(centre: Tensor, reach: float, error: float, seed: int) -> tuple[Near, Tensor, Tensor]:
    """Vectors near ``centre``, exact ones within ``reach`` of it, and computed ones within ``error`` of these."""
    steps = [draw(*centre.shape, seed=seed + i).flatten(1) for i in range(2)]
    exact, computed = (step / step.norm(dim=1, keepdim=True) for step in steps)
    exact = coarse(centre + reach * exact.view_as(centre))
    computed = coarse(exact + error * computed.view_as(centre))
    apart, size = ((computed - one).flatten(1).norm(dim=1) * (1 + 1e-12) for one in (centre, exact))
    return Near(centre, apart, size), exact, computed


def assert_bounds(found: Near, exact: Tensor, computed: Tensor, waste: float) -> None:
    error = (computed - exact).flatten(1).norm(dim=1)
    assert bool((error <= found.error).all())
    assert bool(((computed - found.centre).flatten(1).norm(dim=1) <= found.apart).all())
    assert bool((error * waste >= found.error).any())


# Bounds of rounding, in bfloat16 in the place of float32.


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_layer_errs_by_no_more_than_is_charged(seed: int) -> None:
    weight, bias = coarse(draw(5, 40, seed=seed)), coarse(draw(5, seed=seed + 1))
    near, exact, computed = around(draw(30, 40, seed=seed + 2), 0.5, 0.0, seed + 3)
    found = linear(near, weight, bias, Arithmetic(COARSE, 1.0, {}))
    assert_bounds(found, exact @ weight.mT + bias, summed(computed, weight, bias, seed), 150)


def test_a_derived_layer_may_be_another_by_its_delta() -> None:
    weight, step, bias = 3 * draw(5, 8), draw(5, 8, seed=1), torch.zeros(5, dtype=torch.float64)
    step *= torch.linalg.matrix_norm(weight, 2) / torch.linalg.matrix_norm(step, 2)
    other = weight + 0.1 * step
    assert distance(other, weight) == pytest.approx(0.1, rel=1e-5)
    assert distance(1e-3 * other, 1e-3 * weight) == pytest.approx(
        1e-4 * float(torch.linalg.matrix_norm(weight, 2)), rel=1e-5
    )
    assert distance(torch.tensor([4.5, 2.0]), torch.tensor([4.0, 1.0]).double()) == pytest.approx(0.25)
    assert distance(weight.float(), weight.float().double()) == 0
    near = Near(draw(30, 8, seed=2), torch.zeros(30).double(), torch.zeros(30).double())
    found = linear(near, weight, bias, Arithmetic(torch.float64, 1.0, {"W": distance(other, weight)}), "W")
    assert_bounds(found, near.centre @ weight.mT, near.centre @ other.mT, 10)
    without = linear(near, weight, bias, Arithmetic(torch.float64, 1.0, {"V": 0.1}), "W")
    assert float(without.error.max()) < 1e-12


def as_matrix(layer: Residual, shape: tuple[int, ...]) -> Tensor:
    """W of a layer on values of ``shape``, as a matrix on flattened ones."""
    pixels = torch.eye(torch.Size(shape).numel(), dtype=torch.float64)
    if isinstance(layer, ResidualLinear):
        return layer.weight
    return functional.conv2d(pixels.view(-1, *shape), layer.weight, padding=1).flatten(1).mT


@pytest.mark.parametrize("make", [lambda: ResidualLinear(20, 7), lambda: ResidualConvolution(2, 3)])
def test_a_residual_layer_errs_by_no_more_than_is_charged(make: Any) -> None:
    torch.manual_seed(0)
    layer = make().double().requires_grad_(False)
    shape = (20,) if isinstance(layer, ResidualLinear) else (2, 4, 4)
    for parameter in layer.parameters():
        parameter.copy_(coarse(parameter + 0.3 * torch.randn_like(parameter)))
    weight = as_matrix(layer, shape)
    spread = weight.shape[0] // len(layer.bias)
    bias, scale = (one.repeat_interleave(spread) for one in (layer.bias, layer.scale()))
    deltas = {"layer": distance(coarse(layer.scale()), layer.scale())}
    near, exact, computed = around(draw(25, *shape, seed=4), 0.5, 0.0, 5)
    found = _through(layer, near, Arithmetic(COARSE, 1.0, deltas), "layer")
    x = computed.flatten(1)
    inner = coarse(summed(x, weight, bias, 6).relu() * coarse(scale))
    result = coarse(x - summed(inner, weight.mT, None, 7)).view_as(computed)
    assert_bounds(found, layer(exact), result, 200)


@pytest.mark.parametrize("tolerance", [0.02, 0.05])
def test_where_the_solver_stops_is_within_what_is_charged(tolerance: float) -> None:
    torch.manual_seed(0)
    cell = CertifiedCell(6).double().requires_grad_(False)
    cell.log_multiplier.normal_(0, 0.3)
    cell.bias.copy_(coarse(torch.randn(6)))
    folded = cell.fold()
    transition, scale = coarse(folded.transition), coarse(folded.scale)
    deltas = {"transition": distance(transition, folded.transition), "scale": distance(scale, folded.scale)}
    near, h, computed = around(3 * draw(40, 6), 0.3, 0.01, 8)

    def stopped(z: Tensor) -> tuple[Tensor, Tensor]:
        injected = coarse(coarse(computed + folded.bias) * scale)
        terms = torch.cat([z, torch.ones(len(z), 1, dtype=torch.float64)], 1)
        step = torch.stack(
            [
                summed(terms[i : i + 1], torch.cat([transition.mT, injected[i, :, None]], 1), None, i)[0]
                for i in range(40)
            ]
        ).relu()
        length, size = coarse(coarse(step - z).norm(dim=1)), coarse(z.norm(dim=1))
        return step, length / size.clamp(min=1) <= tolerance

    z, found_at = torch.zeros(40, 6, dtype=torch.float64), torch.full((40, 6), torch.nan, dtype=torch.float64)
    for _ in range(200):
        step, arrived = stopped(z)
        found_at = torch.where(arrived[:, None] & found_at.isnan(), z, found_at)
        z = step
    assert not bool(found_at.isnan().any())
    exact, centre = (
        solve_accurately(lambda z, h=h: cell(z, h), torch.zeros_like(h)).z for h in (h, near.centre)
    )  # of CertifiedCell's gain, at most 1
    doubt = torch.full((40,), 1e-9, dtype=torch.float64)
    found = equilibria(folded, near, centre, doubt, 1.0, Arithmetic(COARSE, tolerance, deltas))
    assert_bounds(found, exact, found_at, 100)


# The whole of a model, in float32.

MODELS: dict[str, dict[str, Any]] = {
    "linear": {},
    "orthogonal": {"head": "orthogonal"},
    "orthogonal-direct": {"head": "orthogonal-direct", "state_dim": 12},
    "interval": {"cell": "interval"},
    "monotone": {"cell": "monotone"},
    "lipschitz-fcn": {"backbone": "lipschitz-fcn", "head": "orthogonal", "stability": "anchored"},
    "lipschitz-fcn-8": {"backbone": "lipschitz-fcn-8", "head": "orthogonal", "stability": "anchored"},
    "lipschitz-cnn": {"backbone": "lipschitz-cnn"},
}


def small_model(**options: Any) -> StabilisedDEQ:
    return untrained(**{"cell": "certified", "solver": AndersonConfig(max_evaluations=300)} | options)


def pixels(count: int = 20) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_logits_in_float32_are_within_what_is_charged(options: dict[str, Any], tolerance: float) -> None:
    solver = AndersonConfig(tolerance=tolerance, max_evaluations=300)
    model = small_model(**options | {"solver": solver})
    images, reach = pixels(), 0.4
    steps = draw(20, 1, 8, 8, seed=1).float()
    others = images + reach * 0.999 * steps / steps.flatten(1).norm(dim=1)[:, None, None, None]
    runs = [judgement.run_as_deployed(model, one) for one in (images, others)]
    with torch.no_grad():
        model.double()
        exact = judgement._derived(model)
        h, moved = (model.inject(one.double()) for one in (images, others))
        z, away = (solve_accurately(lambda z, h=h: model.cell(z, h), torch.zeros_like(h)).z for h in (h, moved))
        assert isinstance(runs[0], judgement.Run)
        deltas = {name: distance(runs[0].derived[name], exact[name]) for name in exact}
        arithmetic = Arithmetic(torch.float32, tolerance, deltas)
        found = features(model, images.double(), torch.full((20,), reach, dtype=torch.float64), arithmetic)
        assert bool(((moved - found.centre).norm(dim=1) <= found.apart).all())
        cell, doubt = model.cell.fold(), torch.full((20,), 1e-9, dtype=torch.float64)
        states = equilibria(cell, found, z, doubt, 2.5, arithmetic)  # pyrefly: ignore
        classes = torch.arange(20) % 10
        readout = model.head.classifier.weight
        if model.head.rotation is not None:
            readout = readout @ model.head.rotation.weight
        lost = lost_margins(states, classes, model.head, Enclosure.exact(readout), arithmetic)
    for run_, state in zip(runs, (z, away), strict=True):
        assert isinstance(run_, judgement.Run)
        assert bool(run_.converged.all())
        logits = model.readout(state).detach()
        error = (run_.logits - run_.logits.gather(1, classes[:, None])) - (logits - logits.gather(1, classes[:, None]))
        assert bool((error.abs() <= lost).all())
    assert bool((lost < (0.1 if tolerance == 1e-3 else 2e-2)).all())


def deployed(report: Report) -> tuple[str, str]:
    (finding,) = [found for found in report.findings if found.name == "deployed"]
    return finding.verdict.value, finding.evidence


def test_an_ordinary_model_keeps_most_of_its_radii() -> None:
    model = small_model(solver=AndersonConfig(tolerance=1e-6, max_evaluations=300))
    images = pixels()
    labels = model(images).argmax(1)
    report = certify(model, images, labels, deployed=True)
    verdict, evidence = deployed(report)
    assert verdict == "PROVED"
    for words in ("float32", "tolerance 1e-06", "in any order", "TF32"):
        assert words in evidence
    series = report.series["certify"]
    exact, radius = (torch.tensor(series[name]["radius"]) for name in ("radii", "deployed"))
    assert bool((radius <= exact).all())
    assert bool((radius >= 0.9 * exact - 1e-3).all())
    assert all(series["deployed"]["converged"])
    deltas = series["deployed"]["deltas"]
    assert deltas["classifier"] == 8 * torch.finfo(torch.float32).eps
    assert f"delta {at_most(max(deltas.values()))}" in evidence
    values = {one.name: one.value for one in report.measurements if one.check == "deployed"}
    assert values["certified accuracy 0.1"] == int((radius >= 0.1).sum()) / 20
    assert model.mean.dtype == torch.float32


def test_without_being_asked_nothing_is_said_of_the_run() -> None:
    model = small_model()
    report = certify(model, pixels(5), torch.zeros(5, dtype=torch.int64))
    assert "deployed" not in {found.name for found in report.findings}


# Models made to deceive.


@pytest.mark.parametrize("name", DETECTORS)
def test_a_model_that_detects_its_arithmetic_is_not_certified(name: str) -> None:
    make, logits, proved = DETECTORS[name]
    model, image = make(), ones()
    assert int(logits(model, image).argmax()) != proved
    assert int(make().double()(image.double()).argmax()) == proved or name == "tolerance"
    report = certify(model, image, torch.tensor([proved]), deployed=True)
    verdicts = {found.name: found.verdict.value for found in report.findings}
    assert verdicts["radius"] == "PROVED"
    radii = report.series["certify"]["radii"]
    assert radii["predicted"] == [proved]
    assert radii["radius"][0] > 0.2
    assert verdicts["deployed"] == "INCONCLUSIVE"
    assert report.series["certify"]["deployed"]["radius"] == [0.0]


def test_a_tighter_tolerance_is_named_where_it_would_do_and_rounding_where_none_would() -> None:
    report = certify(DETECTORS["tolerance"][0](), ones(), torch.tensor([0]), deployed=True)
    assert "With model.solver.tolerance = 0.0001, where the solver reaches it, 1 would be." in deployed(report)[1]
    report = certify(order_detector(), ones(), torch.tensor([0]), deployed=True)
    assert "the rest is lost to rounding" in deployed(report)[1]


# What is not certified.


def test_images_on_which_the_solver_fails_are_not_certified_and_counted() -> None:
    model = small_model(solver=PicardConfig(tolerance=1e-3, max_evaluations=12))
    images = pixels()
    images[:10] = 0.3  # the mean: the features are those of a black image, and soon solved for
    solution: Solution = model.predict(images).solution
    missed = ~solution.converged
    assert 0 < int(missed.sum()) < 20
    report = certify(model, images, model(images).argmax(1), deployed=True)
    radius = torch.tensor(report.series["certify"]["deployed"]["radius"])
    assert bool((radius[missed] == 0).all())
    assert f"Of {int(missed.sum())} nothing is certified" in deployed(report)[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model.half(), "float16"),
        (lambda model: model.cell.half(), "float16, float32"),
    ],
)
def test_half_precision_is_not_covered(change: Any, said: str) -> None:
    model = small_model()
    change(model)
    verdict, evidence = deployed(certify(model, pixels(5), torch.zeros(5, dtype=torch.int64), deployed=True))
    assert verdict == "INCONCLUSIVE"
    assert said in evidence
    assert "half precision" in evidence


def test_an_image_of_the_state_that_met_the_tolerance_is_not_covered() -> None:
    model = small_model(solver=PicardConfig(tolerance=1e-5, max_evaluations=100, returns="image"))
    verdict, evidence = deployed(certify(model, pixels(5), torch.zeros(5, dtype=torch.int64), deployed=True))
    assert verdict == "INCONCLUSIVE"
    assert "whose rounding is not accounted for" in evidence


def test_a_cell_without_a_gain_has_no_radii_to_begin_with() -> None:
    model = small_model(cell="batchnorm")
    verdict, evidence = deployed(certify(model, pixels(5), torch.zeros(5, dtype=torch.int64), deployed=True))
    assert verdict == "INCONCLUSIVE"
    assert "certified, monotone and interval alone" in evidence


def test_a_run_that_contradicts_the_proof_is_told_and_nothing_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = judgement.run_as_deployed
    monkeypatch.setattr(
        "analysis.certify.run_as_deployed",
        lambda model, images: replace(genuine(model, images), logits=-genuine(model, images).logits),  # pyrefly: ignore
    )
    model = small_model(solver=AndersonConfig(tolerance=1e-6, max_evaluations=300))
    report = certify(model, pixels(), torch.zeros(20, dtype=torch.int64), deployed=True)
    verdict, evidence = deployed(report)
    assert verdict == "INCONCLUSIVE"
    assert "TF32" in evidence
    assert "deployed" not in report.series["certify"]


def test_the_command_certifies_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, written = save(tmp_path / "model", cell="certified"), tmp_path / "out.json"
    assert run(checkpoint, "--images", "10", "--deployed", "--json", written) in (0, 3)
    assert "solver tolerance 0.001" in findings(written)["deployed"]["evidence"]
    assert run("module:f", "--dim", "2", "--deployed") == 2
    assert "a velocity has no solver" in capsys.readouterr().err
