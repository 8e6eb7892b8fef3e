"""The gallery's page that is a notebook: its first cells, run as a notebook runs them, end in what it says they show."""

import ast
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("short_hunts")

SCRIPT = Path(__file__).resolve().parents[1] / "docs/gallery/plot_a_first_verdict.py"


def shown(cell: str, scope: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line where that is an expression: what a notebook shows."""
    *before, last = ast.parse(cell).body
    exec(compile(ast.Module(before, type_ignores=[]), SCRIPT.name, "exec"), scope)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), SCRIPT.name, "eval"), scope)
    exec(compile(ast.Module([last], type_ignores=[]), SCRIPT.name, "exec"), scope)
    return None


def test_a_report_that_ends_a_cell_is_shown_as_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    _, *cells = SCRIPT.read_text(encoding="utf-8").split("# %%\n")
    scope: dict[str, Any] = {}
    found = [shown(cell, scope) for cell in cells[: cells.index(next(cell for cell in cells if "A model" in cell))]]
    (page,) = (value for value in found if value is not None)
    assert page._repr_html_().startswith("<iframe srcdoc=")
    assert repr(page).startswith("<Report on V along f")
    assert repr(page).endswith(": 4 PROVED>")
    assert "PROVED True" in capsys.readouterr().out
