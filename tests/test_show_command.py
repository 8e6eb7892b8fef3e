"""``stabdeq show``: what it prints is a recipe, and trains the same model."""

import datetime
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from command_runs import run
from hypothesis import given
from hypothesis import strategies as st

from stabdeq.config.kinds import KINDS, model_config
from stabdeq.errors import ConfigError
from stabdeq.registry import SOLVERS
from stabdeq.toml_text import toml_text
from train.recipe import Recipe, load_recipe, recipe_names, setting_names
from train.whole_recipe import whole_recipe

DATA: dict[str, Any] = {"image_shape": (3, 32, 32), "classes": 10, "mean": (0.5,) * 3, "std": (0.2,) * 3}
CHANGES = [
    [],
    ["epochs=3", "learning_rate=1e-5", "decay.radii=[0.5, 2]", "data.augment=true"],
    ["model.solver.name=broyden", "model.solver.memory=7", "model.solver.gradient=unrolled"],
    ["objective.name=pgd-at", "objective.norm=l2", "objective.eps=0.5", "objective.step_size=0.1"],
    ["objective.name=trades", "objective.beta=3"],
    ["model.lyapunov.alpha=0.2", "model.head=orthogonal", "model.stability=anchored", "model.cell=certified"],
]

pytestmark = pytest.mark.usefixtures("folder")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> Recipe:
    """Save what ``stabdeq show`` prints, and return the recipe that it is."""
    assert run("show", *arguments) == 0
    Path("shown.toml").write_text(capsys.readouterr().out)
    return load_recipe("shown.toml")


def same_run(recipe: Recipe, other: Recipe) -> None:
    """Assert that both train one model on the same data in the same way."""
    assert model_config(recipe.kind, recipe.model, **DATA) == model_config(other.kind, other.model, **DATA)
    assert replace(recipe, model=other.model) == other


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: changes[0] if changes else "as it is")
def test_what_is_shown_trains_the_same(changes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    settings = [word for change in changes for word in ("--set", change)]
    same_run(shown(capsys, "digits", *settings), load_recipe("digits", settings=changes))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_shown_of_every_kind_trains_the_same(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    same_run(shown(capsys, "cifar100", "--kind", kind), load_recipe("cifar100", {"kind": kind}))


@pytest.mark.parametrize("name", recipe_names())
def test_nothing_is_left_to_a_default(name: str) -> None:
    text = whole_recipe(load_recipe(name))
    values: dict[str, Any] = tomllib.loads(text)
    for setting in setting_names():
        part: Any = values
        for key in setting.split("."):
            assert key in part, setting
            part = part[key]
    assert whole_recipe(Recipe(**asdict(load_recipe(name)))) == text


def test_a_setting_that_a_file_may_not_have_is_told_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = shown(capsys, "digits", "--set", "model.solver.compiled=true")
    assert not recipe.model.solver.compiled
    assert "--set model.solver.compiled=true" in Path("shown.toml").read_text()


def test_options_of_a_registered_solver(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOLVERS, "_registered", {"mine": lambda depth, word: None})
    changes = ("model.solver.name=mine", "model.solver.depth=3", "model.solver.word='\"é'")
    recipe = shown(capsys, "digits", *(word for change in changes for word in ("--set", change)))
    assert recipe.model.solver.options == {"depth": 3, "word": '"é'}
    assert recipe.model.solver == replace(load_recipe("digits", settings=changes).model.solver, tolerance=1e-3)


def test_what_cannot_be_trained_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for words, reason in [
        (["digit"], "did you mean 'digits'?"),
        (["digits", "--set", "epoch=3"], "did you mean 'epochs'?"),
        (["digits", "--kind", "deq", "--set", "model.head=orthogonal"], "kind deq has head linear"),
    ]:
        assert run("show", *words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert reason in captured.err


# TOML.

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLAIN = st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.dates() | st.datetimes() | st.times()
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_written_as_toml_is_read_as_it_was(values: dict[str, Any]) -> None:
    text = toml_text(values)
    assert text.isascii()
    assert tomllib.loads(text) == values


def test_what_toml_has_no_form_for_is_refused() -> None:
    assert tomllib.loads(toml_text({"at": datetime.date(2020, 1, 2)})) == {"at": datetime.date(2020, 1, 2)}
    with pytest.raises(ConfigError, match=r"a\.b = None has no form in TOML"):
        toml_text({"a": {"b": None}})
