"""All shards of a work as processes on this machine, of one thread each."""

import shutil
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from tempfile import mkdtemp

from analysis.reproduce.run import End, LocalEngine, last_line
from analysis.shards.folder import parts_in
from analysis.shards.part import Part, place
from analysis.shards.work import Work
from stabdeq.errors import ShardError
from stabdeq.shard import Shard


def parts_by_jobs(work: Work, jobs: int) -> list[Part]:
    """Do ``work`` in ``jobs`` processes at once, a shard each, and return their parts in order.

    Raises ShardError where a process fails, which says why, and where the parts of the others lie.
    """
    folder = Path(mkdtemp(prefix="stabdeq-"))
    engine = LocalEngine(jobs)
    shards = [Shard(index, jobs) for index in range(1, jobs + 1)]
    logs = {shard: folder / f"{shard.index}-of-{shard.count}.log" for shard in shards}
    running = {engine.submit(work.words(shard, folder), logs[shard]): shard for shard in shards}
    try:
        codes = _ends(running)
    except BaseException:
        engine.stop()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    failed = [shard for shard in shards if codes[shard]]
    reasons = {shard: f"exit code {codes[shard]}: {last_line(logs[shard])}" for shard in failed}
    kept = [shard for shard in shards if place(folder, work.command, shard).exists()]
    if failed and kept:  # hours of work, perhaps
        raise ShardError(
            f"shard {failed[0]} failed, {reasons[failed[0]]}: the parts of {', '.join(map(str, kept))} are in {folder}: run "
            f"'{work.line(failed[0], folder)}', then stabdeq merge {folder}"
        )
    try:
        if failed:
            raise ShardError(f"shard {failed[0]} failed, {reasons[failed[0]]}")
        return parts_in(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ends(running: "dict[Future[End], Shard]") -> dict[Shard, int]:
    """Return the exit code of each shard, when all have ended."""
    left = set(running)
    while left:
        left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED).not_done  # lets an interrupt through everywhere
    return {shard: future.result()[0] for future, shard in running.items()}
