"""Files that were not written by this process, opened with care: regular files alone, of bounded size, and JSON and TOML of one meaning.

A pipe or a device is refused before anything waits for it. Raises OSError and ValueError, which the callers put into words.
"""

import errno
import json
import os
import stat
import tomllib
from io import BufferedReader
from pathlib import Path
from typing import Any

DEEPEST = 32  # lists and objects inside one another; what we write has five


def open_regular(path: Path) -> BufferedReader:
    """Open the regular file ``path`` to read its bytes; OSError where it is missing, or a pipe, a device, a socket or a folder."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115, it is returned open
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "a pipe or a device, and no regular file")


def read_regular(path: Path, most: int) -> bytes:
    """Return the bytes of the regular file ``path``; OSError where it is none, or larger than ``most`` bytes."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes, the most that is read of such a file")
    return content


def parsed_json(text: str | bytes) -> Any:
    """Return what the JSON ``text`` says; ValueError, with the reason, where it is none or could be read in two ways.

    That is where a key stands twice in one object, where a number is NaN or infinite, which JSON has not, and where lists and
    objects lie more than ``DEEPEST`` inside one another, in which what walks them would run out of stack.
    """
    try:
        value = json.loads(text, object_pairs_hook=of_single_keys, parse_constant=_refused, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} levels deep") from None
    _require_shallow(value)
    return value


def parsed_toml(text: str) -> dict[str, Any]:
    """Return what the TOML ``text`` says; ValueError, with the reason, where it is none, or nested too deeply.

    It is one, too, where a whole number has more than 64 bits, which TOML has not, and which Python may refuse to print.
    """
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} levels deep") from None
    for level in _require_shallow(value):
        if any(isinstance(item, int) and not -(2**63) <= item < 2**63 for item in level):
            raise ValueError("a whole number has more than 64 bits")
    return value


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for who writes into it


def of_single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return what ``pairs`` say, as a hook of ``json.loads`` and of other lists of names; ValueError where a key stands twice."""
    group: dict[str, Any] = {}
    for key, value in pairs:
        if key in group:
            raise ValueError(f"the key {key!r:.80} stands twice")
        group[key] = value
    return group


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _require_shallow(value: Any) -> list[list[Any]]:
    """Return all that is in ``value``, level by level; ValueError where these are too many."""
    levels, level = [], [value]
    while level:
        levels.append(level)
        groups = [item for item in level if isinstance(item, dict | list)]
        if groups and len(levels) > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} levels deep")
        level = [item for group in groups for item in (group.values() if isinstance(group, dict) else group)]
    return levels
