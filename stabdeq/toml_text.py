"""Settings written as TOML, which ``stabdeq.reading.parsed_toml`` reads back as they were."""

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

from stabdeq.errors import ConfigError


def toml_text(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Return ``values`` as TOML: those that are tables after the others, under their heading.

    Raises ConfigError for what TOML has no form for, such as None.

    >>> print(toml_text({"epochs": 3, "data": {"name": "digits", "mean": (0.5, 1e-05)}}))
    epochs = 3
    <BLANKLINE>
    [data]
    name = "digits"
    mean = [0.5, 1e-05]
    <BLANKLINE>
    """
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value, (*path, key))}\n" for key, value in values.items() if key not in tables]
    text = "".join(lines)
    if path and (lines or not tables):
        text = f"[{'.'.join(map(_key, path))}]\n{text}"
    parts = [text, *(toml_text(table, (*path, key)) for key, table in tables.items())]
    return "\n".join(part for part in parts if part)


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else _string(key)


def _value(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(each, path) for each in value)}]"
    if isinstance(value, Mapping):  # within a list
        return f"{{{', '.join(f'{_key(key)} = {_value(each, (*path, key))}' for key, each in value.items())}}}"
    raise ConfigError(f"{'.'.join(path)} = {value!r} has no form in TOML: leave it out")


def _string(text: str) -> str:
    """Return ``text`` quoted, in ASCII: whatever the terminal's encoding is, it is read back as it was."""
    return "".join(_character(character) for character in json.dumps(text, ensure_ascii=False))


def _character(character: str) -> str:
    return character if " " <= character <= "~" else f"\\U{ord(character):08x}"
