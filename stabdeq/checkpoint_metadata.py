"""What a checkpoint's JSON says: read strictly, with no more asked of the machine than a file may, and no contradiction.

A file of somebody else decides what a model computes. It does not decide how long a reader works, nor that anything is run.
"""

import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from stabdeq.backbones import places_of
from stabdeq.config import STRICT, DataConfig, ModelConfig, UpToOne, Whole, parse_config
from stabdeq.config.kinds import KINDS, is_of_kind
from stabdeq.errors import CheckpointError, ConfigError
from stabdeq.reading import parsed_json

SCHEMA = 2  # 1 is read too
METADATA_KEY = "stabdeq"
# The most of each that a file may ask for: work and memory of whoever reads it grow with it.
MOST = {
    "max_evaluations": 10_000,
    "gradient_steps": 1_000,
    "window": 100,
    "memory": 100,
    "state_dim": 65_536,
    "hidden": 2**22,  # of a V on places, at all of them together
}

Natural = Annotated[Whole, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Metadata:
    """The JSON of a file: all of a checkpoint but its tensors."""

    model: ModelConfig
    data: DataConfig
    class_names: tuple[str, ...]
    seed: Natural
    epoch: Natural
    recipe: dict[str, Any]
    best_validation: UpToOne | None
    versions: dict[str, str]


def parse_metadata(path: Path, text: Mapping[str, str]) -> Metadata:
    """Return what the metadata ``text`` of the file ``path`` says; raises CheckpointError where it is damaged, foreign, or at odds."""
    if METADATA_KEY not in text:
        raise CheckpointError(
            f"{path}: a safetensors file of another program (no {METADATA_KEY!r} metadata): "
            "audit such a model in Python through analysis.audit"
        )
    try:
        values = parsed_json(text[METADATA_KEY])
        schema = values.pop("schema")
    except ValueError as error:
        raise CheckpointError(
            f"{path}: its {METADATA_KEY!r} metadata is damaged ({error}): train or fetch it again"
        ) from None
    except (KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path}: its {METADATA_KEY!r} metadata is damaged (no schema number): train or fetch it again"
        ) from None
    if schema not in (1, SCHEMA):
        raise CheckpointError(
            f"{path}: checkpoint schema {reprlib.repr(schema)}, and this version reads 1 and {SCHEMA}: use a matching stabdeq"
        )
    try:
        if schema == 1:
            values = _from_schema_1(values)
        metadata = parse_config(Metadata, values, "its metadata")
    except ConfigError as error:
        cause = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: damaged or foreign: {cause}: train or fetch it again; a name of your own must be registered before it is read"
        ) from None
    if len(metadata.class_names) != metadata.model.classes:
        raise CheckpointError(
            f"{path}: damaged: {len(metadata.class_names)} class names for {metadata.model.classes} classes: "
            "train or fetch it again"
        )
    for contradiction in _contradictions(metadata):
        raise CheckpointError(f"{path}: contradicts itself: {contradiction}: train or fetch it again")
    return metadata


def require_modest(path: Path, model: ModelConfig) -> None:
    """Raise CheckpointError where the settings ``model`` of the file ``path`` ask for more work or memory than a file may."""
    remedy = "if it is your own, say so with --trusted, or trusted=True in Python"
    for group, settings in (("model", model), ("model.solver", model.solver)):
        for name, most in MOST.items():
            value = getattr(settings, name, 0)
            if value > most:
                raise CheckpointError(
                    f"{path}: asks for {group}.{name} = {reprlib.repr(value)}, and a file may ask for {most}: {remedy}"
                )
    places = places_of(model.backbone, model.image_shape)
    if places and model.lyapunov.network != "dense" and model.lyapunov.hidden * places[0] * places[1] > MOST["hidden"]:
        raise CheckpointError(
            f"{path}: asks for model.lyapunov.hidden = {model.lyapunov.hidden} at each of {places[0]} x {places[1]} places, and a file "
            f"may ask for {MOST['hidden']} together: {remedy}"
        )
    if model.solver.compiled:
        raise CheckpointError(
            f"{path}: asks for model.solver.compiled, which runs a C++ compiler, and a file may not: {remedy}"
        )


def _contradictions(metadata: Metadata) -> Iterator[str]:
    """Yield, in words, where the recipe says something else of the model than the rest, which is what audits go by."""
    recipe, model = metadata.recipe, metadata.model
    kind = recipe.get("kind")
    if kind is not None and not (isinstance(kind, str) and kind in KINDS and is_of_kind(model, KINDS[kind])):
        yield f"its recipe is of kind {reprlib.repr(kind)}, and its model is not"
        return
    epochs = recipe.get("epochs", metadata.epoch)
    if type(epochs) is not int or epochs < metadata.epoch:
        yield f"its recipe has {reprlib.repr(epochs)} epochs, and it is of epoch {metadata.epoch}"
    facts = {"seed": metadata.seed, "data": asdict(metadata.data), "model": asdict(model)}
    if kind is not None and KINDS[kind].backbone:  # which brings a width of its own
        facts["model"] = {key: facts["model"][key] for key in ("solver", "lyapunov")}
    yield from _differences(recipe, facts)


def _differences(said: Mapping[str, Any], facts: Mapping[str, Any], group: str = "") -> Iterator[str]:
    """Yield where ``said``, which may leave things out or to the kind, is not as the ``facts`` are."""
    for key, fact in facts.items():
        value = said.get(key)
        if isinstance(fact, dict) and isinstance(value, dict):
            yield from _differences(value, fact, f"{group}{key}.")
        elif value is not None and value != fact:
            yield f"its recipe has {group}{key} = {reprlib.repr(value)}, and the file {reprlib.repr(fact)}"


# Schema 1 stored ``window`` and ``mixing`` for every solver, and all settings that any objective has, None for another's: what the
# solver or the objective named there never read is left out.
Group = dict[str, Any]

FOREIGN = {"broyden": ("window", "mixing"), "picard": ("window",)}  # stored by schema 1 and never read


def _from_schema_1(values: Group) -> Group:
    """Return the metadata ``values`` of schema 1 as those of schema 2; what is not as schema 1 wrote it stays as it is."""
    values = _changed(values, "model", lambda model: _changed(model, "solver", _own_to_the_solver))
    return _changed(values, "recipe", _recipe)


def _recipe(recipe: Group) -> Group:
    recipe = _changed(recipe, "model", lambda model: _changed(model, "solver", _own_to_the_solver))
    return _changed(recipe, "objective", _own_to_the_objective)


def _own_to_the_solver(solver: Group) -> Group:
    name = solver.get("name")
    foreign = FOREIGN.get(name, ()) if isinstance(name, str) else ()
    return {key: value for key, value in solver.items() if key not in foreign}


def _own_to_the_objective(objective: Group) -> Group:
    return {key: value for key, value in objective.items() if value is not None}


def _changed(group: Group, key: str, change: Callable[[Group], Group]) -> Group:
    """Return ``group`` with ``change`` made to the group at ``key``, where there is one: the file may hold anything."""
    return group | {key: change(group[key])} if isinstance(group.get(key), dict) else group
