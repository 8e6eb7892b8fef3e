"""What a command prints: a reader that has gone away is no error, a full disk is one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

from stabdeq.errors import FileError


class SteadyStream:
    """The text stream ``stream``, called ``name``; once it cannot be written any more, what is written to it is dropped.

    Where its reader has gone, as of ``| head``, that is all: the command goes on, so that its files are whole and its exit code
    is its own. Where anything else stands in the way, FileError says what, once.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``, and return its length."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # The interpreter writes what is left when it ends, and would fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise FileError(
                f"{self._name} could not be written ({error.strerror or error}): make room or send it elsewhere"
            ) from error


@contextmanager
def steady_output() -> Iterator[None]:
    """Make standard output and standard error ``SteadyStream`` for the time of the block."""
    with (
        redirect_stdout(_steady(sys.stdout, "standard output")),
        redirect_stderr(_steady(sys.stderr, "standard error")),
    ):
        yield


def _steady(stream: Any, name: str) -> Any:
    return None if stream is None else SteadyStream(stream, name)  # None: it was closed from the start
