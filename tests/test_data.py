"""The embedded digits: their splits and statistics; batches of any split, and where its tensors lie."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import load, write_folder

from stabdeq.data import Split, batches, on_device, resident, to_unit
from stabdeq.errors import ConfigError, DataError

# Embedded digits.


def test_digits_are_split_80_to_20_and_stratified() -> None:
    data = load("digits", validation=0.1)
    assert data.image_shape == (1, 8, 8)
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        shares = split.labels.bincount(minlength=10) / len(split)
        assert (shares - 0.1).abs().max() < 0.01
    assert int(data.train.images.max()) == 255
    assert data.classes == tuple("0123456789")


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data = load("digits", validation=0.05)
    parts = (data.train, data.validation, data.test)
    ours = torch.cat([torch.cat([part.images.flatten(1), part.labels[:, None]], dim=1) for part in parts])
    levels, labels = load_digits(return_X_y=True)
    rows = np.column_stack([np.rint(levels * 255 / 16), labels]).astype(np.int64)
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, rows.tolist()))


def test_splits_do_not_depend_on_any_seed() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = load("digits", validation=0.05)
    torch.manual_seed(2)
    np.random.seed(2)
    second = load("digits", validation=0.05)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(first, part).images, getattr(second, part).images)
        assert torch.equal(getattr(first, part).labels, getattr(second, part).labels)


def test_the_split_of_the_digits_stays_the_same_between_releases() -> None:
    data = load("digits", validation=0.05)
    assert data.test.labels[:12].tolist() == [1, 4, 8, 6, 5, 9, 9, 1, 3, 2, 2, 2]
    assert data.validation.labels[:12].tolist() == [7, 1, 1, 3, 4, 6, 0, 7, 8, 1, 7, 0]


def test_the_test_split_does_not_depend_on_the_validation_fraction() -> None:
    assert torch.equal(load("digits").test.images, load("digits", validation=0.3).test.images)


def test_no_validation_leaves_an_empty_split() -> None:
    data = load("digits")
    assert len(data.validation) == 0
    assert data.validation.images.shape == (0, 1, 8, 8)
    assert len(data.train) == 1437
    assert list(batches(data.validation, 8)) == []


def test_statistics_are_those_of_the_training_images() -> None:
    data = load("digits", validation=0.05)
    scaled = to_unit(data.train.images, torch.float64)
    assert data.mean == pytest.approx([scaled.mean().item()], rel=1e-13)
    assert data.std == pytest.approx([scaled.std(correction=0).item()], rel=1e-13)


def test_statistics_of_each_channel(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10, "b": 10})
    data = load("folder", tmp_path)
    scaled = to_unit(data.train.images, torch.float64)
    assert data.mean == pytest.approx(scaled.mean(dim=(0, 2, 3)).tolist(), rel=1e-13)
    assert data.std == pytest.approx(scaled.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-13)


# Tensors.


def test_to_unit_maps_bytes_to_the_unit_interval() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert to_unit(levels).dtype == torch.float32
    assert torch.equal(to_unit(levels, torch.float64), torch.arange(256, dtype=torch.float64) / 255)
    assert to_unit(levels)[[0, 255]].tolist() == [0, 1]


def test_to_unit_refuses_floats() -> None:
    with pytest.raises(DataError, match=re.escape("uint8 images expected, got torch.float32")):
        to_unit(torch.rand(2))


def numbered(count: int) -> Split:
    """A split whose every image says its number, as its label does."""
    numbers = torch.arange(count)
    return Split(numbers.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous(), numbers)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 15, 16, 17, 33])
@pytest.mark.parametrize("batch_size", [1, 2, 8, 100])
@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_hold_every_sample_once(count: int, batch_size: int, shuffled: bool) -> None:
    generator = torch.Generator().manual_seed(0) if shuffled else None
    sizes, seen = [], []
    for images, labels in batches(numbered(count), batch_size, generator=generator):
        assert images.dtype == torch.uint8
        assert torch.equal(images[:, 0, 0, 0].long(), labels)
        sizes.append(len(labels))
        seen.extend(labels.tolist())
    assert sorted(seen) == list(range(count))
    if not shuffled:
        assert seen == list(range(count))
    assert all(size == batch_size for size in sizes[:-1])
    merges = shuffled and batch_size > 1 and count > batch_size and count % batch_size == 1
    last = count % batch_size or batch_size
    assert sizes[-1:] == ([batch_size + 1] if merges else [last] if count else [])


def test_shuffling_follows_the_generator() -> None:
    def order(generator: torch.Generator) -> list[int]:
        return torch.cat([labels for _, labels in batches(numbered(50), 8, generator=generator)]).tolist()

    generator = torch.Generator().manual_seed(0)
    first, second = order(generator), order(generator)
    assert first != second
    assert first == order(torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_size_below_one(batch_size: int) -> None:
    with pytest.raises(ConfigError, match=f"batch size {batch_size}: expected 1 or more"):
        list(batches(numbered(4), batch_size))


def test_a_split_moves_as_a_whole() -> None:
    moved = numbered(3).to("meta")
    assert moved.images.device.type == "meta"
    assert moved.labels.device.type == "meta"
    assert len(moved) == 3


def test_residence_on_the_cpu_copies_nothing() -> None:
    split = numbered(3)
    assert resident(split, torch.device("cpu")).images.data_ptr() == split.images.data_ptr()


@pytest.mark.parametrize(("free", "fits"), [(72, True), (71, False)])
def test_residence_takes_at_most_half_of_the_free_memory(
    free: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = numbered(3)  # 12 bytes of pixels and 24 of labels
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    monkeypatch.setattr(Split, "to", lambda self, device: f"all on {device}")
    result = resident(split, torch.device("cuda", 0))
    if fits:
        assert result == "all on cuda:0"
    else:
        assert result is split


def test_a_batch_goes_to_the_gpu_through_pinned_memory(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.dtype) or tensor)
    split = numbered(3)
    images, labels = on_device(gpu, split.images, split.labels.to(gpu))  # what is there already needs no copy
    assert images.is_cuda
    assert labels.is_cuda
    assert pinned == [torch.uint8]


def test_batches_of_a_resident_split_are_on_the_gpu(gpu: torch.device) -> None:
    split = resident(numbered(9), gpu)
    generator = torch.Generator().manual_seed(0)
    for (images, labels), (_, expected) in zip(
        batches(split, 4, generator=generator),
        batches(numbered(9), 4, generator=torch.Generator().manual_seed(0)),
        strict=True,
    ):
        assert images.is_cuda
        assert torch.equal(labels.cpu(), expected)
