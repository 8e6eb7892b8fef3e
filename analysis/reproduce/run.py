"""Runs jobs that are missing, as many at a time as an engine has room for; one that fails does not stop the others."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Protocol

from analysis.reproduce.jobs import Attack, Training
from analysis.reproduce.times import Job, Times, span
from stabdeq.errors import ConfigError
from stabdeq.files import make_folder

End = tuple[int, float]  # exit code, seconds
LAST_BYTES = 10_000  # of a log, that hold its last line


class Engine(Protocol):
    """What runs command lines, here or elsewhere."""

    @property
    def lanes(self) -> int:
        """How many run at a time."""
        ...

    def submit(self, arguments: list[str], log: Path) -> "Future[End]":
        """Run ``python -m stabdeq`` with ``arguments``, its output to ``log``, and promise its end."""
        ...

    def stop(self) -> None:
        """End what runs; start nothing more."""
        ...


class LocalEngine:
    """Runs at most ``lanes`` processes on this machine, where there are several of one thread each, or as many as OMP_NUM_THREADS says."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.environment = environment(own_home())
        if lanes > 1:
            self.environment.setdefault("OMP_NUM_THREADS", "1")
        self._pool = ThreadPoolExecutor(lanes)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def submit(self, arguments: list[str], log: Path) -> "Future[End]":
        """Run a command line when a lane is free."""
        return self._pool.submit(self._run, arguments, log)

    def _run(self, arguments: list[str], log: Path) -> End:
        started = time.monotonic()
        with log.open("wb") as file:
            with self._lock:
                if self._stopped:
                    return 130, 0.0
                process = subprocess.Popen(
                    command_line(arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                    process_group=0 if os.name == "posix" else None,  # what a job starts ends with it
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        return code, time.monotonic() - started

    def stop(self) -> None:
        """End the processes: what they write is whole or not there, and training goes on from its last epoch."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _terminate(process)
        self._pool.shutdown(cancel_futures=True)


class RayEngine:
    """Runs jobs through Ray (optional extra ``ray``), on every machine of the cluster that RAY_ADDRESS names, or on this one.

    Each job takes one core, and one GPU where the cluster has any. The folders must be the same on every machine. A job whose machine
    or process is lost is begun anew so many times as ``retries`` says.
    """

    def __init__(self, retries: int = 0) -> None:
        try:
            ray = import_module("ray")
        except ModuleNotFoundError:
            raise ConfigError(
                "--ray needs Ray, which is not installed: pip install ray, or leave --ray out and use --jobs"
            ) from None
        self._ray = ray
        ray.init(ignore_reinit_error=True, logging_level="warning")
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self.lanes = max(gpus or int(resources.get("CPU", 1)), 1)
        self._remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=retries)(run_elsewhere)

    def submit(self, arguments: list[str], log: Path) -> "Future[End]":
        """Run a command line where the cluster has room, in the folder that this process runs in."""
        return self._remote.remote(arguments, str(log), str(Path.cwd()), own_home()).future()

    def stop(self) -> None:
        """Leave the cluster, which ends this driver's jobs."""
        self._ray.shutdown()


def run_elsewhere(arguments: list[str], log: str, folder: str, home: str | None) -> End:
    """Run one command line in ``folder`` on the machine that this is called on; ``home`` as ``own_home`` gave it to the caller."""
    started = time.monotonic()
    with (Path(folder) / log).open("wb") as file:
        end = subprocess.run(
            command_line(arguments),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(home),
        )
    return end.returncode, time.monotonic() - started


def command_line(arguments: Sequence[str]) -> list[str]:
    """Return the whole command line of a job, which ends with this process.

    With -P Python imports nothing from the current folder, where a safetensors.py may lie.
    """
    return [sys.executable, "-P", "-m", "analysis.reproduce.child", str(os.getpid()), *arguments]


def own_home() -> str | None:
    """Return the folder of our packages where this process finds them only since it was started there by ``python -m``."""
    home = Path(__file__).resolve().parents[2]
    return str(home) if not sys.flags.safe_path and Path(sys.path[0]).resolve() == home else None


def environment(home: str | None) -> dict[str, str]:
    """Return the variables of a job's process, which finds our packages in ``home``, where that is given."""
    path = [home, *filter(None, [os.environ.get("PYTHONPATH")])] if home else []
    return os.environ | ({"PYTHONPATH": os.pathsep.join(path)} if path else {})


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    if os.name != "posix":
        process.terminate()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def run_jobs(
    jobs: Sequence[Job], engine: Engine, say: Callable[[str], None], *, seconds: float = math.inf
) -> dict[str, str]:
    """Run ``jobs``, each attack after its training where that is among them; return why the failed ones failed, by name.

    ``say`` gets a line at the end of each job. After ``seconds`` the engine is stopped, and ``say`` gets what is left: that is
    no failure. On an interrupt the engine is stopped, and the interrupt goes on.
    """
    waiting = list(jobs)
    running: dict[Future[End], Job] = {}
    failures: dict[str, str] = {}
    times = Times(jobs)
    end = time.monotonic() + seconds
    try:
        while waiting or running:
            if time.monotonic() > end:
                engine.stop()
                _say_what_is_left([*running.values(), *waiting], times, engine, say)
                return failures
            waiting = _start_ready(waiting, running, failures, engine, say)
            # A limited wait lets an interrupt through on every platform.
            for future in wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                outcome = _end(job, future, failures, times)
                unfinished = [*waiting, *running.values()]
                left = times.left(unfinished, engine.lanes)
                say(f"{len(jobs) - len(unfinished)}/{len(jobs)}  {job.name}  {outcome}; {left}")
    except BaseException:
        engine.stop()
        raise
    return failures


def _say_what_is_left(jobs: Sequence[Job], times: Times, engine: Engine, say: Callable[[str], None]) -> None:
    names = ", ".join(job.name for job in jobs[:3])
    more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
    say(f"the time is over; next: {names}{more}, {times.left(jobs, engine.lanes)}: run the same command again")


def _start_ready(
    waiting: list[Job],
    running: "dict[Future[End], Job]",
    failures: dict[str, str],
    engine: Engine,
    say: Callable[[str], None],
) -> list[Job]:
    """Start the jobs whose training is not to come; return those that still wait."""
    trained = {job.name for job in [*waiting, *running.values()] if isinstance(job, Training)}
    still: list[Job] = []
    for job in waiting:
        if isinstance(job, Attack) and job.training.name in failures:
            failures[job.name] = "its training failed"
            say(f"{job.name}  not run: its training failed")
        elif isinstance(job, Attack) and job.training.name in trained:
            still.append(job)
        else:
            make_folder(job.log.parent)
            running[engine.submit(job.command(), job.log)] = job
    return still


def _end(job: Job, future: "Future[End]", failures: dict[str, str], times: Times) -> str:
    """Note how ``job`` ended, and return it in words."""
    try:
        code, elapsed = future.result()
        if code == 0 and job.is_done():
            times.note(job, elapsed)
            return span(elapsed)
        reason = (
            f"exit code {code}: {last_line(job.log)} (see {job.log})"
            if code
            else "it ended well, and left another result than asked"
        )
    except Exception as error:  # of the engine, or of a result that cannot be read: the other jobs go on
        reason = " ".join(str(error).split()) or type(error).__name__
    failures[job.name] = reason
    return f"failed: {reason}"


def last_line(log: Path) -> str:
    """Return the last line of a job's output that is not empty, or in words that there is none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_BYTES))
        lines = file.read(LAST_BYTES).decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
