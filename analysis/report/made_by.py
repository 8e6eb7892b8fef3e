"""The command that made a report, as the report holds it, and as a line for a shell."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.findings.values import mapping, printable


def made_by(name: str, subject: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report says of the command ``name`` on ``subject``: its ``options`` by their names on the command line.

    None and False are options that were not given. What a command line cannot give, a function or a tensor in the place of a name
    or a path, leaves the name of the command alone.
    """
    given = {key: value for key, value in options.items() if value is not None and value is not False}
    if not isinstance(subject, str | Path) or any(callable(value) for value in given.values()):
        return {"name": name}
    return {"name": name, "subject": str(subject), "options": {key: _plain(value) for key, value in given.items()}}


def command_line(command: Mapping[str, Any]) -> str:
    """Return the line that calls ``command``, of a report that may be foreign; empty where it cannot be called.

    >>> command_line(made_by("audit", "a b.safetensors", {"checks": ["decay", "spectrum"], "images": 8, "data-dir": None}))
    "stabdeq audit 'a b.safetensors' --checks decay,spectrum --images 8"
    """
    if not command.get("name") or not command.get("subject"):
        return ""
    words = ["stabdeq", command["name"], command["subject"]]
    for key, value in mapping(command.get("options")).items():
        text = _text(value)
        # A number below 0 would be taken for an option.
        words += [f"--{key}"] if value is True else [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]
    return shlex.join(map(printable, words))


def draws_images(command: Mapping[str, Any]) -> bool:
    """Return whether ``command`` can be called and draws its images from the test split, where others are named by a path.

    >>> audit = {"name": "audit", "subject": "a.safetensors"}
    >>> draws_images(audit | {"options": {"images": 8}}), draws_images(audit | {"options": {"images": "own.npz"}}), draws_images({})
    (True, False, False)
    """
    return bool(command_line(command)) and not isinstance(mapping(command.get("options")).get("images"), str)


def how_again(command: Mapping[str, Any]) -> str:
    """Return how a report that ``command`` made is made once more, the start of a sentence."""
    line = command_line(command)
    return f"run '{line}' again" if line else "make it again in Python"


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: in Python a number may be NumPy's or a tensor."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bool | int | float | str):
        return value
    return str(value) if isinstance(value, Path) else value.item() if hasattr(value, "item") else str(value)


def _text(value: Any) -> str:
    """Return a value as options take it: a list with commas, and a pair in it, a side of a box, with a colon."""
    if not isinstance(value, list | tuple):
        return printable(value)
    return ",".join(":".join(map(printable, one)) if isinstance(one, list | tuple) else printable(one) for one in value)
