"""What a person sees while an audit runs: which check it is at and, where that can be told, about how long it has to go."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Seconds on the model of `make demo`: what each step takes of the whole is much the same for other models.
CHECKS = {
    "equilibrium": 2.0,
    "positivity": 1.0,
    "convexity": 3.0,
    "decay": 20.0,
    "separation": 2.5,
    "spectrum": 0.2,
    "convergence": 0.1,
}
# Apart from those: these attack images, which depends on the extractor, and the checks before it do not.
ROBUSTNESS = {
    "robustness: the attack at every eps": 6.0,
    "robustness: more steps and restarts": 4.0,
    "robustness: rivals without gradients, and surrogates": 8.0,
    "robustness: gradients, repeats and equilibria": 1.0,
}
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

    ahead = [name for name in [*CHECKS, "robustness"] if name in checks]
    # What is left before the attacks cannot be told while it is unknown what they will take.
    shares = {name: share for name, share in CHECKS.items() if name in checks and "robustness" not in checks}
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
            check = step.partition(":")[0]
            if step == next(iter(ROBUSTNESS)):
                estimate = Estimate(ROBUSTNESS, time.monotonic())
            estimate.begin(step, time.monotonic())
            place = f" ({ahead.index(check) + 1} of {len(ahead)})" if check in ahead else ""
            bar.update(task, description=f"auditing: {step}{place}")

        yield on_step


def spoken(seconds: float) -> str:
    """Return a time no more exactly than it can be known.

    >>> spoken(3.2), spoken(41), spoken(130)
    ('5 s', '45 s', '3 min')
    """
    return f"{5 * math.ceil(seconds / 5)} s" if seconds <= 60 else f"{math.ceil(seconds / 60)} min"
