"""Data sets as uint8 tensors with fixed splits, and their batches.

The splits depend on the data alone, never on the seed of a training run. Samples keep the order of their
files, so that the splits of a folder are sorted by class: shuffle before taking a few.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stabdeq.config import DataConfig
from stabdeq.data.batches import DIGIT_NAMES, Parts, Split
from stabdeq.data.folder import list_images, read_images
from stabdeq.data.robust import read_robust
from stabdeq.data.torchvision_sets import READ_ERRORS, READERS, read_failure
from stabdeq.errors import DataError

SPLIT_SEED = 0
TEST_FRACTION = 0.2


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
    The other named sets lie in ``data_dir`` as torchvision stores them, with the official test part.
    ``folder`` is ``data_dir`` itself: ``train/<class>/*`` beside ``test/<class>/*`` (other folders beside
    these two are not read), or ``<class>/*`` alone, which is split 80 to 20, stratified.
    With ``config.robust`` the training part is that of the robust data set in ``data_dir`` (see ``read_robust``).
    The validation split is a stratified ``config.validation_fraction`` of the training part.
    ``download`` fetches a named set that is missing; ``digits`` and ``folder`` have nothing to fetch.

    Raises DataError where the data are missing, unreadable, too few, of one class, or constant in a channel.
    """
    train, test, classes = _read(config.name, data_dir, download)
    if config.robust:
        train = _read_robust(data_dir)
    _check_parts(config.name, train, test, classes)
    train, validation = _take_out_validation(config, train, classes)
    mean, std = _statistics(config.name, train.images)
    return DataSet(config.name, classes, train, validation, test, mean, std)


def _read(name: str, data_dir: Path | None, download: bool) -> Parts:
    if name == "digits":
        return _read_digits()
    if data_dir is None:
        remedy = " (add --download to fetch it)" if name in READERS else ""
        raise DataError(f"data set {name!r} is not embedded: say with --data-dir DIR where it lies{remedy}")
    data_dir = Path(data_dir).expanduser()
    if name == "folder":
        return _read_folder(data_dir)
    try:
        return READERS[name](data_dir, download)
    except READ_ERRORS as error:
        raise read_failure(name, data_dir, error, download) from error


def _read_robust(data_dir: Path | None) -> Split:
    if data_dir is None:
        raise DataError("a robust data set is not embedded: say with --data-dir DIR where it lies")
    return Split(*read_robust(Path(data_dir).expanduser()))


def _read_digits() -> Parts:
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)  # levels 0 to 16, (N, 64)
    images = (torch.from_numpy(levels) * (255 / 16)).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    whole = Split(images, torch.from_numpy(labels).long())
    return *_divide("digits", whole, TEST_FRACTION, DIGIT_NAMES), DIGIT_NAMES


def _read_folder(root: Path) -> Parts:
    if not ((root / "train").is_dir() and (root / "test").is_dir()):
        paths, labels, classes = list_images(root)
        return *_divide("folder", Split(read_images(paths), labels), TEST_FRACTION, classes), classes
    train_paths, train_labels, classes = list_images(root / "train")
    test_paths, test_labels, test_classes = list_images(root / "test")
    if test_classes != classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise DataError(f"{root}: train and test must hold the same classes; only one of them has {', '.join(odd)}")
    # Read together, so that sizes and channels agree between the two.
    train_images, test_images = read_images(train_paths + test_paths).split([len(train_paths), len(test_paths)])
    return Split(train_images, train_labels), Split(test_images, test_labels), classes


def _check_parts(name: str, train: Split, test: Split, classes: tuple[str, ...]) -> None:
    for part, split in (("training", train), ("test", test)):
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


def _divide(name: str, whole: Split, fraction: float, classes: tuple[str, ...]) -> tuple[Split, Split]:
    """Divide, stratified, into parts of 1 - ``fraction`` and ``fraction``, each in the order of the files."""
    from sklearn.model_selection import train_test_split

    counts = whole.labels.bincount(minlength=len(classes))
    smallest = int(counts.argmin())
    refusal = DataError(
        f"{name}: {len(whole)} images of {len(classes)} classes, the smallest, {classes[smallest]!r}, with "
        f"{counts[smallest]}, are too few to set {fraction:.4g} of every class apart"
    )
    try:
        positions = train_test_split(
            range(len(whole)), test_size=fraction, stratify=whole.labels.numpy(), random_state=SPLIT_SEED
        )
    except ValueError as error:
        raise refusal from error
    first, second = (torch.tensor(sorted(part)) for part in positions)
    parts = Split(whole.images[first], whole.labels[first]), Split(whole.images[second], whole.labels[second])
    if any(len(part.labels.unique()) < len(classes) for part in parts):
        raise refusal
    return parts


def _take_out_validation(config: DataConfig, train: Split, classes: tuple[str, ...]) -> tuple[Split, Split]:
    if config.validation_fraction == 0:
        return train, Split(train.images[:0], train.labels[:0])
    try:
        return _divide(config.name, train, config.validation_fraction, classes)
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
