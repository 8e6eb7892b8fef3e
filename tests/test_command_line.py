"""The command line: bad input ends in one line, exit code 2 and nothing written; good input in files and an exit code."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_runs import REPOSITORY, run, save_untrained
from PIL import Image

import stabdeq
from stabdeq.__main__ import COMMANDS
from stabdeq.checkpoint import load_checkpoint, save_checkpoint
from stabdeq.config import DataConfig
from stabdeq.config.kinds import KINDS

pytestmark = pytest.mark.usefixtures("folder")


def write_images(root: Path, counts: dict[str, int], size: tuple[int, int] = (6, 5)) -> Path:
    """Write random PNG images of ``size`` (width, height), as many of each class as ``counts`` says."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    return root


# Help.


def test_help_imports_nothing_heavy() -> None:
    """One process for all: neither the list of commands nor any command's own help may wait for PyTorch."""
    program = (
        "import sys\n"
        "from stabdeq.__main__ import main\n"
        "for arguments in (['--help'], ['--version'], []):\n"
        "    main(arguments)\n"
        "heavy = 'torch scipy numpy sklearn cvxpy matplotlib torchvision hypothesis pydantic safetensors'.split()\n"
        "print('HEAVY', [name for name in heavy if name in sys.modules])\n"
        "print('OURS', [name for name in sys.modules if name.split('.')[0] in ('train', 'analysis')])\n"
        f"for name in {[name for name, _, _ in COMMANDS]}: main([name, '--help'])\n"
        "print('FOR ALL', [name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name, _, summary in COMMANDS:
        assert name in done.stdout
        assert summary in done.stdout
    assert stabdeq.__version__ in done.stdout
    assert "HEAVY []" in done.stdout
    assert "OURS []" in done.stdout
    assert "FOR ALL []" in done.stdout
    assert "--resume" in done.stdout


def test_every_command_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for name, _, _ in COMMANDS:
        assert run(name, "--help") == 0
        assert f"Usage: stabdeq {name}" in capsys.readouterr().out


def test_the_help_names_every_kind_and_check(capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.audit import CHECKS

    run("train", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert all(kind in text for kind in KINDS)
    run("audit", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert all(check in text for check in CHECKS)


# Names that do not exist.


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("trian digits", 'Did you mean "train"?'),
        ("audti x", 'Did you mean "audit"?'),
        ("--hlep", "--hlep"),
        ("train", "requires an argument"),
        ("train digits mnist", "mnist"),
        ("train digits --epocs 3", "Did you mean --epochs?"),
        ("train digits --epochs", "requires an argument"),
        ("train digits --epochs many", '"many"'),
        ("train digits --no-resume", "Unknown option"),
        ("train digit", "did you mean 'digits'?"),
        ("train nowhere.toml", "nowhere.toml does not exist"),
        ("train digits --kind lyadeq-anchord", "did you mean 'lyadeq-anchored'?"),
        ("train digits --epochs 0", "epochs = 0"),
        ("train digits --seed -1", "seed = -1"),
        ("train digits --seed 99999999999999999999999", "less than"),
        ("train digits --set model.lyapunov.alfa=1", "did you mean 'alpha'?"),
        ("train digits --set data.name=mnits", "did you mean 'mnist'?"),
        ("train digits --set model.lyapunov.alpha=0", "model.lyapunov.alpha = 0: input should be greater than 0"),
        ("train digits --set model.lyapunov.alpha=-1", "greater than 0"),
        ("train digits --set model.lyapunov.alpha=nan", "finite"),
        ("train digits --set epochs", "expected key=value"),
        ("train digits --set epochs=2 --set kind=dqe", "did you mean 'deq'?"),
        ("train digits --set model.head=linear", "choose another kind"),
        ("train digits --set model.solver.tolerance=1e-12", "raise it"),
        ("train digits --set data.validation_fraction=0.999", "validation_fraction"),
        ("train digits --set model.backbone=resnet20 --set data.name=cifar10", "--data-dir"),
        ("audit", "requires an argument"),
        ("audit x --chekcs decay", "Did you mean --checks?"),
        ("robust-data x --out y --seed 4294967296", "Must be < 4294967296"),
        ("certify x --images 0", '"0" is not a whole number'),
        ("check x:V --dim 0", '"0" for --dim. Must be >= 1'),
        ("audit x --images 0", '"0" is not a whole number from 1 up'),
        ("audit x", "x: no such file"),
        ("attack x", "x: no such file"),
        ("attack x --attack pdg", "did you mean 'pgd'?"),
    ],
)
def test_what_does_not_exist_or_fit(command: str, expected: str, refusal: Callable[..., str]) -> None:
    assert expected in refusal(*command.split())


def test_an_unknown_check_names_the_closest(folder: Path, refusal: Callable[..., str]) -> None:
    path = save_untrained(folder / "x")
    for arguments in (["decai"], ["decay", "decai"], ["decay,decai"]):
        line = refusal("audit", path, "--checks", *arguments)
        assert "unknown check 'decai': did you mean 'decay'?" in line


def test_toml_that_cannot_be_read(folder: Path, refusal: Callable[..., str]) -> None:
    (folder / "bad.toml").write_text("kind = \n")
    assert "bad.toml is not TOML" in refusal("train", "bad.toml")
    (folder / "bad.toml").write_text("[modle]\n")
    assert "did you mean 'model'?" in refusal("train", "bad.toml")


# Data.


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("svhn", "train_32x32.mat"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
    ],
)
def test_missing_data(name: str, file: str, refusal: Callable[..., str]) -> None:
    line = refusal("train", name, "--data-dir", "my data")
    assert f"looked for my data/{file}" in line
    assert f"`stabdeq train {name} --data-dir 'my data' --download`" in line
    assert "--data-dir" in refusal("train", name)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({}, "here/images"), ({"only": 8}, "class"), ({"a": 8, "b": 0}, "b"), ({"a": 1, "b": 1}, "too few")],
    ids=["empty", "one-class", "an-empty-class", "too-few"],
)
def test_data_sets_that_cannot_be_learnt(
    counts: dict[str, int], expected: str, folder: Path, refusal: Callable[..., str]
) -> None:
    (folder / "images").mkdir()
    images = write_images(folder / "images", counts)
    assert expected in refusal("train", "digits", "--set", "data.name=folder", "--data-dir", images)


def test_images_of_several_sizes(folder: Path, refusal: Callable[..., str]) -> None:
    images = write_images(folder / "images", {"a": 8})
    write_images(images, {"b": 8}, size=(7, 7))
    line = refusal("train", "digits", "--set", "data.name=folder", "--data-dir", images)
    assert "7" in line


def test_images_too_small_for_the_backbone(refusal: Callable[..., str], folder: Path) -> None:
    images = write_images(folder / "images", {"a": 40, "b": 40})
    arguments = ("--set", "data.name=folder", "--set", "model.backbone=resnet20", "--data-dir", images)
    assert "resnet20 needs images of at least 8 x 8" in refusal("train", "digits", *arguments)


def test_images_that_the_model_does_not_read(folder: Path, refusal: Callable[..., str]) -> None:
    path = save_untrained(folder / "x", data=DataConfig(name="folder", validation_fraction=0.0))
    larger = write_images(folder / "larger", {"a": 8, "b": 8}, size=(7, 7))
    classes = write_images(folder / "classes", {"a": 8, "b": 8, "c": 8})
    assert "(3, 5, 6)" in refusal("audit", path, "--data-dir", larger)
    assert "classes" in refusal("audit", path, "--data-dir", classes)
    for command in ("audit", "attack"):
        assert "nowhere" in refusal(command, path, "--data-dir", "nowhere")


# Checkpoints.


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _poison(path: Path) -> None:
    loaded = load_checkpoint(path)
    with torch.no_grad():
        loaded.model.cell.inner.weight[0, 0] = float("nan")
    save_checkpoint(path, loaded)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "empty or truncated"),
    "truncated": (_truncate, "not a readable safetensors file"),
    "foreign": (lambda path: path.write_text("hello, world"), "not a safetensors file"),
    "torch.save": (lambda path: torch.save({"weight": torch.zeros(2)}, path), "loading one can run code"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"weight": 1})), "loading one can run code"),
    "NaN": (_poison, "1 of 64 weights in 'model.cell.inner.weight' are NaN or infinite"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_checkpoints(case: str, folder: Path, refusal: Callable[..., str]) -> None:
    damage, expected = BROKEN[case]
    (folder / "run").mkdir()
    path = save_untrained(folder / "run" / "checkpoint.safetensors")
    damage(path)
    for command in (("audit", path), ("attack", path), ("train", "digits", "--out", "run", "--resume")):
        line = refusal(*command)
        assert expected in line
        assert "checkpoint.safetensors" in line


# Auditing.


def test_the_exit_codes_of_an_audit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anchored, paper = save_untrained(folder / "anchored"), save_untrained(folder / "paper", "lyadeq")
    options = ("--images", "4", "--checks", "positivity")
    assert run("audit", anchored, *options, "--out", "a") == 0
    assert run("audit", paper, "--images", "4", "--checks", "equilibrium", "--out", "b") == 1
    assert capsys.readouterr().err == ""
    for name, code in (("a", 0), ("b", 1)):
        assert {path.name for path in (folder / name).iterdir()} == {"report.json", "report.html"}
        assert json.loads((folder / name / "report.json").read_text())["exit_code"] == code


def test_a_report_is_replayed_and_drawn_again(refusal: Callable[..., str], folder: Path) -> None:
    checkpoint = save_untrained(folder / "checkpoint.safetensors", "lyadeq")
    assert run("audit", checkpoint, "--checks", "equilibrium", "--images", "8") == 1
    assert run("replay", "report.json", "--finding", "equilibrium.preserved") == 0
    assert "did you mean 'equilibrium.preserved'" in refusal("replay", "report.json", "--finding", "preserved")
    (folder / "report.html").unlink()
    assert run("report", "report.json") == 0
    assert (folder / "report.html").is_file()
    (folder / "cut.json").write_text((folder / "report.json").read_text()[:500])
    for command in ("replay", "report"):
        assert "truncated or broken" in refusal(command, "cut.json")
