"""Splits of one set of images in two, every class in both, that depend on the data alone."""

import torch

from stabdeq.data.batches import Split
from stabdeq.errors import DataError

SPLIT_SEED = 0
TEST_FRACTION = 0.2


def divide(name: str, whole: Split, fraction: float, classes: tuple[str, ...]) -> tuple[Split, Split]:
    """Divide, stratified, into parts of 1 - ``fraction`` and ``fraction``, each in the order of the files.

    Raises DataError, which names the data set ``name``, where a class is too small to be in both.
    """
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
