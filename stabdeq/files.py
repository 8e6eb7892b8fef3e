"""Files written whole or not at all, and strict JSON.

Whatever fails at writing is a FileError here, so that no command needs to catch it.
"""

import errno
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from stabdeq.errors import FileError
from stabdeq.locks import NO_FOLLOW, lock


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
    """Write ``content`` to ``path`` as ``replace_files`` does; raises FileError where it cannot be written."""
    replace_files({path: content})


def replace_or_remove(path: Path, content: bytes | None) -> None:
    """Write ``content`` to ``path`` as ``replace_files`` does; where there is none, remove what an earlier call wrote.

    Raises FileError where the file cannot be written or removed.
    """
    if content is not None:
        replace_file(path, content)
    elif path.is_file():
        with _told_of(path):
            path.unlink()


def replace_files(contents: Mapping[Path, bytes | memoryview]) -> None:
    """Write files that belong together, such as a report and its page: whatever ends the program, those that stand are of one call.

    All are on the disk under temporary names before an old one is touched. Then the old ones but the first are removed before the
    first is replaced, so that a kill in between leaves some of them missing, and never an old one beside a new one. A file has the
    permissions of the one that it replaces, or those that the umask leaves. Temporary files that a killed process left are removed
    by the next call for the same path. Raises FileError where a file cannot be written.
    """
    others = list(contents)[1:]
    temporaries: dict[Path, Path] = {}
    with ExitStack() as held:
        for path, content in contents.items():
            with _told_of(path):
                clear_leftovers(path)
                temporaries[path] = held.enter_context(_temporary(path, content))
        for path in others:
            with _told_of(path):
                path.unlink(missing_ok=True)
                _sync_folder(path.parent)
        for path, temporary in temporaries.items():
            with _told_of(path):
                os.replace(temporary, path)
                _sync_folder(path.parent)


def clear_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote ``path`` left beside it; what is being written is locked."""
    pattern = re.compile(rf"\.{re.escape(_short(path.name))}\.[0-9a-f]+\.tmp")
    with suppress(OSError):  # what cannot be removed is in nobody's way
        for leftover in [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]:
            with os.fdopen(os.open(leftover, os.O_RDWR | NO_FOLLOW), "rb") as file:
                if lock(file.fileno()):
                    leftover.unlink()


@contextmanager
def _temporary(path: Path, content: bytes | memoryview) -> Iterator[Path]:
    """Yield a file beside ``path`` with ``content``, on the disk and locked; it is removed at the end where it is still there."""
    temporary = path.with_name(f".{_short(path.name)}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            is_locked = lock(descriptor)
            if path.is_file():
                _copy_permissions(path, descriptor)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
            if is_locked:
                yield temporary
        if not is_locked:  # Windows, which renames no open file
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _short(name: str) -> str:
    """Return ``name``, or a hash in the place of a long one: a file may have the longest name that its file system takes."""
    digest = sha256(os.fsencode(name)).hexdigest()
    return name if len(os.fsencode(name)) <= len(digest) else digest


def _copy_permissions(path: Path, descriptor: int) -> None:
    wanted = path.stat().st_mode & 0o777
    if os.fstat(descriptor).st_mode & 0o777 != wanted and os.chmod in os.supports_fd:
        os.chmod(descriptor, wanted)


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
    """Append ``line`` and a line break to the file ``path``, made where missing, and put them on the disk.

    Raises FileError where it cannot be written. A line that is cut off, as on a full disk, is no JSON: who reads the file is to
    pass over it.
    """
    with _told_of(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make the folder ``path`` and those above it, where they are missing; raises FileError where that fails."""
    with _told(f"cannot make the folder {path}", "choose another --out"):
        path.mkdir(parents=True, exist_ok=True)


def require_folder(path: Path) -> None:
    """Raise FileError where ``make_folder`` would, or where the folder could not be written to; nothing is made.

    So a command refuses a place for its result before its work, and leaves no folder behind where it refuses another thing after.
    """
    with _told(f"cannot make the folder {path}", "choose another --out"):
        there = _nearest(path)
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    require_names(path)


def require_names(path: Path) -> None:
    """Raise FileError where ``path``, whose folders may be missing yet, has a longer name than its file system takes."""
    with _told_of(path):
        there = _nearest(path)
        for name in path.absolute().relative_to(there).parts:
            _is_there(there / name)


def _nearest(path: Path) -> Path:
    """Return ``path`` or the nearest folder above it that is there."""
    there = path.absolute()
    while not _is_there(there):
        there = there.parent
    return there


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _told_of(path: Path) -> AbstractContextManager[None]:
    return _told(f"{path} could not be written", "make room or name another place")


@contextmanager
def _told(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(f"{what} ({error.strerror or error}): {remedy}") from error
