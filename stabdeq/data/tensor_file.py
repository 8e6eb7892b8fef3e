"""Tensors in files that torch.save wrote, read without unpickling: the pickle's opcodes are walked, and nothing is called.

Both formats are read: the one of PyTorch up to 1.5, several pickles and then the raw numbers, and the zip archive of today.
"""

import pickletools
import struct
import zipfile
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from stabdeq.errors import DataError
from stabdeq.reading import open_regular

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of the old format
ZIP_START = b"PK\x03\x04"
LARGEST_PICKLE = 2**24  # bytes, for all pickles of a file: some 100,000 tensors
MOST_TENSORS = 2**18  # the same tensor again takes two bytes of a pickle, and hundreds of memory
MOST_DIMENSIONS = 16
LONGEST_REASON = 200  # characters of a message, some of which may be the file's own
DTYPES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8", "torch ByteStorage": "u1"}
REBUILD, HOOKS = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"

# What walking a pickle, or reading an archive, that is not as it should be may raise.
MALFORMED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    RuntimeError,  # NotImplementedError too, of archives in a format that zipfile does not know
    struct.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class _Name:
    """A global that a pickle names, which stays a name."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """Numbers elsewhere in the file: their type, the key they go by, and how many there are."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class _Layout:
    """A tensor: where in a storage it begins, and its size."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]


_MARK = object()
_HOOKS = object()  # the empty OrderedDict of a tensor's backward hooks


def read_tensor(path: Path) -> Tensor:
    """Return the tensor in ``path``, float32, int64 or uint8; a list of tensors is joined along the first dimension.

    Nothing else may be in the file: raises DataError, saying what came, for any other content, for tensors that are not
    contiguous, numbers that are missing or left over, and files of big-endian machines.
    """
    try:
        with open_regular(path) as file:
            is_archive = file.read(4) == ZIP_START
            file.seek(0)
            layouts, numbers = _read_archive(file) if is_archive else _read_old(file)
        return _join(layouts, numbers)
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror}): look at the path") from None
    except MALFORMED as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise DataError(
            f"{path}: expected one tensor of floats, int64 or uint8, or a list of such, as torch.save writes it, and found "
            f"something else ({reason}); it was not unpickled: get the file anew"
        ) from None


def _read_old(file: BinaryIO) -> tuple[list[_Layout], dict[str, np.ndarray]]:
    """Read a magic number, a version, the machine's properties, the tensors, the storages' keys, and the storages."""
    head = BytesIO(file.read(LARGEST_PICKLE))
    if _walk(head) != MAGIC or _walk(head) != VERSION:
        raise ValueError("no magic number of torch.save")
    machine = _walk(head)
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise ValueError("not written on a little-endian machine")
    layouts = _layouts(_walk(head))
    storages = _storages(layouts)
    keys = _walk(head)
    if type(keys) is not list or not _are_texts(keys) or sorted(keys) != sorted(storages):
        raise ValueError("the storages are not those of the tensors")
    end = file.seek(0, 2)
    file.seek(head.tell())
    numbers = {}
    for key in keys:
        storage = storages[key]
        stored = int.from_bytes(file.read(8), "little")
        if stored != storage.count or storage.count * np.dtype(storage.dtype).itemsize > end - file.tell():
            raise ValueError(f"the storage {key!r} of {storage.count} numbers is truncated or of another size")
        numbers[key] = np.fromfile(file, storage.dtype, storage.count)
    if file.tell() != end:
        raise ValueError(f"{end - file.tell()} bytes after the last storage")
    return layouts, numbers


def _read_archive(file: BinaryIO) -> tuple[list[_Layout], dict[str, np.ndarray]]:
    """Read the tensors from data.pkl, and their storages from data/KEY, of an archive that holds one folder."""
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{len(pickles)} entries data.pkl in the archive")
        folder = pickles[0].removesuffix("data.pkl")
        byte_order = f"{folder}byteorder"  # newer than the format
        if byte_order in archive.namelist() and _entry(archive, byte_order, len(b"little")) != b"little":
            raise ValueError("not written on a little-endian machine")
        head = BytesIO(_entry(archive, pickles[0], LARGEST_PICKLE))
        layouts = _layouts(_walk(head))
        if head.read(1):
            raise ValueError("more than one pickle in data.pkl")
        storages = _storages(layouts)
        # Entries may lie inside one another.
        if sum(storage.count * np.dtype(storage.dtype).itemsize for storage in storages.values()) > file.seek(0, 2):
            raise ValueError("storages larger than the file")
        numbers = {}
        for key, storage in storages.items():
            length = storage.count * np.dtype(storage.dtype).itemsize
            content = _entry(archive, f"{folder}data/{key}", length)
            if len(content) != length:
                raise ValueError(f"the storage {key!r} has {len(content)} bytes where {length} were expected")
            numbers[key] = np.frombuffer(bytearray(content), storage.dtype)
    return layouts, numbers


def _entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The content of an entry, which torch.save never compresses or encrypts: no small file can hold a large one."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size > most:
        raise ValueError(f"the entry {name!r} is compressed, encrypted, or larger than {most} bytes")
    return archive.read(entry)


def _join(layouts: list[_Layout], numbers: dict[str, np.ndarray]) -> Tensor:
    tensors = [
        torch.from_numpy(numbers[one.storage.key][one.offset : one.offset + prod(one.size)]).view(one.size)
        for one in layouts
    ]
    if len({(tensor.dtype, tensor.shape[1:]) for tensor in tensors}) != 1 or tensors[0].dim() == 0:
        raise ValueError("tensors that cannot be joined, or a single number")
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _layouts(content: Any) -> list[_Layout]:
    layouts = list(content) if type(content) in (list, tuple) else [content]
    if len(layouts) > MOST_TENSORS:
        raise ValueError(f"more than {MOST_TENSORS} tensors")
    if not layouts or any(type(one) is not _Layout for one in layouts):
        raise ValueError(f"{type(content).__name__.strip('_')} in place of tensors")
    return layouts


def _storages(layouts: list[_Layout]) -> dict[str, _Storage]:
    """The storages that the tensors lie in, by key; together the tensors may not be larger than these."""
    storages = {one.storage.key: one.storage for one in layouts}
    if any(one.storage != storages[one.storage.key] for one in layouts):
        raise ValueError("two storages of one key")
    if sum(prod(one.size) for one in layouts) > sum(storage.count for storage in storages.values()):
        raise ValueError("more tensors than numbers")
    return storages


def _walk(stream: BytesIO) -> Any:
    """Return what the next pickle of ``stream`` describes, made of numbers, texts, lists, tuples, dicts, and tensors' layouts.

    These are the opcodes that torch.save's pickles of protocol 2 need; any other is refused before it has an effect.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, read, _ in pickletools.genops(stream):
        argument: Any = read
        match opcode.name:
            case "PROTO":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE":
                stack.append(tuple(_above_mark(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(_popped(stack, int(opcode.name[-1]))))
            case "APPEND":
                _list_at(stack, -2).append(stack.pop())
            case "APPENDS":
                items = _above_mark(stack)
                _list_at(stack, -1).extend(items)
            case "SETITEMS":
                items = _above_mark(stack)
                if not _are_texts(items[::2]):
                    raise ValueError("a dict with keys that are no texts")
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                if argument not in (REBUILD, HOOKS, *DTYPES):
                    raise ValueError(f"it asks for {argument.replace(' ', '.')!r}")
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                stack.append(_reduced(*_popped(stack, 2)))
            case "STOP":
                (content,) = stack
                return content
            case other:
                raise ValueError(f"the opcode {other}")
    raise ValueError("a pickle without an end")


def _are_texts(items: list[Any]) -> bool:
    """Whether hashing and comparing ``items`` is safe: of tuples in tuples it may never end, or overflow C's stack."""
    return all(type(item) is str for item in items)


def _popped(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("a pickle that takes more than it gave")
    items = stack[-count:]
    del stack[-count:]
    return items


def _above_mark(stack: list[Any]) -> list[Any]:
    depth = next((index for index in reversed(range(len(stack))) if stack[index] is _MARK), None)
    if depth is None:
        raise ValueError("a pickle that takes more than it gave")
    items = stack[depth + 1 :]
    del stack[depth:]
    return items


def _list_at(stack: list[Any], index: int) -> list[Any]:
    if type(stack[index]) is not list:
        raise ValueError("an append to something else than a list")
    return stack[index]


def _storage(identity: Any) -> _Storage:
    """What torch.save says of a storage: its type, key, device and size; before 1.5 also of what it is a view, here nothing."""
    match identity:
        case ("storage", _Name(name), str(key), str(), int(count), *view) if (
            name in DTYPES and count >= 0 and view in ([], [None])
        ):
            return _Storage(DTYPES[name], key, count)
    raise ValueError("a storage of another kind")


def _reduced(function: Any, arguments: Any) -> Any:
    """The layout that a call of _rebuild_tensor_v2 describes; the only other call there may be is that of OrderedDict."""
    match function, arguments:
        case _Name(name), () if name == HOOKS:
            return _HOOKS
        case _Name(name), (_Storage() as storage, int(offset), tuple(size), tuple(stride), bool(), hooks) if (
            name == REBUILD and hooks is _HOOKS
        ):
            if not all(type(one) is int and one >= 0 for one in (offset, *size)):
                raise ValueError("a size that is no whole number")
            # Of no numbers, any size would do; and a product of millions of sizes takes hours.
            if len(size) > MOST_DIMENSIONS or max(size, default=0) > max(storage.count, LARGEST_PICKLE):
                raise ValueError("a tensor larger than its storage, or of too many dimensions")
            if len(size) != len(stride) or not _is_contiguous(size, stride):
                raise ValueError("a tensor that is not contiguous")
            if offset + prod(size) > storage.count:
                raise ValueError("a tensor larger than its storage")
            return _Layout(storage, offset, size)
    raise ValueError("a call of something else than _rebuild_tensor_v2")


def _is_contiguous(size: tuple[int, ...], stride: tuple[Any, ...]) -> bool:
    """Whether the numbers lie in order; the stride of a dimension of 1 is free, and those of no numbers are."""
    return 0 in size or all(size[i] == 1 or stride[i] == prod(size[i + 1 :]) for i in range(len(size)))
