"""MNIST, as torchvision stores it."""

from pathlib import Path

from stabdeq.data.batches import DIGIT_NAMES, Parts, Split
from stabdeq.data.downloaded import DownloadedSet


def _read(root: Path, download: bool) -> Parts:
    from torchvision import datasets

    class MNIST(datasets.MNIST):  # the folder that torchvision looks in has the name of the class
        def _check_legacy_exist(self) -> bool:
            return False  # torchvision would unpickle processed/*.pt, which nobody has verified

    train, test = (MNIST(root, train=train, download=download) for train in (True, False))
    return (
        Split(train.data.unsqueeze(1), train.targets.long()),
        Split(test.data.unsqueeze(1), test.targets.long()),
        DIGIT_NAMES,
    )


FILES = tuple(f"MNIST/raw/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
MNIST = DownloadedSet("mnist", FILES, _read)
