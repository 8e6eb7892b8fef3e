"""A session of pytest that collects its tests once, and leaves it to us which of them to run, and how often."""

from collections.abc import Callable
from itertools import pairwise

import pytest


class Collected:
    """A plugin of pytest: once the tests are collected, ``work`` is called with this plugin, in place of their run."""

    def __init__(self, work: Callable[["Collected"], None]) -> None:
        self._work = work
        self._items: dict[str, pytest.Item] = {}
        self._failed = False

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Work; None where a test file could not be imported, so that pytest says so."""
        if session.testsfailed:
            return None
        self._items = {item.nodeid: item for item in session.items}
        self._work(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure, be it of a test, or of a fixture before or after it."""
        self._failed |= report.failed

    def first_failure(self, names: list[str], alive: Callable[[], None]) -> str | None:
        """Run the named tests in this order, and call ``alive`` before each; return the first that fails, or None."""
        for name, following in pairwise([*names, None]):
            alive()
            item = self._items[name]
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following and self._items[following])
            if self._failed:
                return name
        return None
