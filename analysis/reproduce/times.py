"""How long jobs take, from those that ended and from the epochs of trainings, and what is left of a table."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from analysis.reproduce.jobs import Attack, Training
from stabdeq.metrics_lines import LARGEST, parsed_metrics
from stabdeq.reading import read_regular

Job = Training | Attack


class Times:
    """Seconds of jobs, by data set and action; those of trainings by epoch, from the metrics that runs left in ``out``."""

    def __init__(self, jobs: Sequence[Job] = ()) -> None:
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        trainings = [job if isinstance(job, Training) else job.training for job in jobs]
        for data, metrics in dict.fromkeys((training.data, training.metrics) for training in trainings):
            self._seconds[data, "epoch"] += _epochs(metrics)

    def note(self, job: Job, seconds: float) -> None:
        """Keep how long ``job`` took; a training's epochs tell more than its whole, part of which may have been done before."""
        if isinstance(job, Training):
            self._seconds[job.data, "epoch"] += _epochs(job.metrics) or [seconds / job.epochs]
        else:
            self._seconds[job.data, job.action].append(seconds)

    def expected(self, job: Job) -> float | None:
        """Return the seconds that ``job`` will take, by the median of its like; None where none has ended."""
        if isinstance(job, Attack):
            known = self._seconds[job.data, job.action]
            return statistics.median(known) if known else None
        own = _epochs(job.metrics)
        known = own or self._seconds[job.data, "epoch"]
        return statistics.median(known) * (job.epochs - len(own)) if known else None

    def left(self, jobs: Sequence[Job], lanes: int) -> str:
        """Return in words how long ``jobs`` take, ``lanes`` at a time: "more than" where some have no like that ended."""
        known = [self.expected(job) for job in jobs]
        total = sum(seconds for seconds in known if seconds is not None)
        exact = all(seconds is not None for seconds in known)
        return f"{'about' if exact else 'more than'} {span(total / max(min(lanes, len(jobs)), 1))} left"


def _epochs(metrics: Path) -> list[float]:
    """Return the seconds of the epochs in a training's metrics; a line that does not say counts for nothing."""
    try:
        lines = read_regular(metrics, LARGEST).splitlines()
    except OSError:
        return []
    seconds = []
    for line in lines:
        with suppress(ValueError, KeyError):
            seconds.append(float(parsed_metrics(line)["seconds"]))
    return [each for each in seconds if 0 <= each < math.inf]


def span(seconds: float) -> str:
    """Return a time in words.

    >>> span(7.4), span(100), span(9000)
    ('7 s', '1 min 40 s', '2 h 30 min')
    """
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
