"""The sample of test images that an audit looks at, and where a report's numbers come from."""

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.measure.rows import in_parts
from stabdeq.checkpoint import Checkpoint, library_versions, load_checkpoint
from stabdeq.data import to_unit
from stabdeq.errors import ConfigError
from stabdeq.trained_on import data_of


def environment() -> dict[str, str]:
    """Return the versions and the machine type that an audit ran on, with the time in UTC."""
    return library_versions() | {
        "platform": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def levels(image: Tensor) -> list[list[list[int]]]:
    """Return ``image`` (C, H, W), in [0, 1], as whole levels of 0 to 255."""
    return (255 * image).round().long().tolist()


def loaded_model(model: Any, *, trusted: bool = False) -> tuple[Any, dict[str, Any], Checkpoint | None]:
    """Return the model itself; of a checkpoint, or the path of one, what a report says of it and the checkpoint too."""
    loaded = load_checkpoint(Path(model), trusted=trusted) if isinstance(model, str | Path) else model
    if not isinstance(loaded, Checkpoint):
        return model, {}, None
    return loaded.model, describe(loaded), loaded


def own_images(
    loaded: Checkpoint | None,
    images: Tensor | None,
    labels: Tensor | None,
    data_dir: str | Path | None,
    samples: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images of the checkpoint's own data set, as ``draw_images``, where neither ``images`` nor ``labels`` were given.

    Raises ConfigError where one of both is given alone, or a model without a checkpoint and so without a data set.
    """
    if loaded is None or images is not None or labels is not None:
        raise ConfigError("give both images and labels: a checkpoint alone knows the test images of its own data set")
    return draw_images(loaded, data_dir, samples, seed)


def draw_images(
    loaded: Checkpoint, data_dir: str | Path | None, samples: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``samples`` random test images (N, C, H, W) in [0, 1], float64, their labels (N,) and places (N,) in the test split.

    Raises DataError where the data are not there, or are not those that the model reads.
    """
    data = data_of(loaded, data_dir)
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:samples]
    return to_unit(data.test.images[order], torch.float64), data.test.labels[order], order


def drawn(seed: int, indices: Tensor, images: Tensor, labels: Tensor, *, given: bool = False) -> dict[str, Any]:
    """Return what a report says of its images: the seed, the places (N,) in the test split, and the SHA-256 of what stood there.

    That is of ``images`` (N, *) as float64 and ``labels`` (N, *) as int64, or float64 where they are floating, little-endian. Images that
    were ``given``, not drawn from the test split, are told by that word.
    """
    content = sha256()
    for part in in_parts(len(images), images[0].numel()):
        content.update(images[part].double().cpu().contiguous().numpy().astype("<f8").tobytes())
    kind = "<f8" if labels.is_floating_point() else "<i8"
    content.update(labels.cpu().contiguous().numpy().astype(kind).tobytes())
    told = {"seed": seed, "images": indices.tolist(), "sha256": content.hexdigest()}
    return told | {"given": True} if given else told


def describe(loaded: Checkpoint) -> dict[str, Any]:
    """Return what a report says of a checkpoint: its file with its hash, kind, settings, data and recipe."""
    path = loaded.path
    return {
        "path": None if path is None else str(path),
        "sha256": loaded.sha256,
        "kind": loaded.kind,
        "model": asdict(loaded.model.config),
        "data": asdict(loaded.data) | {"classes": list(loaded.class_names)},
        "epoch": loaded.epoch,
        "seed": loaded.seed,
        "recipe": loaded.recipe,
        "versions": loaded.versions,
    }
