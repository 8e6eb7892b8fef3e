"""Data sets as uint8 tensors with fixed splits, and their batches.

The splits depend on the data alone, never on the seed of a training run. Samples keep the order of their
files, so that the splits of a folder are sorted by class: shuffle before taking a few.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stabdeq.config import DataConfig
from stabdeq.data.batches import Parts, Split
from stabdeq.data.folder import read as read_folder
from stabdeq.data.robust import read_robust
from stabdeq.data.stratified import divide
from stabdeq.errors import ConfigError, DataError
from stabdeq.registry import DATA_SETS

ReadData = Callable[[Path | None, bool], Parts]
"""(``data_dir`` or None, ``download``) -> the training part, the test part, and the classes' names."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images in three disjoint splits, with the mean and standard deviation of each channel.

    The statistics are those of ``train`` alone, for pixels in [0, 1]; ``validation`` may be empty.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def load_data(config: DataConfig, *, data_dir: Path | None = None, download: bool = False) -> DataSet:
    """Read the data set that ``config`` names, in splits that are the same at every call.

    ``digits`` ships with scikit-learn (its levels 0 to 16 become 0 to 255) and is split 80 to 20, stratified.
    ``mnist``, ``svhn``, ``cifar10`` and ``cifar100`` lie in ``data_dir`` as torchvision stores them, with the official test part.
    ``folder`` is ``data_dir`` itself: ``train/<class>/*`` beside ``test/<class>/*`` (other folders beside
    these two are not read), or ``<class>/*`` alone, which is split 80 to 20, stratified.
    ``config.resize`` scales each of its images to so many pixels in height and width.
    A set that is registered is what its reader returns for ``data_dir`` and ``download``.
    With ``config.robust`` the training part is that of the robust data set in ``data_dir`` (see ``read_robust``).
    The validation split is a stratified ``config.validation_fraction`` of the training part.
    ``download`` fetches a set of torchvision's that is missing; ``digits`` and ``folder`` have nothing to fetch.

    Raises ConfigError where the name is unknown, or images are to be scaled that lie in no folder; DataError where the data are
    missing, unreadable, too few, of one class, of another type or shape than expected, or constant in a channel.
    """
    data_dir = None if data_dir is None else Path(data_dir).expanduser()
    train, test, classes = _read(config, data_dir, download)
    if config.robust:
        train = _read_robust(data_dir)
    _check_parts(config.name, train, test, classes)
    train, validation = _take_out_validation(config, train, classes)
    mean, std = _statistics(config.name, train.images)
    return DataSet(config.name, classes, train, validation, test, mean, std)


def _read(config: DataConfig, data_dir: Path | None, download: bool) -> Parts:
    if config.resize == 0:
        return DATA_SETS[config.name](data_dir, download)
    if config.name != "folder":
        raise ConfigError(
            f"data.resize scales the images of a folder, and the data set is {config.name!r}: take it out, or set data.name=folder"
        )
    return read_folder(data_dir, download, config.resize)


def _read_robust(data_dir: Path | None) -> Split:
    if data_dir is None:
        raise DataError("a robust data set is not embedded: say with --data-dir DIR where it lies")
    return Split(*read_robust(data_dir))


def _check_parts(name: str, train: Split, test: Split, classes: tuple[str, ...]) -> None:
    for part, split in (("training", train), ("test", test)):
        if split.images.dim() != 4 or split.images.dtype != torch.uint8 or split.labels.dtype != torch.int64:
            raise DataError(
                f"{name}: {part} images {tuple(split.images.shape)} of {split.images.dtype} with labels of "
                f"{split.labels.dtype}: expected images (N, C, H, W) of uint8 and labels of int64"
            )
        if len(split.images) != len(split.labels):
            raise DataError(
                f"{name}: {len(split.images)} {part} images and {len(split.labels)} labels: "
                "the files do not belong together; download them again"
            )
        if len(split) == 0:
            raise DataError(f"{name}: there are no {part} images")
        if split.labels.min() < 0 or split.labels.max() >= len(classes):
            raise DataError(
                f"{name}: {part} labels from {split.labels.min()} to {split.labels.max()} where 0 to "
                f"{len(classes) - 1} were expected: the files are corrupt or foreign; download them again"
            )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{name}: training images of shape {tuple(train.images.shape[1:])} and test images of shape "
            f"{tuple(test.images.shape[1:])} (channels, height, width): they must be the same"
        )
    present = train.labels.unique().tolist()
    if len(present) < len(classes):
        absent = next(classes[label] for label in range(len(classes)) if label not in present)
        raise DataError(
            f"{name}: only {len(present)} of the {len(classes)} classes have training images, "
            f"class {absent!r} has none: complete the data"
        )


def _take_out_validation(config: DataConfig, train: Split, classes: tuple[str, ...]) -> tuple[Split, Split]:
    if config.validation_fraction == 0:
        return train, Split(train.images[:0], train.labels[:0])
    try:
        return divide(config.name, train, config.validation_fraction, classes)
    except DataError as error:
        raise DataError(
            f"{error} for validation: add images, or set validation_fraction to 0 (no validation) or near 0.5"
        ) from error


def _statistics(name: str, images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images in [0, 1], from exact integer sums."""
    means, deviations = [], []
    levels = torch.arange(256)
    for channel in range(images.shape[1]):
        counts = images[:, channel].flatten().bincount(minlength=256)
        number = int(counts.sum())
        total, squares = int((counts * levels).sum()), int((counts * levels**2).sum())
        spread = number * squares - total**2
        if spread == 0:
            raise DataError(
                f"{name}: every training pixel of channel {channel} has the value {total // number}, which "
                "cannot be normalised: take that channel out of the images, or mend them"
            )
        means.append(total / number / 255)
        deviations.append(math.sqrt(spread) / number / 255)
    return tuple(means), tuple(deviations)
