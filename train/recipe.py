"""Recipes: what to train, as TOML files apart from the trainer."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from stabdeq.config import (
    STRICT,
    ArchitectureConfig,
    Count,
    DataConfig,
    NonNegative,
    Positive,
    Whole,
    parse_config,
)
from stabdeq.config.kinds import KINDS, unread
from stabdeq.errors import ConfigError, closest
from stabdeq.reading import parsed_toml, read_regular
from train.objectives import AnyObjective, CrossEntropy, IntervalTraining
from train.precision import PrecisionName

LARGEST = 2**20  # bytes of a recipe
ROOM = 1.1  # times alpha, what training asks of a certified cell's rate of decay (``train.proved_decay``)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DecayConfig:
    """The decay term of an anchored model's loss: ``weight`` times the mean of relu(V-dot + alpha V) / V.

    It is taken at states in uniform directions from each equilibrium, at distances ``radii`` times sqrt(n). With a certified cell
    it has rate 1 for alpha and shapes V alone; beside it stands what the weights must prove (``train.proved_decay``).
    """

    weight: NonNegative = 1.0
    radii: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.01, 0.1, 0.5, 1.0, 2.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MarginConfig:
    """Training for certified predictions: wrong classes are raised by what a change of ``radius`` in pixels can do to them.

    ``radius`` is an l2 distance, pixels in [0, 1]; 0 is plain training. It needs a certified cell. With a ``sharpness``, per unit of
    distance, the loss is of the distances to the other classes, not of logits (``train.margin``).
    """

    radius: NonNegative = 0.0
    sharpness: NonNegative = 0.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class JacobianConfig:
    """Training for few evaluations: ``weight`` times the mean of ||df/dz||_F^2 / n at the equilibria, estimated (Bai et al. 2021)."""

    weight: NonNegative = 0.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """Everything that decides a training run; Adam with betas (0.9, 0.999) and a cosine schedule to 0 by steps.

    ``precision`` is the extractor's in training steps, "auto" bfloat16 where that is known to pay (``train.precision``); scores are
    always of the model in float32.
    """

    kind: str = "lyadeq-anchored"
    epochs: Count = 10
    batch_size: Annotated[Whole, Field(ge=2)] = 128
    learning_rate: Positive = 1e-3
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0  # torch's generator reads no more bits
    precision: PrecisionName = "float32"
    data: DataConfig = Field(default_factory=DataConfig)
    model: ArchitectureConfig = Field(default_factory=ArchitectureConfig)
    decay: DecayConfig = Field(default_factory=DecayConfig)
    margin: MarginConfig = Field(default_factory=MarginConfig)
    jacobian: JacobianConfig = Field(default_factory=JacobianConfig)
    objective: AnyObjective = Field(default_factory=CrossEntropy)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"unknown kind {self.kind!r}: {closest(self.kind, KINDS)}")
        kind = KINDS[self.kind]
        if self.jacobian.weight > 0 and kind.cell == "constant":
            raise ConfigError(
                f"jacobian.weight needs a kind with an equilibrium, and {self.kind} is a network without one: "
                "set jacobian.weight=0, or choose another kind"
            )
        alpha = self.model.lyapunov.alpha
        is_certified = "certified" in (self.model.cell, kind.cell)
        if is_certified and kind.stability == "anchored" and alpha is not None and ROOM * alpha > 1:
            raise ConfigError(
                f"model.lyapunov.alpha={alpha:g} cannot be proved of a certified cell, which decays at a rate of 1 at most and is trained "
                f"for {ROOM} alpha: set model.lyapunov.alpha to {1 / ROOM:.3f} or less, or choose another cell"
            )
        if self.precision == "bfloat16" and isinstance(self.objective, IntervalTraining):
            raise ConfigError("objective.name=ibp takes its bounds of an extractor in float32: set precision=float32")
        if self.margin.sharpness > 0 and self.margin.radius == 0:
            raise ConfigError(
                f"margin.sharpness={self.margin.sharpness:g} is of the distances within margin.radius, which is 0: set margin.radius, or "
                "margin.sharpness=0"
            )
        if self.margin.radius > 0 and not (
            is_certified
            and self.model.backbone in ("fcn", "lipschitz-fcn", "lipschitz-fcn-8", "lipschitz-cnn")
            and kind.stability in ("none", "anchored")
        ):
            raise ConfigError(
                "margin.radius needs a model whose logits have a bound: backbone fcn, lipschitz-fcn, lipschitz-fcn-8 or lipschitz-cnn, "
                "and kind lyadeq-certified, or deq, deq-orth or lyadeq-anchored with model.cell=certified; or set margin.radius=0"
            )


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    return sorted(file.name.removesuffix(".toml") for file in files("train").joinpath("recipes").iterdir())


def setting_names() -> list[str]:
    """Return the settings that every recipe has, such as "model.lyapunov.alpha"."""

    def names(values: dict[str, Any], before: str) -> list[str]:
        return [
            name
            for key, value in values.items()
            for name in (names(value, f"{before}{key}.") if isinstance(value, dict) else [f"{before}{key}"])
        ]

    return names(plain_recipe(Recipe()), "")


def recipe_sentence(name: str) -> str:
    """Return what the recipe ``name``, one that ships, says of itself in its first line."""
    return _recipe_text(name).partition("\n")[0].removeprefix("# ")


def load_recipe(name: str, overrides: dict[str, Any] | None = None, settings: Sequence[str] = ()) -> Recipe:
    """Return the recipe ``name`` (one that ships, or the path of a TOML file) with values replaced.

    ``overrides`` holds top-level values, None meaning "as in the recipe"; ``settings`` are "dotted.key=value" texts whose
    value is read as TOML. Raises ConfigError, with the closest valid name, for unknown recipes, keys and values, and for ``settings`` of
    parts that a model of the kind does not have: a file may have them, as it serves any kind.
    """
    try:
        values = parsed_toml(_recipe_text(name))
        _require_interpreted(name, values)
    except ValueError as error:
        raise ConfigError(f"recipe {name} is not TOML: {error}: mend the file") from None
    for setting in settings:
        _apply_setting(values, setting)
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    recipe = parse_config(Recipe, values, f"recipe {name}")
    _require_read(recipe, settings)
    return recipe


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return ``recipe`` as the plain values that a checkpoint stores."""
    return asdict(recipe)


def _require_interpreted(name: str, values: dict[str, Any]) -> None:
    """Raise ConfigError where a file turns compilation on: it runs a C++ compiler, which the user alone may ask for."""
    model = values.get("model")
    solver = model.get("solver") if isinstance(model, dict) else None
    if isinstance(solver, dict) and solver.get("compiled", False) is not False:
        raise ConfigError(
            f"recipe {name}: model.solver.compiled runs a C++ compiler, which a file may not: take it out, and add "
            "--set model.solver.compiled=true"
        )


def _recipe_text(name: str) -> str:
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"recipe file {path} does not exist")
        try:
            return read_regular(path, LARGEST).decode("utf-8")
        except OSError as error:
            raise ConfigError(f"recipe file {path} cannot be read ({error.strerror}): look at the path") from None
    if name not in recipe_names():
        raise ConfigError(f"unknown recipe {name!r}: {closest(name, recipe_names())}, or the path of a .toml file")
    return files("train").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")


def _apply_setting(values: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {setting!r}: expected key=value, such as --set model.lyapunov.alpha=0.2")
    *path, last = key.strip().split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {setting!r}: {part} is a value, not a group of settings")
    values[last] = _toml_value(text.strip())


def _require_read(recipe: Recipe, settings: Sequence[str]) -> None:
    """Raise ConfigError where one of ``settings`` would be dropped: a model of the kind of ``recipe`` has not what it is of."""
    missing = {
        part: f"{recipe.kind} {reason}: leave it out, or choose another kind"
        for part, reason in unread(KINDS[recipe.kind]).items()
    }
    if recipe.decay.weight == 0:  # which asks for what such a model does
        missing.pop("decay", None)
    if recipe.model.solver.gradient == "implicit":
        steps = "they are of unrolled gradients: leave them out, or set model.solver.gradient=unrolled"
        missing.setdefault("model.solver.gradient_steps", steps)
    for key in (setting.partition("=")[0].strip() for setting in settings):
        for part, reason in missing.items():
            if f"{key}.".startswith(f"{part}."):
                raise ConfigError(f"{key} would change nothing, since {reason}")


def _toml_value(text: str) -> Any:
    """Return ``text`` as TOML reads it, or as a string where it is not TOML (``resnet20`` for ``"resnet20"``)."""
    try:
        return parsed_toml(f"value = {text}")["value"]
    except ValueError:
        return text
