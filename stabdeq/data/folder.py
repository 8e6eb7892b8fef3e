"""Folders of images, one sub-folder a class."""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stabdeq.data.batches import Parts, Split
from stabdeq.data.stratified import TEST_FRACTION, divide
from stabdeq.errors import DataError
from stabdeq.reading import open_regular

if TYPE_CHECKING:
    import PIL.Image

# Pillow can also open formats that run an interpreter (PostScript): a folder of images is data, never code.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
GREY_MODES = ("1", "L", "LA")
# A file of a few bytes can claim any number of pixels: what is claimed is looked at before anything is decoded.
MOST_PIXELS = 2**24  # of one image that is kept, and of a tile: 4096 x 4096
MOST_SCALED = 2**27  # of one image that is scaled, 1.2 GB at most while it is
MOST_BYTES = 2**32  # of a folder's images, decoded, a byte a channel
LARGEST_FILE = 2**27  # bytes
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of a TIFF
ORIENTATION = 0x0112  # tag of EXIF
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
COLOUR_MODES = ("CMYK", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")
# Names that parts of a set have, in any case.
PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}


def read(data_dir: Path | None, download: bool, resize: int | None = None) -> Parts:
    """Return the images of ``data_dir``, scaled where ``resize`` is given (``read_images``); there is nothing to fetch.

    They lie in ``train/<class>/*`` beside ``test/<class>/*``, other folders beside these two not being read, or in
    ``<class>/*`` alone, which is split 80 to 20, stratified. Raises DataError where they do not, and where all folders are named
    as parts are and hold folders: ``train`` beside ``val`` are no two classes.
    """
    if data_dir is None:
        raise DataError("data set 'folder' is not embedded: say with --data-dir DIR where it lies")
    if not ((data_dir / "train").is_dir() and (data_dir / "test").is_dir()):
        paths, labels, classes = list_images(data_dir)
        _require_classes(data_dir, paths, classes)
        return *divide("folder", Split(read_images(paths, resize), labels), TEST_FRACTION, classes), classes
    train_paths, train_labels, classes = list_images(data_dir / "train")
    test_paths, test_labels, test_classes = list_images(data_dir / "test")
    if test_classes != classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise DataError(f"{data_dir}: train and test must hold the same classes; only one of them has {', '.join(odd)}")
    # Read together, so that sizes and channels agree between the two.
    train_images, test_images = read_images(train_paths + test_paths, resize).split([len(train_paths), len(test_paths)])
    return Split(train_images, train_labels), Split(test_images, test_labels), classes


def list_images(folder: Path) -> tuple[list[Path], Tensor, tuple[str, ...]]:
    """Return the files of ``folder/<class>/**``, their labels ``(N,)`` int64 and the classes, sorted by name.

    Every file counts as an image, whatever its extension; only names that start with a dot are passed over. Links are followed.
    Raises DataError where the folder is missing, holds fewer than two classes, a class is empty, or links lead to one folder twice.
    """
    from torchvision.datasets.folder import make_dataset

    try:
        classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and _is_visible(entry.name))
        if len(classes) < 2:
            raise DataError(
                f"{folder} holds {len(classes)} class folders where at least 2 were expected: lay it out as "
                "<class>/<image files>, or as train/<class>/<image files> beside test/<class>/<image files>"
            )
        for name in classes:
            _require_tree(folder / name)
        numbers = {name: i for i, name in enumerate(classes)}
        samples = make_dataset(folder, numbers, is_valid_file=_is_visible, allow_empty=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be read as a folder of images: {str(error).strip()}") from error
    found = {label for _, label in samples}
    for name, label in numbers.items():
        if label not in found:
            raise DataError(f"{folder}: the class folder {name!r} is empty: put images into it, or remove it")
    return [Path(path) for path, _ in samples], torch.tensor([label for _, label in samples]), tuple(classes)


def read_images(paths: Sequence[Path], resize: int | None = None) -> Tensor:
    """Return the images as uint8 ``(N, C, H, W)``: C is 1 where every image is greyscale, otherwise 3.

    With ``resize`` each is scaled to that height and that width, whatever its proportions are: bilinear, and where it shrinks the
    mean over what a pixel covers. One that its camera marks as turned (EXIF) is turned back. An alpha channel is dropped; of several
    frames the first is read. Raises DataError, naming the file, for one that is no regular file or no readable image of 8 bits a
    channel, for one that is too large (``MOST_PIXELS``, or ``MOST_SCALED`` with ``resize``, ``LARGEST_FILE``, all together
    ``MOST_BYTES``), and for the first that differs in size from the first, where they are not scaled.
    """
    if resize is not None and not 1 <= resize**2 <= MOST_PIXELS:
        raise DataError(
            f"images cannot be scaled to {resize} x {resize} pixels: expected 1 to {math.isqrt(MOST_PIXELS)}"
        )
    arrays: list[np.ndarray] = []
    for path in paths:  # threads only slow this down: small images spend their time in Python, not in decoders
        arrays.append(_read_image(path, resize))
        if arrays[-1].shape[:2] != arrays[0].shape[:2]:
            raise DataError(
                f"{path} has {_size(arrays[-1])} pixels where {paths[0]} has {_size(arrays[0])}: "
                "resize all images to one size, or have them scaled: --set data.resize=32 in training, --resize 32 beside --images"
            )
        if 3 * arrays[0].shape[0] * arrays[0].shape[1] * len(paths) > MOST_BYTES:
            raise DataError(
                f"{len(paths)} images of {_size(arrays[0])} pixels, as {path} is, take more than {MOST_BYTES} bytes in colour, the most "
                "that a folder may: take fewer or smaller images, or register a data set that reads them (stabdeq.register_data_set)"
            )
    if all(array.ndim == 2 for array in arrays):
        return torch.from_numpy(np.stack(arrays)).unsqueeze(1)
    colour = np.stack([array if array.ndim == 3 else np.stack([array] * 3, axis=2) for array in arrays])
    return torch.from_numpy(colour).permute(0, 3, 1, 2).contiguous()


def _require_classes(data_dir: Path, paths: Sequence[Path], classes: Sequence[str]) -> None:
    """Raise DataError where the folders ``classes`` of ``data_dir``, which hold ``paths``, are the parts of a set by another name."""
    if {name.casefold() for name in classes} <= PARTS and any(path.parent.parent != data_dir for path in paths):
        raise DataError(
            f"{data_dir} holds {', '.join(classes)} where train and test were expected: give the two parts to train and to score on "
            "these names; where these are two classes, put their images right into their folders"
        )


def _is_visible(path: str) -> bool:
    return not Path(path).name.startswith(".")


def _read_image(path: Path, resize: int | None) -> np.ndarray:
    """Return one image, scaled where ``resize`` is given, as uint8: (H, W) where it is greyscale, otherwise (H, W, 3)."""
    from PIL import Image

    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limits are lower
            _require_small(os.fstat(file.fileno()).st_size, LARGEST_FILE, "bytes")
            image = Image.open(file, formats=FORMATS)
            _require_small(image.width * image.height, MOST_SCALED if resize else MOST_PIXELS, "pixels")
            _require_small(_pixels_of_a_tile(image), MOST_PIXELS, "pixels in a tile")
            image.load()  # a TIFF is turned by this
            turn = TURNS.get(image.getexif().get(ORIENTATION, 1))  # cameras store how they were held beside the pixels
            image = image if turn is None else image.transpose(Image.Transpose[turn])
            if image.mode in GREY_MODES:
                return _scaled(image.convert("L"), resize)
            if image.mode in COLOUR_MODES:
                # Through RGBA, because Pillow warns where a palette with transparency loses it in one step.
                return _scaled((image.convert("RGBA") if "P" in image.mode else image).convert("RGB"), resize)
            mode = image.mode
    except Exception as error:  # a decoder may raise nearly anything on a malformed file
        raise DataError(
            f"{path} cannot be read as an image ({error}): mend it, or take it out of the folder; "
            f"formats read: {', '.join(FORMATS)}"
        ) from error
    raise DataError(f"{path} has pixels of Pillow's mode {mode!r} where 8 bits a channel were expected: convert it")


def _pixels_of_a_tile(image: "PIL.Image.Image") -> int:
    """Return how many pixels a TIFF says that each of its tiles has, which are decoded as a whole, however small the image; else 0."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(TILE_WIDTH, 0) * tags.get(TILE_LENGTH, 0)


def _scaled(image: "PIL.Image.Image", size: int | None) -> np.ndarray:
    from PIL.Image import Resampling

    return np.array(image if size is None else image.resize((size, size), Resampling.BILINEAR))


def _require_small(number: int, most: int, what: str) -> None:
    if number > most:
        raise ValueError(f"it has {number} {what}, more than {most}")


def _require_tree(folder: Path) -> None:
    """Raise DataError where links in ``folder`` lead to one folder twice: a walk could then go on for ever."""
    seen: set[tuple[int, int]] = set()
    for place, _, _ in os.walk(folder, followlinks=True):
        found = os.stat(place)
        if (found.st_dev, found.st_ino) in seen:
            raise DataError(f"{place}: links lead to this folder twice: take the links out of {folder}")
        seen.add((found.st_dev, found.st_ino))


def _size(array: np.ndarray) -> str:
    height, width = array.shape[:2]
    return f"{width}x{height}"
