"""The tensors in an ONNX file: every real number widened to float64, which is exact, every integer to int64."""

import math
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.user_function.onnx_files.messages import MalformedError, TensorMessage
from stabdeq.reading import of_single_keys, open_regular

FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11
BFLOAT16 = 16
EXTERNAL = 1
# ONNX's number of a type: its name, how the bytes are read, the field that holds it where they are not given raw.
TYPES: dict[int, tuple[str, str, str]] = {
    FLOAT: ("float32", "<f4", "float_data"),
    2: ("uint8", "u1", "int32_data"),
    3: ("int8", "i1", "int32_data"),
    4: ("uint16", "<u2", "int32_data"),
    5: ("int16", "<i2", "int32_data"),
    6: ("int32", "<i4", "int32_data"),
    INT64: ("int64", "<i8", "int64_data"),
    BOOL: ("bool", "u1", "int32_data"),
    10: ("float16", "<f2", "int32_data"),
    DOUBLE: ("float64", "<f8", "double_data"),
    BFLOAT16: ("bfloat16", "<u2", "int32_data"),
}
REAL = (FLOAT, 10, DOUBLE, BFLOAT16)


class Beside:
    """The ``folder`` of an ONNX file, which its data may lie in, in other files; ``read`` is a hash of what was read of these."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.read = folder, sha256()

    def sha256_with(self, content: bytes) -> str:
        """Return the SHA-256 of the ONNX file of that ``content``; where data lay beside it, of both that and what was read of them."""
        beside = self.read.digest()
        return sha256(content if beside == sha256().digest() else content + beside).hexdigest()


def tensor_of(message: TensorMessage, beside: Beside) -> Tensor:
    """Return the tensor in ``message``, real numbers as float64, whole ones as int64, truths as they are.

    Data may lie in another file ``beside`` the ONNX file, and nowhere else. Raises MalformedError.
    """
    if message.data_type not in TYPES:
        known = ", ".join(name for name, _, _ in TYPES.values())
        raise MalformedError(f"has the type {message.data_type} of ONNX, which is none of {known}")
    name, form, stored = TYPES[message.data_type]
    dtype = np.dtype(form)
    if any(length < 0 for length in message.dims):
        raise MalformedError(f"has the shape {message.dims}")
    count = math.prod(message.dims)
    if message.data_location == EXTERNAL:
        raw: bytes | None = _external(message, beside, count * dtype.itemsize)
    else:
        raw = message.raw_data
    if raw is not None:
        if len(raw) != count * dtype.itemsize:
            expected = f"{count * dtype.itemsize} bytes for {count} numbers of {name}"
            raise MalformedError(f"of shape {message.dims} needs {expected}, got {len(raw)}")
        numbers = np.frombuffer(raw, dtype)
    else:
        numbers = _listed(getattr(message, stored), dtype, name)
        if len(numbers) != count:
            raise MalformedError(f"of shape {message.dims} needs {count} numbers, got {len(numbers)}")
    if message.data_type == BFLOAT16:
        numbers = (numbers.astype("<u4") << 16).view("<f4")  # the upper half of a float32
    wide = np.bool_ if message.data_type == BOOL else np.float64 if message.data_type in REAL else np.int64
    numbers = numbers.astype(wide)
    return torch.from_numpy(numbers.copy()).reshape(message.dims)


def _listed(values: Sequence[Any], dtype: np.dtype, name: str) -> np.ndarray:
    """Return numbers that were listed one by one; those of 16 bits as whole numbers of the same bits."""
    if name in ("float32", "float64"):
        return np.array(values, dtype)
    bits = np.dtype("<u2") if name == "float16" else dtype
    whole = np.array(values, np.int64)
    if not np.array_equal(whole, whole.astype(bits)):
        raise MalformedError(f"holds numbers that are no {name}")
    return whole.astype(bits).view(dtype)


def _external(message: TensorMessage, beside: Beside, size: int) -> bytes:
    """Return the ``size`` bytes of a tensor from the file beside the ONNX file that holds them."""
    try:
        told = of_single_keys([(entry.key, entry.value) for entry in message.external_data])
    except ValueError as error:
        raise MalformedError(f"lies in another file, of which {error}") from None
    location = told.get("location", "")
    path = Path(os.path.realpath(beside.folder / location))
    if not location or not path.is_relative_to(os.path.realpath(beside.folder)):
        raise MalformedError(f"lies in {location!r}; expected a file in the folder of the ONNX file")
    if not path.is_file():
        raise MalformedError(f"lies in {location!r}, which is no file")
    try:
        offset, length = int(told.get("offset", 0)), int(told.get("length", size))
    except ValueError:
        raise MalformedError(f"has an offset or length that is no whole number: {told}") from None
    if length != size or not 0 <= offset <= path.stat().st_size - size:
        raise MalformedError(
            f"needs {size} bytes, got {length} from byte {offset} of {location!r}, which has {path.stat().st_size}"
        )
    try:
        with open_regular(path) as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise MalformedError(f"lies in {location!r}, which cannot be read ({error.strerror})") from None
    beside.read.update(content)
    return content


def message_of(tensor: Tensor, name: str) -> TensorMessage:
    """Return ``tensor``, of float64, int64 or truths, as a message."""
    kind = {torch.float64: DOUBLE, torch.int64: INT64, torch.bool: BOOL}[tensor.dtype]
    raw = tensor.detach().contiguous().numpy().astype(TYPES[kind][1]).tobytes()
    return TensorMessage(dims=list(tensor.shape), data_type=kind, name=name, raw_data=raw)
