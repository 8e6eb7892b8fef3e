"""A solver from a user's code: registered, named in a recipe, trained, saved, loaded and compared."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from heavy_ball import HeavyBall
from tiny_checkpoints import tiny_model
from training_runs import tiny_data

from analysis.measure.subject import prepare
from analysis.solver_comparison import compare_on, summarise
from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig, ModelConfig, SolverConfig, parse_config
from stabdeq.data import load_data, to_unit
from stabdeq.errors import CheckpointError, ConfigError
from stabdeq.registry import SOLVERS, register_solver
from stabdeq.solvers import build_solver
from stabdeq.testing import assert_solver
from train.recipe import Recipe, load_recipe, plain_recipe
from train.trainer import CHECKPOINT_NAME, train


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOLVERS, "_registered", {})
    register_solver("heavy-ball", HeavyBall)


def settings_of(**solver: Any) -> Any:
    return parse_config(SolverConfig, {"name": "heavy-ball", **solver}, "it")


def test_from_a_recipe_to_a_comparison(tmp_path: Path) -> None:
    recipe = load_recipe(
        "digits",
        {"kind": "deq", "epochs": 1, "batch_size": 64},
        [
            "model.solver.name=heavy-ball",
            "model.solver.momentum=0.3",
            "model.solver.tolerance=1e-2",
            "model.state_dim=16",
            "learning_rate=0.01",
        ],
    )
    assert build_solver(recipe.model.solver) == HeavyBall(momentum=0.3)
    data = load_data(DataConfig(name="digits"))
    scores = train(recipe, data, tmp_path)
    assert scores.accuracy > 0.4
    checkpoint = load_checkpoint(tmp_path / CHECKPOINT_NAME)
    assert checkpoint.model.config.solver == recipe.model.solver
    assert parse_config(Recipe, checkpoint.recipe, "the file") == recipe
    train(recipe, data, tmp_path, resume=True)
    images, labels = to_unit(data.test.images[:12]), data.test.labels[:12]
    with torch.no_grad():
        assert checkpoint.model.predict(images).solution.converged.all()
    mine = build_solver(checkpoint.model.config.solver)
    compared = compare_on(prepare(checkpoint.model, images, labels), {"heavy-ball": mine}, evaluations=60)
    assert compared.records["heavy-ball"].solver == HeavyBall(momentum=0.3)
    assert summarise(compared)["solvers"]["heavy-ball"]["tolerances"][0]["converged"] == 1


def test_a_solver_that_is_compared_by_identity_is_found_in_a_comparison() -> None:
    class Plain:
        """Heavy ball, made anew at each asking and equal to no other."""

        def __init__(self) -> None:
            self.rule = HeavyBall(momentum=0.3)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.rule, name)

    register_solver("plain", Plain)
    model = tiny_model("deq")
    model.config = replace(model.config, solver=parse_config(SolverConfig, {"name": "plain"}, "it"))
    compared = compare_on(prepare(model.eval(), torch.rand(4, 1, 3, 3), torch.arange(4) % 2), evaluations=30)
    assert summarise(compared)["own_solver"] == "own (plain)"


def test_it_meets_the_contract_as_built() -> None:
    assert_solver(build_solver(settings_of(mixing=0.6)))


def test_its_settings_are_its_makers_arguments() -> None:
    config = settings_of(mixing=0.25, tolerance=1e-4)
    assert (config.tolerance, config.options) == (1e-4, {"mixing": 0.25})
    assert parse_config(SolverConfig, asdict(config), "it") == config
    recipe = Recipe(model=ArchitectureConfig(solver=config))
    assert parse_config(Recipe, plain_recipe(recipe), "it") == recipe
    with pytest.raises(
        ConfigError, match=r"'momentun' means nothing to the solver heavy-ball: did you mean 'momentum'\?"
    ):
        settings_of(momentun=0.3)
    with pytest.raises(ConfigError, match="'window' means nothing to the solver heavy-ball: Valid: mixing, momentum"):
        settings_of(window=3)
    with pytest.raises(ConfigError, match="tolerance = -1: input should be greater than 0"):
        settings_of(tolerance=-1)


def test_a_maker_may_be_a_function_that_takes_anything_or_nothing() -> None:
    register_solver("any", lambda **options: HeavyBall(**options))
    config = parse_config(SolverConfig, {"name": "any", "mixing": 0.1}, "it")
    assert build_solver(config) == HeavyBall(mixing=0.1)
    with pytest.raises(ConfigError, match=r"the solver any cannot be made with {'bata': 2}: TypeError"):
        build_solver(parse_config(SolverConfig, {"name": "any", "bata": 2}, "it"))
    register_solver("none", lambda: HeavyBall())
    with pytest.raises(ConfigError, match="'mixing' means nothing to the solver none: it has no settings"):
        parse_config(SolverConfig, {"name": "none", "mixing": 0.1}, "it")
    register_solver("three", lambda: 3)
    with pytest.raises(ConfigError, match=r"solver three \(int\) lacks the method init\(z\)"):
        build_solver(parse_config(SolverConfig, {"name": "three"}, "it"))


def test_names_that_are_taken() -> None:
    for name in ("anderson", "heavy-ball"):
        with pytest.raises(ConfigError, match=f"the solver '{name}' exists already"):
            register_solver(name, dict)
    register_solver("heavy-ball", HeavyBall)  # the same again, as a module that is imported twice does


def test_a_checkpoint_of_a_solver_that_is_not_registered_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(kind="deq", epochs=1, batch_size=16, model=ArchitectureConfig(state_dim=4, solver=settings_of()))
    train(recipe, tiny_data(), tmp_path)
    monkeypatch.setattr(SOLVERS, "_registered", {})
    with pytest.raises(
        CheckpointError, match=r"model.solver.name = 'heavy-ball' is unknown: Valid: anderson, broyden, picard"
    ):
        load_checkpoint(tmp_path / CHECKPOINT_NAME)


def test_settings_of_a_model_in_python() -> None:
    options: dict[str, Any] = {"image_shape": (1, 3, 3), "classes": 2, "mean": (0.5,), "std": (0.2,)}
    config = ModelConfig(**options, solver={"name": "heavy-ball", "momentum": 0.2})  # type: ignore[arg-type]
    assert build_solver(config.solver) == HeavyBall(momentum=0.2)
