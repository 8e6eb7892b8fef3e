"""The command ``stabdeq certify``: verdicts and exit codes of checkpoints and of dynamics, and what it writes down."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.certify import certify
from analysis.proofs.cells.decay import proves_contraction, proves_decay
from analysis.proofs.cells.gain import proves_gain
from analysis.proofs.cells.network import of_certified_cell
from stabdeq.__main__ import main
from stabdeq.cells import CertifiedCell
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import DataConfig, LyapunovConfig, ModelConfig
from stabdeq.model import StabilisedDEQ

NAMES = {"stability", "contraction", "gain", "well_posed", "affine_ball", "radius"}
OF_A_CERTIFIED_CELL = NAMES | {"linf"}


def untrained(scale: float = 1.0, **options: Any) -> StabilisedDEQ:
    """Return an untrained model of the digits, its cell's weights times ``scale``."""
    common = {"image_shape": (1, 8, 8), "classes": 10, "mean": (0.3,), "std": (0.4,), "state_dim": 6}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(ModelConfig(**common | options)).eval()  # pyrefly: ignore
        with torch.no_grad():
            for weight in model.cell.parameters():
                weight *= scale
    return model


def save(path: Path, scale: float = 1.0, **options: Any) -> Path:
    """Write an untrained model."""
    model = untrained(scale, **options)
    names = tuple("0123456789")
    save_checkpoint(path, Checkpoint(model=model, data=DataConfig(), class_names=names, seed=0, epoch=0))
    return path


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in ("certify", *arguments)])
    return int(end.value.code or 0)


def findings(path: Path) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in json.loads(path.read_text())["findings"]}


def verdicts(path: Path) -> dict[str, str]:
    return {name: finding["verdict"] for name, finding in findings(path).items()}


def test_a_certified_cell_is_proved_and_its_certificates_can_be_checked_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, written = save(tmp_path / "model", cell="certified"), tmp_path / "out.json"
    assert run(checkpoint, "--images", "40", "--json", written) == 0
    assert verdicts(written) == dict.fromkeys(OF_A_CERTIFIED_CELL, "PROVED")
    assert "certified accuracy at l2 radius 0.3" in " ".join(capsys.readouterr().out.split())
    report = json.loads(written.read_text())
    radii = report["series"]["certify"]["radii"]
    assert len(radii["radius"]) == len(radii["indices"]) == 40
    assert all(radius >= 0 for radius in radii["radius"])

    cell = load_checkpoint(checkpoint).model.double().cell
    assert isinstance(cell, CertifiedCell)
    network, equation = of_certified_cell(cell.fold())

    def tensors(name: str, *parts: str) -> list[torch.Tensor]:
        return [torch.tensor(report["certificates"][name][part], dtype=torch.float64) for part in parts]

    for name, system, proves in (
        ("stability", network.flow(), proves_decay),
        ("contraction", network, proves_contraction),
    ):
        norm, multiplier, rate = tensors(name, "norm", "multiplier", "rate")
        assert proves(system, norm, multiplier, float(rate))
    multiplier, value = tensors("gain", "multiplier", "value")
    assert bool(proves_gain(equation, equation.output, equation.injection, multiplier, value))


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"cell": "monotone"}, {"linf": "PROVED"}),
        ({"cell": "interval"}, {"linf": "PROVED"}),
        (
            {"cell": "interval", "backbone": "cnn", "image_shape": (1, 10, 10)},
            {"linf": "PROVED", "radius": "INCONCLUSIVE"},
        ),
        ({"cell": "interval", "head": "orthogonal"}, {"linf": "PROVED"}),
        (
            {"cell": "interval", "head": "orthogonal", "backbone": "cnn", "image_shape": (1, 10, 10)},
            {"linf": "INCONCLUSIVE", "radius": "INCONCLUSIVE"},
        ),
    ],
)
def test_monotone_and_interval_cells_are_proved(options: dict[str, Any], more: dict[str, str]) -> None:
    model = untrained(**options).double()
    with torch.no_grad():
        model.head.classifier.bias[0] += 1.0  # a margin that there is something to prove of
    images = torch.rand(12, *model.config.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    report = certify(model, images, labels)
    assert {found.name: found.verdict for found in report.findings} == dict.fromkeys(NAMES, "PROVED") | more
    values = {measured.name: measured.value for measured in report.measurements if measured.check == "linf"}
    if more.get("linf") == "PROVED":
        certified = report.series["certify"]["linf"]["certified"]
        assert list(values) == [f"certified accuracy {eps}" for eps in ("2/255", "4/255", "6/255", "8/255", "0.1")]
        assert list(values.values()) == [sum(flags) / 12 for flags in certified.values()]
        assert list(values.values()) == sorted(values.values(), reverse=True)
    else:
        assert not values


def test_the_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "model", cell="certified")
    reports = []
    for name in ("a", "b"):
        run(checkpoint, "--images", "10", "--seed", "3", "--json", tmp_path / name)
        report = json.loads((tmp_path / name).read_text())
        report.pop("environment")
        for finding in report["findings"]:
            finding.pop("seconds")
        reports.append(report)
    assert reports[0] == reports[1]


def test_a_cell_that_hardly_contracts_is_stable_too(tmp_path: Path) -> None:
    checkpoint, written = save(tmp_path / "model", cell="certified", scale=30.0), tmp_path / "out.json"
    assert run(checkpoint, "--images", "8", "--json", written) == 0
    assert verdicts(written)["stability"] == "PROVED"


def test_a_batchnorm_cell_says_what_fails_and_by_how_much(tmp_path: Path) -> None:
    checkpoint, written = save(tmp_path / "model", scale=8.0), tmp_path / "out.json"
    assert run(checkpoint, "--images", "10", "--json", written) == 3
    found = findings(written)
    assert {name for name in NAMES if found[name]["verdict"] == "INCONCLUSIVE"} >= NAMES - {"affine_ball"}
    for name, said in (
        ("stability", "no rate is better than a = -"),
        ("contraction", "it must be below 1"),
        ("gain", "it must be below 1"),
        ("well_posed", "the product of norms is"),
        ("radius", "without a proved gain"),
    ):
        assert said in found[name]["evidence"]


def test_a_small_batchnorm_cell_is_proved(tmp_path: Path) -> None:
    checkpoint, written = save(tmp_path / "model", scale=0.5, stability="anchored"), tmp_path / "out.json"
    assert run(checkpoint, "--images", "20", "--json", written) in (0, 3)
    found = verdicts(written)
    assert {name: found[name] for name in NAMES - {"radius"}} == dict.fromkeys(NAMES - {"radius"}, "PROVED")
    assert found["radius"] == "PROVED"
    assert found["iss_gain"] in ("SUPPORTED", "INCONCLUSIVE")


@pytest.mark.parametrize(
    ("options", "unprojected", "iss_gain", "code"),
    [
        (
            {"alpha": 0.01, "eta": 1.0, "smoothing": 1e6},
            "PROVED",
            "PROVED",
            3,
        ),  # 3: untrained, no image is certified in l-infinity
        ({"alpha": 100.0}, "REFUTED", "INCONCLUSIVE", 1),
    ],
)
def test_the_iss_gain_stands_or_falls_with_the_unprojected_decay(
    options: dict[str, float], unprojected: str, iss_gain: str, code: int, tmp_path: Path
) -> None:
    lyapunov = LyapunovConfig(**options)  # pyrefly: ignore
    checkpoint = save(tmp_path / "model", scale=0.3, cell="certified", stability="anchored", lyapunov=lyapunov)
    written = tmp_path / "out.json"
    assert run(checkpoint, "--images", "10", "--json", written) == code
    assert verdicts(written)["unprojected"] == unprojected
    assert verdicts(written)["iss_gain"] == iss_gain


def test_radii_of_a_model_that_is_not_affine_say_what_to_do(tmp_path: Path) -> None:
    checkpoint, written = save(tmp_path / "model", cell="certified", stability="state"), tmp_path / "out.json"
    assert run(checkpoint, "--images", "10", "--json", written) == 3
    assert "use none or anchored" in findings(written)["radius"]["evidence"]


def test_weights_at_the_edge_of_their_range_are_left_open(tmp_path: Path) -> None:
    checkpoint, written = save(tmp_path / "model", scale=1e15), tmp_path / "out.json"
    assert run(checkpoint, "--images", "10", "--json", written) == 3
    assert set(verdicts(written).values()) == {"INCONCLUSIVE"}


@pytest.mark.parametrize(
    ("name", "code", "verdict"),
    [("shear", 0, "PROVED"), ("cubic", 3, "INCONCLUSIVE"), ("van_der_pol", 3, "INCONCLUSIVE")],
)
def test_dynamics_of_somebody_else(name: str, code: int, verdict: str, tmp_path: Path) -> None:
    dim = 1 if name == "cubic" else 2
    assert run(f"zoo:{name}", "--dim", str(dim), "--json", tmp_path / "out.json") == code
    assert verdicts(tmp_path / "out.json") == {"stability": verdict}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["zoo:shear"], "--dim"),
        (["nowhere.safetensors"], "no such file"),
        (["nowhere.safetensors", "--dim", "2"], "a checkpoint knows its own"),
        (["zoo:shaer", "--dim", "2"], "did you mean 'shear'"),
        (["zoo:shear", "--dim", "0"], "--dim"),
        (["nowhere.safetensors", "--images", "0"], "--images"),
        (["nowhere.safetensors", "--json", "/nowhere/at/all.json"], "there is no directory"),
    ],
)
def test_what_does_not_fit(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert said in capsys.readouterr().err
