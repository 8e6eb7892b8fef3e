"""A shard: the I-th of N processes that share a work, on one machine or on many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from stabdeq.errors import ConfigError

Unit = TypeVar("Unit")


@dataclass(frozen=True, order=True)
class Shard:
    """The shard ``index``, from 1, of ``count``; raises ConfigError where it is none of them.

    >>> Shard.parse("2/4").of("abcdefg")
    ['b', 'f']
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ConfigError(f"shard {self.index}/{self.count}: expected I/N, I from 1 to N, such as 2/4")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard that ``text`` writes as "I/N"; raise ConfigError where it writes none."""
        index, _, count = text.partition("/")
        if not (index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
            raise ConfigError(f"shard {text!r}: expected I/N, I from 1 to N, such as 2/4")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, units: Sequence[Unit]) -> list[Unit]:
        """Return those of the work's ``units`` that are this shard's, none where there are fewer units than shards."""
        return list(units[self.index - 1 :: self.count])


WHOLE = Shard(1, 1)
