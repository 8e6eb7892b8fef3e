"""docs/results.md says what was measured, and a record that does not fit is refused."""

import json

import pytest

from benchmarks import ratio_figure, results_page
from benchmarks.results_page import BLOCK, COMPUTED, MEASURED, PAGE, block, measured, with_tables
from benchmarks.table import goal_table, ratio_table

RECORD = {
    "title": "Two",
    "date": "2026-01-02",
    "machine": "one core",
    "commands": ["run a", "run b"],
    "columns": ["what", "found"],
    "rows": [["x", "1"]],
    "note": "Once.",
}


def test_the_page_is_what_the_generator_writes():
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page, "docs/results.md is not what was measured: run `make results`"


def test_every_table_on_the_page_is_measured_and_every_measurement_on_the_page():
    page = PAGE.read_text(encoding="utf-8")
    names = [name for _, name, _ in BLOCK.findall(page)]
    computed = [name for name, (path, _) in COMPUTED.items() if path.is_file()]
    assert sorted(names) == sorted([*computed, *(file.stem for file in MEASURED.glob("*.json"))])
    assert not [line for line in BLOCK.sub("", page).splitlines() if line.startswith("|")]


def test_a_block_is_a_title_a_table_and_its_source():
    assert block(RECORD) == (
        "**Two**\n\n| what | found |\n| --- | --- |\n| x | 1 |\n\n`run a`, `run b`; one core; 2026-01-02. Once.\n"
    )


def test_prose_outside_of_the_marks_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(results_page, "MEASURED", tmp_path)
    (tmp_path / "two.json").write_text(json.dumps(RECORD))
    page = "| not | ours |\n<!-- measured: two -->\nold\n<!-- end -->\nafter \\1\n"
    written = f"| not | ours |\n<!-- measured: two -->\n{block(RECORD)}\n<!-- end -->\nafter \\1\n"
    assert with_tables(page) == with_tables(written) == written


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": [["x"]]}, "2 columns, but a row has 1 cells"),
        ({"seed": 1}, "add or remove the fields \\['seed'\\]"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path, monkeypatch, change, said):
    monkeypatch.setattr(results_page, "MEASURED", tmp_path)
    (tmp_path / "two.json").write_text(json.dumps(RECORD | change))
    with pytest.raises(ValueError, match=said):
        measured("two")


def race(solver, direction, compiled, eager):
    reached = {"TorchDEQ/compiled": [0, compiled, 9], "TorchDEQ/eager": [0, eager, 9]} if compiled else {}
    return {
        "problem": "digits",
        "batch": 1,
        "solver": solver,
        "tolerance": 1e-3,
        "direction": direction,
        "ratios": reached,
        "contestants": {"TorchDEQ": {"seconds": [1, 1, 1]} if compiled else None},
    }


def test_solver_tables_show_medians_ranges_and_what_was_missed():
    records = [
        race("anderson", "forward", 6.0, 0.5),
        race("anderson", "forward and backward", 20.0, 0.7),
        race("broyden", "forward", None, None),
        race("broyden", "forward and backward", 4.0, 2.0),
        race("anderson", "training step", 2.0, 1.5),
    ]
    results = {"records": records, "date": "2026-01-02", "machine": {"cores": "1"}, "command": "race"}
    ratios, goals = ratio_table(results), goal_table(results)
    assert ratios["rows"][0] == [
        *("digits, MNIST (n = 64)", "1", "1e-3"),
        *("13 (6.0 to 20)", "**0.6** (0.5 to 0.7)", "4.0 (4.0 to 4.0)", "2.0 (2.0 to 2.0)"),
    ]
    assert goals["rows"] == [
        ["Anderson, median of 2", "13.00", "5, reached", "0.60", "2.5, missed"],
        ["Broyden, median of 1", "4.00", "8, missed", "2.00", "4, missed"],
        ["training step", "2.00", "2, reached", "1.50", "2, missed"],
        ["slowest case", "2.00; below 1 in 0 of 4", "1, reached", "0.50; below 1 in 2 of 4", "1, missed"],
    ]
    assert (ratios["machine"], ratios["commands"]) == ("cores 1", ["race"])


def test_a_solver_that_never_reaches_the_tolerance_is_named():
    results = {"records": [race("broyden", "forward", None, None)], "date": "", "machine": {}, "command": ""}
    assert ratio_table(results)["rows"][0][-2:] == ["not reached", "not reached"]


def test_the_figure_of_ratios_has_a_dot_for_each_group_that_was_raced(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    dots = []
    plain = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axis, x, *rest, **options: (dots.append(x), plain(axis, x, *rest, **options))[1]
    )
    results = tmp_path / "results.json"
    records = [race("anderson", "forward", 6.0, 0.5), race("anderson", "forward and backward", 20.0, 0.7)]
    results.write_text(json.dumps({"records": [*records, race("broyden", "forward", None, None)]}), encoding="utf-8")
    ratio_figure.draw(tmp_path / "ratios.png", results)
    assert [dot for dot in dots if not isinstance(dot, list)] == [13.0, 0.6]
    assert [dot for dot in dots if isinstance(dot, list)] == [[6.0, 20.0], [0.5, 0.7]]
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")
