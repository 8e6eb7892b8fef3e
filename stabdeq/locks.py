"""Locks on files: held by one process, and freed by the system when that ends, however it ends."""

import errno
import os
import socket
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from stabdeq.errors import ConfigError, FileError

fcntl: ModuleType | None
try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

LOCK_NAME = ".lock"
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # a link in a shared folder may lead to a file of ours
_UNKNOWN = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # on some file systems of clusters


class NoLocksWarning(UserWarning):
    """A folder's file system has no locks, so that nothing keeps another process out of it."""


def lock(descriptor: int) -> bool | None:
    """Lock the open file ``descriptor`` until it is closed, and return True.

    Returns False where it is locked already, None where this system or file system has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    return True


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep every other caller out of ``folder``, which exists, for the time of the block.

    Raises ConfigError, saying who is in it, where another is; FileError where no lock can be made there. Warns where the file
    system has no locks.
    """
    path = folder / LOCK_NAME
    try:
        descriptor = _open_locked(path)
    except OSError as error:
        raise FileError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk: the lock holds without a name
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode())
        yield
    finally:
        with suppress(OSError):  # a file without a lock keeps nobody out
            path.unlink()  # before the lock is let go: after that it may be another's
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, f"its {LOCK_NAME} is a pipe or a device")
            locked = lock(descriptor)
            if locked is False:
                holder = os.read(descriptor, 500).decode(errors="replace") or "another process"
                raise ConfigError(f"{path.parent} is in use by {holder}: wait for its end, or choose another --out")
            if locked is None:
                warnings.warn(
                    f"{path.parent}: its file system has no locks: see to it that nothing else writes there",
                    NoLocksWarning,
                    stacklevel=4,
                )
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed by its holder between the opening and the locking


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
