"""How large each measurement is, and the time that is left for it."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from stabdeq.data import DataSet, Split


def device() -> torch.device:
    """Return the GPU where there is one, the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Clock:
    """The seconds that are left of ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._begin = time.monotonic()
        self._seconds = seconds

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begin

    @property
    def left(self) -> float:
        """Seconds until the end; below 0 after it."""
        return self._seconds - self.spent


# By name: pytest would not find the packages there that other tests need.
CUDA_TESTS = ("tests/test_augmentation.py", "tests/test_cuda.py", "tests/test_data.py")


@dataclass(frozen=True)
class Setting:
    """Sizes: ``images`` for an epoch that is timed; ``backbone``; batches of the solvers; seconds of a race; attacked images.

    ``compiled`` says whether a compiled solver is measured too, which takes a minute to begin. ``most_epochs`` bounds the
    trainings of the table; ``tests`` are the arguments of pytest.
    """

    images: int
    backbone: str
    batches: tuple[int, ...]
    channels: int
    side: int
    race_seconds: float
    compiled: bool
    attacked: int
    honest: int
    most_epochs: int
    tests: tuple[str, ...]
    out: Path = Path()

    def writing_to(self, out: Path) -> "Setting":
        """Return the same sizes, results to go to ``out``."""
        return replace(self, out=out)


FULL = Setting(
    images=12_800,
    backbone="resnet20",
    batches=(128, 1024),
    channels=64,
    side=16,
    race_seconds=1.5,
    compiled=True,
    attacked=10_000,
    honest=250,
    most_epochs=50,
    tests=("-m", "cuda", *CUDA_TESTS),
)
TINY = Setting(
    images=8,
    backbone="fcn",
    batches=(2,),
    channels=2,
    side=4,
    race_seconds=0.01,
    compiled=False,
    attacked=4,
    honest=2,
    most_epochs=1,
    tests=("-m", "cuda", "--collect-only", *CUDA_TESTS),
)


def first(split: Split, count: int) -> Split:
    """Return ``count`` samples spread over ``split``, which is sorted by class."""
    rows = torch.linspace(0, len(split) - 1, min(count, len(split))).round().long()
    return Split(split.images[rows], split.labels[rows])


def part_of(data: DataSet, count: int) -> DataSet:
    """Return ``data`` with ``count`` training images, and a tenth as many for validation and test."""
    few = max(count // 10, 2)
    return replace(
        data, train=first(data.train, count), validation=first(data.validation, few), test=first(data.test, few)
    )
