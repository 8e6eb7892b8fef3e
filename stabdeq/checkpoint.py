"""Checkpoints: one safetensors file with tensors and JSON metadata. Reading one executes nothing."""

import json
import platform
import reprlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as validated
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stabdeq import __version__
from stabdeq.config import STRICT, DataConfig, ModelConfig, parse_config
from stabdeq.config.kinds import kind_of
from stabdeq.errors import CheckpointError, ConfigError
from stabdeq.files import replace_file
from stabdeq.model import StabilisedDEQ

SCHEMA = 2  # 1 is read too
METADATA_KEY = "stabdeq"
MODEL_PREFIX = "model."
OPTIMISER_PREFIX = "optim."
VARIANCES = (".running_variance", ".running_var")  # of this library's BatchNorm and of PyTorch's


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds: the model in evaluation mode, where its data came from, and what training needs to go on.

    ``recipe`` is the plain recipe as trained; ``optimiser`` maps "parameter name / state name" to tensors, and is empty in a
    file written for use alone; ``best_validation`` is the best validation accuracy so far. ``path`` is the file it was read from.
    """

    model: StabilisedDEQ
    data: DataConfig
    class_names: tuple[str, ...]
    seed: int
    epoch: int
    recipe: dict[str, Any] = field(default_factory=dict)
    best_validation: float | None = None
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    path: Path | None = None

    @property
    def kind(self) -> str:
        """The model kind's name, such as "lyadeq-anchored", with the cell where it is not the paper's."""
        return kind_of(self.model.config)


@validated(frozen=True, kw_only=True, config=STRICT)
class _Metadata:
    """The JSON of a file: all of a checkpoint but its tensors."""

    model: ModelConfig
    data: DataConfig
    class_names: tuple[str, ...]
    seed: Annotated[int, Field(ge=0)]
    epoch: Annotated[int, Field(ge=0)]
    recipe: dict[str, Any]
    best_validation: Annotated[float, Field(ge=0, le=1)] | None
    versions: dict[str, str]


def library_versions() -> dict[str, str]:
    """Return the versions of Python, PyTorch and this library."""
    return {"python": platform.python_version(), "torch": torch.__version__, "stabdeq": __version__}


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path``, whole or not at all.

    Raises CheckpointError where the model has buffers that no file would hold, FileError where the file cannot be written.
    """
    _require_whole(path, checkpoint.model)
    tensors = {MODEL_PREFIX + name: value for name, value in checkpoint.model.state_dict().items()}
    tensors |= {OPTIMISER_PREFIX + name: value for name, value in checkpoint.optimiser.items()}
    metadata = {
        "schema": SCHEMA,
        "model": asdict(checkpoint.model.config),
        "data": asdict(checkpoint.data),
        "class_names": checkpoint.class_names,
        "seed": checkpoint.seed,
        "epoch": checkpoint.epoch,
        "recipe": checkpoint.recipe,
        "best_validation": checkpoint.best_validation,
        "versions": checkpoint.versions or library_versions(),
    }
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(metadata, allow_nan=False)
    # Not save_file, whose file only its owner may read, and which a kill leaves under a name of its own.
    replace_file(path, save(plain, {METADATA_KEY: text}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint from ``path``; the model comes in evaluation mode, on the CPU.

    Raises CheckpointError, saying what the file is and why it was refused, where it is missing, truncated, foreign, a
    pickle, of another schema, or holds weights that do not fit or are not finite, negative
    variances, or a normalisation other than its settings say.
    """
    path = Path(path)
    tensors, text = _read(path)
    metadata = _parse_metadata(path, text)
    model = _build_without_storage(path, metadata)
    _require_whole(path, model)
    _require_fitting(path, model, tensors)
    model.to_empty(device="cpu").load_state_dict(_with_prefix(tensors, MODEL_PREFIX))
    return Checkpoint(
        model=model.eval(),
        data=metadata.data,
        class_names=metadata.class_names,
        seed=metadata.seed,
        epoch=metadata.epoch,
        recipe=metadata.recipe,
        best_validation=metadata.best_validation,
        optimiser=_with_prefix(tensors, OPTIMISER_PREFIX),
        versions=metadata.versions,
        path=path,
    )


def load(path: str | Path) -> StabilisedDEQ:
    """Return the model in the checkpoint at ``path``, in evaluation mode.

    Raises CheckpointError where the file is not a checkpoint of this library; nothing in the file is executed.
    """
    return load_checkpoint(Path(path)).model


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file: give the path of a checkpoint.safetensors that 'stabdeq train' wrote"
        )
    try:
        _refuse_foreign_bytes(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}): copy or train it again") from None


def _refuse_foreign_bytes(path: Path) -> None:
    """Say what a file is that is not safetensors, by its first bytes; nothing else of it is read."""
    with path.open("rb") as file:
        head = file.read(9)
    size = path.stat().st_size
    # The ninth byte comes first: before it stands a length, which may begin with the same bytes as a pickle or a zip.
    if head[8:] != b"{":
        if head[:2] == b"PK" or head[:1] == b"\x80":
            raise CheckpointError(
                f"{path}: a pickle or zip archive, as torch.save writes: refused, since loading one can run code. "
                "Save the state dict with safetensors, or audit the model in Python through analysis.audit"
            )
        if len(head) < 9:
            raise CheckpointError(f"{path}: {size} bytes, too short for a safetensors file: it is empty or truncated")
        raise CheckpointError(f"{path}: not a safetensors file: this command reads what 'stabdeq train' wrote")
    (header,) = struct.unpack("<Q", head[:8])
    if 8 + header > size:
        raise CheckpointError(
            f"{path}: truncated: its header alone needs {8 + header} bytes and it has {size}: copy it again"
        )


def _parse_metadata(path: Path, text: Mapping[str, str]) -> _Metadata:
    if METADATA_KEY not in text:
        raise CheckpointError(
            f"{path}: a safetensors file of another program (no {METADATA_KEY!r} metadata): "
            "audit such a model in Python through analysis.audit"
        )
    try:
        values = json.loads(text[METADATA_KEY])
        schema = values.pop("schema")
    # RecursionError: brackets nested by the thousand; ValueError: no JSON, or a number of thousands of digits.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: its {METADATA_KEY!r} metadata is damaged: train or fetch it again") from None
    if schema not in (1, SCHEMA):
        raise CheckpointError(
            f"{path}: checkpoint schema {reprlib.repr(schema)}, and this version reads 1 and {SCHEMA}: use a matching stabdeq"
        )
    try:
        if schema == 1:
            values = _from_schema_1(values)
        metadata = parse_config(_Metadata, values, "its metadata")
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
    return metadata


def _build_without_storage(path: Path, metadata: _Metadata) -> StabilisedDEQ:
    """Return the model on the meta device: settings from outside may ask for more memory than there is."""
    try:
        with torch.device("meta"):
            return StabilisedDEQ(metadata.model)
    except (ConfigError, RuntimeError) as error:  # RuntimeError: sizes beyond what a tensor can have
        cause = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: no model has its settings: {cause}: train or fetch it again") from None


def _require_whole(path: Path, model: StabilisedDEQ) -> None:
    """Refuse a model, with a cell or backbone of a user's, that would come back with buffers of arbitrary numbers."""
    lost = sorted({name for name, _ in model.named_buffers()} - model.state_dict().keys())
    if lost:
        raise CheckpointError(
            f"{path}: the model keeps {', '.join(lost)} out of its state dict, so no checkpoint holds it: register such buffers "
            "with persistent=True"
        )


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _require_fitting(path: Path, model: StabilisedDEQ, tensors: Mapping[str, Tensor]) -> None:
    expected = {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}
    parameters = {OPTIMISER_PREFIX + name: value for name, value in model.named_parameters()}
    for name in sorted(expected.keys() - tensors.keys()):
        raise CheckpointError(f"{path}: lacks tensor {name!r}: it does not fit its own model settings")
    for name, value in tensors.items():
        # An optimiser's state of a parameter is of its shape, or a number, such as a count of steps.
        owner = parameters.get(name.rpartition("/")[0])
        like = expected.get(name, owner)
        if like is None:
            raise CheckpointError(f"{path}: has the unknown tensor {name!r}: it does not fit its own model settings")
        counts = like is owner and value.shape == ()
        if value.dtype != like.dtype or not (counts or value.shape == like.shape):
            raise CheckpointError(
                f"{path}: tensor {name!r} is {tuple(value.shape)} {value.dtype}, "
                f"expected {tuple(like.shape)} {like.dtype}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise CheckpointError(
                f"{path}: {count} of {value.numel()} weights in {name!r} are NaN or infinite: train it again"
            )
        if name.endswith(VARIANCES) and bool((value < 0).any()):
            raise CheckpointError(
                f"{path}: variances in {name!r} are negative: damaged or foreign: train or fetch it again"
            )
    for name in ("mean", "std"):
        value, stated = tensors[MODEL_PREFIX + name].flatten(), torch.tensor(getattr(model.config, name))
        if not torch.equal(value, stated):
            raise CheckpointError(
                f"{path}: the model's {name} is {value.tolist()}, and its settings say {stated.tolist()}: damaged or foreign: "
                "train or fetch it again"
            )


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
