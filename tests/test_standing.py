"""A sample that was once seen wrong stays broken, with the image that broke it, through all that keeps count of it."""

from typing import Any

import pytest
import torch
from attack_problems import broken_by, generator
from torch import Tensor

from stabdeq.attacks import APGD, PGD, Worst
from stabdeq.attacks.losses import cross_entropy
from stabdeq.attacks.standing import Standing
from stabdeq.attacks.threat_model import STANDS, Adversarial


def first_pixel(x: Tensor) -> Tensor:
    """Class 0 below 0.5, class 1 above."""
    return torch.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], 1)


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


@pytest.mark.parametrize("by_margins", [False, True])
def test_a_broken_sample_leaves_with_the_image_that_broke_it(by_margins: bool) -> None:
    def at(images: Tensor) -> Any:
        return standing.margins(images)[-1] if by_margins else standing.climb(images, cross_entropy)[-1]

    standing = Standing(first_pixel, pixels(0.1, 0.2, 0.3), torch.zeros(3, dtype=torch.int64))
    assert at(pixels(0.1, 0.7, 0.4)).tolist() == [0, 2]
    assert standing.samples.tolist() == [0, 2]
    assert at(pixels(0.45, 0.2)) == slice(None)
    assert at(pixels(0.6, 0.3)).tolist() == [1]
    found = standing.found(pixels(0.25))
    assert found.images.flatten().tolist() == [0.6, 0.7, 0.25]
    assert broken_by(found).tolist() == [1, 1, STANDS]
    assert len(standing) == 1


@pytest.mark.parametrize(
    ("attack", "call"), [(APGD(eps=0.5, steps=5), 1), (PGD(eps=0.5, steps=5, step_size=0.1, until_broken=True), 0)]
)
def test_a_model_that_is_wrong_once_is_broken_by_a_single_run(attack: Any, call: int) -> None:
    """In the first ``call`` that follows a gradient; it is right on the clean image, and when the attack is over."""
    calls = []

    def model(x: Tensor) -> Tensor:
        calls.append(x.detach())
        sign = -1 if len(calls) == call + 1 else 1
        return sign * torch.stack([1 + x[:, 0, 0, 0], 0 * x[:, 0, 0, 0]], 1)

    found = attack(model, pixels(0.1, 0.2), torch.zeros(2, dtype=torch.int64), generator=generator())
    assert broken_by(found).tolist() == [1, 1]
    assert torch.equal(found.images, calls[call])


def test_what_an_attack_says_it_broke_counts_for_the_worst() -> None:
    """Where the model is right when it is asked again; and no later attack is given the sample."""

    class Says:
        eps = 1.0

        def __init__(self, *broken: int) -> None:
            self.broken, self.given = broken, 0

        def __call__(self, model: Any, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
            self.given = len(images)
            no = torch.zeros_like(labels, dtype=torch.bool)
            return Adversarial(images / 2, no, no, torch.tensor(self.broken))

    first, second = Says(STANDS, 1, STANDS), Says(1, STANDS)
    found = Worst({"first": first, "second": second})(
        first_pixel, pixels(0.1, 0.2, 0.3), torch.zeros(3, dtype=torch.int64), generator=generator()
    )
    assert (first.given, second.given) == (3, 2)
    assert broken_by(found).tolist() == [2, 1, STANDS]
    assert found.images.flatten().tolist() == [0.05, 0.1, 0.3]
