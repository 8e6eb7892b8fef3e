"""What a proof may hold: objects of known keys, lists of known lengths, finite doubles written out to the last bit."""

import json
import math
import os
import stat
from typing import Any


class Failure(Exception):  # noqa: N818
    """What the proof does not prove: where, what was expected, and what stands there."""


class Unreadable(Exception):  # noqa: N818
    """What is no proof, or no checkpoint, at all."""


def content(name: str) -> bytes:
    """Return the bytes of the regular file ``name``; of a pipe or a device, which may have no end, Unreadable."""
    with open(name, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Unreadable(f"{name}: a pipe or a device, and no file")
        return file.read()


def require(holds: Any, why: str) -> None:
    if holds is not True:
        raise Failure(why)


def number(text: Any, where: str) -> float:
    """Return the double that ``text`` names as Python's float.hex writes it: arb(...) of it is exact."""
    try:
        value = float.fromhex(text)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    require(math.isfinite(value) and value.hex() == text, f"{where}: expected a finite float.hex, got {text!r:.60}")
    return value


def items(values: Any, where: str, count: int | None = None) -> list[Any]:
    expected = "" if count is None else f" of {count}"
    require(
        type(values) is list and len(values) == (count if expected else len(values)),
        f"{where}: expected a list{expected}",
    )
    return values


def numbers(values: Any, count: int, where: str) -> list[float]:
    return [number(value, f"{where}[{i}]") for i, value in enumerate(items(values, where, count))]


def place(value: Any, count: int, where: str, least: int = 0) -> int:
    require(type(value) is int and least <= value < count, f"{where}: expected an integer from {least} to {count - 1}")
    return value


def fields(group: Any, where: str, *names: str) -> list[Any]:
    """Return the values of an object that has these keys and no others, in their order."""
    require(type(group) is dict, f"{where}: expected an object with the keys {', '.join(names)}")
    for name in [*names, *group]:
        require(name in group, f"{where}: lacks {name!r}")
        require(name in names, f"{where}: has the unknown key {name!r:.60}")
    return [group[name] for name in names]


def parsed(text: bytes | str, what: str) -> Any:
    """Return what JSON says, no key twice in one object, no NaN; Unreadable where it is none, or truncated."""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{what} is not JSON, or truncated: {error}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    group = dict(pairs)
    require(len(group) == len(pairs), f"a key stands twice in an object with the keys {list(group)!r:.200}")
    return group


def _refuse(text: str) -> None:
    raise Failure(f"{text} is no number of a proof")
