"""Command-line arguments that several commands share: their types, and files that must be writable."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from stabdeq.errors import ConfigError
from stabdeq.files import require_names
from stabdeq.shard import Shard


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number; cyclopts on its own would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f'"{tokens[0].value}" is not a whole number') from None


def text(_: Any, tokens: Sequence[Token]) -> str:
    """Read an option's value as it stands."""
    return tokens[0].value


def renamed(name: str, old: str, read: Callable[[Any, Sequence[Token]], Any] = _whole) -> Parameter:
    """Return the names of an option that was called ``old``, which goes on working for one version, with a note on stderr.

    Only one of the two may be given. ``read`` makes the value of it: a whole number, or a ``text``.
    """

    def noted(sort: Any, tokens: Sequence[Token]) -> Any:
        if tokens[0].keyword == old:
            print(f"stabdeq: {old} is now {name}", file=sys.stderr)
        return read(sort, tokens)

    return Parameter(name=(name, old), converter=noted)


def count_or_path(_: Any, tokens: Sequence[Token]) -> tuple[int | Path, ...]:
    """Read each value as a whole number from 1 up where it is a number, as a path otherwise."""
    values: list[int | Path] = []
    for token in tokens:
        try:
            number = float(token.value)
        except ValueError:
            values.append(Path(token.value))
            continue
        if not (number >= 1 and number.is_integer()):
            raise ValueError(f'"{token.value}" is not a whole number from 1 up')
        values.append(int(number))
    return tuple(values)


def count_and_file(given: Sequence[int | Path]) -> tuple[int | None, Path | None]:
    """Return how many images an option names, and where images of one's own lie; None for what it does not say.

    Raises ConfigError where it names two numbers or two places.
    """
    counts = [each for each in given if isinstance(each, int)]
    files = [each for each in given if isinstance(each, Path)]
    if len(counts) > 1 or len(files) > 1:
        raise ConfigError(f"--images {' '.join(map(str, given))}: expected one number and one file or folder at most")
    return (counts[0] if counts else None), (files[0] if files else None)


def _shard(_: Any, tokens: Sequence[Token]) -> Shard:
    return Shard.parse(tokens[0].value)


OptionalWholeNumber = Annotated[int | None, Parameter(converter=_whole)]
OptionalCount = Annotated[int | None, Parameter(converter=_whole, validator=Number(gte=1))]
Trusted = Annotated[
    bool,
    Parameter(
        negative="",
        help="The checkpoint is your own: its solver may ask for a C++ compiler, and for more work than a file of somebody "
        "else's may.",
    ),
]
Quiet = Annotated[bool, Parameter(negative="", help="Show no progress. Results and errors are printed as ever.")]
# Of what can be shared by several processes.
Ray = Annotated[
    bool,
    Parameter(
        negative="",
        help="Run these processes on the machines of the Ray cluster that RAY_ADDRESS names, which share this folder: --jobs of them, or "
        "as many as it runs at a time (pip install ray).",
    ),
]
OptionalShard = Annotated[
    Shard | None,
    Parameter(
        converter=_shard,
        accepts_keys=False,
        n_tokens=1,
        help="I/N, such as 2/4: do the I-th of N parts of the work, into the folder --out; 'stabdeq merge' joins them.",
    ),
]
Count = Annotated[int, Parameter(converter=_whole, validator=Number(gte=1))]
Seed = Annotated[int, Parameter(converter=_whole, validator=Number(gte=0, lt=2**63))]


def require_files(files: Mapping[str, Path | None], checkpoint: Path) -> None:
    """Refuse, before the work begins, of ``files`` by their options one that cannot be written after it, or that two options name."""
    options: dict[str, str] = {}
    for option, path in files.items():
        require_writable(option, path, checkpoint)
        if path is not None and (other := options.setdefault(os.path.realpath(path), option)) != option:
            raise ConfigError(f"{option} {path} is the file of {other} too: name another file")


def require_writable(option: str, path: Path | None, checkpoint: Path) -> None:
    """Refuse before the work begins a file that could not be written after it, or that is the checkpoint."""
    if path is None:
        return
    require_names(path)
    if os.path.realpath(path) == os.path.realpath(checkpoint):
        raise ConfigError(f"{option} {path} is the checkpoint itself: name another file")
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a directory: name a file in it")
    if path.exists() and not path.is_file():  # /dev/stdout: a whole file is put in its place
        raise ConfigError(f"{option} {path} is a device or a pipe: name a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: there is no directory {path.parent}: make it first")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{option} {path}: {path.parent} cannot be written: name another place")
