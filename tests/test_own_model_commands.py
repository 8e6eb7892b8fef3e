"""Models from code of the user's under ``stabdeq solvers`` and ``stabdeq certify``, on images of the user's."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_runs import run, save_untrained

MODULE = """
import torch
from stabdeq.adapters import from_functions, looped
from stabdeq.config import ArchitectureConfig
from stabdeq.config.kinds import model_config
from stabdeq.model import StabilisedDEQ


def make():
    matrix = 0.4 * torch.eye(4)
    return from_functions(lambda x: x.flatten(1)[:, :4], lambda z, h: torch.tanh(z @ matrix.to(z)) + h, lambda z: z[:, :3])


def inject(x):
    return x.flatten(1)[:, :4]


def cell(z, h):
    return torch.where(h[:, :1] > 0.75, z + 1, h)


def bright():
    return from_functions(inject, cell, lambda z: z[:, :3])


def unrolled():
    return looped(cell, inject, lambda z: z[:, :3], loops=2)


class Parts:
    def __init__(self):
        model = bright()
        self.inject, self.cell, self.readout, self.solve = model.inject, model.cell, model.readout, model.solve
        self.lyapunov = None


def ours():
    torch.manual_seed(0)
    common = {"image_shape": (1, 4, 4), "classes": 3, "mean": (0.3,), "std": (0.4,)}
    return StabilisedDEQ(model_config("lyadeq-certified", ArchitectureConfig(state_dim=3), **common)).eval()
"""


@pytest.fixture
def own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder, beside images.npz."""
    name = f"commands_{abs(hash(folder))}"
    (folder / f"{name}.py").write_text(MODULE)
    generator = np.random.default_rng(0)
    np.savez(folder / "images.npz", images=generator.random((12, 1, 4, 4)), labels=np.arange(12) % 3)
    monkeypatch.syspath_prepend(folder)
    return name


def test_solvers_on_a_model_and_images_of_ones_own(own: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--images", "images.npz", "--images", "5", "--evaluations", "20", "--json", "out.json")
    assert run("solvers", f"{own}:make", *options) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{own}:make on images.npz, 5 images" in printed
    assert "Fastest to the model's own tolerance, 1e-3, on all 5 images: " in printed
    found = json.loads((folder / "out.json").read_text())
    order = found["indices"]
    assert (found["checkpoint"], found["images"], found["dim"], len(set(order))) == ({}, 5, 4, 5)
    assert {record["tolerances"][0]["converged"] for record in found["solvers"].values()} == {1.0}


@pytest.mark.parametrize("name", ["bright", "unrolled", "Parts"])
def test_an_attack_tells_for_which_images_there_is_no_equilibrium(name: str, own: str, folder: Path) -> None:
    images = np.full((12, 1, 4, 4), 0.5)
    images[::4] = 0.9
    np.savez(folder / "bright.npz", images=images, labels=np.arange(12) % 3)
    options = ("--images", "bright.npz", "--eps", "0.1", "--steps", "1", "--json", "out.json")
    assert run("attack", f"{own}:{name}", *options) == 0
    assert json.loads((folder / "out.json").read_text())["unconverged"] == {
        "clean": 0.25,
        "eps_0": 0.25,
        "robust": 0.25,
    }


def test_solvers_on_a_checkpoint_and_images_of_ones_own(folder: Path) -> None:
    save_untrained(folder / "model.safetensors", kind="deq")
    images = np.random.default_rng(0).random((4, 1, 8, 8))
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", np.arange(4))
    options = ("--images", "images.npy", "--labels", "labels.npy", "--evaluations", "8", "--json", "out.json")
    assert run("solvers", "model.safetensors", *options) == 0
    assert sorted(json.loads((folder / "out.json").read_text())["indices"]) == [0, 1, 2, 3]


def test_certify_reads_one_of_our_models_from_code(own: str, folder: Path) -> None:
    assert run("certify", f"{own}:ours", "--images", "images.npz", "--images", "5", "--json", "out.json") in (0, 3)
    report = json.loads((folder / "out.json").read_text())
    verdicts = {finding["check"]: finding["verdict"] for finding in report["findings"]}
    assert verdicts["well_posed"] == verdicts["gain"] == "PROVED"
    assert len(report["sample"]["images"]) == 5


def test_what_certify_cannot_read_it_says(own: str, refusal: Callable[..., str]) -> None:
    images = ("--images", "images.npz")
    assert "not of FunctionModel" in refusal("certify", f"{own}:make", *images)
    assert "name images with --images FILE" in refusal("certify", f"{own}:make")
    assert "a velocity has no images" in refusal("certify", f"{own}:make", *images, "--dim", "4")
    assert "a velocity has no images" in refusal("certify", f"{own}:make", "--images", "5", "--dim", "4")
    assert "a velocity has no solver" in refusal("certify", f"{own}:make", "--deployed", "--dim", "4")
    assert "a proof names the file" in refusal("certify", f"{own}:ours", *images, "--proof", "a.proof")
    assert "name their file or folder with --images" in refusal("certify", "no.safetensors", "--labels", "images.npz")
    for command in ("audit", "attack", "solvers", "certify"):
        assert "leave it out beside images of your own" in refusal(command, f"{own}:ours", *images, "--data-dir", ".")
    assert "one number and one file" in refusal("solvers", f"{own}:make", *images, *images)
    assert "name a file or folder of them" in refusal("solvers", f"{own}:make")
