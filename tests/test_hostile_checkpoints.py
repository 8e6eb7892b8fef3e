"""No file, however hostile or damaged, does more than be refused as a checkpoint."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_checkpoints import header_size, parts_of, write_parts

from stabdeq.checkpoint import Checkpoint, load_checkpoint
from stabdeq.errors import CheckpointError

ONE_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


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


def change_metadata(content: bytes, path: Path, dotted: str, value: Any) -> None:
    tensors, metadata = parts_of(content)
    metadata["recipe"].pop("kind")  # it would contradict a change
    *groups, last = dotted.split(".")
    owner = metadata
    for group in groups:
        owner = owner[group]
    owner[last] = value
    write_parts(path, tensors, metadata)


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

    monkeypatch.setattr(os, "open", forbid)
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
    for schema in (0, 3, "1", None, [1], {"a": 1}, "two\nlines", "x" * 10**5):
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
