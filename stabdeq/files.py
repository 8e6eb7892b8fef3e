"""Files written whole or not at all, and strict JSON.

Whatever fails at writing is a FileError here, so that no command needs to catch it.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
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
    replace_files({path: content})


def replace_files(contents: Mapping[Path, bytes | memoryview]) -> None:
    """Write files that belong together, such as a report and its page: whatever ends the program, those that stand are of one call.

    All are on the disk under temporary names before an old one is touched. Then the old ones but the first are removed before the
    first is replaced, so that a kill in between leaves some of them missing, and never an old one beside a new one. Raises
    FileError where one cannot be written.
    """
    temporaries = {path: _beside(path) for path in contents}
    others = list(contents)[1:]
    try:
        for path, content in contents.items():
            with _told_of(path):
                temporaries[path].write_bytes(content)
                _put_on_disk(temporaries[path])
        for path in others:
            with _told_of(path):
                path.unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            with _told_of(path):
                os.replace(temporary, path)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``: what the block writes there becomes ``path``, whole or not at all.

    It is on the disk before it gets the name. Where the block fails, ``path`` is as it was and the temporary file is removed.
    Raises FileError where it cannot be written, also for the SafetensorError that ``save_file`` then raises.
    """
    temporary = _beside(path)
    with _told_of(path):
        try:
            yield temporary
            _put_on_disk(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append ``line`` and a line break to the file ``path``, made where missing; raises FileError where it cannot be written.

    A line that is cut off, as on a full disk, is no JSON: who reads the file is to pass over it.
    """
    with _told_of(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def make_folder(path: Path) -> None:
    """Make the folder ``path`` and those above it, where they are missing; raises FileError where that fails."""
    with _told(f"cannot make the folder {path}", "choose another --out"):
        path.mkdir(parents=True, exist_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _put_on_disk(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _told_of(path: Path) -> AbstractContextManager[None]:
    return _told(f"{path} could not be written", "make room or name another place")


@contextmanager
def _told(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise FileError(f"{what} ({getattr(error, 'strerror', None) or error}): {remedy}") from error
