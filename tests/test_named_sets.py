"""Named data sets: the files of their downloads, and every bad one."""

import gzip
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from data_files import WRITERS, labels_of, load, md5, pixels, refusal, write_cifar, write_idx, write_mnist, write_svhn

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"
NAMED_SETS = ["mnist", "svhn", "cifar10", "cifar100"]
FIRST_FILES = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "svhn": "train_32x32.mat",
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "cifar100": "cifar-100-python/train",
}


def test_real_mnist() -> None:
    if not (SHARED_DATA / "MNIST").is_dir():
        pytest.skip(f"no MNIST at {SHARED_DATA}")
    data = load("mnist", SHARED_DATA, validation=0.05)
    assert (len(data.train), len(data.validation), len(data.test)) == (57000, 3000, 10000)
    assert data.image_shape == (1, 28, 28)
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.mean == pytest.approx([0.1307], abs=2e-4)
    assert data.std == pytest.approx([0.3081], abs=2e-4)


def test_mnist_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    data = load("mnist", tmp_path)
    assert np.array_equal(data.train.images.numpy()[:, 0], pixels(60, 28, 28, seed=60))
    assert np.array_equal(data.test.images.numpy()[:, 0], pixels(20, 28, 28, seed=20))
    assert data.test.labels.tolist() == [*range(10), *range(10)]


def test_svhn_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path, monkeypatch)
    data = load("svhn", tmp_path)
    assert np.array_equal(data.train.images.numpy(), pixels(60, 3, 32, 32, seed=60))
    assert np.array_equal(data.test.images.numpy(), pixels(20, 3, 32, 32, seed=20))
    assert data.test.labels.tolist() == [*range(10), *range(10)]
    assert data.train.labels.dtype == torch.int64


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(name, tmp_path, monkeypatch)
    classes = int(name.removeprefix("cifar"))
    data = load(name, tmp_path)
    assert data.image_shape == (3, 32, 32)
    assert data.classes == tuple(f"kind {i}" for i in range(classes))
    assert len(data.train) == 4 * classes * (5 if classes == 10 else 1)
    expected = pixels(4 * classes, 3072, seed=0).reshape(-1, 3, 32, 32)
    assert np.array_equal(data.train.images[: 4 * classes].numpy(), expected)
    assert data.test.labels.tolist() == [*range(classes)] * 2
    assert data.train.images.is_contiguous()


@pytest.mark.parametrize("name", NAMED_SETS)
def test_validation_of_a_named_set_is_stratified(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    data = load(name, tmp_path, validation=0.5)
    counts = data.validation.labels.bincount(minlength=len(data.classes))
    assert (counts == counts[0]).all()
    assert torch.equal(counts, data.train.labels.bincount(minlength=len(data.classes)))
    assert len(data.test) == len(load(name, tmp_path).test)


def test_compressed_mnist_files_are_unpacked_by_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    write_mnist(tmp_path, monkeypatch)
    resources = []
    for path in sorted((tmp_path / "MNIST" / "raw").iterdir()):
        compressed = path.with_name(path.name + ".gz")
        compressed.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((compressed.name, md5(compressed)))
        path.unlink()
    monkeypatch.setattr(MNIST, "resources", resources)
    assert "looked for" in refusal("mnist", tmp_path)
    assert len(load("mnist", tmp_path, download=True).train) == 60


@pytest.mark.parametrize("name", [*NAMED_SETS, "folder"])
def test_a_set_that_is_not_embedded_needs_a_folder(name: str) -> None:
    assert "--data-dir DIR" in refusal(name)


@pytest.mark.parametrize("name", NAMED_SETS)
def test_missing_data_name_the_path_and_the_command(name: str, tmp_path: Path) -> None:
    message = refusal(name, tmp_path / "my data")
    assert str(tmp_path / "my data" / FIRST_FILES[name]) in message
    assert f"`stabdeq train {name} --data-dir '{tmp_path}/my data' --download`" in message
    assert not (tmp_path / "my data").exists()


@pytest.mark.parametrize("name", NAMED_SETS)
def test_truncated_data_name_the_set_and_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    path = tmp_path / FIRST_FILES[name]
    path.write_bytes(path.read_bytes()[:-10])
    message = refusal(name, tmp_path)
    assert message.startswith(f"{name} in {tmp_path} is truncated or corrupt: ")
    assert "--download" in message


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\0\x08\x03", b"not an image file", b"\0\0\x0d\x01\0\0\0\0"])
def test_foreign_mnist_files_are_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    (tmp_path / FIRST_FILES["mnist"]).write_bytes(content)
    assert "truncated or corrupt" in refusal("mnist", tmp_path)


@pytest.mark.parametrize("name", NAMED_SETS)
def test_a_failed_download_says_so(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*arguments: Any, **options: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    message = refusal(name, tmp_path, download=True)
    assert message.startswith(f"{name} could not be downloaded into {tmp_path}: ")
    assert "no route to host" in message
    assert FIRST_FILES[name] in message


class Trap:
    """Its pickle writes a file when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.witness, "code ran")


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_an_unverified_pickle_is_never_loaded(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar("cifar10", tmp_path, monkeypatch)
    witness = tmp_path / "witness"
    content = pickle.dumps(Trap(witness))
    (tmp_path / "cifar-10-batches-py" / file).write_bytes(content)
    assert "truncated or corrupt" in refusal("cifar10", tmp_path)
    assert not witness.exists()
    pickle.loads(content)
    assert witness.exists()  # the trap works


def test_old_pickled_mnist_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir()
    for file in ("training.pt", "test.pt"):
        torch.save((torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3).long()), processed / file)
    assert len(load("mnist", tmp_path).train) == 60


def test_mnist_files_that_do_not_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    write_idx(tmp_path / "MNIST/raw/train-labels-idx1-ubyte", labels_of(59, 10).astype(np.uint8))
    assert "60 training images and 59 labels" in refusal("mnist", tmp_path)


def test_labels_out_of_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    write_idx(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", np.full(20, 10, dtype=np.uint8))
    assert "test labels from 10 to 10 where 0 to 9 were expected" in refusal("mnist", tmp_path)


def test_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    write_idx(tmp_path / "MNIST/raw/train-labels-idx1-ubyte", np.full(60, 3, dtype=np.uint8))
    assert "only 1 of the 10 classes" in refusal("mnist", tmp_path)


def test_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    for kind, array in (("images-idx3", pixels(0, 28, 28)), ("labels-idx1", pixels(0))):
        write_idx(tmp_path / "MNIST" / "raw" / f"t10k-{kind}-ubyte", array)
    assert "truncated or corrupt" in refusal("mnist", tmp_path)


def test_no_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    write_svhn(tmp_path, monkeypatch)
    path = tmp_path / "test_32x32.mat"
    savemat(path, {"X": np.zeros((32, 32, 3, 0), np.uint8), "y": np.zeros((0, 1), np.uint8)})
    monkeypatch.setitem(SVHN.split_list, "test", ["http://localhost.invalid/", path.name, md5(path)])
    assert refusal("svhn", tmp_path) == "svhn: there are no test images"


def test_training_and_test_images_of_two_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    write_idx(tmp_path / "MNIST/raw/t10k-images-idx3-ubyte", pixels(20, 20, 28))
    message = refusal("mnist", tmp_path)
    assert "(1, 28, 28)" in message
    assert "(1, 20, 28)" in message
