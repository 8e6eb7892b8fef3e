"""A model of one's own on the command line: audited and attacked on images of one's own."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_runs import run

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
