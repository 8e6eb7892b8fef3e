"""A model of one's own on the command line: audited and attacked on images of one's own."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_runs import run, save_untrained

import stabdeq
from analysis.report.made_by import command_line

MODULE = """
import torch
from torch import nn
from stabdeq.solvers import Anderson, fixed_point


class Mine(nn.Module):
    lyapunov = None

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.inner, self.classifier = nn.Linear(16, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def inject(self, x):
        return self.encoder(x.flatten(1))

    def cell(self, z, h):
        return torch.tanh(self.inner(z) + h)

    def readout(self, z):
        return self.classifier(z)

    def solve(self, h):
        settings = {"tolerance": 1e-6, "max_evaluations": 50}
        parameters = tuple(self.inner.parameters())
        return fixed_point(
            lambda z, h, *_: self.cell(z, h), torch.zeros_like(h), Anderson(), inputs=(h,), parameters=parameters, **settings
        )


def make():
    return Mine()


def broken():
    raise RuntimeError("no weights")


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Half:
    def inject(self, x):
        return x
"""


@pytest.fixture
def own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder, beside images.npz."""
    name = f"mine_{abs(hash(folder))}"
    (folder / f"{name}.py").write_text(MODULE)
    generator = np.random.default_rng(0)
    np.savez(folder / "images.npz", images=generator.random((12, 1, 4, 4)), labels=np.arange(12) % 3)
    monkeypatch.syspath_prepend(folder)
    return name


def test_an_audit(own: str, folder: Path) -> None:
    assert run("audit", f"{own}:make", "--images", "images.npz", "--images", "5", "--checks", "equilibrium") == 0
    report = json.loads((folder / "audit" / "report.json").read_text())
    assert len(report["sample"]["images"]) == 5
    assert {each["check"] for each in report["findings"]} == {"equilibrium"}
    assert report["checkpoint"] == {}


def test_an_attack(own: str, folder: Path) -> None:
    for name, count in (("make", 12), ("Classifier", 12)):
        options = ("--images", "images.npz", "--steps", "2", "--json", "out.json")
        assert run("attack", f"{own}:{name}", *options) == 0
        found = json.loads((folder / "out.json").read_text())
        assert found["n"] == count
        assert found["checkpoint"] is None


@pytest.mark.parametrize("count", [(), ("--images", "5")])
def test_outcomes_of_an_attack_are_told_by_the_places_of_their_images(
    count: tuple[str, ...], own: str, folder: Path
) -> None:
    """The first six images, of label 0, are right, the others wrong: no attack at so small a radius changes that."""
    (folder / f"{own}_sorted.py").write_text(
        "import torch\n\n\ndef net(x):\n    level = x.flatten(1).mean(1) - 0.5\n    return torch.stack([level, -level], 1)\n"
    )
    levels = np.where(np.arange(12) < 6, 0.9, 0.1)
    images = np.broadcast_to(levels[:, None, None, None], (12, 1, 4, 4))
    np.savez(folder / "sorted.npz", images=images, labels=np.zeros(12, np.int64))
    given = ("--images", "sorted.npz", *count, "--eps", "0.01", "--json", "out.json", "--seed", "3")
    assert run("attack", f"{own}_sorted:net", *given) == 0
    samples = json.loads((folder / "out.json").read_text())["samples"]
    assert len(samples["index"]) == (5 if count else 12)
    assert samples["robust_correct"] == [place < 6 for place in samples["index"]]


def test_the_honest_attack_of_a_classifier_without_an_equilibrium(own: str, folder: Path) -> None:
    given = ("--attack", "honest", "--steps", "2", "--images", "images.npz", "--json", "out.json")
    attacks, told = {}, {}
    for name in ("Classifier", "make"):
        assert run("attack", f"{own}:{name}", *given) == 0
        found = json.loads((folder / "out.json").read_text())
        attacks[name], told[name] = list(found["attacks"]), found["warnings"]
    assert attacks["make"] == [*attacks["Classifier"], "intermediate"]
    assert [bool(warnings) for warnings in told.values()] == [True, False]
    assert "was left out" in told["Classifier"][0]


def test_images_of_ones_own_for_a_checkpoint_are_named_in_reports_and_not_replayed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).random((6, 1, 8, 8))
    np.savez(folder / "mine.npz", images=images, labels=np.arange(6))
    model = save_untrained(folder / "model.safetensors", "lyadeq")
    given = ("--images", "mine.npz", "--quiet")
    assert run("audit", model, *given, "--checks", "equilibrium", "--out", "own") == 1
    assert "stabdeq replay" not in (folder / "own" / "report.html").read_text()
    assert run("replay", "own/report.json") == 3
    assert "audit them" in capsys.readouterr().out
    given_in_python = stabdeq.audit(model, torch.from_numpy(images), torch.arange(6), checks=["equilibrium"])
    assert "stabdeq replay" not in given_in_python._repr_html_()
    run("certify", model, *given, "--json", "certified.json")
    command = json.loads((folder / "certified.json").read_text())["command"]
    assert command_line(command) == f"stabdeq certify {model} --images mine.npz --seed 0"


def test_what_cannot_be_audited_is_refused(own: str, refusal: Callable[..., str]) -> None:
    images = ("--images", "images.npz")
    assert "without cell, readout, solve, lyapunov" in refusal("audit", f"{own}:Half", *images)
    assert "without cell, readout, solve, lyapunov" in refusal("attack", f"{own}:Half", *images)
    assert "write stabdeq.adapters.from_functions(inject, cell, readout)" in refusal("audit", f"{own}:Half", *images)
    assert "raises RuntimeError: no weights" in refusal("audit", f"{own}:broken", *images)
    assert "name a file or folder of them with --images" in refusal("audit", f"{own}:make")
    assert "did you mean 'make'" in refusal("audit", f"{own}:mak", *images)
    assert "one number and one file" in refusal("audit", f"{own}:make", *images, *images)


def test_whole_levels_are_pixels_of_0_to_1(own: str, folder: Path) -> None:
    levels = np.random.default_rng(1).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(6) % 3
    np.savez(folder / "whole.npz", images=levels, labels=labels)
    np.savez(folder / "floats.npz", images=levels / 255, labels=labels)
    found = []
    for name in ("whole", "floats"):
        assert run("audit", f"{own}:make", "--images", f"{name}.npz", "--checks", "iteration", "--out", name) == 0
        found.append(json.loads((folder / name / "report.json").read_text()))
    assert found[0]["sample"]["sha256"] == found[1]["sample"]["sha256"]
