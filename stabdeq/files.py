"""Files written whole or not at all, and strict JSON.

Whatever fails at writing is a FileError here, so that no command needs to catch it.
"""

import errno
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from stabdeq.errors import FileError
from stabdeq.locks import NO_FOLLOW, lock

LARGEST_READ = 1 << 27  # bytes of a report, a recipe, a result: ours have some millions


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


def read_limited(path: Path, most: int = LARGEST_READ) -> bytes:
    """Return what ``path`` holds, a pipe too; raises FileError where that is more than ``most`` bytes: /dev/zero has no end."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FileError(f"{path} has more than {most} bytes, too many for what it should be: name another file")
    return content


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write ``content`` to ``path`` whole or not at all; raises FileError where it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``: what the block writes there becomes ``path``, whole or not at all.

    It is on the disk before it gets the name, and so is the name at the end. Its permissions are those of the file that it
    replaces, or those that the umask leaves. Where the block fails, ``path`` is as it was and the temporary file is removed; one
    that a killed process left is removed by the next that writes ``path``.
    Raises FileError where it cannot be written, also for the SafetensorError that ``save_file`` then raises.
    """
    with _told(f"{path} could not be written", "make room or name another place"):
        clear_leftovers(path)
        with _temporary(path) as (temporary, mode):
            yield temporary
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            if stat.S_IMODE(temporary.stat().st_mode) != mode:
                temporary.chmod(mode)
            os.replace(temporary, path)
            _sync_folder(path.parent)


def clear_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote ``path`` left beside it; what is being written is locked."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]+\.tmp")
    with suppress(OSError):  # what cannot be removed is in nobody's way
        for leftover in [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]:
            with os.fdopen(os.open(leftover, os.O_RDWR | NO_FOLLOW), "rb") as file:
                if lock(file.fileno()):
                    leftover.unlink()


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, int]]:
    """Yield a new, locked file beside ``path``, removed at the end where it is still there, and the permissions of ``path``."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        mode = (path.stat() if path.is_file() else os.fstat(descriptor)).st_mode & 0o777
        if not lock(descriptor):
            os.close(descriptor)  # Windows renames no open file
            descriptor = -1
        yield temporary, mode
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on the disk: a power cut may undo a rename that was not."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one that may be written and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such thing
            raise
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append ``line`` and a line break to the file ``path``, made where missing, and see them on the disk.

    Raises FileError where it cannot be written.

    A line that is cut off, as on a full disk, is no JSON: who reads the file is to pass over it.
    """
    with (
        _told(f"{path} could not be written", "make room or name another place"),
        path.open("a", encoding="utf-8") as file,
    ):
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


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
