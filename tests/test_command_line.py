"""The command line: bad input ends in one line, exit code 2 and nothing written; good input in files and an exit code."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stabdeq
from stabdeq.__main__ import COMMANDS, main
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig, LyapunovConfig, ModelConfig
from stabdeq.data import load_data
from stabdeq.kinds import KINDS, model_config
from stabdeq.model import StabilisedDEQ
from train import trainer
from train.loss import Loss, training_loss

REPOSITORY = Path(stabdeq.__file__).parents[1]
SMALL = ("--set", "model.state_dim=8", "--set", "model.lyapunov.hidden=8", "--set", "batch_size=512")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that nothing written anywhere below it goes unseen."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str | Path) -> int:
    """Run the command line in this process and return its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with one line on stderr and change no file; gives that line."""

    def refused(*arguments: str | Path, code: int = 2) -> str:
        capsys.readouterr()
        before, folders = contents(folder), sorted(folder.rglob("*"))
        assert run(*arguments) == code
        line = capsys.readouterr().err
        assert line.startswith("stabdeq: ")
        assert line.endswith("\n")
        assert line.count("\n") == 1
        assert contents(folder) == before
        assert sorted(folder.rglob("*")) == folders
        return line

    return refused


def save_untrained(path: Path, kind: str = "lyadeq-anchored", data: DataConfig | None = None) -> Path:
    """Write a checkpoint of an untrained model for the digits, or for 5 x 6 images of two classes in folders."""
    shape, names = ((1, 8, 8), tuple("0123456789")) if data is None else ((3, 5, 6), ("a", "b"))
    architecture = ArchitectureConfig(state_dim=8, lyapunov=LyapunovConfig(hidden=8))
    config = model_config(
        kind, architecture, image_shape=shape, classes=len(names), mean=(0.4,) * shape[0], std=(0.3,) * shape[0]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config).eval()
    save_checkpoint(path, Checkpoint(model=model, data=data or DataConfig(), class_names=names, seed=0, epoch=0))
    return path


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
    """One process for all three: neither the list of commands nor a command's own help may wait for PyTorch."""
    program = (
        "import sys\n"
        "from stabdeq.__main__ import main\n"
        "for arguments in (['--help'], ['--version'], []):\n"
        "    main(arguments)\n"
        "heavy = 'torch scipy numpy sklearn cvxpy matplotlib torchvision hypothesis pydantic safetensors'.split()\n"
        "print('HEAVY', [name for name in heavy if name in sys.modules])\n"
        "print('OURS', [name for name in sys.modules if name.split('.')[0] in ('train', 'analysis')])\n"
        "main(['train', '--help'])\n"
        "print('FOR TRAIN', [name for name in ('torch', 'scipy', 'matplotlib') if name in sys.modules])\n"
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
    assert "FOR TRAIN []" in done.stdout
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
        ("audit x --samples few", '"few"'),
        ("check x:V --dim 0", '"0" for --dim. Must be >= 1'),
        ("audit x --samples 0", '"0" for --samples. Must be >= 1'),
        ("audit x", "x: no such file"),
        ("attack x", "x: no such file"),
        ("attack x --attack pdg", 'Did you mean "pgd"?'),
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


# Training.


def test_train_writes_a_run_and_guards_it(
    folder: Path, refusal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "digits", "--epochs", "1", "--kind", "deq", "--seed", "7", *SMALL) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "deq on digits (1365 train, 72 validation, 360 test images), 1 epochs, seed 7" in captured.out
    assert "test accuracy" in captured.out
    out = folder / "runs" / "digits-deq-seed7"
    assert f"wrote {out.relative_to(folder)}/checkpoint.safetensors" in captured.out
    assert {path.name for path in out.iterdir()} == {"checkpoint.safetensors", "best.safetensors", "metrics.jsonl"}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert f"test accuracy {lines[-1]['test_accuracy']:.2%}" in captured.out
    assert load_checkpoint(out / "checkpoint.safetensors").recipe["model"]["state_dim"] == 8

    again = ("train", "digits", "--kind", "deq", "--seed", "7", *SMALL)
    assert "add --resume" in refusal(*again, "--epochs", "1")
    assert "epochs = 1, not 2" in refusal(*again, "--epochs", "2", "--resume")
    assert "learning_rate = 0.002, not 0.5" in refusal(
        *again, "--epochs", "1", "--set", "learning_rate=0.5", "--resume"
    )
    before = {name: content for name, (_, content) in contents(out).items()}
    assert run(*again, "--epochs", "1", "--resume") == 0
    assert {name: content for name, (_, content) in contents(out).items()} == before


def test_a_folder_that_cannot_be_made(folder: Path, refusal: Callable[..., str]) -> None:
    (folder / "file").write_text("precious")
    for out in ("file", "file/run"):
        assert "choose another --out" in refusal("train", "digits", "--epochs", "1", "--out", out, *SMALL)


def test_a_folder_whose_name_looks_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    out = Path("[red]a[/blue]")
    assert run("train", "digits", "--epochs", "1", "--kind", "deq", "--out", out, *SMALL) == 0
    assert f"wrote {out}/checkpoint.safetensors" in capsys.readouterr().out


def test_control_c_says_where_the_run_stands_and_it_resumes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("train", "digits", "--epochs", "2", "--kind", "deq", "--out", "cut", *SMALL)
    calls = iter(range(100))
    original = trainer._Run.step

    def interrupt(run: trainer._Run, *rest: object) -> object:
        if next(calls) == 4:  # the second step of the second epoch
            signal.raise_signal(signal.SIGINT)
        return original(run, *rest)  # type: ignore[arg-type]

    # A shell that runs the tests in the background starts them with Control-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(trainer._Run, "step", interrupt)
            assert run(*arguments) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    captured = capsys.readouterr()
    assert captured.err == "stabdeq: interrupted\n"
    assert "cut/checkpoint.safetensors holds the last whole epoch: add --resume to go on" in captured.out
    assert load_checkpoint(folder / "cut" / "checkpoint.safetensors").epoch == 1
    assert run(*arguments, "--resume") == 0
    assert "resuming after epoch 1 of 2" in capsys.readouterr().out
    assert load_checkpoint(folder / "cut" / "checkpoint.safetensors").epoch == 2


def test_a_loss_of_nan_exits_with_1(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*arguments: object) -> Loss:
        loss = training_loss(*arguments)  # type: ignore[arg-type]
        return replace(loss, total=loss.total * float("nan"))

    monkeypatch.setattr(trainer, "training_loss", poisoned)
    assert run("train", "digits", "--epochs", "2", "--out", "run", *SMALL) == 1
    line = capsys.readouterr().err
    assert line.startswith("stabdeq: the loss became NaN or infinite in epoch 1")
    assert line.count("\n") == 1
    assert load_checkpoint(folder / "run" / "checkpoint.safetensors").epoch == 0


def test_the_bar_shows_accuracy_unconverged_samples_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    assert run("train", "digits", "--epochs", "2", "--kind", "deq", *SMALL) == 0
    shown = capsys.readouterr().out
    for text in ("training on", "epoch 1/2", "accuracy", "unconverged", "left"):
        assert text in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is shown again


# Auditing.


def test_the_exit_codes_of_an_audit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anchored, paper = save_untrained(folder / "anchored"), save_untrained(folder / "paper", "lyadeq")
    options = ("--samples", "4", "--checks", "positivity")
    assert run("audit", anchored, *options, "--out", "a") == 0
    assert run("audit", paper, "--samples", "4", "--checks", "equilibrium", "--out", "b") == 1
    assert capsys.readouterr().err == ""
    for name, code in (("a", 0), ("b", 1)):
        assert {path.name for path in (folder / name).iterdir()} == {"report.json", "report.html"}
        assert json.loads((folder / name / "report.json").read_text())["exit_code"] == code


# Another module under the name of one of ours.


def shadowed(arguments: list[str], path: list[Path], folder: Path) -> str:
    """Run Python with ``path`` before our own packages; it must end at once, in one line, with exit code 2."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, REPOSITORY]))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("name", ["train", "analysis"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside", "on-PYTHONPATH"])
def test_a_module_that_shadows_ours(name: str, beside: bool, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    module = (folder if beside else elsewhere) / f"{name}.py"
    module.write_text("raise SystemExit('imported')\n")
    line = shadowed(["-m", "stabdeq", "train", "digits"], [] if beside else [elsewhere], folder)
    assert line.startswith(f"stabdeq: 'import {name}' finds {module}, not stabdeq's own {REPOSITORY / name}: ")
    assert "rename that file" in line
    assert "PYTHONPATH" in line
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == [module.name] * beside


def test_a_package_that_shadows_ours_before_the_installed_command(folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "elsewhere" / "train"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    line = shadowed(["-c", "from stabdeq.__main__ import main; main(['--help'])"], [package.parent], folder)
    assert f"'import train' finds {package / '__init__.py'}, not" in line


def test_a_module_imported_before_under_our_name(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = type(sys)("train")
    foreign.__file__ = "/somewhere/train.py"
    monkeypatch.setitem(sys.modules, "train", foreign)
    assert "'import train' finds /somewhere/train.py" in refusal("train", "digits")


def test_a_package_of_ours_that_is_missing(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "analysis", raising=False)
    monkeypatch.setattr("stabdeq.__main__.find_spec", lambda name: None)
    assert "'import analysis' finds nothing" in refusal("audit", "x")


def test_folders_of_data_do_not_shadow_ours(folder: Path) -> None:
    """A folder train/ without __init__.py, as image folders have, is not a package."""
    (folder / "train").mkdir()
    (folder / "analysis").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "stabdeq", "--version"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, stabdeq.__version__, "")


def test_the_model_that_load_gives_is_the_one_that_was_trained() -> None:
    assert run("train", "digits", "--epochs", "2", "--out", "run", *SMALL) == 0
    model = stabdeq.load("run/checkpoint.safetensors")
    assert isinstance(model.config, ModelConfig)
    test = load_data(DataConfig()).test
    with torch.no_grad():
        accuracy = float((model(test.images / 255).argmax(1) == test.labels).double().mean())
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert accuracy == pytest.approx(last["test_accuracy"], abs=1e-12)


def test_a_report_is_replayed_and_drawn_again(refusal: Callable[..., str], folder: Path) -> None:
    checkpoint = save_untrained(folder / "checkpoint.safetensors", "lyadeq")
    assert run("audit", checkpoint, "--checks", "equilibrium", "--samples", "8") == 1
    assert run("replay", "report.json", "--finding", "equilibrium.preserved") == 0
    assert "did you mean 'equilibrium.preserved'" in refusal("replay", "report.json", "--finding", "preserved")
    (folder / "report.html").unlink()
    assert run("report", "report.json") == 0
    assert (folder / "report.html").is_file()
    (folder / "cut.json").write_text((folder / "report.json").read_text()[:500])
    for command in ("replay", "report"):
        assert "truncated or broken" in refusal(command, "cut.json")
