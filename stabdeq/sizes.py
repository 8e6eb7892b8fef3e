"""Sizes that whoever makes a part of a model gives: how many numbers, channels or places there are."""

from stabdeq.errors import ConfigError


def require_sizes(what: str, **sizes: int) -> None:
    """Raise ConfigError where one of the ``sizes`` of ``what`` is below 1: of no numbers there is nothing to compute."""
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{what} with {name} = {size}: expected a whole number from 1 on")
