"""All shards of a work as processes, on this machine or through Ray."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp

from analysis.reproduce.run import End, Engine, LocalEngine, RayEngine, last_line
from analysis.shards.folder import parts_in
from analysis.shards.part import Part, place
from analysis.shards.work import Work
from stabdeq.errors import ShardError
from stabdeq.locks import NO_FOLLOW, lock
from stabdeq.shard import Shard

PREFIX = "stabdeq-"  # of the folders of parts
HELD = ".parts-lock"  # in them alone: a training that was killed leaves a lock of another name, and is no rubbish
RETRIES = 3  # of a shard whose machine is lost: begun anew, it leaves the same part


def parts_by_jobs(work: Work, jobs: int | None, *, ray: bool = False) -> list[Part]:
    """Do ``work`` in ``jobs`` processes at once, a shard each, and return their parts in order.

    With ``ray`` they run on the machines of a Ray cluster, which share this folder, by default as many as it runs at a time. Raises
    ConfigError where Ray is not installed, and ShardError where a process fails, which says why, and where the parts of the others lie.
    """
    engine: Engine = RayEngine(RETRIES) if ray else LocalEngine(jobs or 1)
    with _new_folder(Path.cwd() if ray else Path(gettempdir())) as folder:
        return _parts(work, engine, jobs or engine.lanes, folder)


@contextmanager
def _new_folder(where: Path) -> Iterator[Path]:
    """Yield a new folder in ``where``, locked while the block runs; those of commands that were killed are removed.

    What the block leaves in it stays: without a lock nothing tells it from what a user keeps.
    """
    for left in where.glob(f"{PREFIX}*/{HELD}"):
        with suppress(OSError), open(os.open(left, os.O_RDWR | os.O_NONBLOCK | NO_FOLLOW), "rb") as file:
            if lock(file.fileno()):
                shutil.rmtree(left.parent)
    folder = Path(mkdtemp(prefix=PREFIX, dir=where))
    new, held = folder / "new", folder / HELD
    with new.open("xb") as file:
        if lock(file.fileno()):
            new.rename(held)  # locked under this name from the start
        else:  # where there are no locks nothing is removed
            file.close()
            new.unlink()
        try:
            yield folder
        finally:
            held.unlink(missing_ok=True)


def _parts(work: Work, engine: Engine, count: int, folder: Path) -> list[Part]:
    shards = [Shard(index, count) for index in range(1, count + 1)]
    logs = {shard: folder / f"{shard.index}-of-{shard.count}.log" for shard in shards}
    try:
        running = {engine.submit(work.words(shard, folder), logs[shard]): shard for shard in shards}
        reasons = _reasons(running, logs)
        for shard in shards:  # code of the user's may end a process as if all were well
            if not (reasons[shard] or place(folder, work.command, shard).exists()):
                reasons[shard] = f"exit code 0 without a part: {last_line(logs[shard])}"
    except BaseException:
        engine.stop()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    failed = [shard for shard in shards if reasons[shard]]
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


def _reasons(running: "dict[Future[End], Shard]", logs: dict[Shard, Path]) -> dict[Shard, str]:
    """Return why each shard failed, empty of one that did not, when all have ended."""
    left = set(running)
    while left:
        left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED).not_done  # lets an interrupt through everywhere
    return {shard: _reason(future, logs[shard]) for future, shard in running.items()}


def _reason(end: "Future[End]", log: Path) -> str:
    try:
        code = end.result()[0]
    except Exception as error:  # of the engine, whose machine is gone: what the others did stays
        return " ".join(str(error).split()) or type(error).__name__
    return f"exit code {code}: {last_line(log)}" if code else ""
