"""Recipes: those that ship hold the paper's settings, and every slip of a user's is named in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stabdeq.backbones import native_width
from stabdeq.config import (
    AndersonConfig,
    ArchitectureConfig,
    BroydenConfig,
    DataConfig,
    LyapunovConfig,
    ModelConfig,
    parse_config,
)
from stabdeq.config.kinds import KINDS, kind_of, model_config
from stabdeq.errors import ConfigError
from train.recipe import DecayConfig, Recipe, load_recipe, plain_recipe, recipe_names

ONE_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def refusal(*arguments: Any, **options: Any) -> str:
    """The message, in one line, of the ConfigError that loading a recipe must raise."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What ships.

# arXiv 2304.12707: epochs and learning rate of section 5.2, extractors and state sizes of section 4, solver of Algorithm 1.
PAPER = {
    "mnist": {"epochs": 10, "backbone": "fcn", "state_dim": 64, "augment": False},
    "svhn": {"epochs": 40, "backbone": "resnet20", "state_dim": 64, "augment": True},
    "cifar10": {"epochs": 50, "backbone": "resnet20", "state_dim": 64, "augment": True},
    "cifar100": {"epochs": 50, "backbone": "resnet20", "state_dim": 128, "augment": True},
}
ANY_KIND = ["digits", *PAPER]


def test_the_recipes_that_ship() -> None:
    assert recipe_names() == [
        *(
            "cifar10",
            "cifar100",
            "digits",
            "digits-convolution",
            "mnist",
            "mnist-certified",
            "mnist-convolution",
            "mnist-robust",
            "svhn",
        )
    ]


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_holds_the_settings_of_the_paper(name: str) -> None:
    recipe, paper = load_recipe(name), PAPER[name]
    assert recipe.data.name == name
    assert recipe.epochs == paper["epochs"]
    assert recipe.learning_rate == 1e-3
    assert recipe.data.augment is paper["augment"]
    assert recipe.model.backbone == paper["backbone"]
    assert recipe.model.state_dim == paper["state_dim"]
    solver = recipe.model.solver
    assert (solver.name, solver.window, solver.max_evaluations, solver.mixing) == ("anderson", 5, 50, 1.0)


def test_digits() -> None:
    recipe = load_recipe("digits")
    assert recipe.data.name == "digits"
    assert not recipe.data.augment
    assert recipe.model.backbone == "fcn"
    assert recipe.model.solver == AndersonConfig()


@pytest.mark.parametrize("name", ANY_KIND)
@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_makes_a_model_of_every_kind(name: str, kind: str) -> None:
    recipe = load_recipe(name, {"kind": kind})
    config = model_config(
        recipe.kind, recipe.model, image_shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.2,) * 3
    )
    assert kind_of(config) == kind
    own = KINDS[kind].backbone
    assert config.backbone == (own or recipe.model.backbone)
    assert config.state_dim == ((own and native_width(own)) or recipe.model.state_dim)


def test_a_recipe_trains_the_anchored_kind_with_its_decay_term_by_default() -> None:
    for name in ANY_KIND:
        recipe = load_recipe(name)
        assert recipe.kind == "lyadeq-anchored"
        assert recipe.decay.weight > 0
        assert len(recipe.decay.radii) > 1


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_survives_json(name: str) -> None:
    """A checkpoint stores a recipe as JSON, and resuming compares it."""
    recipe = load_recipe(name, {"seed": 5}, ["learning_rate=0.3"])
    assert parse_config(Recipe, json.loads(json.dumps(plain_recipe(recipe))), "it") == recipe


# What a user gives.


def test_settings_replace_values() -> None:
    recipe = load_recipe(
        "mnist",
        settings=[
            "model.lyapunov.alpha=0.2",
            "model.solver.name=broyden",
            'data.name = "digits"',
            "data.augment=true",
            "learning_rate=1e-4",
            "batch_size=32",
            "batch_size=33",
            "kind=lyadeq",
            "model.stability=residual",
        ],
    )
    assert recipe.model.lyapunov == LyapunovConfig(alpha=0.2)
    assert recipe.model.solver == BroydenConfig()
    assert recipe.data == DataConfig(name="digits", augment=True)
    assert load_recipe("mnist", settings=["decay.radii=[0.5, 1]"]).decay == DecayConfig(radii=(0.5, 1.0))
    assert (recipe.learning_rate, recipe.batch_size, recipe.kind) == (1e-4, 33, "lyadeq")
    assert recipe.model.stability == "residual"
    assert recipe.epochs == 10


def test_overrides_replace_values_unless_they_are_none() -> None:
    recipe = load_recipe("mnist", {"kind": "deq", "epochs": 3, "seed": None}, ["epochs=7", "seed=4"])
    assert (recipe.kind, recipe.epochs, recipe.seed) == ("deq", 3, 4)
    assert load_recipe("mnist", {"kind": None}) == load_recipe("mnist")


WHOLE = (
    "seed",
    "epochs",
    "batch_size",
    "data.resize",
    "model.state_dim",
    "model.lyapunov.hidden",
    "model.solver.window",
)
POSITIVE = (
    "learning_rate",
    "model.lyapunov.alpha",
    "model.lyapunov.eta",
    "model.lyapunov.smoothing",
    "model.solver.mixing",
)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("epochs", "expected key=value"),
        ("=3", "expected key=value"),
        ("", "expected key=value"),
        (" = 3", "expected key=value"),
        ("epoch=3", "unknown key 'epoch': did you mean 'epochs'?"),
        ("model.lyapunov.alfa=3", "unknown key 'model.lyapunov.alfa': did you mean 'alpha'?"),
        ("modle.state_dim=3", "unknown key 'modle': did you mean 'model'?"),
        ("model.solver.tolerence=1", "did you mean 'tolerance'?"),
        ("decay.wieght=1", "did you mean 'weight'?"),
        ("model..x=1", "unknown key"),
        (".=1", "unknown key"),
        ("model.state_dim.x=3", "state_dim is a value"),
        ("model=3", "model = 3"),
        ("decay=[1]", "decay = [1]"),
        ("kind=lyadeq-anchord", "unknown kind 'lyadeq-anchord': did you mean 'lyadeq-anchored'?"),
        ("kind=DEQ", "unknown kind 'DEQ'"),
        ("kind=3", "kind = 3"),
        ("data.name=cifar-10", "did you mean 'cifar10'?"),
        ("model.backbone=resnet21", "did you mean 'resnet20'?"),
        ("model.solver.name=andersen", "did you mean 'anderson'?"),
        ("model.head=orthogonl", "did you mean 'orthogonal'?"),
        ("model.stability=anchord", "did you mean 'anchored'?"),
        ("model.lyapunov.alpha=0", "greater than 0"),
        ("model.lyapunov.alpha=-0.5", "greater than 0"),
        ("model.lyapunov.alpha=nan", "finite"),
        ("model.lyapunov.alpha=inf", "finite"),
        ("model.lyapunov.alpha=", "alpha = ''"),
        ("model.lyapunov.alpha=fast", "alpha = 'fast'"),
        ("model.lyapunov.eta=0", "greater than 0"),
        ("model.lyapunov.smoothing=0", "greater than 0"),
        ("model.lyapunov.hidden=0", "greater than or equal to 1"),
        ("model.state_dim=0", "greater than or equal to 1"),
        ("model.state_dim=1000000000", "less than or equal to"),
        ("model.solver.max_evaluations=0", "greater than or equal to 1"),
        ("decay.weight=-1", "greater than or equal to 0"),
        ("decay.radii=[]", "at least 1 item"),
        ("decay.radii=[0.1, 0]", "greater than 0"),
        ("decay.radii=1", "tuple"),
        ("epochs=0", "greater than or equal to 1"),
        ("epochs=1.5", "integer"),
        ("epochs=" + "9" * 10_000, "integer"),
        ("batch_size=1", "greater than or equal to 2"),
        ("learning_rate=0", "greater than 0"),
        ("learning_rate=inf", "finite"),
        ("learning_rate=nan", "finite"),
        ("learning_rate=1e39", "less than or equal to 1000000000"),  # beyond float32
        *((f"{name}=1e-30", "too near to 0 for float32: give 1e-09 or more") for name in POSITIVE),
        ("decay.radii=[1e-30]", "too near to 0"),
        ("margin.sharpness=1e-300", "too near to 0"),
        *((f"{name}={value}", "valid integer") for name in WHOLE for value in ("true", '"5"')),
        *((f"{name}={value}", "valid number") for name in POSITIVE for value in ("true", '"5"')),
        ("decay.radii=[true]", "valid number"),
        ("model.solver.tolerance=true", "valid number"),
        ("data.validation_fraction=false", "valid number"),
        ("model.solver.tolerance=0", "greater than 0"),
        ("model.lyapunov.smoothing=1e300", "less than or equal to 1000000000"),
        ("seed=-1", "greater than or equal to 0"),
        ("seed=4294967296", "less than 4294967296"),  # to torch's generator it is 0
        ("data.validation_fraction=1", "less than 1"),
        ("data.validation_fraction=-0.1", "greater than or equal to 0"),
        ("data.validation_fraction=nan", "data.validation_fraction = nan"),
        ("data.augment=maybe", "boolean"),
    ],
)
def test_a_setting_that_does_not_fit(setting: str, expected: str) -> None:
    assert expected in refusal("digits", settings=[setting])


@pytest.mark.parametrize(
    ("kind", "setting", "expected"),
    [
        (
            "deq",
            "model.lyapunov.alpha=7",
            "model.lyapunov.alpha would change nothing, since deq has no V: leave it out",
        ),
        ("deq", "model.lyapunov={alpha=7}", "deq has no V: leave it out, or choose another kind"),
        ("lyadeq", "decay.weight=9", "lyadeq has no V at the equilibrium"),
        ("lyadeq", "model.solver.gradient_steps=77", "set model.solver.gradient=unrolled"),
        ("resnet20", "model.solver.name=broyden", "resnet20 is a network of its own"),
        ("resnet20", "model.state_dim=3", "resnet20 is a network of its own"),
        ("resnet20", "model.backbone=vgg16", "resnet20 is a network of its own"),
    ],
)
def test_a_setting_of_a_part_that_the_kind_does_not_have(kind: str, setting: str, expected: str) -> None:
    assert expected in refusal("digits", {"kind": kind}, [setting])
    assert expected in refusal("digits", settings=[setting, f"kind={kind}"])


def test_settings_that_say_what_the_kind_does_or_stand_in_a_file_are_read(tmp_path: Path) -> None:
    assert load_recipe("digits", {"kind": "deq"}, ["decay.weight=0"]).decay.weight == 0
    unrolled = ["model.solver.gradient=unrolled", "model.solver.gradient_steps=7"]
    assert load_recipe("digits", {"kind": "deq"}, unrolled).model.solver.gradient_steps == 7
    (tmp_path / "any.toml").write_text("[model.lyapunov]\nalpha = 7.0\n")
    assert load_recipe(str(tmp_path / "any.toml"), {"kind": "deq"}).model.lyapunov.alpha == 7


def test_a_whole_number_is_a_number_and_so_is_one_of_numpy() -> None:
    assert load_recipe("digits", settings=["learning_rate=1", "model.solver.mixing=1"]).learning_rate == 1.0
    assert load_recipe("digits", {"seed": np.int64(3)}) == load_recipe("digits", {"seed": 3})


def test_a_tolerance_may_be_one_of_float64() -> None:
    assert load_recipe("digits", settings=["model.solver.tolerance=1e-13"]).model.solver.tolerance == 1e-13


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digit", "did you mean 'digits'?"),
        ("Digits", "did you mean 'digits'?"),
        ("cifar", "did you mean 'cifar10'?"),
        ("cifar-100", "did you mean 'cifar100'?"),
        (
            "imagenet",
            "Valid: cifar10, cifar100, digits, digits-convolution, mnist, mnist-certified, mnist-convolution, mnist-robust, svhn",
        ),
        ("", "Valid: cifar10"),
        ("../recipes/digits", "unknown recipe"),
        ("two\nlines", "unknown recipe"),
        ("nowhere.toml", "recipe file nowhere.toml does not exist"),
    ],
)
def test_an_unknown_recipe(name: str, expected: str) -> None:
    assert expected in refusal(name)


def test_a_kind_and_a_setting_that_contradict_each_other() -> None:
    recipe = load_recipe("digits", {"kind": "deq"}, ["model.stability=anchored"])
    with pytest.raises(ConfigError, match="kind deq has stability none, not anchored: choose another kind"):
        model_config(recipe.kind, recipe.model, image_shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.2,))


def test_an_unknown_kind_is_refused_by_the_model_too() -> None:
    with pytest.raises(ConfigError, match="did you mean 'deq'"):
        model_config("deqq", ArchitectureConfig(), image_shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.2,))


def test_a_file_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    # UTF-8 whatever the machine's own encoding is, as TOML says.
    path.write_bytes('# für mich\nkind = "deq-orth"\nepochs = 3\n[data]\nname = "svhn"\n'.encode())
    recipe = load_recipe(str(path), {"seed": 2}, ["epochs=4"])
    assert (recipe.kind, recipe.epochs, recipe.seed, recipe.data.name) == ("deq-orth", 4, 2, "svhn")
    assert recipe.batch_size == Recipe().batch_size
    monkeypatch.chdir(tmp_path)
    assert load_recipe("mine.toml", {"seed": 2}, ["epochs=4"]) == recipe


def test_an_empty_file_is_a_recipe_of_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").touch()
    assert load_recipe(str(tmp_path / "empty.toml")) == Recipe()


@pytest.mark.parametrize(
    "content",
    [
        b"epochs = ",
        b"epochs 3",
        b"epochs = 3\nepochs = 4",
        b"[model\nstate_dim = 4",
        b"kind = 'deq\n'",
        b"\xff\xfe",
        b"kind = '\xff'",
        b"\x00",
        b"PK\x03\x04",
        b"x = " + b"[" * 100_000,
        b"x = " + b"9" * 10_000,
    ],
)
def test_a_file_that_is_not_toml(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    message = refusal(str(path))
    assert f"recipe {path} is not TOML" in message
    assert "mend the file" in message


def test_a_file_whose_values_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[model]\nstate_dimm = 4\n")
    assert "unknown key 'model.state_dimm': did you mean 'state_dim'?" in refusal(str(path))
    path.write_text('model = "fcn"\n')
    assert "model = 'fcn'" in refusal(str(path))
    path.write_text("[epochs]\nx = 1\n")
    assert "epochs" in refusal(str(path))


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    assert "does not exist" in refusal(str(tmp_path / "folder.toml"))


def read_or_refused(name: str, settings: list[str]) -> None:
    try:
        recipe = load_recipe(name, settings=settings)
    except ConfigError:
        refusal(name, settings=settings)
    else:
        assert recipe.kind in KINDS


@given(key=st.text(max_size=12), value=st.text(max_size=12))
def test_any_setting_is_read_or_refused_in_one_line(key: str, value: str) -> None:
    read_or_refused("digits", [f"{key}={value}"])


@given(
    key=st.sampled_from(
        ["kind", "epochs", "data", "data.name", "model", "model.lyapunov.alpha", "decay.radii", "model.solver.x"]
    ),
    value=st.one_of(
        st.text(max_size=12), st.integers().map(str), st.floats().map(repr), st.sampled_from(["[]", "{}", "[[1]]"])
    ),
)
def test_any_value_of_a_setting_is_read_or_refused_in_one_line(key: str, value: str) -> None:
    read_or_refused("digits", [f"{key}={value}"])


@ONE_FILE
@given(content=st.binary(max_size=60))
def test_any_file_is_read_or_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(content)
    read_or_refused(str(path), [])


def test_settings_of_a_model_name_the_closest_key() -> None:
    values = {"image_shape": (1, 8, 8), "classes": 10, "mean": (0.5,), "std": (0.2,), "lyapunov": {"alhpa": 1}}
    with pytest.raises(ConfigError, match=r"it: unknown key 'lyapunov.alhpa': did you mean 'alpha'\?"):
        parse_config(ModelConfig, values, "it")
    with pytest.raises(ConfigError, match="it: classes is missing"):
        parse_config(ModelConfig, {"image_shape": (1, 8, 8), "mean": (0.5,), "std": (0.2,)}, "it")
