"""Files of torch.save are read without unpickling, whatever is in them."""

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

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_files import FORMATS, save
from torch import Tensor

from stabdeq.data.tensor_file import read_tensor
from stabdeq.errors import DataError


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
