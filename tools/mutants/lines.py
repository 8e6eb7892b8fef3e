"""Which tests run which lines: a mutant is shown to the tests that run its line alone."""

import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest

from tools.mutants.subjects import ROOT

SLOW = 3  # a test that takes more seconds of the processor, with its lines followed, is shown no mutant
OVERHEAD = 0.02  # seconds that pytest takes for a test beside the test itself
CALLS = 50  # of a function in a test, of which the lines are followed
Ran = dict[str, set[int]]  # the lines of each file, named below the root, that ran


class Lines:
    """A plugin of pytest that follows its tests through ``files``, each for ``longest`` seconds of the processor.

    ``tests`` has for each test, by its name, the lines it ran, and ``seconds`` the processor's time it took; ``imported`` are the lines
    that ran before any test, and ``shared`` those of fixtures, by test file: another test of the file may be the one that looks at
    what they made. ``preparing`` has the longest time that fixtures took before a test, by test file. ``failed`` are the tests that
    failed, or were slow.
    """

    def __init__(self, files: Iterable[Path], longest: float) -> None:
        self._longest = longest
        self._files = {str(path): str(path.relative_to(ROOT)) for path in files}
        self.imported: Ran = defaultdict(set)
        self.shared: dict[str, Ran] = defaultdict(lambda: defaultdict(set))
        self.tests: dict[str, Ran] = {}
        self.seconds: dict[str, float] = {}
        self.preparing: dict[str, float] = defaultdict(float)
        self.failed: list[str] = []

    @contextmanager
    def following(self, into: Ran) -> Iterator[None]:
        """Put the lines that run into ``into``."""
        calls: Counter[CodeType] = Counter()

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            into[self._files[frame.f_code.co_filename]].add(frame.f_lineno)
            return line

        def called(frame: FrameType, event: str, argument: Any) -> Any:
            if frame.f_code.co_filename not in self._files:
                return None
            calls[frame.f_code] += 1
            return line(frame, event, argument) if calls[frame.f_code] <= CALLS else None

        before = sys.gettrace()
        sys.settrace(called)
        try:
            yield
        finally:
            sys.settrace(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_load_initial_conftests(self) -> Iterator[None]:
        with self.following(self.imported):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        with self.following(self.imported):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        name, began = _file(item.nodeid), time.process_time()
        try:
            with self.following(self.shared[name]):
                return (yield)
        finally:
            self.preparing[name] = max(self.preparing[name], time.process_time() - began)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        began = time.process_time()
        try:
            with _limited(self._longest), self.following(self.tests.setdefault(item.nodeid, defaultdict(set))):
                return (yield)
        finally:
            self.seconds[item.nodeid] = time.process_time() - began

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def found(self) -> dict[str, Any]:
        """Return what was found, for JSON: the lines ``imported``, and for each test file its tests."""
        files: dict[str, Any] = defaultdict(dict)
        for test, ran in self.tests.items():
            if test not in self.failed:
                lines = {name: sorted(_both(ran, self.shared[_file(test)], name)) for name in self._files.values()}
                ran_lines = {name: numbers for name, numbers in lines.items() if numbers}
                preparing = self.preparing[_file(test)]
                files[_file(test)][test] = {"seconds": self.seconds[test], "preparing": preparing, "lines": ran_lines}
        imported = {name: sorted(numbers) for name, numbers in self.imported.items()}
        return {"imported": imported, "files": files}


class Followed(NamedTuple):
    """The lines run by imports, and the tests, each with its seconds and its lines."""

    imported: dict[str, list[int]]
    tests: dict[str, dict[str, Any]]

    def among(self, files: Collection[str]) -> "Followed":
        """Return the same of the tests in ``files`` alone."""
        return self._replace(tests={test: ran for test, ran in self.tests.items() if _file(test) in files})

    def wanted(self, path: Path, lines: Iterable[int], enough: float) -> list[str]:
        """Return the tests that run any of these lines of a file, or any of its lines where an import runs these.

        They are the quickest, which together take at most ``enough`` seconds, what is prepared for a file once included.
        """
        name, numbers, any_line = str(path.relative_to(ROOT)), set(lines), self.at_import(path, lines)
        ran = {test: one["lines"].get(name, ()) for test, one in self.tests.items()}
        running = [test for test, own in ran.items() if own and (any_line or not numbers.isdisjoint(own))]
        running.sort(key=lambda test: self.tests[test]["seconds"] + self.tests[test]["preparing"])
        chosen, begun, total = [], set(), 0.0
        for test in running:
            total += self.tests[test]["seconds"] + OVERHEAD
            total += 0.0 if _file(test) in begun else self.tests[test]["preparing"]
            if total > enough:
                break
            chosen.append(test)
            begun.add(_file(test))
        return chosen

    def at_import(self, path: Path, lines: Iterable[int]) -> bool:
        """Whether any of these lines ran before the tests did."""
        return not set(lines).isdisjoint(self.imported.get(str(path.relative_to(ROOT)), ()))


def _file(test: str) -> str:
    return test.split("::")[0]


def _both(one: Ran, other: Ran, name: str) -> set[int]:
    return one.get(name, set()) | other.get(name, set())


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} seconds: no mutant is shown to it")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
