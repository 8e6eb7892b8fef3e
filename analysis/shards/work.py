"""A work: a command, what it is called on, and the options that decide its result, as all of its shards have them in common."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from analysis.measure.sample import environment
from analysis.user_function.function import source_of
from analysis.user_function.onnx_files import load_onnx
from stabdeq.errors import ConfigError, ShardError
from stabdeq.shard import Shard

FUNCTIONS = ("dynamics", "step", "uncertain", "initial", "unsafe", "on")  # options that name code, beside the subject


@dataclass(frozen=True)
class Work:
    """The ``command`` on a ``subject`` with ``options`` by their names on the command line.

    An option is None or False where it is not given, and a list or tuple where it is given several times. ``files`` are the ``digests``
    of before it began, where that is what it was made for.
    """

    command: str
    subject: str
    options: Mapping[str, Any]
    files: Mapping[str, str] | None = None

    def words(self, shard: Shard, folder: Path) -> list[str]:
        """Return the arguments of ``stabdeq`` that write the part of ``shard`` into ``folder``."""
        words = [self.command, self.subject]
        for name, value in self.plain["options"].items():
            given = value if isinstance(value, list) else [value]
            # By "=", since a number below 0 would be taken for an option.
            words += [f"--{name}" if one is True else f"--{name}={one}" for one in given]
        return [*words, f"--shard={shard}", f"--out={folder}"]

    def line(self, shard: Shard, folder: Path) -> str:
        """Return ``words`` as a line for a shell."""
        return shlex.join(["stabdeq", *self.words(shard, folder)])

    @property
    def plain(self) -> dict[str, Any]:
        """The work as a part holds it, with the options that are given."""
        given = {
            name: _plain(value) for name, value in self.options.items() if value is not None and value is not False
        }
        return {"command": self.command, "subject": self.subject, "options": given}


def require_shared(
    shard: Shard | None,
    jobs: int | None,
    ray: bool,
    out: Path | None,
    of_whole: Mapping[str, object],
    of_one: Mapping[str, object] | None = None,
) -> None:
    """Refuse options that make no sense with others.

    ``of_whole`` are by their names those that the whole result is needed for, which a part is not; ``of_one`` those that one process
    alone can meet.
    """
    for option, value in (of_one or {}).items():
        if _is_given(value) and (shard is not None or jobs is not None or ray):
            raise ConfigError(f"{option} is for one process: leave it out, or --shard, --jobs and --ray")
    if shard is None:
        return
    for option, value in (("--jobs", jobs), ("--ray", ray)):
        if _is_given(value):
            raise ConfigError(f"--shard is one of several processes and {option} starts them: give one of both")
    if out is None:
        raise ConfigError("--shard writes a part of the work: say with --out into which folder")
    for option, value in of_whole.items():
        if _is_given(value):
            raise ConfigError(
                f"{option} is of the whole result, and --shard writes a part: leave it out, then stabdeq merge"
            )


def require_part_folder(shard: Shard | None, out: Path | None) -> None:
    """Refuse ``--out`` without ``--shard`` where a whole result goes elsewhere."""
    if out is not None and shard is None:
        raise ConfigError(
            "--out is the folder for the part of a --shard: give both, or --json FILE for the whole result"
        )


def begun(work: Work) -> Work:
    """Return ``work``, which is about to begin, with the ``digests`` of now."""
    return replace(work, files=digests(work))


def files_read(work: Work, loaded: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the SHA-256 of what ``work`` ran; ``loaded`` are those of bytes that were kept as they were read.

    Raises ShardError where a file was changed since the work began: which of both was run, nobody can tell.
    """
    now = digests(work)
    for name, digest in now.items():
        if work.files is not None and name not in loaded and digest != work.files[name]:
            location = work.subject if name == "subject" else work.options[name]
            raise ShardError(f"{location} was changed while this shard ran: run it again")
    return {**now, **loaded}


def digests(work: Work) -> dict[str, str]:
    """Return the SHA-256 of what ``work`` runs: of each file that is named, or in which the module of "module:name" stands; raises
    ConfigError where one that is to be an ONNX file is none.

    What a module imports, in turn, is not looked at.
    """
    named = {"subject": work.subject} | {name: work.options[name] for name in FUNCTIONS if work.options.get(name)}
    return {name: _digest(str(value)) for name, value in named.items()}


def _digest(location: str) -> str:
    if location.endswith(".onnx"):
        return load_onnx(location).sha256  # its data may lie in other files
    path = Path(location) if Path(location).is_file() else source_of(location)
    return sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else ""


def timeless_environment() -> dict[str, str]:
    """Return what a report says of the machine that this runs on, but for the date."""
    return {name: value for name, value in environment().items() if name != "date"}


def _is_given(value: Any) -> bool:
    return value is not None and value is not False


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else str(value)
