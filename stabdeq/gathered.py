"""Reports of assertions, for who listens: the pytest plugin gathers those of a session."""

from collections.abc import Callable
from typing import Any

LISTENERS: list[Callable[[Any], None]] = []


def tell(report: Any) -> None:
    """Give ``report``, a ``stabdeq.Report``, to all that listen."""
    for listener in LISTENERS:
        listener(report)
