"""Robust data sets: files of torch.save that are read without unpickling, whatever is in them, and how a set is made."""

import contextlib
import io
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import DataConfig, ModelConfig
from stabdeq.data import DataSet, Split, load_data, read_robust
from stabdeq.data.robust import IMAGES_NAME, LABELS_NAME
from stabdeq.data.tensor_file import read_tensor
from stabdeq.errors import ConfigError, DataError, SolverError
from stabdeq.model import StabilisedDEQ
from train.commands.robust_data import robust_data
from train.robust_data import PARTS_NAME, Settings, build_robust_data, features, match_features

FORMATS = {"old": False, "zip": True}


def save(content: Any, path: Path, form: str = "old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[form])
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_tensor(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def some_images(count: int = 7) -> Tensor:
    return torch.rand(count, 3, 4, 5, generator=torch.Generator().manual_seed(0))


# What is read.

CONTENTS: dict[str, tuple[Any, Tensor]] = {
    "floats": (some_images(), some_images()),
    "int64": (torch.arange(-3, 9), torch.arange(-3, 9)),
    "uint8": (torch.arange(256).byte(), torch.arange(256).byte()),
    "a list, as released": (list(some_images().clone().split(3)), some_images()),
    "a list of tensors with storages of their own": (
        [some_images(2).clone() for _ in range(3)],
        some_images(2).repeat(3, 1, 1, 1),
    ),
    "a tuple": ((torch.arange(3), torch.arange(4)), torch.cat([torch.arange(3), torch.arange(4)])),
    "part of a storage": (some_images()[2:5], some_images()[2:5]),
    "none": (torch.empty(0, 3, 4, 4), torch.empty(0, 3, 4, 4)),
    "a dimension of 1": (torch.arange(10).view(5, 2)[3:4, :], torch.tensor([[6, 7]])),
    "with gradient": (some_images().requires_grad_(), some_images()),
    "many": (list(torch.arange(3000).split(1)), torch.arange(3000)),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", CONTENTS)
def test_tensors_are_read(name: str, form: str, tmp_path: Path) -> None:
    content, expected = CONTENTS[name]
    found = read_tensor(save(content, tmp_path / "file", form))
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected.detach())


@settings(max_examples=20)
@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    form=st.sampled_from(list(FORMATS)),
    dtype=st.sampled_from([torch.float32, torch.int64, torch.uint8]),
)
def test_any_shape_is_read(
    shape: list[int], form: str, dtype: torch.dtype, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = torch.randint(0, 100, shape).to(dtype)
    found = read_tensor(save(content, tmp_path_factory.getbasetemp() / "any", form))
    assert torch.equal(found, content)
    assert found.dtype == dtype


def test_values_are_bit_for_bit(tmp_path: Path) -> None:
    values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, 1 / 3])
    for form in FORMATS:
        assert read_tensor(save(values, tmp_path / form, form)).numpy().tobytes() == values.numpy().tobytes()


# What is refused, unread.


class Command:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


def old_file(*pickles: Any, storages: bytes = b"", machine: dict[str, Any] | None = None) -> bytes:
    """A file in the old format, of pickles that are given as objects, or as bytes."""
    head = [
        0x1950A86A20F9469CFC6C,
        1001,
        machine or {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
    ]
    return b"".join(one if isinstance(one, bytes) else pickle.dumps(one, 2) for one in (*head, *pickles)) + storages


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "wrap",
    [lambda one: one, lambda one: [some_images(), one], lambda one: {"a": one}, lambda one: (one, torch.zeros(2))],
    ids=["alone", "in a list", "in a dict", "first"],
)
def test_a_command_is_not_run(wrap: Callable[[Any], Any], form: str, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = save(wrap(Command(witness)), tmp_path / "file", form)
    assert "posix.system" in refusal(path) or "SETITEM" in refusal(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)  # which is what does run it
    assert witness.exists()


@pytest.mark.parametrize("place", range(5))
def test_a_command_in_any_pickle_of_an_old_file(place: int, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    command = pickle.dumps(Command(witness), 2)
    buffer = io.BytesIO()
    torch.save(torch.arange(3), buffer, _use_new_zipfile_serialization=False)
    stream, pickles = io.BytesIO(buffer.getvalue()), []

    for _ in range(5):
        start = stream.tell()
        list(pickletools.genops(stream))
        pickles.append(buffer.getvalue()[start : stream.tell()])
    rest = stream.read()
    path = tmp_path / "file"
    path.write_bytes(b"".join(pickles) + rest)
    assert torch.equal(read_tensor(path), torch.arange(3))
    pickles[place] = command
    path.write_bytes(b"".join(pickles) + rest)
    assert "posix.system" in refusal(path)
    assert not witness.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "content",
    [os.getcwd, eval, OrderedDict(a=1), {1, 2}, 1.5, b"bytes", "text", None, [[]], [1], (), {}, torch.float32],
    ids=str,
)
def test_other_contents(content: Any, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(old_file(pickle.dumps(content, protocol), []))
    assert "it was not unpickled" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(content, protocol))
    assert "it was not unpickled" in refusal(path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (some_images().permute(0, 2, 3, 1), "not contiguous"),
        (torch.rand(3, 1).expand(3, 4), "not contiguous"),
        (torch.rand(6)[::2], "not contiguous"),
        (torch.rand(3).double(), "torch.DoubleStorage"),
        (torch.rand(3).half(), "torch.HalfStorage"),
        (torch.tensor(3.0), "a single number"),
        ([torch.rand(3), torch.arange(3)], "cannot be joined"),
        ([torch.rand(3), torch.rand(3, 2)], "cannot be joined"),
        ([], "list in place of tensors"),
        ([torch.rand(3), [torch.rand(3)]], "list in place of tensors"),
        (torch.nn.Parameter(torch.rand(3)), "_rebuild_parameter"),
        ([torch.arange(4), None], "list in place of tensors"),
        (torch.rand(3).to_sparse(), "sparse"),
        (torch.rand(3, dtype=torch.complex64), "torch.ComplexFloatStorage"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_tensors(content: Any, reason: str, form: str, tmp_path: Path) -> None:
    assert reason in refusal(save(content, tmp_path / "file", form))


def test_many_views_of_one_storage_are_not_multiplied(tmp_path: Path) -> None:
    """A small file of a hundred thousand views of it would otherwise fill the memory."""
    whole = torch.rand(1000)
    for form in FORMATS:
        assert "more tensors than numbers" in refusal(save([whole[:999], whole[1:]], tmp_path / form, form))


def test_an_old_file_of_a_big_endian_machine(tmp_path: Path) -> None:
    path = save(torch.rand(3), tmp_path / "file")
    marker = b"little_endian"
    content = path.read_bytes()
    place = content.index(b"\x88", content.index(marker))  # NEWTRUE
    path.write_bytes(content[:place] + b"\x89" + content[place + 1 :])
    assert "little-endian" in refusal(path)


def rewritten(path: Path, changes: dict[str, bytes | None], **options: Any) -> Path:
    """The archive with some entries replaced, added, or, for None, left out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in (entries | changes).items():
            if content is not None:
                archive.writestr(f"file/{name}", content)
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"byteorder": b"big"}, "little-endian"),
        ({"byteorder": b"something else"}, "larger than 6 bytes"),
        ({"data/0": b"\0" * 11}, "has 11 bytes where 12 were expected"),
        ({"data/0": b"\0" * 13}, "larger than 12 bytes"),
        ({"data/0": None}, "data/0"),
        ({"data.pkl": None}, "0 entries data.pkl"),
        ({"other/data.pkl": b""}, "2 entries data.pkl"),
        ({"data.pkl": b"."}, "something else"),
        ({"data.pkl": b""}, "something else"),
    ],
    ids=str,
)
def test_archives_that_were_changed(changes: dict[str, bytes | None], reason: str, tmp_path: Path) -> None:
    path = save(torch.rand(3), tmp_path / "file", "zip")
    assert reason in refusal(rewritten(path, changes))


def test_an_archive_from_before_the_byte_order_was_stored(tmp_path: Path) -> None:
    values = torch.rand(3)
    assert torch.equal(read_tensor(rewritten(save(values, tmp_path / "file", "zip"), {"byteorder": None})), values)


def test_an_archive_of_a_version_that_is_unknown(tmp_path: Path) -> None:
    path = save(torch.rand(3), tmp_path / "file", "zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255  # in the directory's first entry
    path.write_bytes(content)
    assert "zip file version 25.5" in refusal(path)


def test_a_compressed_archive(tmp_path: Path) -> None:
    path = rewritten(save(torch.zeros(10**6), tmp_path / "file", "zip"), {}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    assert "is compressed" in refusal(path)


def numbers_pickle(
    count: int, size: int, stride: int = 1, offset: int = 0, kind: str = "Float", hooks: bytes = b""
) -> bytes:
    """The pickle of a tensor of one dimension, as torch.save writes it, with any numbers in it."""

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)  # LONG1

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text("0") + text("cpu") + number(count)
    hooks = hooks or b"ccollections\nOrderedDict\n)R"
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((" + storage[1:] + b"tQ" + number(offset)
        + b"(" + number(size) + b"t(" + number(stride) + b"t\x89" + hooks + b"tR."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"count": 3, "size": 4}, "larger than its storage"),
        ({"count": 3, "size": 3, "offset": 1}, "larger than its storage"),
        ({"count": 3, "size": -1}, "no whole number"),
        ({"count": 3, "size": 2, "offset": -1}, "no whole number"),
        ({"count": 3, "size": 3, "stride": 0}, "not contiguous"),
        ({"count": -1, "size": 0}, "a storage of another kind"),
        ({"count": 2**40, "size": 2**40}, "truncated or of another size"),
        ({"count": 2**62, "size": 2**62}, "truncated or of another size"),
        ({"count": 4, "size": 4}, "truncated or of another size"),
        ({"count": 3, "size": 3, "kind": "Double"}, "torch.DoubleStorage"),
        ({"count": 3, "size": 3, "hooks": b"N"}, "something else than _rebuild_tensor_v2"),
        ({"count": 3, "size": 3, "hooks": b"(lcollections\nOrderedDict\nR"}, "opcode LIST"),
        ({"count": 3, "size": 3, "hooks": b"ccollections\nOrderedDict\n)]aR"}, "append to something else"),
    ],
    ids=str,
)
def test_layouts_that_do_not_fit(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    storage = struct.pack("<q3f", 3, 1, 2, 3)
    path.write_bytes(old_file(numbers_pickle(3, 3), ["0"], storages=storage))
    assert read_tensor(path).tolist() == [1, 2, 3]
    path.write_bytes(old_file(numbers_pickle(**options), ["0"], storages=storage))
    assert reason in refusal(path)


DEEP = b")" + b"\x85" * 300_000  # ((((...),),),): its hash overflows C's stack


def shared(memo: int) -> bytes:
    """Sixty pairs, each of the one before it twice: 2^60 tuples to whoever does not see that they are the same."""
    pairs = (b"h" + bytes([memo + depth]) + b"\x86q" + bytes([memo + depth + 1]) for depth in range(60))
    return b")q" + bytes([memo]) + b"".join(pairs)


@pytest.mark.parametrize("key", [DEEP, shared(0)], ids=["deep", "shared"])
def test_keys_that_cannot_be_hashed_in_time_or_at_all(key: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(old_file(b"\x80\x02}(" + key + b"Nu."))
    assert "keys that are no texts" in refusal(path)


def test_keys_that_cannot_be_sorted_in_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(old_file(numbers_pickle(3, 3), b"\x80\x02](" + shared(0) + shared(100) + b"e."))
    assert "not those of the tensors" in refusal(path)


def test_a_tensor_of_too_many_dimensions(tmp_path: Path) -> None:
    """The product of millions of numbers of two thousand bits takes hours."""
    path = tmp_path / "file"
    one = numbers_pickle(3, 3, stride=3)
    number = b"\x8a\x08" + struct.pack("<q", 3)
    many = b"(" + b"\x8a\xfe" + b"\x7f" * 254 + b"q\0" + b"h\0" * 300_000 + b"t"
    place = one.index(b"(" + number + b"t(" + number + b"t")
    path.write_bytes(old_file(one[:place] + many * 2 + one[place + 2 * (len(number) + 2) :], ["0"]))
    assert "too many dimensions" in refusal(path)


def test_an_empty_tensor_of_a_size_that_fills_the_memory_when_split(tmp_path: Path) -> None:
    for form in FORMATS:
        assert "larger than its storage" in refusal(save(torch.empty(10**12, 0, 1, 1), tmp_path / form, form))


def test_one_tensor_a_million_times(tmp_path: Path) -> None:
    assert "more than 262144 tensors" in refusal(save([torch.empty(0)] * 300_000, tmp_path / "file"))


def test_entries_that_lie_inside_one_another(tmp_path: Path) -> None:
    """Each may hold the header and the content of the next: a file of some megabytes could ask for terabytes."""
    buffer, path = io.BytesIO(), tmp_path / "file"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("file/data/1", bytes(10_000))
        inner = archive.getinfo("file/data/1")
        record = buffer.getvalue()
    save([torch.zeros(len(record)).byte(), torch.zeros(10_000).byte()], path, "zip")
    with zipfile.ZipFile(path) as archive:
        layouts = archive.read("file/data.pkl")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("file/data.pkl", layouts)
        archive.writestr("file/data/0", record)
        outer = archive.getinfo("file/data/0")
        inner.header_offset = outer.header_offset + len(outer.FileHeader())
        archive.filelist.append(inner)
        archive.NameToInfo[inner.filename] = inner
    assert path.stat().st_size < 12_000
    assert "storages larger than the file" in refusal(path)


def test_a_message_does_not_hold_what_a_terminal_obeys(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(old_file(b"\x80\x02c\x1b[2Ja\n" + b"x" * 10**6 + b"\n."))
    message = refusal(path)
    assert "\x1b" not in message
    assert len(message) < 1000


def test_storages_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    storage = struct.pack("<q3f", 3, 1, 2, 3)
    for keys, storages, reason in (
        (["0"], storage + b"x", "1 bytes after the last storage"),
        (["0"], storage[:-1], "truncated"),
        (["0"], struct.pack("<q3f", 2, 1, 2, 3), "of another size"),
        (["0"], b"", "truncated"),
        (["1"], storage, "not those of the tensors"),
        ([], storage, "not those of the tensors"),
        (["0", "0"], storage * 2, "not those of the tensors"),
        ("0", storage, "not those of the tensors"),
    ):
        path.write_bytes(old_file(numbers_pickle(3, 3), keys, storages=storages))
        assert reason in refusal(path), keys


ORIGINALS = {form: [some_images(3).clone(), some_images(2).clone()] for form in FORMATS}


@settings(max_examples=150)
@given(data=st.data(), form=st.sampled_from(list(FORMATS)))
def test_changed_bytes_are_refused_or_read_as_tensors(
    data: st.DataObject, form: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is changed or cut off, the file gives a tensor of no more numbers than it has, or a DataError."""
    path = save(ORIGINALS[form], tmp_path_factory.getbasetemp() / "changed", form)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        # The numbers, in the middle, may be anything: what matters is before and after them.
        place = data.draw(st.integers(-min(len(content), 900), min(len(content), 900) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert read_tensor(path).nbytes <= len(content)


@settings(max_examples=50)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    for start in (b"", old_file(), b"PK\x03\x04"):
        path.write_bytes(start + content)
        refusal(path)


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "could not be read" in refusal(tmp_path)


# Robust data sets.


def write_robust(folder: Path, images: Any = None, labels: Any = None, form: str = "old") -> Path:
    save(torch.rand(30, 1, 8, 8) if images is None else images, folder / IMAGES_NAME, form)
    save(torch.arange(30) % 10 if labels is None else labels, folder / LABELS_NAME, form)
    return folder


@pytest.mark.parametrize("form", FORMATS)
def test_a_robust_set_takes_the_place_of_the_training_images(form: str, tmp_path: Path) -> None:
    images, labels = torch.rand(200, 1, 8, 8), torch.arange(200) % 10
    write_robust(tmp_path, list(images.split(64)), list(labels.split(64)), form)
    data = load_data(DataConfig(robust=True, validation_fraction=0.1), data_dir=tmp_path)
    original = load_data(DataConfig())
    assert torch.equal(data.test.images, original.test.images)
    assert (len(data.train), len(data.validation)) == (180, 20)
    assert data.validation.labels.bincount().tolist() == [2] * 10
    both = torch.cat([data.train.images, data.validation.images])
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, (images * 255).round().byte().numpy()))
    assert data.mean == pytest.approx((float(data.train.images.double().mean() / 255),))


def test_floats_are_rounded_to_the_nearest_level(tmp_path: Path) -> None:
    levels = torch.arange(256).view(4, 1, 8, 8) / 255
    write_robust(tmp_path, (levels + 0.4 / 255).clamp(max=1), torch.zeros(4).long())
    assert torch.equal(read_robust(tmp_path)[0].flatten(), torch.arange(256).byte())
    write_robust(tmp_path, torch.arange(256).view(4, 1, 8, 8).byte(), torch.zeros(4).long())
    assert torch.equal(read_robust(tmp_path)[0].flatten(), torch.arange(256).byte())


def spoilt(value: float) -> Tensor:
    images = torch.rand(30, 1, 8, 8)
    images[3, 0, 2, 2] = value
    return images


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (spoilt(float("nan")), None, "1 of 1920 pixels are NaN or outside [0, 1]"),
        (spoilt(1.001), None, "1 of 1920 pixels are NaN or outside [0, 1]"),
        (spoilt(-float("inf")), None, "1 of 1920 pixels are NaN or outside [0, 1]"),
        (torch.rand(30, 64), None, "expected images (N, C, H, W)"),
        (torch.zeros(30, 1, 8, 8).long(), None, "not (30, 1, 8, 8) of torch.int64"),
        (None, torch.rand(30), "expected labels (N,) of int64"),
        (None, torch.zeros(30, 1).long(), "expected labels (N,) of int64"),
        (None, torch.arange(30) % 11, "labels from 0 to 10 where 0 to 9 were expected"),
        (None, torch.arange(30) % 10 - 1, "labels from -1 to 8 where 0 to 9 were expected"),
        (None, torch.arange(29) % 10, "30 training images and 29 labels"),
        (torch.rand(30, 3, 8, 8), None, "training images of shape (3, 8, 8)"),
        (torch.rand(0, 1, 8, 8), torch.zeros(0).long(), "there are no training images"),
        (None, torch.zeros(30).long(), "only 1 of the 10 classes"),
    ],
)
def test_robust_sets_that_do_not_fit(images: Any, labels: Any, reason: str, tmp_path: Path) -> None:
    write_robust(tmp_path, images, labels)
    with pytest.raises(DataError) as caught:
        load_data(DataConfig(robust=True, validation_fraction=0), data_dir=tmp_path)
    assert reason in str(caught.value)


def test_a_missing_robust_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="say with --data-dir DIR"):
        load_data(DataConfig(robust=True))
    for present in ((), (IMAGES_NAME,)):
        for name in present:
            save(torch.rand(3, 1, 8, 8), tmp_path / name)
        with pytest.raises(DataError, match=r"stabdeq robust-data CHECKPOINT --out DIR"):
            load_data(DataConfig(robust=True), data_dir=tmp_path)


# Making one.


def linear_model(state_dim: int = 64, **settings: Any) -> StabilisedDEQ:
    """Features that are linear in the pixels, of 8 x 8 digits."""
    torch.manual_seed(0)
    options = {"image_shape": (1, 8, 8), "classes": 10, "mean": (0.5,), "std": (0.5,), "cell": "constant"}
    return StabilisedDEQ(ModelConfig(state_dim=state_dim, **options | settings)).eval()  # type: ignore[arg-type]


def digits() -> DataSet:
    return load_data(DataConfig(validation_fraction=0))


def test_features_that_see_all_give_the_image_back() -> None:
    """Through an orthogonal map, the features' distance is that of the pixels: the steps lead straight to the image."""
    model = linear_model()
    with torch.no_grad():
        torch.nn.init.orthogonal_(model.backbone[1].weight)  # type: ignore[index, arg-type]
    images = digits().train.images[:6] / 255
    starts, targets = images[:3], images[3:]
    distance = (starts - targets).flatten(1).norm(dim=1)
    matched = match_features(model, starts, targets, steps=30, step_size=0.05)
    assert torch.allclose(matched.before, distance * 2, rtol=1e-4)  # pixels are divided by the deviation, 0.5
    assert bool(((matched.images - starts).flatten(1).norm(dim=1) <= 1.5 + 1e-4).all())
    assert torch.allclose(matched.after, (distance - 1.5).clamp(min=0) * 2, atol=0.11)
    assert bool(((matched.images >= 0) & (matched.images <= 1)).all())
    assert not bool(matched.unconverged.any())


def test_what_features_do_not_see_stays_that_of_the_other_image() -> None:
    model = linear_model(state_dim=2)
    with torch.no_grad():  # the first pixel's value, and the second's
        model.backbone[1].weight.copy_(torch.eye(64)[:2])  # type: ignore[index, union-attr, operator]
    generator = torch.Generator().manual_seed(0)
    starts, targets = (torch.rand(4, 1, 8, 8, generator=generator) for _ in range(2))
    matched = match_features(model, starts, targets, steps=400, step_size=0.01)
    assert torch.equal(matched.images.flatten(1)[:, 2:], starts.flatten(1)[:, 2:])
    assert torch.allclose(matched.images.flatten(1)[:, :2], targets.flatten(1)[:, :2], atol=0.011)


@pytest.mark.parametrize("stability", ["none", "anchored", "state"])
def test_features_are_what_the_head_reads(stability: Any) -> None:
    model = linear_model(cell="batchnorm", stability=stability, head="orthogonal", state_dim=8)
    images = torch.rand(3, 1, 8, 8)
    read: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda head, inputs: read.append(inputs[0]))
    model(images)
    assert torch.equal(features(model, images)[0], read[0])


def test_a_gradient_that_is_not_finite_is_no_image() -> None:
    model = linear_model()
    with torch.no_grad():
        model.backbone[1].weight[0, 0] = float("inf")  # type: ignore[index]
    images = torch.rand(2, 1, 8, 8)
    with pytest.raises(SolverError, match="2 of 2 images is NaN or infinite in step 1"):
        match_features(model, images, images.flip(0), steps=2, step_size=0.1)


SETTINGS: dict[str, Any] = {"model": "abc", "count": 25, "steps": 3, "batch_size": 10}


def test_a_set_that_was_made_is_read(tmp_path: Path) -> None:
    split = digits().train
    matched = build_robust_data(linear_model(), split, tmp_path / "set", Settings(**SETTINGS))
    images, labels = read_robust(tmp_path / "set")
    assert torch.equal(images, (matched.images * 255).round().byte())
    assert (len(images), len(labels)) == (25, 25)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [IMAGES_NAME, LABELS_NAME]
    assert float(matched.after.mean()) < float(matched.before.mean())


def test_each_image_has_the_label_of_its_target_and_begins_as_another(tmp_path: Path) -> None:
    """Steps of almost nothing leave every image what it began as."""
    split = digits().train
    model = linear_model()

    def made(folder: Path, **changes: Any) -> tuple[Tensor, Tensor]:
        build_robust_data(model, split, folder, Settings(**SETTINGS | changes))
        return torch.load(folder / IMAGES_NAME), torch.load(folder / LABELS_NAME)

    images, labels = made(tmp_path / "a", count=len(split), steps=1, step_size=1e-9, batch_size=500)
    assert torch.equal(labels, split.labels)
    assert not bool(torch.isclose(images, split.images / 255, atol=1e-6).flatten(1).all(1).any())
    known = {bytes(one) for one in split.images.numpy()}
    assert all(bytes(one) in known for one in (images * 255).round().byte().numpy())
    some, their_labels = made(tmp_path / "b", steps=1, step_size=1e-9)
    again, _ = made(tmp_path / "c", steps=1, step_size=1e-9)
    other, _ = made(tmp_path / "d", steps=1, step_size=1e-9, seed=1)
    assert torch.equal(some, again)
    assert not torch.equal(some, other)
    assert len(their_labels.unique()) > 5


class StoppedError(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    split, model = digits().train, linear_model()
    whole = build_robust_data(model, split, tmp_path / "whole", Settings(**SETTINGS))
    counted: list[int] = []

    def stop(done: int) -> None:
        counted.append(done)
        if len(counted) == 5:  # in the second batch of three steps each
            raise StoppedError

    out = tmp_path / "cut"
    with pytest.raises(StoppedError):
        build_robust_data(model, split, out, Settings(**SETTINGS), stop)
    assert [path.name for path in out.iterdir()] == [PARTS_NAME]
    with pytest.raises(ConfigError, match="begun with steps = 3, not 4"):
        build_robust_data(model, split, out, Settings(**SETTINGS | {"steps": 4}))
    with pytest.raises(ConfigError, match="begun with model = abc, not abd"):
        build_robust_data(model, split, out, Settings(**SETTINGS | {"model": "abd"}))
    counted.clear()
    matched = build_robust_data(model, split, out, Settings(**SETTINGS), counted.append)
    assert counted == [30, 10, 10, 10, 5, 5, 5]
    assert torch.equal(matched.images, whole.images)
    for name in (IMAGES_NAME, LABELS_NAME):
        assert torch.equal(read_tensor(out / name), read_tensor(tmp_path / "whole" / name))
    with pytest.raises(ConfigError, match="already holds CIFAR_ims"):
        build_robust_data(model, split, out, Settings(**SETTINGS))


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    (tmp_path / PARTS_NAME).mkdir()
    (tmp_path / PARTS_NAME / "00000000.safetensors").write_bytes(b"abc")
    with pytest.raises(ConfigError, match=r"00000000\.safetensors is not a whole part"):
        build_robust_data(linear_model(), digits().train, tmp_path, Settings(**SETTINGS))


@pytest.mark.parametrize("count", [0, 1438])
def test_more_images_than_there_are(count: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 1437"):
        build_robust_data(linear_model(), digits().train, tmp_path / "set", Settings(**SETTINGS | {"count": count}))
    assert not (tmp_path / "set").exists()


def test_an_out_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make the folder"):
        build_robust_data(linear_model(), digits().train, tmp_path / "file" / "set", Settings(**SETTINGS))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model = linear_model(cell="batchnorm", state_dim=8)
    classes = tuple("0123456789")
    save_checkpoint(
        path, Checkpoint(model=model, data=DataConfig(augment=True), class_names=classes, seed=0, epoch=1, recipe={})
    )
    robust_data(path, out=tmp_path / "set", steps=2, limit=40)
    assert "wrote 40 images and their labels" in capsys.readouterr().out
    data = load_data(DataConfig(robust=True, validation_fraction=0), data_dir=tmp_path / "set")
    assert isinstance(data.train, Split)
    assert len(data.train) == 40
    assert np.isfinite(data.mean).all()
