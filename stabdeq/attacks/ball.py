"""The balls that attacks stay in: where to start, which way is steepest, and the way back inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from stabdeq.errors import ConfigError, closest
from stabdeq.radius import NormName, check_eps
from stabdeq.shared_batch import drawn


class Ball(Protocol):
    """The images within a radius of given ones, pixels in [0, 1]; images and gradients are (B, C, H, W)."""

    def start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a random point of each image's ball, drawn where the generator lives: all devices get the same."""
        ...

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of length 1 in the ball's norm along which the loss rises fastest; 0 where it does not."""
        ...

    def project(self, moved: Tensor, images: Tensor) -> Tensor:
        """Return ``moved`` brought into the ball around ``images`` and into [0, 1]."""
        ...


@dataclass(frozen=True)
class LinfBall:
    """No pixel changes by more than ``eps``."""

    eps: float

    def start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        def noise(shape: Sequence[int]) -> Tensor:
            empty = torch.empty(shape, dtype=images.dtype, device=generator.device)
            return empty.uniform_(-self.eps, self.eps, generator=generator)

        return images + drawn(noise, images.shape).to(images.device)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, moved: Tensor, images: Tensor) -> Tensor:
        return moved.clamp((images - self.eps).clamp(min=0), (images + self.eps).clamp(max=1))


@dataclass(frozen=True)
class L2Ball:
    """The changes of all pixels of an image together have a Euclidean norm of at most ``eps``."""

    eps: float

    def start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        size = images[0].numel()
        source = {"dtype": images.dtype, "generator": generator, "device": generator.device}
        noise = drawn(partial(torch.randn, **source), images.shape)
        fraction = drawn(partial(torch.rand, **source), (len(images),))
        length = self.eps * fraction ** (1 / size)
        return images + (unit(noise) * length.view(-1, 1, 1, 1)).to(images.device)

    def steepest(self, gradient: Tensor) -> Tensor:
        largest = torch.finfo(gradient.dtype).max
        return unit(gradient.clamp(-largest, largest))  # an infinite slope in one pixel drowns the others

    def project(self, moved: Tensor, images: Tensor) -> Tensor:
        change = moved - images
        length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        inside = torch.where(length > self.eps, images + change * (self.eps / length), moved)
        return inside.clamp(0, 1)  # towards the image in every pixel, so it stays in the ball


BALLS = {"linf": LinfBall, "l2": L2Ball}


def build_ball(eps: float, norm: NormName) -> Ball:
    """Return the ball of radius ``eps`` in the norm ``norm``; raises ConfigError where either is not as expected."""
    if norm not in BALLS:
        raise ConfigError(f"unknown norm {norm!r}: {closest(norm, BALLS)}")
    check_eps(eps, norm)
    return BALLS[norm](eps)


def unit(changes: Tensor) -> Tensor:
    """Return each sample of ``changes`` scaled to norm 1, by its largest entry first: tiny squares underflow; 0 stays."""
    largest = changes.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    scaled = changes / torch.where(largest == 0, 1, largest)
    length = scaled.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return scaled / torch.where(length == 0, 1, length)
