"""A work: a command, what it is called on, and the options that decide its result, as all of its shards have them in common."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from analysis.measure.sample import environment
from stabdeq.errors import ConfigError
from stabdeq.shard import Shard


@dataclass(frozen=True)
class Work:
    """The ``command`` on a ``subject`` with ``options`` by their names on the command line.

    An option is None or False where it is not given, and a list or tuple where it is given several times.
    """

    command: str
    subject: str
    options: Mapping[str, Any]

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


def require_alone(shard: Shard | None, jobs: int | None, out: Path | None, others: Mapping[str, object]) -> None:
    """Refuse options that ``--shard`` makes no sense with: ``others`` are by their names what the whole result is asked for."""
    if shard is None:
        return
    if jobs is not None:
        raise ConfigError("--shard is one of several processes and --jobs starts them: give one of both")
    if out is None:
        raise ConfigError("--shard writes a part of the work: say with --out into which folder")
    for option, value in others.items():
        if value is not None and value is not False:
            raise ConfigError(
                f"{option} is of the whole result, and --shard writes a part: leave it out, then stabdeq merge"
            )


def digest_of(work: Work) -> str:
    """Return the SHA-256 of the file that the subject of ``work`` is, or in which its module stands, which was imported before."""
    path = Path(work.subject)
    if not path.is_file():
        path = Path(getattr(sys.modules[work.subject.partition(":")[0].removesuffix(".py")], "__file__", None) or "")
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def timeless_environment() -> dict[str, str]:
    """Return what a report says of the machine that this runs on, but for the date."""
    return {name: value for name, value in environment().items() if name != "date"}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else str(value)
