"""The folder into which the shards of one work wrote their parts, found complete."""

from itertools import islice
from pathlib import Path

from analysis.shards.part import SUFFIX, Part, differences, read_part
from analysis.shards.work import Work
from stabdeq.errors import ShardError
from stabdeq.shard import Shard

MOST_NAMED = 20


def parts_in(folder: Path) -> list[Part]:
    """Return the parts in ``folder``, each shard once and in order.

    Raises ShardError where there are none, one is missing or damaged, or they are not all of one work.
    """
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise ShardError(f"{folder}: no parts there, files *{SUFFIX}: give the folder that --shard wrote into")
    first = read_part(files[0])
    found: dict[Shard, Part] = {}
    for path in files:
        part = read_part(path)
        _require_one_work(path, part, files[0], first)
        if not part.is_again(found.setdefault(part.shard, part)):
            raise ShardError(f"{path}: shard {part.shard} is there twice, and says something else: remove one of both")
    _require_complete(folder, found, first)
    return [found[shard] for shard in sorted(found)]


def _require_one_work(path: Path, part: Part, other: Path, first: Part) -> None:
    if said := next(differences(part.work, first.work), ""):
        raise ShardError(f"{path} and {other.name} are not of one work: {said}: give each work a folder of its own")
    if part.shard.count != first.shard.count:
        raise ShardError(
            f"{path} is one of {part.shard.count} shards, {other.name} one of {first.shard.count}: give each division a folder of its own"
        )


def _require_complete(folder: Path, found: dict[Shard, Part], first: Part) -> None:
    count = first.shard.count
    missing = count - len(found)
    if missing:
        # A part may be of any count: its shards are not listed.
        lost = (shard for index in range(1, count + 1) if (shard := Shard(index, count)) not in found)
        named = list(islice(lost, MOST_NAMED))
        work = Work(first.work["command"], first.work["subject"], first.work["options"])
        names = ", ".join(map(str, named)) + (", ..." if missing > len(named) else "")
        raise ShardError(f"{folder}: {missing} of {count} shards missing: {names}: run {work.line(named[0], folder)}")
