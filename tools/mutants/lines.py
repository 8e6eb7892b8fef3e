"""Which tests run which lines: a mutant is shown to the tests that run its line alone."""

import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest


class Lines:
    """A plugin of pytest that follows its tests through ``files``.

    ``tests`` counts for each test, by its name, the lines it ran and its ``seconds``; ``imported`` are the lines that ran before any
    test, and ``shared`` those of fixtures, by test file: another test of the file may be the one that looks at what they made.
    """

    def __init__(self, files: Collection[str]) -> None:
        self._files = frozenset(files)
        self.imported: set[tuple[str, int]] = set()
        self.shared: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.tests: dict[str, set[tuple[str, int]]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    @contextmanager
    def following(self, into: set[tuple[str, int]]) -> Iterator[None]:
        """Put the lines that run into a set."""

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            into.add((frame.f_code.co_filename, frame.f_lineno))
            return line

        def called(frame: FrameType, event: str, argument: Any) -> Any:
            return line(frame, event, argument) if frame.f_code.co_filename in self._files else None

        before = sys.gettrace()
        sys.settrace(called)
        try:
            yield
        finally:
            sys.settrace(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        with self.following(self.imported):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        with self.following(self.shared[item.nodeid.split("::")[0]]):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        began = time.perf_counter()
        try:
            with self.following(self.tests.setdefault(item.nodeid, set())):
                return (yield)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - began

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def running(self) -> dict[str, list[int]]:
        """Return, for "FILE:LINE", the numbers of the tests in ``tests`` that run it; the quickest has the number 0."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, test in enumerate(self.quickest_first()):
            for file, line in self.tests[test] | self.shared[test.split("::")[0]] | self.imported:
                found[f"{file}:{line}"].append(number)
        return found

    def quickest_first(self) -> list[str]:
        """Return the tests' names."""
        return sorted(self.tests, key=lambda test: self.seconds[test])
