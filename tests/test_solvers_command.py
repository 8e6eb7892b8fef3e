"""``stabdeq solvers`` and its core, on maps with a known rate and with solvers that are wrong in every way."""

import io
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_runs import run, save_untrained
from rich.console import Console
from test_audit import ForeignModel, images
from torch import Tensor, nn

import analysis
from analysis.measure import spectrum
from analysis.measure.solvers import SOLVERS
from analysis.measure.subject import Subject, prepare
from analysis.report import drawing
from analysis.report.figures.convergence import plot_comparison
from analysis.report.solvers import print_comparison
from analysis.solver_comparison import compare_on, probe_cell, summarise
from stabdeq.errors import ConfigError

MODULE = '''
import torch


class Damped:
    """Picard at half the step, through memory that must be selected and forgotten row by row."""

    safeguarded = False

    def init(self, z):
        return torch.zeros(len(z))

    def step(self, z, field, memory):
        assert len(memory) == len(z)
        return z + 0.5 * field, memory + 1

    def forget(self, memory, samples):
        return torch.where(samples, 0, memory)

    def select(self, memory, samples):
        return memory[samples]


class NoSelect(Damped):
    select = None


class Truncating(Damped):
    def step(self, z, field, memory):
        return z[:, :-1], memory


class Narrowing(Damped):
    def step(self, z, field, memory):
        return z.float(), memory


class StateAlone(Damped):
    def step(self, z, field, memory):
        return z


class InPlace(Damped):
    def step(self, z, field, memory):
        return z.add_(field), memory


class Deaf(Damped):
    def select(self, memory, samples):
        return memory


class Clumsy(Damped):
    def forget(self, memory, samples):
        raise KeyError("no such sample")


class Greedy(Damped):
    def __init__(self, window):
        self.window = window


class Unsaid:
    init, step, forget, select = Damped.init, Damped.step, Damped.forget, Damped.select


def make():
    return Damped()


damped = Damped()
number = 3
'''
# z = A z + h, symmetric, so that Picard's error shrinks by the spectral radius 0.6 in the end.
RADIUS = 0.6
SCALES = torch.tensor([RADIUS, 0.3, -0.2, 0.1], dtype=torch.float64)


def linear(z: Tensor, h: Tensor) -> Tensor:
    return z * SCALES + h


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of solvers and a checkpoint."""
    (tmp_path / "toy_solvers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    save_untrained(tmp_path / "model.safetensors", "deq")
    return tmp_path


@pytest.fixture
def toys(folder: Path) -> Any:
    namespace: dict[str, Any] = {"__name__": "toys"}
    exec(MODULE, namespace)
    return SimpleNamespace(**namespace)


def subject_of(cell: Any, dim: int = 4) -> Subject:
    return prepare(ForeignModel(cell, (dim,)), *images())


def strictly(text: str) -> Any:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


# The core, on maps with known answers.


def test_picards_rate_is_the_spectral_radius_of_a_known_map() -> None:
    summary = summarise(compare_on(subject_of(linear)))
    assert summary["spectral_radius"]["median"] == pytest.approx(RADIUS, abs=1e-12)
    assert summary["spectral_radius"]["picard_rate"] == pytest.approx(RADIUS, abs=1e-4)
    picard, anderson = (summary["solvers"][name] for name in ("picard", "anderson"))
    assert picard["rate"]["median"] == pytest.approx(RADIUS, abs=1e-4)
    # Anderson's window exceeds the dimension: it is done in a few steps more than 4.
    assert anderson["tolerances"][-1]["evaluations"]["median"] <= 12 < picard["tolerances"][-1]["evaluations"]["median"]


def test_evaluations_and_residuals_are_those_of_a_loop_by_hand() -> None:
    subject = subject_of(linear)
    comparison = compare_on(subject, evaluations=20)
    z, residuals = torch.zeros_like(subject.h), []
    for _ in range(20):
        fz = linear(z, subject.h)
        residuals.append((fz - z).norm(dim=1) / z.norm(dim=1).clamp(min=1))
        z = fz
    curve = torch.stack(residuals)
    found = comparison.records["picard"]
    assert found.trace.trace is not None
    torch.testing.assert_close(found.trace.trace.residual, curve)
    for reached in found.reached:
        met = curve <= reached.tolerance
        assert torch.equal(reached.solution.converged, met.any(0))
        assert torch.equal(reached.solution.evaluations, torch.where(met.any(0), met.int().argmax(0) + 1, 20))
    summary = summarise(comparison)["solvers"]["picard"]
    assert [each["converged"] for each in summary["tolerances"]][:: len(found.reached) - 1] == [1, 0]
    assert summary["tolerances"][-1]["evaluations"]["median"] is None
    assert [each["status"] for each in summary["tolerances"][-1]["failures"]] == ["max_steps"]
    assert summary["curve"]["median"] == sorted(summary["curve"]["median"], reverse=True)


def test_a_registered_solver_is_compared_like_the_others(toys: Any) -> None:
    told: list[tuple[int, int]] = []
    mine = {"mine": toys.Damped()}
    comparison = compare_on(subject_of(linear), mine, on_step=lambda _, done, total: told.append((done, total)))
    summary = summarise(comparison)
    assert list(summary["solvers"]) == ["anderson", "anderson-20", "broyden", "picard", "squarem", "mine"]
    # Half a step: the eigenvalue 0.6 becomes 0.8.
    assert summary["solvers"]["mine"]["rate"]["median"] == pytest.approx((1 + RADIUS) / 2, abs=1e-4)
    assert summary["solvers"]["mine"]["tolerances"][-1]["converged"] == 1
    assert all(run["seconds"] > 0 for run in summary["solvers"]["mine"]["tolerances"])
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def test_large_states_get_their_radius_by_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(lambda z, h: torch.tanh(z @ MIX) + h, 16)
    dense = spectrum.spectral_radii(subject)
    monkeypatch.setattr(spectrum, "DENSE", 1)
    iterated = spectrum.spectral_radii(subject)
    known = ~iterated.isnan()
    assert int(known.sum()) == spectrum.IMAGES_SPARSE
    torch.testing.assert_close(iterated[known], dense[known], rtol=1e-8, atol=0)


MIX = 0.2 * torch.randn(16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_where_the_map_expands_failures_are_said_and_nothing_is_made_up(folder: Path) -> None:
    summary = summarise(compare_on(subject_of(lambda z, h: 3 * z * z.abs() + 1 + h)))
    picard = summary["solvers"]["picard"]
    assert picard["rate"] == {"images": 0, "median": None, "lower": None, "upper": None}
    (failure,) = picard["tolerances"][-1]["failures"]
    assert failure["status"] in ("diverged", "nan")
    assert failure["count"] == summary["images"]
    text = printed(summary, 80)
    assert failure["remedy"] in " ".join(text.split())
    assert re.search(r"^picard( +-){8} +0 % +-$", text, re.MULTILINE)
    assert plot_comparison(summary, "a map", ".png").startswith(b"\x89PNG")


def test_a_map_that_is_solved_at_once_can_be_drawn() -> None:
    summary = summarise(compare_on(subject_of(lambda z, h: 0 * h)))
    assert summary["solvers"]["picard"]["tolerances"][-1]["evaluations"]["median"] == 1
    assert b"</svg>" in plot_comparison(summary, "a map", ".svg")


class Counting(nn.Module):
    """A cell that counts its evaluations in a buffer, as BatchNorm in training mode does."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        self.steps += 1
        return linear(z, h)


def test_a_cell_that_is_no_fixed_map_is_refused() -> None:
    subject = subject_of(Counting())
    with pytest.raises(ConfigError, match=r"evaluating the cell \(Counting\) changes the buffer steps"):
        compare_on(subject)
    with pytest.raises(ConfigError, match=r"the cell \(Dropout\) gives two values at the same state"):
        compare_on(subject_of(Dropout()))
    probe_cell(subject_of(lambda z, h: z * torch.nan))


class Dropout(nn.Module):
    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        return linear(nn.functional.dropout(z, 0.5), h)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NoSelect", r"lacks the method select\(memory, samples\)"),
        ("Unsaid", "lacks the attribute safeguarded"),
        ("Truncating", r"\(12, 4\) torch.float64: it proposed a tensor \(12, 3\)"),
        ("Narrowing", r"it proposed a tensor \(12, 4\) torch.float32"),
        ("StateAlone", "must return \\(state, memory\\)"),
        ("InPlace", "step changes the state"),
        ("Deaf", r"step\(z, field, memory\) raises AssertionError"),
        ("Clumsy", r"forget\(memory, samples\) raises KeyError"),
    ],
)
def test_a_solver_that_breaks_the_protocol_is_named(name: str, said: str, toys: Any) -> None:
    with pytest.raises(ConfigError, match=f"^solver mine.*{said}"):
        compare_on(subject_of(linear), {"mine": getattr(toys, name)()})


def test_names_and_classes_that_cannot_be_compared(toys: Any) -> None:
    with pytest.raises(ConfigError, match="the name is taken"):
        compare_on(subject_of(linear), {"picard": toys.Damped()})
    with pytest.raises(ConfigError, match="is the class Damped: make an instance"):
        compare_on(subject_of(linear), {"mine": toys.Damped})


# The command.


def test_the_command_prints_draws_and_writes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ("--solver", "toy_solvers:Damped", "--solver", "toy_solvers:damped", "--solver", "toy_solvers:make")
    files = ("--json", "out.json", "--plot", "out.png")
    assert run("solvers", "model.safetensors", *own, *files, "--images", "12", "--evaluations", "40") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "deq on digits, 12 test images" in captured.out
    for name in (*SOLVERS, "Damped", "damped", "make"):
        assert len(re.findall(rf"^{name} ", captured.out, re.MULTILINE)) >= 2, name
    assert "\x1b" not in captured.out
    report = strictly((folder / "out.json").read_text())
    assert (report["schema"], report["images"], report["dim"], len(report["indices"])) == (1, 12, 8, 12)
    assert report["own_tolerance"] == 1e-3
    assert report["checkpoint"]["kind"] == "deq"
    assert list(report["solvers"]) == [*SOLVERS, "Damped", "damped", "make"]
    assert report["solvers"]["anderson"]["settings"].startswith("Anderson(window=5")
    assert report["solvers"]["Damped"]["settings"] == "toy_solvers.Damped"
    damped = [each["evaluations"]["median"] for each in report["solvers"]["Damped"]["tolerances"]]
    assert damped == [each["evaluations"]["median"] for each in report["solvers"]["make"]["tolerances"]]
    pixels = drawn(folder / "out.png")
    for colour in ("#0b6bb8", "#c8500a", "#00805e", "#8a4a86"):
        assert (pixels == torch.tensor(list(bytes.fromhex(colour[1:])))).all(-1).sum() > 20, colour


def drawn(path: Path) -> Tensor:
    import numpy
    from PIL import Image

    return torch.from_numpy(numpy.array(Image.open(path).convert("RGB")))


def test_an_svg_is_the_same_whenever_it_is_drawn(folder: Path) -> None:
    summary = summarise(compare_on(subject_of(linear)))
    first, second = (plot_comparison(summary | {"own_tolerance": 1e-3}, "t", ".svg") for _ in range(2))
    assert first == second
    for words in (b"picard, rate 0.60", b"slope of the spectral radius, 0.60", b"the model's tolerance, 0.001"):
        assert words in first
    assert b"#0101" not in first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nowhere.safetensors", "nowhere.safetensors: no such file"),
        ("toy_solvers.py", "toy_solvers.py"),
        ("model.safetensors --images 0", '--images: "0" is not a whole number from 1 up'),
        ("model.safetensors --evaluations 0", "Must be >= 1"),
        ("model.safetensors --solver andersn", "expected MODULE:NAME, such as my_solvers:Mine, got 'andersn'"),
        ("model.safetensors --solver anderson", "it is always compared"),
        ("model.safetensors --solver nowhere:Mine", "no module 'nowhere'"),
        ("model.safetensors --solver toy_solvers:Dampd", "did you mean 'Damped'?"),
        ("model.safetensors --solver toy_solvers:number", "solver number (int) lacks the method init(z)"),
        ("model.safetensors --solver toy_solvers:Greedy", "called without arguments, raises TypeError"),
        ("model.safetensors --solver toy_solvers:Truncating", "solver Truncating: step must propose states like those"),
        ("model.safetensors --plot out.pdf", "ends in .svg or .png"),
        ("model.safetensors --plot nowhere/out.png", "there is no directory nowhere"),
        ("model.safetensors --json nowhere/out.json", "there is no directory nowhere"),
        ("model.safetensors --json .", "is a directory"),
        ("model.safetensors --json model.safetensors", "is the checkpoint itself"),
        ("model.safetensors --json out.png --plot out.png", "name the same file"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(
    arguments: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
    assert run("solvers", *arguments.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("stabdeq: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert {path: path.read_bytes() for path in folder.glob("*.*") if path.is_file()} == before


def test_files_are_refused_before_the_solvers_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr("analysis.measure.solvers.solve", lambda *_, **__: pytest.fail("the work has begun"))
    for option in ("--json", "--plot"):
        assert run("solvers", "model.safetensors", option, "out.png") == 2


def test_a_disk_that_fills_up_leaves_the_old_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError("disk full")

    (folder / "out.json").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    assert run("solvers", "model.safetensors", "--images", "3", "--json", "out.json") == 2
    assert "out.json could not be written (disk full)" in capsys.readouterr().err
    assert (folder / "out.json").read_text() == "old"


# What a reader sees.


def printed(summary: dict[str, Any], width: int, **settings: Any) -> str:
    output = io.StringIO()
    print_comparison(summary, "deq on digits, 12 test images", Console(width=width, file=output, **settings))
    return output.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_width(width: int, toys: Any) -> None:
    names = {"a_solver_with_a_rather_long_name": toys.Damped(), "bad\x1b[31m": toys.Damped()}
    summary = summarise(compare_on(subject_of(linear), names, evaluations=30))
    text = printed(summary, width, force_terminal=True, color_system=None)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b[31m" not in text
    rows = [line.split() for line in text.splitlines() if line.startswith("picard ")]
    assert [len(row) for row in rows] == [12, 9]
    assert rows[0][-1] == "0.600"
    assert all(time.startswith(">") or float(time) > 0 for time in rows[1][1:])
    assert rows[1][-1].startswith(">")


def test_paper_has_the_colours_of_the_pages_light_scheme() -> None:
    css = (Path(str(analysis.__file__)).parent / "report" / "templates" / "report.css").read_text().split("@media")[0]
    for stand_in, colour in drawing.PAPER.items():
        assert f"{drawing._VARIABLES[stand_in]}: {colour};" in css
