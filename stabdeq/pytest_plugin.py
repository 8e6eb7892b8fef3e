"""The pytest plugin: the marker ``stabdeq``, the fixture ``audit``, and ``--stabdeq-report`` for all reports of a session.

pytest loads it by an entry point in every project that has stabdeq installed, so nothing heavy is imported before a test asks for it.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stabdeq import gathered
from stabdeq.arguments import require_writable
from stabdeq.doors import door
from stabdeq.errors import StabdeqError

OPTION = "--stabdeq-report"
_SENT = "stabdeq"  # the key of what a process of pytest-xdist sends home
_NAMED = ("images", "labels", "indices")  # tensors, which a line to paste names


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--stabdeq-report``."""
    parser.getgroup("stabdeq").addoption(
        OPTION,
        type=Path,
        metavar="FILE",
        help="write all reports of audits and proofs in this session to FILE, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; gather reports where they are asked for, a file that cannot be written being refused now."""
    config.addinivalue_line("markers", "stabdeq: judges a model or a Lyapunov function; -m stabdeq selects these tests")
    file = config.getoption(OPTION)
    if file is None:
        return
    try:
        require_writable(OPTION, file, Path())
    except StabdeqError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(_Gathering(config, file))


@pytest.fixture
def audit() -> Callable[..., Any]:
    """``stabdeq.audit``, with the same arguments, whose refuted claims fail the test; it returns the report of the rest.

    The failure shows verdict, evidence and witness of each refuted claim, and a line that audits it alone. What could not be settled
    does not fail: assert that ``report.holds`` to be strict.
    """

    def audit(model: Any, *given: Any, **options: Any) -> Any:
        __tracebackhide__ = True  # a failure is shown at the test's line
        report = door("audit")(model, *given, **options)
        gathered.tell(report)
        refuted = {name: item for name, item in report.named.items() if item.verdict == "REFUTED"}
        if refuted:
            lines = [
                _line(model, dict(zip(_NAMED, given, strict=False)) | options, item.check) for item in refuted.values()
            ]
            told = "\n".join(map(report.told, refuted))
            pasted = "\n    ".join(dict.fromkeys(lines))
            raise AssertionError(f"{report.sentence}\n{told}\nTo keep this case, paste:\n    {pasted}")
        return report

    return audit


def _line(model: Any, options: dict[str, Any], check: str) -> str:
    """Return the call that judges ``check`` alone again; tensors and models go by their role."""
    words = [repr(str(model)) if isinstance(model, str | Path) else "model"]
    for key, value in (options | {"checks": [check]}).items():
        words.append(f"{key}={key if key in _NAMED or callable(value) else repr(value)}")
    return f"audit({', '.join(words)})"


class _Gathering:
    """Writes the reports of a session, each with its test, to a file; those of pytest-xdist's processes too."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        self.config, self.file = config, file
        self.test = ""
        self.reports: list[tuple[str, str]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.test = item.nodeid
        gathered.LISTENERS.append(self._add)
        try:
            return (yield)
        finally:
            gathered.LISTENERS.remove(self._add)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.reports += getattr(node, "workeroutput", {}).get(_SENT, [])

    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput[_SENT] = self.reports
            return
        from stabdeq.files import encoded, replace_file, strict_json

        entries = [{"test": test, "report": json.loads(text)} for test, text in sorted(self.reports, key=_test_of)]
        replace_file(self.file, encoded(strict_json({"schema": 1, "reports": entries})))

    def _add(self, report: Any) -> None:
        self.reports.append((self.test, report.to_json()))


def _test_of(entry: tuple[str, str]) -> str:
    return entry[0]
