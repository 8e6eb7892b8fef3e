"""The solver that ``stabdeq solvers`` recommends: by median time, of those that reach the tolerance on every image."""

import io
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console
from test_audit import ForeignModel, images
from tiny_checkpoints import tiny_model

from analysis import solver_comparison
from analysis.measure.solvers import SETTINGS, SOLVERS, Reached
from analysis.measure.subject import Subject, prepare
from analysis.report import solvers
from analysis.report.solvers import print_comparison
from analysis.solver_comparison import Comparison, choice, compare_on, summarise
from stabdeq.config import AndersonConfig, BroydenConfig, PicardConfig, SolverConfig
from stabdeq.solvers import Picard, Status, build_solver
from train.recipe import load_recipe

TOLERANCE = 2e-4  # among none of the columns
OWN = AndersonConfig(tolerance=TOLERANCE)


def subject_of(solver: SolverConfig) -> Subject:
    model = tiny_model()
    model.config = replace(model.config, solver=solver)
    shape = model.config.image_shape
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    return prepare(model.eval(), x, torch.arange(6) % model.config.classes)


def compared(
    monkeypatch: pytest.MonkeyPatch,
    seconds: dict[str, list[float]],
    failing: tuple[str, ...] = (),
    solver: SolverConfig = OWN,
) -> Comparison:
    """A comparison in which each solver's five solves to the model's tolerance take ``seconds``; the ``failing`` miss one image."""
    clocks: dict[str, Iterator[float]] = {name: iter(values) for name, values in seconds.items()}
    timed = solver_comparison.time_solver

    def at_leisure(subject: Subject, one: Any, tolerance: float, evaluations: int) -> Reached:
        run = timed(subject, one, tolerance, evaluations)
        if tolerance != TOLERANCE:
            return run
        if one.name in failing:
            run.solution.status[3] = Status.max_steps
        return replace(run, seconds=next(clocks[one.name], 9.0) if one.name in clocks else 9.0)

    monkeypatch.setattr(solver_comparison, "time_solver", at_leisure)
    return compare_on(subject_of(solver), {"mine": Picard(0.9)}, tolerances=(1e-2, 1e-3))


def printed(comparison: Comparison) -> str:
    output = io.StringIO()
    print_comparison(summarise(comparison), "a title", Console(width=300, file=output))
    return output.getvalue()


def test_the_finest_tolerance_is_the_smallest_in_whatever_order_they_stand() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        subject = subject_of(OWN)
    summaries = [summarise(compare_on(subject, tolerances=each, evaluations=3)) for each in ((0.9, 1e-9), (1e-9, 0.9))]
    arrived, failures = (
        [[(row[0], row[-2]) for row in solvers._tables(summary)[0].rows] for summary in summaries],
        [solvers._failures(summary) for summary in summaries],
    )
    assert arrived[0] == arrived[1]
    assert ("anderson", "0 %") in arrived[0]
    assert summaries[0]["solvers"]["anderson"]["tolerances"][0]["converged"] == 1  # of the coarser one
    assert failures[0] == failures[1] != []


def test_the_least_median_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the fastest of the solves: one lucky solve is none of a user's."""
    seconds = {"picard": [0.1, 5, 5, 5, 5], "squarem": [4, 2, 2, 1, 3], "anderson": [3.0] * 5}
    comparison = compared(monkeypatch, seconds)
    assert comparison.recommended == "squarem"
    summary = summarise(comparison)
    assert summary["own_tolerance"] == TOLERANCE
    assert (summary["recommended"], summary["own_solver"]) == ("squarem", "anderson")
    assert summary["solvers"]["squarem"]["own_seconds"] == 2
    text = printed(comparison)
    assert "Fastest to the model's own tolerance, 2e-4, on all 6 images: squarem, 2000 ms (median of 5); " in text
    assert "the model's own, anderson, takes 1.50 times as long." in text
    assert "To choose it: stabdeq train RECIPE --set model.solver.name=squarem" in text


def test_one_image_that_does_not_arrive_is_enough_not_to_be_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"picard": [1.0] * 5, "squarem": [2.0] * 5}
    comparison = compared(monkeypatch, seconds, failing=("picard", "anderson"))
    assert comparison.recommended == "squarem"
    assert comparison.records["picard"].seconds is None
    assert "the model's own, anderson, does not reach it." in printed(comparison)


def test_where_none_arrives_none_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compared(monkeypatch, {}, failing=(*SOLVERS, "mine"))
    assert comparison.recommended is None
    text = printed(comparison)
    assert "No solver reaches the model's own tolerance, 2e-4, on all 6 images within 100 evaluations: none is" in text
    assert "To choose it" not in text


def test_a_users_solver_can_win_and_has_to_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compared(monkeypatch, {"mine": [1.0] * 5})
    assert comparison.recommended == "mine"
    assert "To choose it: register it, and name it in a recipe" in printed(comparison)


def test_the_models_own_settings_are_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    own = BroydenConfig(memory=3, tolerance=TOLERANCE)
    comparison = compared(monkeypatch, {"own (broyden)": [1.0] * 5}, solver=own)
    assert list(comparison.records) == [*SOLVERS, "own (broyden)", "mine"]
    assert comparison.recommended == "own (broyden)"
    assert "It is the model's own." in printed(comparison)


def test_a_model_without_a_tolerance_of_its_own() -> None:
    subject = prepare(ForeignModel(lambda z, h: 0.5 * z + h, (4,)), *images())
    comparison = compare_on(subject, tolerances=(1e-2,))
    summary = summarise(comparison)
    assert (summary["own_tolerance"], summary["own_solver"], summary["recommended"]) == (None, None, None)
    assert "Fastest" not in printed(comparison)


@pytest.mark.parametrize(
    "settings", [*SETTINGS.values(), BroydenConfig(memory=3, line_search=True), PicardConfig(mixing=0.5)]
)
def test_the_options_choose_that_solver(settings: SolverConfig) -> None:
    options = choice(settings).split()
    assert options[::2] == ["--set"] * (len(options) // 2)
    recipe = load_recipe("digits", settings=options[1::2])
    assert build_solver(recipe.model.solver) == build_solver(settings)


def test_the_options_choose_that_solver_whatever_the_recipe_has() -> None:
    """The window of the recipe is another: it may not stay."""
    options = shlex.split(choice(SETTINGS["anderson"]))[1::2]
    recipe = load_recipe("digits", {}, ["model.solver.window=3", *options])
    assert recipe.model.solver.window == SETTINGS["anderson"].window
