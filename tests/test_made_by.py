"""A report holds the command that makes it again, and the page shows that as a line for a shell."""

import html
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_runs import run, save_untrained

import stabdeq
from analysis.report.made_by import command_line, made_by
from analysis.report.page import render_html
from analysis.report.report import Report

pytestmark = pytest.mark.usefixtures("short_hunts")

FUNCTIONS = """
def V(z): return (z * z).sum(1)
def f(z): return -z
def step(z): return 0.5 * z
def moved(z, d): return -z + 0.1 * d
def B(z): return (z * z).sum(1) - 0.5
def start(z): return (z * z).sum(1) - 0.1
def bad(z): return 1.5 - z.sum(1)
"""
QUICK = ("--samples", "64", "--starts", "2", "--boxes", "64")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "made_by_functions.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def judged(path: Path) -> Any:
    plain = json.loads(path.read_text())
    return [{key: value for key, value in one.items() if key != "seconds"} for one in plain["findings"]], plain[
        "skipped"
    ]


def line_of(path: Path) -> list[str]:
    return shlex.split(command_line(json.loads(path.read_text())["command"]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("made_by_functions:V", "--dim", "2"),
        ("made_by_functions:V", "--dim", "2", "--dynamics", "made_by_functions:f", "--alpha", "0.5", "--radius", "1.25"),
        ("made_by_functions:V", "--dim", "2", "--centre=-1e-09,0", "--box=-1:1,-2:1.5", "--claims", "positive,convex"),
        ("made_by_functions:V", "--dim", "2", "--step", "made_by_functions:step", "--kappa", "0.25", "--sublevel", "0.5"),
        ("made_by_functions:V", "--dim", "2", "--dynamics", "made_by_functions:f", "--sublevel", "max", "--radius", "1",
         "--claims", "decrease", "--seed", "3"),
        ("made_by_functions:V", "--dim", "2", "--dynamics", "made_by_functions:f", "--inner-radius", "0.1"),
        ("made_by_functions:V", "--dim", "1", "--uncertain", "made_by_functions:moved", "--disturbance=-1:1", "--box=-1:1",
         "--from-level", "0.1"),
        ("made_by_functions:B", "--dim", "2", "--dynamics", "made_by_functions:f", "--initial", "made_by_functions:start",
         "--unsafe", "made_by_functions:bad"),
    ],
)  # fmt: skip
def test_the_line_of_a_check_makes_it_again(arguments: tuple[str, ...], folder: Path) -> None:
    code = run("check", *arguments, *QUICK, "--json", "first.json")
    assert code in (0, 1, 3)
    name, *words = line_of(folder / "first.json")
    assert name == "stabdeq"
    assert run(*words, "--json", "again.json") == code
    assert judged(folder / "again.json") == judged(folder / "first.json")
    assert line_of(folder / "again.json") == [name, *words]


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (("audit", "a model.safetensors", "--checks", "positivity", "--images", "3", "--seed", "2"), ("--out", ".")),
        (("certify", "a model.safetensors", "--images", "3", "--seed", "2", "--deployed"), ("--json", "report.json")),
        (("certify", "made_by_functions:f", "--dim", "2"), ("--json", "report.json")),
    ],
)
def test_the_line_of_a_model_makes_it_again(arguments: tuple[str, ...], out: tuple[str, ...], folder: Path) -> None:
    save_untrained(folder / "a model.safetensors")
    run(*arguments, *out)
    first, line = judged(folder / "report.json"), line_of(folder / "report.json")
    (folder / "report.json").unlink()
    run(*line[1:], *out)
    assert judged(folder / "report.json") == first
    assert line_of(folder / "report.json") == line


def test_the_page_shows_it(folder: Path) -> None:
    model = save_untrained(folder / "a model.safetensors")
    page = html.unescape(render_html(stabdeq.audit(model.name, checks=["positivity"], samples=3, seed=2)))
    assert "<code>stabdeq audit 'a model.safetensors' --checks positivity --images 3 --seed 2</code>" in page
    assert "<code>stabdeq verify 'a model.safetensors' report.json</code>" in page
    page = render_html(stabdeq.check("made_by_functions:V", dim=2, claims=["zero"], samples=64))
    assert "<code>stabdeq check made_by_functions:V --dim 2 " in page
    assert "stabdeq verify" not in page


def test_a_foreign_command_is_one_harmless_line() -> None:
    command = {
        "name": "audit; rm -rf .",
        "subject": "$(evil)\n",
        "options": {"x y": ["`a`", [1, {}]], "n": "-1", "v": None},
    }
    words = shlex.split(command_line(command))
    assert words == ["stabdeq", "audit; rm -rf .", "$(evil) ", "--x y", "`a`,1:{}", "--n=-1", "--v", ""]
    page = render_html(Report(command=command | {"subject": "<script>"}))
    assert "<script>" not in page
    for broken in ({}, {"name": "audit"}, {"name": "audit", "subject": "a", "options": 3}):
        assert command_line(broken) in ("", "stabdeq audit a")


def test_numbers_of_other_libraries_are_plain_and_functions_are_left_out() -> None:
    options = {
        "dim": np.int64(2),
        "alpha": torch.tensor(0.5),
        "box": ((-1, np.float64(2)),),
        "deployed": False,
        "seed": 0,
    }
    made = made_by("check", Path("a.onnx"), options)
    assert json.loads(json.dumps(made)) == {
        "name": "check",
        "subject": "a.onnx",
        "options": {"dim": 2, "alpha": 0.5, "box": [[-1, 2.0]], "seed": 0},
    }
    assert made_by("check", "plant:V", {"dynamics": torch.sin}) == {"name": "check"}
    assert made_by("check", torch.sin, {}) == {"name": "check"}
