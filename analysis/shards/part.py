"""The file that a shard leaves: what it found, of which work, and a hash of both."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from analysis.report.reading import MAX_DEPTH, is_too_deep
from analysis.shards.work import Work
from stabdeq.errors import ShardError, StabdeqError
from stabdeq.files import encoded, make_folder, replace_file, require_folder, strict
from stabdeq.reading import of_single_keys, read_regular
from stabdeq.shard import Shard

SCHEMA = 1
SUFFIX = ".part.json"
LARGEST = 2**30  # bytes
_TIMES = ("seconds", "date")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one ``shard`` of a work found.

    ``work`` is what all its shards have in common: that of ``Work.plain``, the SHA-256 of what was read ("files"), the
    "environment" that it ran in, and all its "units", of which the shard did its own. ``result`` is plain data.
    """

    shard: Shard
    work: dict[str, Any]
    result: dict[str, Any]

    @property
    def units(self) -> list[Any]:
        """What of the work this shard did."""
        return self.shard.of(self.work["units"])

    def is_again(self, other: "Part") -> bool:
        """Whether both say the same, but for times."""
        return (
            self.shard == other.shard and self.work == other.work and _timeless(self.result) == _timeless(other.result)
        )


def place(folder: Path, command: str, shard: Shard) -> Path:
    """Return where the part of ``shard`` lies in ``folder``."""
    return folder / f"{command}-{shard.index}-of-{shard.count}{SUFFIX}"


def require_free(folder: Path, work: Work, shard: Shard) -> None:
    """Refuse, before the work begins, a folder that cannot be made, or where the part of another work lies in the place of this."""
    require_folder(folder)
    path = place(folder, work.command, shard)
    if not path.exists():
        return
    found = read_part(path)
    if said := next(differences(found.work, {**found.work, **work.plain}), ""):
        raise ShardError(f"{path} is the part of another work: {said}: name another --out, or remove it")


def write_part(folder: Path, part: Part) -> Path:
    """Write ``part`` into ``folder``, made where missing, in the place of an earlier one; return the path.

    Raises FileError where it cannot be written.
    """
    make_folder(folder)
    path = place(folder, part.work["command"], part.shard)
    plain = strict({"schema": SCHEMA, "shard": str(part.shard), "work": part.work, "result": part.result})
    replace_file(path, encoded(json.dumps({"sha256": _digest(plain), "part": plain}, allow_nan=False) + "\n"))
    return path


def read_part(path: Path) -> Part:
    """Return the part in the file ``path``; raise ShardError where it holds none, is truncated, or was changed."""
    try:
        plain = json.loads(read_regular(path, LARGEST), object_pairs_hook=of_single_keys)
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}: give a folder of parts that --shard wrote") from None
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path}: truncated or broken ({error}): copy it again, or run its shard again") from None
    try:
        if is_too_deep(plain):
            raise ShardError(
                f"{path}: nested more than {MAX_DEPTH} levels deep, as no part is: take it out of the folder"
            )
        part, told = plain["part"], plain["sha256"]
        if told != _digest(part):
            raise ShardError(f"{path}: changed since it was written, its SHA-256 is another: run its shard again")
        if part["schema"] != SCHEMA:
            raise ShardError(
                f"{path}: a part of schema {part['schema']}, expected {SCHEMA}: run all shards by one version"
            )
        found = Part(shard=Shard.parse(part["shard"]), work=part["work"], result=part["result"])
        _require_form(found)
        return found
    except ShardError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, StabdeqError):
        raise ShardError(f"{path}: no part that --shard wrote: take it out of the folder") from None


def differences(told: dict[str, Any], other: dict[str, Any], of: str = "") -> Iterator[str]:
    """Yield in words where two works differ: "options.seed is 1, not 0"."""
    for key in dict.fromkeys([*other, *told]):
        one, two = told.get(key), other.get(key)
        if isinstance(one, dict) and isinstance(two, dict):
            yield from differences(one, two, f"{of}{key}.")
        elif one != two:
            yield f"{of}{key} is {_short(one)}, not {_short(two)}"


def _require_form(part: Part) -> None:
    work = part.work
    if not all(type(work[key]) is str for key in ("command", "subject")) or type(work["units"]) is not list:
        raise TypeError
    if not all(type(item) is dict for item in (work["options"], work["files"], work["environment"], part.result)):
        raise TypeError


def _digest(plain: Any) -> str:
    return sha256(encoded(json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":")))).hexdigest()


def _timeless(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _timeless(value) for key, value in plain.items() if key not in _TIMES}
    return [_timeless(item) for item in plain] if isinstance(plain, list) else plain


def _short(value: Any) -> str:
    return "not given" if value is None else str(value)[:80]
