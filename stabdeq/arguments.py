"""Command-line arguments that several commands share: their types, and files that must be writable."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from stabdeq.errors import ConfigError


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number; cyclopts on its own would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f'"{tokens[0].value}" is not a whole number') from None


OptionalWholeNumber = Annotated[int | None, Parameter(converter=_whole)]
Count = Annotated[int, Parameter(converter=_whole, validator=Number(gte=1))]
Seed = Annotated[int, Parameter(converter=_whole, validator=Number(gte=0, lt=2**63))]


def require_writable(option: str, path: Path | None, checkpoint: Path) -> None:
    """Refuse before the work begins a file that could not be written after it, or that is the checkpoint."""
    if path is None:
        return
    if path.resolve() == checkpoint.resolve():
        raise ConfigError(f"{option} {path} is the checkpoint itself: name another file")
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a directory: name a file in it")
    if path.exists() and not path.is_file():  # /dev/stdout: a whole file is put in its place
        raise ConfigError(f"{option} {path} is a device or a pipe: name a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: there is no directory {path.parent}: make it first")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{option} {path}: {path.parent} cannot be written: name another place")
