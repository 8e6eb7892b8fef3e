"""The sample of test images that an audit looks at, and where a report's numbers come from."""

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from stabdeq.checkpoint import library_versions

if TYPE_CHECKING:
    from stabdeq.checkpoint import Checkpoint


def environment() -> dict[str, str]:
    """Return the versions and the machine type that an audit ran on, with the time in UTC."""
    return library_versions() | {
        "platform": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def levels(image: Tensor) -> list[list[list[int]]]:
    """Return ``image`` (C, H, W), in [0, 1], as whole levels of 0 to 255."""
    return (255 * image).round().long().tolist()


def draw_images(loaded: "Checkpoint", data_dir: Path | None, samples: int, seed: int) -> tuple[Any, Any, Any]:
    """Return random test images in [0, 1], their labels and their places in the test split."""
    import torch

    from stabdeq.data import load_data, to_unit
    from stabdeq.errors import DataError

    data = load_data(loaded.data, data_dir=data_dir)
    if data.image_shape != tuple(loaded.model.config.image_shape) or len(data.classes) != loaded.model.config.classes:
        raise DataError(
            f"the model reads {loaded.model.config.image_shape} images of {loaded.model.config.classes} classes, and {data.name} has "
            f"{data.image_shape} of {len(data.classes)}: give the data set it was trained on with --data-dir"
        )
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:samples]
    return to_unit(data.test.images[order], torch.float64), data.test.labels[order], order


def describe(path: Path, loaded: "Checkpoint") -> dict[str, Any]:
    from dataclasses import asdict
    from hashlib import sha256

    return {
        "path": str(path),
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "kind": loaded.kind,
        "model": asdict(loaded.model.config),
        "data": asdict(loaded.data) | {"classes": list(loaded.class_names)},
        "epoch": loaded.epoch,
        "seed": loaded.seed,
        "recipe": loaded.recipe,
        "versions": loaded.versions,
    }
