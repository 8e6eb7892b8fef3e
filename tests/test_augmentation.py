"""The augmentation against a loop over the samples."""

import pytest
import torch
from torch import Tensor

from stabdeq.data import augment
from stabdeq.data.augmentation import CROP_PADDING


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crops(image: Tensor) -> list[Tensor]:
    """All 162 crops and mirrored crops of one image, each found by slicing and flipping."""
    channels, height, width = image.shape
    framed = torch.zeros(channels, height + 8, width + 8, dtype=image.dtype)
    framed[:, 4:-4, 4:-4] = image
    plain = [framed[:, y : y + height, x : x + width] for y in range(9) for x in range(9)]
    return plain + [crop.flip(-1) for crop in plain]


@pytest.mark.parametrize("shape", [(64, 3, 12, 12), (16, 1, 8, 8), (16, 3, 9, 14), (1, 1, 2, 3)])
def test_every_sample_is_one_of_its_own_crops(shape: tuple[int, ...]) -> None:
    images = torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator(0))
    augmented = augment(images, generator(1))
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.uint8
    for image, result in zip(images, augmented, strict=True):
        assert any(torch.equal(result, crop) for crop in crops(image))


def test_augmentation_equals_the_loop_over_samples() -> None:
    images = torch.randint(256, (32, 3, 10, 11), dtype=torch.uint8, generator=generator(0))
    draws = generator(5)
    offsets = torch.randint(2 * CROP_PADDING + 1, (2, 32, 1), generator=draws).flatten(1)
    flips = torch.randint(2, (32, 1), generator=draws).flatten()
    expected = [
        crops(image)[int(81 * flip + 9 * y + x)] for image, y, x, flip in zip(images, *offsets, flips, strict=True)
    ]
    assert torch.equal(augment(images, generator(5)), torch.stack(expected))


def test_every_crop_and_flip_is_equally_likely() -> None:
    image = torch.arange(1, 17, dtype=torch.uint8).reshape(1, 4, 4)
    number = 162 * 100
    augmented = augment(image.expand(number, 1, 4, 4), generator(0)).flatten(1)
    seen = torch.tensor([(augmented == crop.flatten()).all(dim=1).sum().item() for crop in crops(image)[9:72]])
    # Offsets away from the frame leave at least one pixel, so that no two of these crops are the same image.
    inner = [9 * y + x - 9 for y in range(1, 8) for x in range(1, 8)]
    assert len(set(map(tuple, (crops(image)[9 + i].flatten().tolist() for i in inner)))) == 49
    assert abs(seen[inner].double() - 100).max() < 60  # six standard deviations of a count with mean 100


def test_augmentation_follows_the_generator_alone() -> None:
    images = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8, generator=generator(0))
    torch.manual_seed(1)
    first = augment(images, generator(3))
    torch.manual_seed(2)
    assert torch.equal(first, augment(images, generator(3)))
    assert not torch.equal(first, augment(images, generator(4)))


def test_augmentation_leaves_its_input_and_takes_an_empty_batch() -> None:
    images = torch.full((4, 1, 8, 8), 7, dtype=torch.uint8)
    augment(images, generator(0))
    assert (images == 7).all()
    assert augment(images[:0], generator(0)).shape == (0, 1, 8, 8)


def test_all_devices_draw_the_same(gpu: torch.device) -> None:
    images = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8, generator=generator(0))
    assert torch.equal(augment(images.to(gpu), generator(3)).cpu(), augment(images, generator(3)))
