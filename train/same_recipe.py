"""Whether a run that is to be resumed was begun with the settings that it is to go on with."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stabdeq.config import ModelConfig
from stabdeq.errors import ConfigError
from train.recipe import Recipe, plain_recipe


def require_same_recipe(wanted: tuple[Recipe, ModelConfig], found: tuple[Recipe, ModelConfig], out: Path) -> None:
    """Raise ConfigError, with the setting, where the run in ``out`` has a recipe or a model that is not the one wanted."""
    _require_same(_settings(*wanted), _settings(*found), out)


def _settings(recipe: Recipe, config: ModelConfig) -> dict[str, Any]:
    """All settings but what the data decide; a recipe may leave some of the model's to the kind."""
    model = {
        key: value for key, value in asdict(config).items() if key not in ("image_shape", "classes", "mean", "std")
    }
    return json.loads(json.dumps(plain_recipe(recipe) | {"model": model}))  # as the reader wrote them


def _require_same(wanted: dict[str, Any], found: dict[str, Any], out: Path, group: str = "") -> None:
    for key in sorted(wanted):
        ours, theirs = wanted[key], found[key]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            _require_same(ours, theirs, out, f"{group}{key}.")
        elif ours != theirs:
            raise ConfigError(
                f"{out} was trained with {group}{key} = {theirs}, not {ours}: "
                "resume with the same settings, or choose another --out"
            )
