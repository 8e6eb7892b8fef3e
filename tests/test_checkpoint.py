"""Checkpoints: what is written is read back to the last bit, and no file, however hostile, does more than be refused."""

import io
import json
import os
import pickle
import platform
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save, save_file
from torch import Tensor

import stabdeq
from stabdeq import checkpoint as checkpoint_module
from stabdeq.checkpoint import METADATA_KEY, Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import DataConfig, LyapunovConfig, ModelConfig
from stabdeq.errors import CheckpointError
from stabdeq.kinds import KINDS
from stabdeq.model import StabilisedDEQ

ONE_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def tiny_model(kind: str = "lyadeq-anchored", **changes: Any) -> StabilisedDEQ:
    options: dict[str, Any] = {
        "image_shape": (1, 3, 3),
        "classes": 2,
        "mean": (0.4,),
        "std": (0.2,),
        "state_dim": 4,
        "cell": KINDS[kind].cell,
        "stability": KINDS[kind].stability,
        "head": KINDS[kind].head,
        "lyapunov": LyapunovConfig(hidden=3),
    }
    return StabilisedDEQ(ModelConfig(**options | changes))


def tiny_checkpoint(model: StabilisedDEQ | None = None, **changes: Any) -> Checkpoint:
    model = model or tiny_model()
    options: dict[str, Any] = {
        "model": model,
        "data": DataConfig(),
        "class_names": ("cat", "dog"),
        "seed": 3,
        "epoch": 2,
        "recipe": {"kind": "lyadeq-anchored", "decay": {"radii": [0.1, 1.0]}},
        "best_validation": 0.1 + 0.2,
        "optimiser": {
            f"{name}/{key}": torch.rand(()) if key == "step" else torch.rand_like(value)
            for name, value in model.named_parameters()
            for key in ("step", "exp_avg")
        },
        "versions": {"torch": "2.0"},
    }
    return Checkpoint(**options | changes)


@pytest.fixture(scope="module")
def valid_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "x.safetensors"
    save_checkpoint(path, tiny_checkpoint())
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One path for files that Hypothesis writes over and over."""
    return tmp_path_factory.mktemp("scratch") / "x.safetensors"


def refusal(path: Path) -> str:
    """The message, in one line, of the CheckpointError that loading ``path`` must raise."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def load_or_refuse(path: Path) -> Checkpoint | None:
    """What a damaged file may do: load after all, or be refused in one line; any other exception fails the test."""
    try:
        loaded = load_checkpoint(path)
    except CheckpointError:
        refusal(path)
        return None
    assert all(value.isfinite().all() for value in loaded.model.state_dict().values())
    return loaded


def header_size(content: bytes) -> int:
    (size,) = struct.unpack("<Q", content[:8])
    return 8 + size


def parts_of(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the parsed metadata of a checkpoint."""
    header = json.loads(content[8 : header_size(content)])
    return load(content), json.loads(header["__metadata__"][METADATA_KEY])


def write_parts(path: Path, tensors: dict[str, Tensor], metadata: Any) -> None:
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    save_file(tensors, path, {METADATA_KEY: text})


def change_metadata(content: bytes, path: Path, dotted: str, value: Any) -> None:
    tensors, metadata = parts_of(content)
    *groups, last = dotted.split(".")
    owner = metadata
    for group in groups:
        owner = owner[group]
    owner[last] = value
    write_parts(path, tensors, metadata)


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
    def write_half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        content = save(tensors, metadata)
        Path(path).write_bytes(content[: len(content) // 2])
        raise DiskFullError

    monkeypatch.setattr(checkpoint_module, "save_file", write_half)


def _fail_at(owner: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def fail(*arguments: Any, **options: Any) -> None:
        raise DiskFullError

    return lambda monkeypatch: monkeypatch.setattr(owner, name, fail)


@pytest.mark.parametrize(
    "fail",
    [_fail_in_the_middle_of_the_tensors, _fail_at(os, "fsync"), _fail_at(Path, "replace")],
    ids=["half-written", "not-flushed", "not-renamed"],
)
def test_a_failed_write_leaves_the_old_file_whole(
    fail: Callable[[pytest.MonkeyPatch], None], valid_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(valid_bytes)
    with monkeypatch.context() as patched:
        fail(patched)
        with pytest.raises(DiskFullError):
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


# Files of others.


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


def _zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return file.getvalue()


def _torch_save(value: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "pack",
    [
        _torch_save,
        lambda value: _torch_save(value, _use_new_zipfile_serialization=False),
        lambda value: _zip(pickle.dumps(value)),
        *(lambda value, p=protocol: pickle.dumps(value, protocol=p) for protocol in range(6)),
    ],
    ids=["torch.save", "torch.save-legacy", "zip", *(f"pickle-{protocol}" for protocol in range(6))],
)
def test_a_pickle_is_refused_and_not_executed(pack: Callable[[object], bytes], tmp_path: Path) -> None:
    path, sprung = tmp_path / "x.safetensors", tmp_path / "sprung"
    content = pack({"weights": Trap(sprung)})
    pickle_or_zip = content[:1] == b"\x80" or content[:2] == b"PK"
    path.write_bytes(content)
    message = refusal(path)
    assert not sprung.exists()
    assert ("pickle" in message and "run code" in message) if pickle_or_zip else "not a safetensors file" in message


def test_a_pickle_within_the_metadata_is_text(valid_bytes: bytes, tmp_path: Path) -> None:
    tensors, _ = parts_of(valid_bytes)
    sprung = tmp_path / "sprung"
    write_parts(tmp_path / "x", tensors, pickle.dumps(Trap(sprung), protocol=0).decode())
    assert "metadata is damaged" in refusal(tmp_path / "x")
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "0 bytes"),
        (b"\0", "1 bytes"),
        (b"\x10" + b"\0" * 7, "8 bytes"),
        (b"# a text file, such as a recipe\n", "not a safetensors file"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "not a safetensors file"),
        (b"\x93NUMPY\x01\0v\0{", "not a safetensors file"),
        (b"\xff" * 7 + b"\x7f{}", "truncated"),
        (b"\xff" * 8 + b"{}", "truncated"),
        (b"\x02" + b"\0" * 7 + b"{}", "another program"),
        (b"\x02" + b"\0" * 7 + b"{]", "not a readable safetensors file"),
        (b"\x08" + b"\0" * 7 + b"{\xff\xfe    }", "not a readable safetensors file"),
    ],
)
def test_foreign_bytes(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    assert expected in refusal(tmp_path / "x")


def test_what_is_not_a_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent")
    assert "no such file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "no such file" in refusal(tmp_path / "pipe")


def test_a_file_that_may_not_be_read(valid_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(valid_bytes)

    def forbid(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)
    assert "Permission denied" in refusal(tmp_path / "x")


def test_a_safetensors_file_of_another_program(tmp_path: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.zeros(2)}, tmp_path / "x", metadata)
        assert "another program" in refusal(tmp_path / "x")


def test_truncated(valid_bytes: bytes, tmp_path: Path) -> None:
    header = header_size(valid_bytes)
    for size in (0, 1, 7, 8, 9, 20, header - 1, header, header + 1, header + 60, len(valid_bytes) - 1):
        (tmp_path / "x").write_bytes(valid_bytes[:size])
        refusal(tmp_path / "x")
    (tmp_path / "x").write_bytes(valid_bytes + b"\0")
    refusal(tmp_path / "x")


def test_another_schema(valid_bytes: bytes, tmp_path: Path) -> None:
    for schema in (0, 2, "1", None, [1], {"a": 1}, "two\nlines", "x" * 10**5):
        change_metadata(valid_bytes, tmp_path / "x", "schema", schema)
        message = refusal(tmp_path / "x")
        assert "checkpoint schema" in message
        assert len(message) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "3",
        '"text"',
        "[]",
        "[1]",
        "{}",
        '{"schema": 1',
        '{"Schema": 1}',
        "[" * 100_000,
        '{"schema": ' + "[" * 100_000,
        '{"schema": ' + "9" * 10_000 + "}",
        "\x00",
        '{"schema": 1}\n{"schema": 1}',
    ],
)
def test_damaged_json(text: str, valid_bytes: bytes, tmp_path: Path) -> None:
    tensors, _ = parts_of(valid_bytes)
    write_parts(tmp_path / "x", tensors, text)
    assert "metadata is damaged" in refusal(tmp_path / "x")


# Tensors that do not fit.


def test_missing_and_extra_tensors(valid_bytes: bytes, tmp_path: Path) -> None:
    tensors, metadata = parts_of(valid_bytes)
    for name in tensors:
        if name.startswith("model."):
            write_parts(tmp_path / "x", {key: value for key, value in tensors.items() if key != name}, metadata)
            message = refusal(tmp_path / "x")
            assert "lacks tensor" in message
            assert name in message
    for name in ("model.extra", "other", "", "model.", "optim.", "optim.extra/exp_avg", "optim.cell.inner.weight"):
        write_parts(tmp_path / "x", tensors | {name: torch.zeros(2)}, metadata)
        assert f"unknown tensor {name!r}" in refusal(tmp_path / "x")
    write_parts(tmp_path / "x", {}, metadata)
    assert "lacks tensor" in refusal(tmp_path / "x")


@pytest.mark.parametrize("name", ["model.cell.inner.weight", "model.mean", "optim.cell.inner.weight/exp_avg"])
def test_wrong_shapes_dtypes_and_numbers(name: str, valid_bytes: bytes, tmp_path: Path) -> None:
    tensors, metadata = parts_of(valid_bytes)
    good = tensors[name]
    wrong = [good[..., :0], torch.cat([good, good]), good.flatten()[:3], good.unsqueeze(0)]
    wrong += [good.to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool)]
    wrong += [good.to(torch.float8_e4m3fn), good.to(torch.complex64)]
    for value in wrong:
        write_parts(tmp_path / "x", tensors | {name: value.contiguous()}, metadata)
        message = refusal(tmp_path / "x")
        assert repr(name) in message
        assert f"expected {tuple(good.shape)} torch.float32" in message
    for number in (float("nan"), float("inf"), -float("inf")):
        bad = good.clone()
        bad.view(-1)[0] = number
        write_parts(tmp_path / "x", tensors | {name: bad}, metadata)
        assert f"1 of {good.numel()} weights in {name!r} are NaN or infinite" in refusal(tmp_path / "x")


def test_settings_of_another_model(valid_bytes: bytes, tmp_path: Path) -> None:
    for dotted, value in {
        "model.state_dim": 5,
        "model.stability": "none",
        "model.head": "linear",
        "model.lyapunov.hidden": 4,
        "model.image_shape": [1, 4, 4],
    }.items():
        change_metadata(valid_bytes, tmp_path / "x", dotted, value)
        assert "tensor" in refusal(tmp_path / "x")


# Hostile settings.

TOO_LARGE = [0, -1, 65537, 10**9, 10**30]
HOSTILE = [
    ("epoch", ["two", None, [], {}, -1, 1.5, float("nan"), float("inf"), "two\nlines"]),
    ("seed", ["two", None, [], -1, float("inf")]),
    ("class_names", [3, None, "cat", [1, 2], ["cat"], ["cat", "dog", "owl"], [], {"cat": 0, "dog": 1}, [["a"], ["b"]]]),
    ("best_validation", ["high", -0.1, 1.1, float("nan"), [], {}]),
    ("recipe", [None, 3, "text", [], [["kind", "deq"]]]),
    ("versions", [None, 3, "text", [], {"torch": 2}, {"two\nlines": 2}]),
    ("data", [None, 3, "digits", [], {"name": "digits", "path": "/etc/passwd"}]),
    ("data.name", ["../../etc", "mnst", None, 3, "x" * 10**5, "two\nlines"]),
    ("data.validation_fraction", [1, -0.1, "half", None, float("nan")]),
    ("data.extra", [1]),
    ("model", [None, 3, "text", [], {}, {"state_dim": 4}]),
    ("model.extra\nline", [1]),
    ("model.state_dim", [*TOO_LARGE, "many", None, 4.5, float("inf"), [4]]),
    ("model.lyapunov.hidden", TOO_LARGE),
    ("model.classes", [*TOO_LARGE, 1]),
    (
        "model.image_shape",
        [[], [1], [1, 3], [1, 3, 3, 3], [0, 3, 3], [1, 3, 10**9], [65536, 65536, 65536], "1x3", 9, None],
    ),
    ("model.mean", [[], [0.1, 0.2], 0.1, None, ["a"], [[0.1]]]),
    ("model.std", [[], [0.1, 0.2], [0], [-1], [float("nan")], [float("inf")], None]),
    ("model.backbone", ["resnet20", "resnet", None, 3]),
    ("model.stability", ["anchord", "", None, 3, ["none"]]),
    ("model.head", ["orthogonl", None, 3]),
    ("model.solver", [None, 3, "anderson", {"name": "newton"}]),
    ("model.solver.tolerance", [0, -1, float("nan"), float("inf"), "small"]),
    ("model.solver.tolerence", [1e-3]),
    ("model.solver.window", [0, -1, 2.5]),
    ("model.lyapunov.alpha", [0, -1, float("nan"), float("inf"), "x" * 10**5]),
    ("extra", [1]),
]


@pytest.mark.parametrize(("dotted", "values"), HOSTILE, ids=[repr(dotted) for dotted, _ in HOSTILE])
def test_hostile_metadata(dotted: str, values: list[Any], valid_bytes: bytes, tmp_path: Path) -> None:
    for value in values:
        change_metadata(valid_bytes, tmp_path / "x", dotted, value)
        assert len(refusal(tmp_path / "x")) < 1000, value


def test_lost_metadata_is_named(valid_bytes: bytes, tmp_path: Path) -> None:
    tensors, metadata = parts_of(valid_bytes)
    for name in metadata:
        if name != "schema":
            write_parts(tmp_path / "x", tensors, {key: value for key, value in metadata.items() if key != name})
            assert f"{name} is missing" in refusal(tmp_path / "x")


def test_the_closest_name_is_given(valid_bytes: bytes, tmp_path: Path) -> None:
    change_metadata(valid_bytes, tmp_path / "x", "model.stability", "anchord")
    assert "did you mean 'anchored'?" in refusal(tmp_path / "x")
    change_metadata(valid_bytes, tmp_path / "x", "model.solver.tolerence", 1)
    assert "did you mean 'tolerance'?" in refusal(tmp_path / "x")


def test_settings_that_ask_for_more_memory_than_there_is(valid_bytes: bytes, tmp_path: Path) -> None:
    """65536 states would take 100 GiB of weights: the file's own tensors are looked at first."""
    tensors, metadata = parts_of(valid_bytes)
    metadata["model"] |= {"state_dim": 65536, "image_shape": [1, 65536, 65536], "classes": 65536}
    metadata["model"]["lyapunov"]["hidden"] = 65536
    metadata["class_names"] = [str(number) for number in range(65536)]
    write_parts(tmp_path / "x", tensors, metadata)
    assert "tensor" in refusal(tmp_path / "x")
    metadata["model"] |= {"image_shape": [65536] * 3, "mean": [0.5] * 65536, "std": [0.5] * 65536}
    write_parts(tmp_path / "x", tensors, metadata)
    assert "no model has its settings" in refusal(tmp_path / "x")


# Random damage.


@ONE_FILE
@given(data=st.data())
def test_flipped_and_truncated_bytes(data: st.DataObject, valid_bytes: bytes, scratch: Path) -> None:
    damaged = bytearray(valid_bytes)
    header = header_size(valid_bytes)
    place = st.one_of(st.integers(0, 8), st.integers(8, header - 1), st.integers(0, len(damaged) - 1))
    for at, byte in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=6)):
        damaged[at] = byte
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    scratch.write_bytes(damaged)
    load_or_refuse(scratch)


@ONE_FILE
@given(content=st.binary(max_size=200))
@example(content=b"\x80\x04{")
def test_random_bytes_are_refused(content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content)
    refusal(scratch)
    # The same behind a beginning that looks right.
    scratch.write_bytes(struct.pack("<Q", len(content) + 1) + b"{" + content)
    refusal(scratch)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def _places(metadata: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in metadata.items():
        found.append(prefix + key)
        if isinstance(value, dict):
            found += _places(value, f"{prefix}{key}.")
    return found


@ONE_FILE
@given(data=st.data())
def test_random_metadata(data: st.DataObject, valid_bytes: bytes, scratch: Path) -> None:
    _, metadata = parts_of(valid_bytes)
    place = data.draw(st.sampled_from(_places(metadata)))
    change_metadata(valid_bytes, scratch, place, data.draw(ANY_JSON))
    loaded = load_or_refuse(scratch)
    if loaded is not None:
        assert isinstance(loaded.epoch, int)
        assert all(isinstance(name, str) for name in loaded.class_names)
        json.dumps(asdict(loaded.model.config))
