"""Checkpoints: one safetensors file with tensors and JSON metadata. Reading one executes nothing."""

import json
import os
import platform
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor

from stabdeq import __version__
from stabdeq.checkpoint_metadata import METADATA_KEY, SCHEMA, Metadata, parse_metadata, require_modest
from stabdeq.config import DataConfig
from stabdeq.config.kinds import kind_of
from stabdeq.errors import CheckpointError, ConfigError
from stabdeq.files import replace_file
from stabdeq.model import StabilisedDEQ
from stabdeq.reading import open_regular, parsed_json

LARGEST_HEADER = 2**23  # bytes: names and shapes of tensors, and the metadata; 100,000 tensors would need no more
MODEL_PREFIX = "model."
OPTIMISER_PREFIX = "optim."
VARIANCES = (".running_variance", ".running_var")  # of this library's BatchNorm and of PyTorch's


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds: the model in evaluation mode, where its data came from, and what training needs to go on.

    ``recipe`` is the plain recipe as trained; ``optimiser`` maps "parameter name / state name" to tensors, and is empty in a
    file written for use alone; ``best_validation`` is the best validation accuracy so far. ``path`` is the file it was read from,
    ``sha256`` the hash of the bytes that were read.
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
    sha256: str | None = None

    @property
    def kind(self) -> str:
        """The model kind's name, such as "lyadeq-anchored", with the cell where it is not the paper's."""
        return kind_of(self.model.config)


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


def load_checkpoint(path: Path, *, trusted: bool = False) -> Checkpoint:
    """Read a checkpoint from ``path``; the model comes in evaluation mode, on the CPU.

    A file that is ``trusted``, since you trained it, may ask for any number of solver evaluations, and for its solver to be
    compiled, which runs a C++ compiler; see ``stabdeq.checkpoint_metadata``.

    Raises CheckpointError, saying what the file is and why it was refused, where it is missing, no regular file, truncated,
    foreign, a pickle, of another schema, asks for too much, contradicts itself, or holds weights that do not fit or are not
    finite, negative variances, or a normalisation other than its settings say.
    """
    path = Path(path)
    return checkpoint_in(read_bytes(path), path, trusted=trusted)


def checkpoint_in(content: bytes, path: Path, *, trusted: bool = False) -> Checkpoint:
    """Return the checkpoint that ``content``, all bytes of the file ``path``, holds; raises as ``load_checkpoint``."""
    tensors, text = _parts(path, content)
    metadata = parse_metadata(path, text)
    if not trusted:
        require_modest(path, metadata.model)
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
        sha256=sha256(content).hexdigest(),
    )


def load(path: str | Path, *, trusted: bool = False) -> StabilisedDEQ:
    """Return the model in the checkpoint at ``path``, in evaluation mode; ``trusted`` as ``load_checkpoint`` takes it.

    Raises CheckpointError where the file is not a checkpoint of this library; nothing in the file is executed.
    """
    return load_checkpoint(Path(path), trusted=trusted).model


def read_bytes(path: Path) -> bytes:
    """Return all bytes of the checkpoint ``path``, read once; raises CheckpointError where it is missing or no safetensors file."""
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file: give the path of a checkpoint.safetensors that 'stabdeq train' wrote"
        )
    try:
        with open_regular(path) as file:
            head = file.read(9)
            _refuse_foreign_bytes(path, head, os.fstat(file.fileno()).st_size)
            return head + file.read()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, cause: object) -> CheckpointError:
    return CheckpointError(f"{path}: not a readable safetensors file ({cause}): copy or train it again")


def _parts(path: Path, content: bytes) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors of a file and its metadata, both from the same bytes."""
    try:
        (size,) = struct.unpack("<Q", content[:8])
        header = parsed_json(content[8 : 8 + size])  # of a key that stands twice, safetensors takes one
        # safetensors gives no metadata of bytes.
        return load_tensors(content), header.get("__metadata__") or {}
    # KeyError: a dtype that PyTorch's reader does not know. AttributeError: a header that is no object.
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise _unreadable(path, error) from None


def _refuse_foreign_bytes(path: Path, head: bytes, size: int) -> None:
    """Say what a file of ``size`` bytes is that is not safetensors, by its ``head``, the first nine."""
    (header,) = struct.unpack("<Q", head[:8].ljust(8))
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
    if 8 + header > size:
        raise CheckpointError(
            f"{path}: truncated: its header alone needs {8 + header} bytes and it has {size}: copy it again"
        )
    if header > LARGEST_HEADER:
        raise CheckpointError(f"{path}: its header of {header} bytes is larger than any checkpoint's, {LARGEST_HEADER}")


def _build_without_storage(path: Path, metadata: Metadata) -> StabilisedDEQ:
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
