"""What reaches a terminal: nothing that was read from a file can steer it.

All that a command prints passes here: ``guarded`` puts a ``PlainStream`` in the place of stdout and stderr, which lets no control
character through, whoever prints. Only a ``Console`` of this file writes past it, for its colours and bars, and cleans its text itself.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO

import rich.console
from rich.file_proxy import FileProxy
from rich.segment import Segment

from stabdeq.printable import printable_lines


class PlainStream(FileProxy):
    """A text stream that writes to ``stream`` what is printable, "?" for what its encoding lacks.

    It is a FileProxy so that rich, while it draws a bar, does not put another in its place, which reads escape sequences as styles.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(Console(), stream)
        self.stream = stream

    @property
    def rich_proxied_file(self) -> "PlainStream":  # pyrefly: ignore
        return self  # a foreign console writes here, too

    @property
    def encoding(self) -> str:  # pyrefly: ignore
        return self.stream.encoding

    def write(self, text: str) -> int:
        # What begins with a return to the line's start is a progress bar of another library, such as that of a download.
        start = "\r" * text.startswith("\r")
        self.stream.write(start + _shown(text.removeprefix(start), self.encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()  # a FileProxy before rich 15 says no


class Console(rich.console.Console):
    """A rich console whose texts are printable: escape sequences come of styles alone, and brackets are no markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    @property
    def file(self) -> IO[str]:  # pyrefly: ignore
        stream = super().file
        return stream.stream if isinstance(stream, PlainStream) else stream

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    @property
    def encoding(self) -> str:
        return (getattr(self.file, "encoding", None) or "utf-8").lower()

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """Yield the segments of ``renderable``, their texts printable and within the output's encoding."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _shown(text, self.encoding), style, control)


@contextmanager
def guarded() -> Iterator[None]:
    """Let nothing but printable text through stdout and stderr, and the drawing of a ``Console``, while the block runs.

    Where an exception leaves it that nobody foresaw, they stay so: its text is yet to be printed, and may be a file's.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_plain, before)
    foreseen = True
    try:
        yield
    except Exception:
        foreseen = False
        raise
    finally:
        if foreseen:
            sys.stdout, sys.stderr = before


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Let Python tell a warning in one line while the block runs: ours in its own words, another's with its kind and place."""
    before = warnings.formatwarning
    warnings.formatwarning = _warning_line
    try:
        yield
    finally:
        warnings.formatwarning = before


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    ours = category.__module__.startswith("stabdeq.")
    text = message if ours else f"{filename}, line {lineno}: {category.__name__}: {message}"
    return f"stabdeq: warning: {' '.join(str(text).split())}\n"


def _plain(stream: Any) -> Any:
    return (
        None if stream is None else PlainStream(getattr(stream, "stream", stream))
    )  # None: it was closed from the start


def _shown(text: str, encoding: str | None) -> str:
    plain = printable_lines(text)
    return plain if plain.isascii() else plain.encode(encoding or "utf-8", "replace").decode(encoding or "utf-8")
