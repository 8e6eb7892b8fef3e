"""Checkpoints: what is written is read back to the last bit, at once or not at all."""

import os
import platform
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import header_size, tiny_checkpoint, tiny_model

import stabdeq
from stabdeq.checkpoint import load_checkpoint, save_checkpoint
from stabdeq.config import DataConfig
from stabdeq.config.kinds import KINDS
from stabdeq.errors import FileError
from stabdeq.model import StabilisedDEQ

# What is written is read back.


WITH_EQUILIBRIUM = [name for name, kind in KINDS.items() if kind.cell != "constant"]


@pytest.mark.parametrize(
    ("kind", "backbone"), [*product(WITH_EQUILIBRIUM, ["fcn", "resnet20"]), ("resnet20", "resnet20")]
)
def test_round_trip_is_bitwise(kind: str, backbone: str, tmp_path: Path) -> None:
    channels = 1 if backbone == "fcn" else 3
    model = tiny_model(
        kind, backbone=backbone, image_shape=(channels, 8, 8), mean=(0.1 + 0.2,) * channels, std=(0.3,) * channels
    )
    # A step of training moves the running statistics off their first values.
    model.train()(torch.rand(6, channels, 8, 8))
    written = tiny_checkpoint(model)
    save_checkpoint(tmp_path / "x", written)
    read = load_checkpoint(tmp_path / "x")

    assert read.model.config == model.config
    assert read.kind == kind
    before, after = model.state_dict(), read.model.state_dict()
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].dtype == after[name].dtype
        assert torch.equal(before[name], after[name]), name
    assert [name for name, _ in read.model.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert all(parameter.requires_grad for parameter in read.model.parameters())
    assert read.optimiser.keys() == written.optimiser.keys()
    assert all(torch.equal(value, read.optimiser[name]) for name, value in written.optimiser.items())
    images = torch.rand(5, channels, 8, 8)
    assert torch.equal(model.eval()(images), read.model(images))


def test_round_trip_of_everything_but_the_tensors(tmp_path: Path) -> None:
    written = tiny_checkpoint(data=DataConfig(name="folder", augment=True, validation_fraction=0.1))
    save_checkpoint(tmp_path / "x", written)
    read = load_checkpoint(tmp_path / "x")
    for name in ("data", "class_names", "seed", "epoch", "recipe", "best_validation", "versions"):
        assert getattr(read, name) == getattr(written, name), name


def test_versions_are_written_where_none_are_given(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", tiny_checkpoint(versions={}))
    assert load_checkpoint(tmp_path / "x").versions == {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stabdeq": stabdeq.__version__,
    }


def test_saving_what_was_loaded_gives_the_same_bytes(valid_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(valid_bytes)
    save_checkpoint(tmp_path / "y", load_checkpoint(tmp_path / "x"))
    assert (tmp_path / "y").read_bytes() == valid_bytes


def test_load_gives_a_model_in_evaluation_mode(valid_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(valid_bytes)
    for path in (tmp_path / "x", str(tmp_path / "x")):
        model = stabdeq.load(path)
        assert isinstance(model, StabilisedDEQ)
        assert not any(module.training for module in model.modules())


def test_loading_and_saving_draw_no_random_numbers(valid_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(valid_bytes)
    before = torch.get_rng_state(), random.getstate()
    save_checkpoint(tmp_path / "y", load_checkpoint(tmp_path / "x"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_every_length_of_header_is_read(tmp_path: Path) -> None:
    """A file begins with the length of its header, of which 1 in 32 starts with the byte that a pickle starts with."""
    first_bytes = set()
    for padding in range(0, 256, 8):
        save_checkpoint(tmp_path / "x", tiny_checkpoint(class_names=("c" * padding, "dog")))
        first_bytes.add((tmp_path / "x").read_bytes()[0])
        assert load_checkpoint(tmp_path / "x").epoch == 2
    assert 0x80 in first_bytes


def test_a_header_whose_length_reads_as_a_zip_is_read(valid_bytes: bytes, tmp_path: Path) -> None:
    padding = int.from_bytes(b"PK", "little") - (header_size(valid_bytes) - 8)
    save_checkpoint(tmp_path / "x", tiny_checkpoint(class_names=("cat" + "t" * padding, "dog")))
    assert (tmp_path / "x").read_bytes()[:2] == b"PK"
    assert load_checkpoint(tmp_path / "x").epoch == 2


# Written at once or not at all.


class DiskFullError(OSError):
    pass


def _fail_in_the_middle_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_half(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        raise DiskFullError

    monkeypatch.setattr(os, "fsync", keep_half)


def _fail_at(owner: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def fail(*arguments: Any, **options: Any) -> None:
        raise DiskFullError

    return lambda monkeypatch: monkeypatch.setattr(owner, name, fail)


@pytest.mark.parametrize(
    "fail",
    [_fail_in_the_middle_of_the_tensors, _fail_at(os, "fsync"), _fail_at(os, "replace")],
    ids=["half-written", "not-flushed", "not-renamed"],
)
def test_a_failed_write_leaves_the_old_file_whole(
    fail: Callable[[pytest.MonkeyPatch], None], valid_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(valid_bytes)
    with monkeypatch.context() as patched:
        fail(patched)
        with pytest.raises(FileError):
            save_checkpoint(path, tiny_checkpoint(epoch=7))
    assert path.read_bytes() == valid_bytes
    # What is left of the failed write does not hinder the next.
    save_checkpoint(path, tiny_checkpoint(epoch=8))
    assert load_checkpoint(path).epoch == 8
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_settings_that_json_lacks_are_not_written(valid_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(valid_bytes)
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path / "x", tiny_checkpoint(recipe={"learning_rate": float("nan")}))
    assert (tmp_path / "x").read_bytes() == valid_bytes
