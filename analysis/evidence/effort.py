"""How hard a search for a counterexample is made."""

from dataclasses import dataclass, replace

DRAWN, CLIMBING = 2**28, 2**20  # numbers in all states that are drawn in a round, and in those that climb


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to search: states drawn per round, falsifier starts and steps, and seconds after which no round begins.

    Without ``seconds`` there is one round, without ``starts`` no climb. ``shells`` are the least number of states towards the centre.
    """

    samples: int = 16384
    starts: int = 64
    steps: int = 80
    shells: int = 256
    seconds: float | None = None

    def affordable(self, dim: int) -> "Effort":
        """Return the effort with no more states than fit time and memory, of ``dim`` numbers each; the same up to 16384."""
        samples = min(self.samples, max(64, DRAWN // dim))
        return replace(self, samples=samples, starts=min(self.starts, max(2, CLIMBING // dim)))
