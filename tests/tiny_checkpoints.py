"""A tiny checkpoint, the parts of its file, and the refusal of one."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor

from stabdeq.checkpoint import METADATA_KEY, Checkpoint
from stabdeq.config import DataConfig, LyapunovConfig, ModelConfig
from stabdeq.config.kinds import KINDS, kind_of
from stabdeq.model import StabilisedDEQ


def tiny_model(kind: str = "lyadeq-anchored", **changes: Any) -> StabilisedDEQ:
    options: dict[str, Any] = {
        "image_shape": (1, 3, 3),
        "classes": 2,
        "mean": (0.4,),
        "std": (0.2,),
        "state_dim": 4,
        "cell": KINDS[kind].cell,
        "stability": KINDS[kind].stability,
        "head": KINDS[kind].head,
        "lyapunov": LyapunovConfig(hidden=3),
    }
    return StabilisedDEQ(ModelConfig(**options | changes))


def tiny_checkpoint(model: StabilisedDEQ | None = None, **changes: Any) -> Checkpoint:
    model = model or tiny_model()
    options: dict[str, Any] = {
        "model": model,
        "data": DataConfig(),
        "class_names": ("cat", "dog"),
        "seed": 3,
        "epoch": 2,
        "recipe": {"kind": kind_of(model.config), "decay": {"radii": [0.1, 1.0]}},
        "best_validation": 0.1 + 0.2,
        "optimiser": {
            f"{name}/{key}": torch.rand(()) if key == "step" else torch.rand_like(value)
            for name, value in model.named_parameters()
            for key in ("step", "exp_avg")
        },
        "versions": {"torch": "2.0"},
    }
    return Checkpoint(**options | changes)


def header_size(content: bytes) -> int:
    (size,) = struct.unpack("<Q", content[:8])
    return 8 + size


def parts_of(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the parsed metadata of a checkpoint."""
    header = json.loads(content[8 : header_size(content)])
    return load(content), json.loads(header["__metadata__"][METADATA_KEY])


def write_parts(path: Path, tensors: dict[str, Tensor], metadata: Any) -> None:
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    save_file(tensors, path, {METADATA_KEY: text})
