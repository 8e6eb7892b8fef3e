"""Settings by name: each solver and objective has its own, another's are refused, and files of schema 1 are still read."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import parts_of, tiny_checkpoint, tiny_model, write_parts
from torch import Tensor
from training_runs import metrics_of, tiny_architecture, tiny_data, tiny_recipe

from stabdeq.checkpoint import load_checkpoint, save_checkpoint
from stabdeq.config import (
    AndersonConfig,
    ArchitectureConfig,
    BroydenConfig,
    PicardConfig,
    SolverConfig,
    parse_config,
)
from stabdeq.errors import CheckpointError, ConfigError
from stabdeq.registry import SOLVERS
from stabdeq.solvers import Anderson, Broyden, Picard, build_solver
from train.objectives import (
    OBJECTIVES,
    CrossEntropy,
    IntervalTraining,
    Outcome,
    PGDTraining,
    Trades,
    register_objective,
)
from train.recipe import Recipe, load_recipe, plain_recipe
from train.trainer import CHECKPOINT_NAME, train

# Solvers


@pytest.mark.parametrize("name", list(SOLVERS))
def test_settings_of_a_solver_are_those_of_its_maker(name: str) -> None:
    config = parse_config(SolverConfig, {"name": name}, "it")
    made = build_solver(config)
    assert made == SOLVERS[name]()
    assert set(config.of_the_solver()) == {field.name for field in fields(SOLVERS[name])} - {"ridge"}
    assert parse_config(SolverConfig, asdict(config), "it") == config


def test_given_settings_reach_the_solver() -> None:
    assert build_solver(AndersonConfig(window=3, mixing=0.5)) == Anderson(window=3, mixing=0.5)
    assert build_solver(BroydenConfig(memory=4, line_search=True)) == Broyden(memory=4, line_search=True)
    assert build_solver(PicardConfig(mixing=0.5)) == Picard(mixing=0.5)
    assert parse_config(ArchitectureConfig, {"solver": {"window": 3}}, "it").solver == AndersonConfig(window=3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["model.solver.name=broyden", "model.solver.window=3"],
            "model.solver.window = 3 means nothing to broyden, which has tolerance, max_evaluations, compiled, returns, gradient, "
            "gradient_steps, memory, line_search: it belongs to anderson; leave it out, or choose another model.solver.name",
        ),
        (["model.solver.name=broyden", "model.solver.mixing=1"], "it belongs to anderson, picard"),
        (["model.solver.name=picard", "model.solver.window=3"], "means nothing to picard"),
        (["model.solver.memory=3"], "model.solver.memory = 3 means nothing to anderson"),
        (
            ["model.solver.name=broyden", "model.solver.memroy=3"],
            "unknown key 'model.solver.memroy': did you mean 'memory'?",
        ),
        (
            ["model.solver.name=broyden", "model.solver.memory=0"],
            "model.solver.memory = 0: input should be greater than",
        ),
        (["model.solver.name=[1]"], "model.solver.name = [1] is unknown: Valid: anderson, broyden, picard"),
        (["model.solver=3"], "model.solver = 3: input should be a dictionary"),
        (["model.solver.name=registered"], "model.solver.name = 'registered' is unknown"),
        (
            ["objective.name=ibp", "objective.beta=6"],
            "objective.beta = 6 means nothing to ibp, which has eps, kappa: it",
        ),
        (
            ["objective.eps=0.1"],
            "means nothing to cross-entropy, which has no settings: it belongs to trades, pgd-at, ibp",
        ),
        (["objective.name=trade"], "objective.name = 'trade' is unknown: did you mean 'trades'?"),
        (["objective.name=pgd-at", "objective.norm=l3"], "objective.norm = 'l3' is unknown"),
        (["objective.name=trades", 'objective.beta="None"'], "objective.beta = 'None'"),
    ],
)
def test_a_setting_that_another_has_is_an_error_that_says_whose_it_is(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("digits", settings=settings)
    assert said in str(caught.value)


# Objectives


def test_an_objective_is_chosen_where_the_recipe_has_no_table_of_it() -> None:
    assert load_recipe("digits").objective == CrossEntropy()
    assert load_recipe("digits", settings=["objective.name=trades", "objective.beta=3"]).objective == Trades(beta=3)


@pytest.mark.parametrize(
    "objective", [CrossEntropy(), Trades(steps=2), PGDTraining(eps=0.1), IntervalTraining()], ids=str
)
def test_a_stored_recipe_is_the_recipe(objective: Any) -> None:
    recipe = Recipe(objective=objective)
    assert parse_config(Recipe, plain_recipe(recipe), "it") == recipe


class Smoothed:
    """The cross-entropy, with ``weight`` times the mean squared logit."""

    def __init__(self, *, weight: float = 0.1) -> None:
        if weight < 0:
            raise ValueError(f"weight {weight} is negative")
        self.weight = weight

    def __call__(
        self, model: Any, images: Tensor, labels: Tensor, *, generator: torch.Generator, fraction: float
    ) -> Outcome:
        prediction = model.predict(images)
        return Outcome(prediction, self.weight * prediction.logits.square().mean())


def test_a_users_objective_is_trained_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OBJECTIVES, "_registered", {})
    register_objective("smoothed", Smoothed)
    recipe = parse_config(
        Recipe, plain_recipe(tiny_recipe()) | {"objective": {"name": "smoothed", "weight": 1.0}}, "it"
    )
    train(recipe, tiny_data(), tmp_path / "run")
    train(recipe, tiny_data(), tmp_path / "run", resume=True)
    train(tiny_recipe(), tiny_data(), tmp_path / "plain")
    assert metrics_of(tmp_path / "run") != metrics_of(tmp_path / "plain")
    with pytest.raises(ConfigError, match=r"'wieght' means nothing to the objective smoothed: did you mean 'weight'\?"):
        load_recipe("digits", settings=["objective.name=smoothed", "objective.wieght=1"])
    with pytest.raises(ConfigError, match="weight -1 is negative"):
        load_recipe("digits", settings=["objective.name=smoothed", "objective.weight=-1"])


# Files of schema 1

ALL_SOLVERS = {"window": 7, "mixing": 0.5}  # schema 1 stored both, whichever solver was named
ALL_OBJECTIVES = {"norm": None, "eps": None, "steps": None, "step_size": None, "beta": None, "kappa": None}


def as_schema_1(path: Path) -> None:
    """Write what is in ``path`` again as schema 1 did."""
    tensors, metadata = parts_of(path.read_bytes())
    assert metadata["schema"] == 2
    metadata["schema"] = 1
    for holder in (metadata["model"], metadata["recipe"].get("model", {})):
        if solver := holder.get("solver"):
            common = {
                key: solver[key] for key in ("tolerance", "max_evaluations", "compiled", "gradient", "gradient_steps")
            }
            holder["solver"] = {
                "name": solver["name"],
                **common,
                **ALL_SOLVERS,
                **{k: solver[k] for k in solver if k in ALL_SOLVERS},
            }
    if objective := metadata["recipe"].get("objective"):
        metadata["recipe"]["objective"] = ALL_OBJECTIVES | objective
    write_parts(path, tensors, metadata)


@pytest.mark.parametrize(
    "config", [AndersonConfig(window=7, mixing=0.5), BroydenConfig(), PicardConfig(mixing=0.5)], ids=str
)
def test_a_checkpoint_of_schema_1_is_read_and_written_as_schema_2(config: Any, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_checkpoint(path, tiny_checkpoint(tiny_model(solver=config), optimiser={}))
    as_schema_1(path)
    assert ALL_SOLVERS.items() <= parts_of(path.read_bytes())[1]["model"]["solver"].items()
    loaded = load_checkpoint(path)
    assert loaded.model.config.solver == config
    save_checkpoint(tmp_path / "new.safetensors", loaded)
    again = parts_of((tmp_path / "new.safetensors").read_bytes())[1]
    assert again["schema"] == 2
    assert again["model"]["solver"] == asdict(config)


def test_schema_2_drops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, tiny_checkpoint(tiny_model(solver=BroydenConfig()), optimiser={}))
    tensors, metadata = parts_of(path.read_bytes())
    metadata["model"]["solver"]["window"] = 3
    write_parts(path, tensors, metadata)
    with pytest.raises(CheckpointError, match=r"model\.solver\.window = 3 means nothing to broyden"):
        load_checkpoint(path)


@pytest.mark.parametrize("objective", [CrossEntropy(), PGDTraining(steps=2)], ids=str)
def test_a_run_of_schema_1_is_resumed(objective: Any, tmp_path: Path) -> None:
    solver = BroydenConfig(tolerance=1e-2)
    model = ArchitectureConfig(state_dim=8, solver=solver, lyapunov=tiny_architecture().lyapunov)
    recipe = tiny_recipe(objective=objective, model=model)
    train(recipe, tiny_data(), tmp_path / "run")
    train(recipe, tiny_data(), tmp_path / "whole")
    as_schema_1(tmp_path / "run" / CHECKPOINT_NAME)
    train(recipe, tiny_data(), tmp_path / "run", resume=True)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")


@pytest.mark.parametrize("value", [None, 3, "broyden", [], {"name": None}, {"name": [1]}, {"name": {"a": 1}}])
def test_anything_in_the_place_of_old_settings_is_refused_in_words(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, tiny_checkpoint(optimiser={}))
    tensors, metadata = parts_of(path.read_bytes())
    metadata["schema"] = 1
    metadata["model"]["solver"] = value
    metadata["recipe"] |= {"model": value, "objective": value}
    write_parts(path, tensors, metadata)
    with pytest.raises(CheckpointError, match=r"model\.solver"):
        load_checkpoint(path)
