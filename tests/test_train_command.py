"""``stabdeq train``: what it writes and guards, how it is stopped, and what ``stabdeq.load`` gives of it."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_runs import contents, run

import stabdeq
from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import DataConfig, ModelConfig
from stabdeq.data import load_data
from train import trainer
from train.loss import Loss, training_loss

pytestmark = pytest.mark.usefixtures("folder")


SMALL = ("--set", "model.state_dim=8", "--set", "batch_size=512")


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
    monkeypatch.setattr("rich.live._RefreshThread.run", lambda thread: None)  # no clock decides what is seen
    assert run("train", "digits", "--epochs", "2", "--kind", "deq", *SMALL) == 0
    shown = capsys.readouterr().out
    for text in ("training on", "epoch 1/2", "epoch 2/2", "accuracy", "unconverged", "left"):
        assert text in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is shown again


def test_the_model_that_load_gives_is_the_one_that_was_trained() -> None:
    assert run("train", "digits", "--epochs", "2", "--out", "run", *SMALL) == 0
    model = stabdeq.load("run/checkpoint.safetensors")
    assert isinstance(model.config, ModelConfig)
    test = load_data(DataConfig()).test
    with torch.no_grad():
        accuracy = float((model(test.images / 255).argmax(1) == test.labels).double().mean())
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert accuracy == pytest.approx(last["test_accuracy"], abs=1e-12)
