"""The tables and figures that come of the files of ``stabdeq reproduce``."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_runs import save_untrained
from reproduce_jobs import jobs_of, write_attack, write_checkpoint
from rich.console import Console

from analysis.reproduce.figure3 import draw_states, gather_states
from analysis.reproduce.figure4 import draw_radii
from analysis.reproduce.jobs import Attack, Training
from analysis.reproduce.table import Cell, make_rows, markdown, notes, plain, print_table
from stabdeq.errors import ConfigError

pytestmark = pytest.mark.usefixtures("folder", "repository_on_path")


PNG = b"\x89PNG"


# The table.


def test_cells() -> None:
    assert Cell(values=(90.0, 92.0, 97.0), asked=3).text() == "93.00±3.61"  # sqrt((9 + 1 + 16) / 2)
    assert Cell(values=(90.0, 92.0), asked=3).text() == "91.00±1.41*"
    assert Cell(values=(90.0,)).text() == "90.00"
    assert Cell(values=(), asked=3).text() == "-"


def filled(seeds: tuple[int, ...] = (0, 1)) -> tuple[Any, list[Any]]:
    """Table 1 for DEQ on MNIST: accuracy 0.8 and 0.6 by seed; the second seed lacks PGD at 4 / 255, both honest at 8 / 255."""
    study, jobs = jobs_of("table1", "mnist", seeds=seeds)
    results = [job for job in jobs if isinstance(job, Attack)]
    for job in jobs:
        if isinstance(job, Training):
            write_checkpoint(job)
    for job in results:
        seed = job.training.seed
        if (job.attack, job.eps, seed) == ("pgd", 4, 1) or (job.attack, job.eps) == ("honest", 8):
            continue
        write_attack(job, 0.8 - 0.2 * seed, warnings=["blind"] if job.eps == 2 and job.attack == "pgd" else [])
    return study, results


def test_rows_hold_mean_and_spread_beside_the_printed_figures() -> None:
    study, results = filled()
    rows = {row.label: row for row in make_rows(study, results)}
    assert list(rows) == ["I-FGSM paper", "I-FGSM n=100", "PGD paper", "PGD n=100", "honest n=50"]
    texts = {label: [cell.text() for cell in row.cells.values()] for label, row in rows.items()}
    assert texts["PGD paper"] == ["96.99", "45.98", "45.80", "45.47", "45.23"]
    assert texts["I-FGSM n=100"] == ["90.00±0.00", *["70.00±14.14"] * 4]
    assert texts["PGD n=100"] == ["90.00±0.00", "70.00±14.14", "80.00*", "70.00±14.14", "70.00±14.14"]
    assert texts["honest n=50"] == ["90.00±0.00", *["35.00±7.07"] * 3, "-"]
    found = notes(list(rows.values()))
    assert found[0] == "Ours on mnist were trained for 1 epochs, the paper's for 10."
    assert found[1].startswith("3 of 24 results are missing")
    assert found[2] == "2 warnings of the attacks; the first: mnist/deq-seed0/pgd-2: blind."


def test_images_without_an_equilibrium_are_a_warning() -> None:
    study, results = filled((0,))
    write_attack(results[0], 0.8, unconverged={"clean": 0.0, "eps_0": 0.0, "robust": 0.25})
    rows = make_rows(study, results)
    assert "25.00% of the attacked images" in rows[1].warnings[0]


def test_the_terminal_table_fits_80_columns_and_needs_no_unicode() -> None:
    study, results = filled()
    rows = make_rows(study, results)
    wide = {0: Cell(values=(100.0, 0.0), asked=3)}
    rows.append(replace(rows[1], system="lyadeq-anchored", cells=rows[1].cells | wide))
    raw = io.BytesIO()
    ascii_only = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    for file in (unicode := io.StringIO(), ascii_only):
        print_table(study, rows, (0, 1), Console(file=file, width=80, force_terminal=False))
    for text in (unicode.getvalue(), raw.getvalue().decode()):
        lines = text.splitlines()
        assert max(map(len, lines)) <= 80
        assert not any(line != line.rstrip() for line in lines)
    assert re.search(r"^mnist +clean +2/255 +4/255 +6/255 +8/255$", unicode.getvalue(), re.MULTILINE)
    assert re.search(r"^ honest n=50 +90.00±0.00 .* -$", unicode.getvalue(), re.MULTILINE)


def test_markdown_and_json_hold_every_row() -> None:
    study, results = filled()
    rows = make_rows(study, results)
    lines = [line for line in markdown(study, rows, (0, 1)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
    assert {line.count("|") for line in lines} == {8}
    content = json.loads(json.dumps(plain(study, rows, (0, 1)), allow_nan=False))
    honest = content["rows"][-1]
    assert (honest["n"], honest["source"], content["rows"][0]["source"]) == (50, "ours", "arXiv 2304.12707")
    assert honest["cells"]["8"] == {"mean": None, "spread": None, "values": []}
    assert honest["cells"]["2"]["values"] == pytest.approx([40, 30])


# The figures.


def test_figure_3_on_40_digits(folder: Path) -> None:
    path = save_untrained(folder / "model.safetensors", "lyadeq")
    states = gather_states(path, None, limit=40, seed=1)
    assert states.before.shape == states.after.shape == (80, 8)
    assert 0 < states.distortion < 1e-5
    assert not torch.allclose(states.before[:40], states.before[40:])
    drawn = [draw_states(states, "lyadeq on digits", seed=1) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0][".png"].startswith(PNG)
    svg = drawn[0][".svg"].decode()
    assert "after, PGD, 8/255:" in svg
    assert "before, clean:" in svg


def test_figure_3_needs_an_orthogonal_layer(folder: Path) -> None:
    with pytest.raises(ConfigError, match="has no orthogonal layer"):
        gather_states(save_untrained(folder / "model.safetensors", "deq"), None, limit=4, seed=0)


def test_figure_4_draws_gaps_as_gaps() -> None:
    study, results = filled()
    files = draw_radii(make_rows(study, results), "mnist", 2)
    assert files[".png"].startswith(PNG)
    assert "honest, n=50" in files[".svg"].decode()
