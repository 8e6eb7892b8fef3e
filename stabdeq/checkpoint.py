"""Checkpoints: one safetensors file with tensors and JSON metadata. Reading one executes nothing."""

import json
import os
import platform
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stabdeq import __version__
from stabdeq.config import DataConfig, ModelConfig, parse_config
from stabdeq.errors import CheckpointError, ConfigError
from stabdeq.kinds import kind_of
from stabdeq.model import StabilisedDEQ

SCHEMA = 1
METADATA_KEY = "stabdeq"
MODEL_PREFIX = "model."
OPTIMISER_PREFIX = "optim."


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds: the model in evaluation mode, where its data came from, and what training needs to go on.

    ``recipe`` is the plain recipe as trained; ``optimiser`` maps "parameter name / state name" to tensors, and is empty in a
    file written for use alone; ``best_validation`` is the best validation accuracy so far.
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

    @property
    def kind(self) -> str:
        """The model kind's name, such as "lyadeq-anchored"."""
        return kind_of(self.model.config.stability, self.model.config.head)


def library_versions() -> dict[str, str]:
    """Return the versions of Python, PyTorch and this library."""
    return {"python": platform.python_version(), "torch": torch.__version__, "stabdeq": __version__}


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path`` at once or not at all: temporary name, fsync, rename."""
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
    temporary = path.with_name(path.name + ".partial")
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        temporary,
        {METADATA_KEY: json.dumps(metadata, allow_nan=False)},
    )
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint from ``path``; the model comes in evaluation mode, on the CPU.

    Raises CheckpointError, saying what the file is and why it was refused, where it is missing, truncated, foreign, a
    pickle, of another schema, or holds weights that do not fit or are not finite.
    """
    path = Path(path)
    tensors, text = _read(path)
    metadata = _parse_metadata(path, text)
    weights = _with_prefix(tensors, MODEL_PREFIX)
    try:
        model = StabilisedDEQ(parse_config(ModelConfig, metadata["model"], "its model settings"))
        data = parse_config(DataConfig, metadata["data"], "its data settings")
        checkpoint = Checkpoint(
            model=model.eval(),
            data=data,
            class_names=tuple(str(name) for name in metadata["class_names"]),
            seed=int(metadata["seed"]),
            epoch=int(metadata["epoch"]),
            recipe=dict(metadata["recipe"]),
            best_validation=metadata["best_validation"],
            optimiser=_with_prefix(tensors, OPTIMISER_PREFIX),
            versions=dict(metadata["versions"]),
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path}: its metadata is incomplete or damaged ({error}): train or fetch it again") from None
    _require_fitting(path, model, weights)
    model.load_state_dict(weights)
    return checkpoint


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file: give the path of a checkpoint.safetensors that 'stabdeq train' wrote")
    _refuse_foreign_bytes(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}): copy or train it again") from None


def _refuse_foreign_bytes(path: Path) -> None:
    """Say what a file is that is not safetensors, by its first bytes; nothing else of it is read."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[:2] == b"PK" or head[:1] == b"\x80":
        raise CheckpointError(
            f"{path}: a pickle or zip archive, as torch.save writes: refused, since loading one can run code. "
            "Save the state dict with safetensors, or audit the model in Python through analysis.audit"
        )
    size = path.stat().st_size
    if len(head) < 9:
        raise CheckpointError(f"{path}: {size} bytes, too short for a safetensors file: it is empty or truncated")
    (header,) = struct.unpack("<Q", head[:8])
    if head[8:9] != b"{":
        raise CheckpointError(f"{path}: not a safetensors file: this command reads what 'stabdeq train' wrote")
    if 8 + header > size:
        raise CheckpointError(f"{path}: truncated: its header alone needs {8 + header} bytes and it has {size}: copy it again")


def _parse_metadata(path: Path, text: Mapping[str, str]) -> dict[str, Any]:
    if METADATA_KEY not in text:
        raise CheckpointError(
            f"{path}: a safetensors file of another program (no {METADATA_KEY!r} metadata): "
            "audit such a model in Python through analysis.audit"
        )
    try:
        metadata = json.loads(text[METADATA_KEY])
        schema = metadata["schema"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise CheckpointError(f"{path}: its {METADATA_KEY!r} metadata is damaged: train or fetch it again") from None
    if schema != SCHEMA:
        raise CheckpointError(f"{path}: checkpoint schema {schema}, and this version reads {SCHEMA}: use a matching stabdeq")
    return metadata


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _require_fitting(path: Path, model: StabilisedDEQ, weights: Mapping[str, Tensor]) -> None:
    expected = model.state_dict()
    for name in sorted(expected.keys() ^ weights.keys()):
        what = "lacks" if name in expected else "has the unknown"
        raise CheckpointError(f"{path}: {what} tensor {name!r}: it does not fit its own model settings")
    for name, value in weights.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            raise CheckpointError(
                f"{path}: tensor {name!r} is {tuple(value.shape)} {value.dtype}, "
                f"expected {tuple(expected[name].shape)} {expected[name].dtype}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise CheckpointError(f"{path}: {count} of {value.numel()} weights in {name!r} are NaN or infinite: train it again")
