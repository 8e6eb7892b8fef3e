"""What a person sees while an audit runs: which check it is at and, where that can be told, about how long it has to go."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from analysis.findings.catalogue import rows

if TYPE_CHECKING:
    from rich.console import Console

# Less work than this tells too little of the rest.
TELLING = 0.1


class Estimate:
    """How long steps that each take a known share of the work have to go, from the time that those before took."""

    def __init__(self, shares: Mapping[str, float], now: float) -> None:
        self.shares, self.began, self.since = shares, now, now
        self.done = 0.0  # share of the work

    def begin(self, step: str, now: float) -> None:
        """Note that the steps before ``step`` are done at ``now`` (s)."""
        names = list(self.shares)
        if step in names:
            before = sum(self.shares[name] for name in names[: names.index(step)])
            self.done, self.since = before / sum(self.shares.values()), now

    def left(self, now: float) -> float | None:
        """Return the seconds left at ``now`` (s), None where that cannot be told: too early, or later than was thought."""
        if self.done < TELLING:
            return None
        left = (self.since - self.began) / self.done * (1 - self.done) - (now - self.since)
        return left if left > 0 else None


@contextmanager
def shown(checks: Collection[str], console: "Console") -> "Iterator[Callable[[str], None]]":
    """Yield what is to be told of each step that begins; a terminal shows it, with the time spent and the time left."""
    from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    ahead = [check for check in rows() if check.name in checks]
    names = [check.name for check in ahead]
    # What a check that tells of its steps takes hangs on the extractor, so that the checks before it tell nothing of it.
    stepping = [check for check in ahead if "" not in check.seconds]
    shares = {} if stepping else {step: seconds for check in ahead for step, seconds in check.steps.items()}
    estimate = Estimate(shares, time.monotonic())

    class TimeLeft(ProgressColumn):
        def render(self, task: Task) -> Text:
            left = estimate.left(time.monotonic())
            return Text("" if left is None else f"about {spoken(left)} left", style="dim")

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeLeft())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("auditing", total=None)

        def on_step(step: str) -> None:
            nonlocal estimate
            for check in stepping:
                if step == next(iter(check.steps)):
                    estimate = Estimate(check.steps, time.monotonic())
            estimate.begin(step, time.monotonic())
            name = step.partition(":")[0]
            place = f" ({names.index(name) + 1} of {len(names)})" if name in names else ""
            bar.update(task, description=f"auditing: {step}{place}")

        yield on_step


def spoken(seconds: float) -> str:
    """Return a time no more exactly than it can be known.

    >>> spoken(3.2), spoken(41), spoken(130)
    ('5 s', '45 s', '3 min')
    """
    return f"{5 * math.ceil(seconds / 5)} s" if seconds <= 60 else f"{math.ceil(seconds / 60)} min"
