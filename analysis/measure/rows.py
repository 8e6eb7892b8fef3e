"""Rows that come part by part and that memory need not hold: in a file without a name, mapped, and read as they are asked for."""

import mmap
from collections.abc import Iterator
from tempfile import TemporaryFile, gettempdir
from typing import BinaryIO
from weakref import WeakSet

import torch
from torch import Tensor

from stabdeq.errors import FileError

NUMBERS = 2**18  # in the states, or whatever is looked at together: 2 MiB, of which a solve makes some dozens

_mapped: "WeakSet[mmap.mmap]" = WeakSet()


def in_parts(count: int, numbers: int) -> Iterator[slice]:
    """Yield slices that cover ``count`` rows of ``numbers`` each, so that one holds ``NUMBERS``, or a row.

    What was read of files in between no longer counts as this process's memory.
    """
    rows = max(1, NUMBERS // max(1, numbers))
    for begin in range(0, count, rows):
        yield slice(begin, min(begin + rows, count))
        if hasattr(mmap, "MADV_DONTNEED"):  # Windows takes a file's pages back by itself, when it needs them
            for content in _mapped:
                content.madvise(mmap.MADV_DONTNEED)


class Rows:
    """Gathers parts (B, *) of one shape and dtype into one tensor (N, *): the first alone stays as it is, more go to a file.

    The file has no name, lies where ``tempfile`` puts it, and is gone with the tensor. Raises FileError where it cannot be written.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._file: BinaryIO | None = None

    def add(self, part: Tensor) -> None:
        """Append ``part`` (B, *), B >= 1."""
        if self._first is None:
            self._first = part
            return
        if not part.numel():  # as the features of a model that reads no input: no file of them could be mapped
            self._first = torch.cat([self._first, part])
            return
        try:
            if self._file is None:
                self._file = TemporaryFile(prefix="stabdeq-")  # noqa: SIM115  closed when it is mapped
                self._file.write(_bytes(self._first))
                self._first = self._first[:0].clone()
            self._file.write(_bytes(part))
            self._file.flush()  # a full disk is told here
        except OSError as error:
            raise FileError(
                f"{gettempdir()}: the states of an audit cannot be written there ({error.strerror}): make room, or name another folder "
                "in the environment variable TMPDIR"
            ) from None

    def gathered(self) -> Tensor:
        """Return all rows (N, *), which nobody must write to; no more can be added."""
        assert self._first is not None
        if self._file is None:
            return self._first
        with self._file as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        _mapped.add(content)
        return torch.frombuffer(content, dtype=self._first.dtype).view(-1, *self._first.shape[1:])


def _bytes(part: Tensor) -> bytes:
    return part.detach().contiguous().view(torch.uint8).numpy().tobytes()  # NumPy has no bfloat16
