"""Nothing that was read from a file steers a terminal, or reaches a page, a CI's XML or Markdown, as it stands."""

import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rich.console
from command_runs import REPOSITORY, run, save_untrained
from rich.progress import Progress
from tiny_checkpoints import parts_of, write_parts

from stabdeq.errors import ConfigError
from stabdeq.printable import printable, printable_lines
from stabdeq.terminal import Console, PlainStream, guarded

RED = "\x1b[31m"
# Colours, titles, links, 8-bit controls, marks that reorder, surrogates, returns.
STEERING = "\x1b[31mA\x1b]0;t\x07\x9b2J\x1b]8;;http://x\x1b\\B\u202e\u2066\ud800\x00\x08\x7f\x85C\rD"
SHOWN = "\ufffd[31mA\ufffd]0;t\ufffd\ufffd2J\ufffd]8;;http://x\ufffd\\B\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdC D"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let the test print to a terminal; not in a fixture, since pytest sets its own streams between that and the test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def is_steering(text: str) -> bool:
    return any(not one.isprintable() and one != "\n" for one in text)


def test_the_judge_sees_what_steers() -> None:
    assert all(is_steering(one) for one in ("\x1b", "\x9b", "\u202e", "\r", "\x07", "\ud800"))
    assert not is_steering("a\nb \u2016 \ufffd")


def test_printable_text() -> None:
    assert printable(STEERING) == printable_lines(STEERING) == SHOWN
    assert (printable("a\nb"), printable_lines("a\nb")) == ("a b", "a\nb")


def test_whoever_prints_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with guarded():
        print(STEERING)
        print(STEERING, file=sys.stderr)
        sys.stdout.writelines([STEERING, "\n"])
        sys.stderr.write(warnings.formatwarning(STEERING, UserWarning, "x.py", 1))
        rich.console.Console().print(STEERING, style="red")  # another library's: without its colours, too
        assert sys.stdout.isatty()
    shown = terminal.getvalue()
    assert shown.count("31mA") == 5
    assert not is_steering(shown)
    assert sys.stdout is terminal


def test_a_console_keeps_its_colours_and_its_texts_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with guarded():
        Console().print(f"[link=http://x]{RED}text", style="bold cyan", highlight=False)
    shown = terminal.getvalue()
    assert "\x1b[1;36m" in shown
    assert RED not in shown
    assert "[link=http://x]\ufffd[31mtext" in shown  # brackets are no markup


def test_what_is_printed_while_a_bar_is_drawn_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich then puts a stream of its own in the place of stdout, which reads escape sequences as styles and links."""
    terminal = on_terminal(monkeypatch)
    with guarded(), Progress(console=Console()) as bar:
        bar.add_task("work")
        print(f"{RED}red", file=sys.stderr)
        print("\x1b]8;;http://evil\x1b\\link")
    shown = terminal.getvalue()
    assert "\ufffd[31mred" in shown
    assert RED not in shown
    assert "\x1b]8" not in shown


def test_a_bar_of_another_library_may_return_to_its_lines_start() -> None:
    terminal = Terminal()
    PlainStream(terminal).write("\r 50%\r\x1b[A")
    assert terminal.getvalue() == "\r 50% \ufffd[A"


def test_an_exception_that_nobody_foresaw_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError), guarded():
        raise ZeroDivisionError(STEERING)
    sys.excepthook(ZeroDivisionError, ZeroDivisionError(STEERING), None)
    assert "ZeroDivisionError: " in terminal.getvalue()
    assert not is_steering(terminal.getvalue())


def test_what_the_outputs_encoding_lacks_is_a_question_mark() -> None:
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding="ascii")
    PlainStream(stream).write("\u2016\x1b")
    Console(file=stream).print("\u2016\x1b")
    stream.flush()
    assert content.getvalue() == b"????\n"


def test_errors_are_printable_in_python_too() -> None:
    assert str(ConfigError(STEERING)) == SHOWN
    assert str(ConfigError("two\nlines")) == "two\nlines"


def test_all_consoles_are_ours() -> None:
    """One of rich's own would write past the guard's cleaning, or without colours."""
    foreign = [
        path.relative_to(REPOSITORY).as_posix()
        for room in ("stabdeq", "analysis", "train")
        for path in (REPOSITORY / room).rglob("*.py")
        if path.name != "terminal.py" or path.parent.name != "stabdeq"
        for before, line in _lines(path)
        if "rich.console import Console" in line and "TYPE_CHECKING" not in before
    ]
    assert not foreign


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line, with the last one before it that is less indented."""
    owner = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(" "):
            owner = line
        yield owner, line


# The commands.


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose name steers a terminal."""
    place = folder / f"{RED}\x9b2J\u202ex"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def hostile_report() -> dict[str, Any]:
    finding = {
        "check": f"decay{STEERING}",
        "name": f"flow{STEERING}",
        "claim": STEERING,
        "verdict": "REFUTED",
        "evidence": STEERING,
        "margin": -1.0,
        "seconds": 1.0,
        "witness": {STEERING: [STEERING], "image": 1},
    }
    origin = {
        "path": f"/{STEERING}",
        "sha256": STEERING,
        "kind": STEERING,
        "data": {"name": STEERING, "classes": [STEERING]},
    }
    measured = {"check": STEERING, "name": STEERING, "value": 1.0, "text": STEERING}
    return {
        "schema": 1,
        "checkpoint": origin | {"versions": {STEERING: STEERING}},
        "environment": {STEERING: STEERING},
        "findings": [finding],
        "measurements": [measured],
        "skipped": [{"check": STEERING, "reason": STEERING}],
        "subject": STEERING,
    }


COMMANDS = [
    "attack {x} --images 1 --steps 1 --json out.json",
    "audit {x} --images 1 --checks positivity --out . --junit a.xml --markdown a.md",
    "audit {x}y",
    "certify {x} --images 1 --json out.json --proof proof.json",
    "check {x}:V --dim 2",
    "solvers {x} --images 1 --evaluations 2 --plot p.svg",
    "report {r}",
    "replay {r}",
    "compare {r} {r} --out c.html",
    "train {t}",
    "train digits --set {x}=1",
    "reproduce table1 --data {x}",
    "robust-data {x} --out {x} --images 1",
    "attack {bad} --images 1",
    "audit {bad}",
    "{x}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_what_steers(command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{RED}\x9b2Jm"
    save_untrained(place / name)
    tensors, metadata = parts_of((place / name).read_bytes())
    metadata["class_names"] = [f"{STEERING}{number}".replace("\ud800", "") for number in range(10)]
    write_parts(place / name, tensors, metadata)
    metadata["versions"] = {STEERING.replace("\ud800", ""): 1}
    write_parts(place / "bad", tensors, metadata)
    (place / "r.json").write_text(json.dumps(hostile_report()))
    (place / f"{name}.toml").write_text(f'"{printable(RED)}" = 1\n')
    names = {
        "x": str(place / name),
        "bad": str(place / "bad"),
        "r": str(place / "r.json"),
        "t": str(place / f"{name}.toml"),
    }
    run(*(word.format(**names) for word in command.split()))
    captured = capsys.readouterr()
    assert captured.out + captured.err
    assert not is_steering(captured.out + captured.err)
    for path in place.iterdir():
        if path.suffix in (".html", ".xml", ".md", ".svg"):
            assert not is_steering(path.read_text(encoding="utf-8")), path.suffix


def test_the_program_itself_is_guarded(place: Path) -> None:
    """With its real streams, of an encoding that lacks what stands in the place of a control."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stabdeq", "audit", str(place / "x")],
        capture_output=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"stabdeq: ")
    assert b"?[31m?2J?x" in done.stderr
    assert b"\x1b" not in done.stderr
