"""Images of one's own with their labels, from a file of arrays or a folder of pictures."""

import io
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from stabdeq.data.batches import Split
from stabdeq.data.folder import list_images, read_images
from stabdeq.errors import DataError
from stabdeq.reading import of_single_keys, parsed_json, read_regular

MOST_BYTES = 2**32
TOKENS = "; other inputs, such as tokens, are the array 'inputs' (N, *)"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # of those of 8 bits PyTorch compares none
ARRAYS = "a .npz or .safetensors file with the arrays 'images' and 'labels', or a .npy file of images beside --labels"


def read_own(
    images: Path, labels: Path | None = None, classes: Sequence[str] | None = None, resize: int | None = None
) -> Split:
    """Return the images (N, C, H, W), uint8 or floating in [0, 1], and labels (N,) int64 that ``images`` and ``labels`` hold.

    ``images`` is a .npz or .safetensors file with both, as "images" and "labels"; a .npy, .npz or .safetensors file of images alone,
    ``labels`` being such a file of labels; or a folder ``<class>/<image files>``, whose classes are numbered in the order of their
    names, or by their places among ``classes`` where these are given, and whose pictures are scaled to ``resize`` x ``resize`` pixels
    where that is given (``read_images``). A file with "inputs" (N, *) in the place of "images" holds inputs of any shape, real or
    whole numbers, with labels (N, *) of either; whole numbers are returned as int64. Nothing is unpickled. Raises DataError where
    they cannot be read, or are not of these shapes.
    """
    if images.is_dir():
        if labels is not None:
            raise DataError(
                f"{images} is a folder, whose classes are its labels: leave --labels out, or give a file of images"
            )
        paths, numbers, names = list_images(images)
        return Split(
            read_images(paths, resize), numbers if classes is None else _of_classes(numbers, names, classes, images)
        )
    if resize is not None:
        raise DataError(f"{images}: the pictures in a folder are scaled, and no arrays: scale these yourself")
    found = _arrays(images)
    if "inputs" in found and "images" not in found:
        numbers = _named(found if labels is None else _arrays(labels), "labels", labels or images)
        return Split(
            _widened(found["inputs"], images), _one_each(_widened(numbers, labels or images), found["inputs"], images)
        )
    pictures = _named(found, "images", images)
    numbers = _named(found, "labels", images) if labels is None else _named(_arrays(labels), "labels", labels)
    return Split(_require_images(pictures, images), _require_labels(numbers, len(pictures), labels or images))


def _of_classes(numbers: Tensor, names: Sequence[str], classes: Sequence[str], folder: Path) -> Tensor:
    if unknown := [name for name in names if name not in classes]:
        raise DataError(
            f"{folder}: {unknown[0]!r} is no class of the checkpoint: name its folders {', '.join(map(repr, classes[:12]))}"
        )
    return torch.tensor([classes.index(name) for name in names])[numbers]


def _arrays(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; that of a .npy file is called ""."""
    try:
        content = read_regular(path, MOST_BYTES)
        if path.suffix == ".safetensors":
            (size,) = struct.unpack("<Q", content[:8].ljust(8))
            parsed_json(content[8 : 8 + size])  # of a key that stands twice, safetensors takes one
            return load_tensors(content)
        if path.suffix == ".npz":
            _require_plain(content)
            with np.load(io.BytesIO(content), allow_pickle=False) as group:
                return {name: torch.from_numpy(group[name]) for name in group.files}
        if path.suffix == ".npy":
            return {"": torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder: give a folder CLASS/*, {ARRAYS}") from None
    # RuntimeError: an encrypted entry of a zip file, or one packed in a way that Python does not know.
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        MemoryError,
        RuntimeError,
        SafetensorError,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(f"{path} cannot be read as arrays ({error}): give {ARRAYS}") from None
    raise DataError(f"{path}: expected a folder of images, {ARRAYS}")


def _require_plain(content: bytes) -> None:
    """Raise ValueError where a zip file says that it unpacks to more than may be, or holds two arrays of one name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
    if (size := sum(member.file_size for member in members)) > MOST_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, more than {MOST_BYTES}")
    of_single_keys([(member.filename.removesuffix(".npy"), None) for member in members])  # NumPy takes the last


def _named(found: dict[str, Tensor], name: str, path: Path) -> Tensor:
    alone = next(iter(found.values())) if len(found) == 1 and "" in found else None
    value = found.get(name, alone)
    if value is None or (alone is not None and name == "labels" and path.suffix == ".npy" and alone.dim() != 1):
        held = ", ".join(sorted(filter(None, found))) or "one array without a name"
        raise DataError(f"{path} holds {held}, and no {name!r}: give {ARRAYS}")
    return value


def _widened(values: Tensor, path: Path) -> Tensor:
    """Return whole numbers as int64, which embeddings and labels are read in, and real ones as they are."""
    if values.is_complex() or not values.dim():
        raise DataError(
            f"{path}: an array {tuple(values.shape)} of {values.dtype}: expected real or whole numbers (N, *)"
        )
    return values if values.is_floating_point() else values.long()


def _one_each(labels: Tensor, inputs: Tensor, path: Path) -> Tensor:
    if labels.shape[:1] != inputs.shape[:1]:
        raise DataError(
            f"{path}: labels {tuple(labels.shape)} for inputs {tuple(inputs.shape)}: expected as many (N, *)"
        )
    return labels


def _require_images(images: Tensor, path: Path) -> Tensor:
    if images.dim() != 4:
        raise DataError(
            f"{path}: images of shape {tuple(images.shape)}: expected (N, C, H, W), N images of C channels{TOKENS}"
        )
    if images.dtype == torch.uint8:
        return images
    if images.dtype not in FLOATS:
        raise DataError(f"{path}: images of {images.dtype}: expected uint8, or floating numbers in [0, 1]{TOKENS}")
    if images.numel() and not (float(images.min()) >= 0 and float(images.max()) <= 1):  # not of NaN either
        raise DataError(
            f"{path}: pixels from {float(images.min()):g} to {float(images.max()):g}: expected 0 to 1; normalise in the model, not before"
        )
    return images


def _require_labels(labels: Tensor, count: int, path: Path) -> Tensor:
    if labels.shape != (count,) or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(
            f"{path}: labels of shape {tuple(labels.shape)} and {labels.dtype} for {count} images: expected whole numbers of shape "
            f"({count},); where a model answers with numbers or tokens, the array is called 'inputs' in place of 'images'"
        )
    return labels.long()


def draw(split: Split, count: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``count`` of the samples at random, all of them in their order where that is None: images, labels (N,) and places (N,)."""
    if count is None:
        return split.images, split.labels, torch.arange(len(split))
    places = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:count]
    return split.images[places], split.labels[places], places
