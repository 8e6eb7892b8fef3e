"""How the command line ends where something unforeseen happens: one line, and an exit code that is no verdict."""

import io
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from command_runs import run

from stabdeq import __main__
from stabdeq.checker import door
from stabdeq.errors import ConfigError
from stabdeq.locks import NoLocksWarning
from stabdeq.output import SteadyStream
from stabdeq.solvers.implicit import InexactGradientWarning

OWN_V = "def V(z): return (z * z).sum(1)\ndef W(z): return (z * z).sum(1) - 1\n"


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes every command raise an error."""

    def fail(error: BaseException) -> None:
        def broken(*_: str) -> None:
            raise error

        monkeypatch.setattr(__main__, "require_own_packages", broken)

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyError("a\nb"), 70, "internal error (KeyError: 'a\\nb'): please report it; --debug shows the trace"),
        (AssertionError(), 70, "internal error (AssertionError): please report it; --debug shows the trace"),
        (OSError("a library's own"), 70, "internal error (OSError: a library's own): please report it"),
        (RecursionError("too deep\nby far"), 70, "internal error (RecursionError: too deep by far): please"),
        (PermissionError(13, "Permission denied", "x/y"), 2, "x/y: Permission denied: mend that or name another file"),
        (ConfigError("x" * 5000), 2, "x" * __main__.LONGEST_WORD + "..."),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_any_error_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    fail: Callable[[BaseException], None],
    refusal: Callable[..., str],
) -> None:
    fail(error)
    assert refusal("audit", "x", code=code).startswith(f"stabdeq: {line}")


@pytest.mark.parametrize(
    ("category", "line"),
    [
        (InexactGradientWarning, "stabdeq: warning: it is inexact\n"),
        (NoLocksWarning, "stabdeq: warning: it is inexact\n"),
        (RuntimeWarning, "stabdeq: warning: own.py, line 3: RuntimeWarning: it is inexact\n"),
    ],
)
def test_a_warning_is_one_line(category: type[Warning], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    before = warnings.formatwarning

    def warn(*_: str) -> None:  # pytest itself takes what is warned of
        told.append(warnings.formatwarning("it is\ninexact", category, "own.py", 3))

    monkeypatch.setattr(__main__, "require_own_packages", warn)
    run("--version")
    assert told == [line]
    assert warnings.formatwarning is before


@pytest.mark.parametrize("arguments", [("--debug", "audit", "x"), ("audit", "x", "--debug")])
def test_the_trace_of_an_error_on_request(
    arguments: tuple[str, ...], fail: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fail(ZeroDivisionError("boom"))
    assert run(*arguments) == 70
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.splitlines()[-1].startswith("stabdeq: internal error (ZeroDivisionError: boom)")


def test_the_help_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "--debug" in capsys.readouterr().out


LONG = "x" * 5000


@pytest.mark.parametrize(
    "command", ["audit {}", "certify {}", "attack {}", "solvers {}", "replay {}", "report {}", "train digits --out {}"]
)
def test_a_path_too_long_is_one_short_line(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command.format(LONG).split()) == 2
    line = capsys.readouterr().err
    assert "File name too long" in line
    assert line.count("\n") == 1
    assert len(line) < 1000
    assert not list(folder.iterdir())


def test_a_fault_of_the_checker_of_proofs_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: bytes) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(door, "check", broken)
    (tmp_path / "proof.json").touch()
    assert door.main([str(tmp_path / "proof.json")]) == 70
    assert capsys.readouterr().err == "NOT CHECKED: internal error (ZeroDivisionError: boom): please report it\n"


# Code of the user's that ends the program.

LEAVING = """
import sys

def V(z):
    if len(z) > 1000:
        sys.exit(0)
    return (z * z).sum(1)

class Stop(BaseException):
    pass

def W(z):
    raise Stop("enough")

class Solver:
    def __init__(self):
        sys.exit()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("check", "leaving:V"), 2, "leaving.py, line 6, ends the program (SystemExit: 0), so there is no verdict"),
        (("check", "leaving_at_once:V"), 2, "leaving_at_once.py, line 1, ends the program (SystemExit: done)"),
        (("check", "leaving:W"), 70, "internal error (Stop: enough)"),
        (
            ("solvers", "missing.safetensors", "--solver", "leaving:Solver"),
            2,
            "line 17, ends the program (SystemExit: ",
        ),
    ],
    ids=["called", "imported", "no Exception", "made"],
)
def test_code_that_ends_the_program_is_no_verdict(
    arguments: tuple[str, ...],
    code: int,
    line: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Callable[..., str],
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    (folder / "leaving.py").write_text(LEAVING)
    (folder / "leaving_at_once.py").write_text("raise SystemExit('done')\n")
    dim = ("--dim", "2") if arguments[0] == "check" else ()
    assert line in refusal(*arguments, *dim, code=code)
    for name in ("leaving", "leaving_at_once"):
        sys.modules.pop(name, None)


# What a command prints.


def unread() -> io.TextIOWrapper:
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


def full() -> io.TextIOWrapper:
    return open("/dev/full", "w", encoding="utf-8")


@pytest.fixture
def own_v(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(folder))
    (folder / "unread_functions.py").write_text(OWN_V)
    return folder


@pytest.mark.parametrize(("function", "code"), [("V", 0), ("W", 1)])
@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")])
def test_output_that_nobody_reads_changes_no_exit_code(
    function: str, code: int, streams: tuple[str, ...], own_v: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unread() as pipe:
        for name in streams:
            monkeypatch.setattr(sys, name, pipe)
        claims = ("--claims", "zero", "--json", "out.json")
        assert run("check", f"unread_functions:{function}", "--dim", "2", *claims) == code
    assert (own_v / "out.json").stat().st_size > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("function", ["V", "W"])
def test_output_that_cannot_be_written_is_an_error(
    function: str, own_v: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with full() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        claims = ("--claims", "zero", "--json", "out.json")
        assert run("check", f"unread_functions:{function}", "--dim", "2", *claims) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "stabdeq: standard output could not be written (No space left on device): make room or send it elsewhere"
    )
    assert (own_v / "out.json").stat().st_size > 0  # what was asked for stands all the same


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_error_that_cannot_be_told_has_its_exit_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with full() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert run("audit", "x") == 2


@pytest.mark.parametrize("streams", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_streams_that_are_closed_from_the_start_change_no_exit_code(
    streams: tuple[str, ...], own_v: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of ``>&-``, or of what a daemon starts: Python has None in their place."""
    for name in streams:
        monkeypatch.setattr(sys, name, None)
    assert run("--version") == run("--help") == 0
    capsys.readouterr()
    assert run("audit", "x") == 2
    assert capsys.readouterr().out == ""
    for function, code in (("V", 0), ("W", 1)):
        assert (
            run("check", f"unread_functions:{function}", "--dim", "2", "--claims", "zero", "--json", "out.json") == code
        )


def test_a_stream_is_given_up_once() -> None:
    with unread() as pipe:
        stream = SteadyStream(pipe, "standard output")
        for _ in range(3):
            assert stream.write("x" * 100_000) == 100_000
            stream.writelines(["a", "b"])
            stream.flush()
