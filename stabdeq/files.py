"""Files written whole or not at all, and strict JSON.

Whatever fails at writing is a FileError here, so that no command needs to catch it.
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from stabdeq.errors import FileError


def strict_json(value: Any) -> str:
    """Return ``value`` as JSON, a float that is not finite as the string "nan", "inf" or "-inf"."""
    return json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


def encoded(text: str) -> bytes:
    """Return ``text`` in UTF-8, which a lone surrogate has not: its backslash form is what JSON writes for it."""
    return text.encode("utf-8", "backslashreplace")


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write ``content`` to ``path`` whole or not at all; raises FileError where it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``: what the block writes there becomes ``path``, whole or not at all.

    It is on the disk before it gets the name. Where the block fails, ``path`` is as it was and the temporary file is removed.
    Raises FileError where it cannot be written, also for the SafetensorError that ``save_file`` then raises.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _told(f"{path} could not be written", "make room or name another place"):
        try:
            yield temporary
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append ``line`` and a line break to the file ``path``, made where missing; raises FileError where it cannot be written.

    A line that is cut off, as on a full disk, is no JSON: who reads the file is to pass over it.
    """
    with (
        _told(f"{path} could not be written", "make room or name another place"),
        path.open("a", encoding="utf-8") as file,
    ):
        file.write(line + "\n")


def make_folder(path: Path) -> None:
    """Make the folder ``path`` and those above it, where they are missing; raises FileError where that fails."""
    with _told(f"cannot make the folder {path}", "choose another --out"):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def _told(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise FileError(f"{what} ({getattr(error, 'strerror', None) or error}): {remedy}") from error
