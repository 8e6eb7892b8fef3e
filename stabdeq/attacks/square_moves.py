"""Where Square starts in each ball, and the changes it tries (Andriushchenko et al. 2020, Algorithms 2 and 3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.attacks.ball import unit


@dataclass(frozen=True)
class LinfMoves:
    """All pixels change by plus or minus ``eps``: stripes at first, then squares of one sign for each channel."""

    eps: float

    def start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``images`` (B, C, H, W) with vertical stripes, one pixel wide."""
        count, channels, _, width = images.shape
        return images + self.eps * _signs((count, channels, 1, width), images, generator)

    def propose(self, images: Tensor, best: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """Return ``best`` (B, C, H, W) with one square of ``side`` pixels set anew in each sample, at a place of its own."""
        count, channels, height, width = images.shape
        rows = _interval(count, side, height, generator).view(count, 1, height, 1)
        columns = _interval(count, side, width, generator).view(count, 1, 1, width)
        corner = images + self.eps * _signs((count, channels, 1, 1), images, generator)
        return torch.where((rows & columns).to(images.device), corner, best)


@dataclass(frozen=True)
class L2Moves:
    """The change has the norm ``eps``; a move takes the share of one window and gives it to a bump in another.

    All samples of a batch share their windows.
    """

    eps: float

    def start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``images`` (B, C, H, W) with tiles of bumps, five by five."""
        count, channels, height, width = images.shape
        side = max(min(height, width) // 5, 1)
        change = torch.zeros_like(images)
        for top in range(0, height - side + 1, side):
            for left in range(0, width - side + 1, side):
                tile = _bumps(side, images, generator) * _signs((count, channels, 1, 1), images, generator)
                change[..., top : top + side, left : left + side] = tile
        return images + self.eps * unit(change)

    def propose(self, images: Tensor, best: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """Return ``best`` (B, C, H, W) with the change of one window of ``side`` pixels moved to another, bump added."""
        count, channels, height, width = images.shape
        side = min(max(side + 1 - side % 2, 3), height, width)  # odd, at least 3
        give, take = (_window(side, height, width, generator) for _ in range(2))
        change = best - images
        either = torch.zeros(height, width, dtype=torch.bool, device=images.device)
        either[give[1:]] = either[take[1:]] = True

        left_over = (self.eps**2 - change.square().sum((1, 2, 3), keepdim=True)).clamp(min=0)
        within = torch.where(either, change, 0).square().sum((2, 3), keepdim=True)  # (B, C, 1, 1)
        bump = _bumps(side, images, generator) * _signs((count, channels, 1, 1), images, generator)
        shape = _unit_channels(bump + _unit_channels(change[take])) * (within + left_over / channels).sqrt()
        change[give] = 0
        change[take] = shape
        return images + self.eps * unit(change)


MOVES = {"linf": LinfMoves, "l2": L2Moves}


def _interval(count: int, side: int, size: int, generator: torch.Generator) -> Tensor:
    """Which of ``size`` places lie in an interval of ``side`` at random, for each sample: (count, size) bool."""
    start = torch.randint(size - side + 1, (count, 1), generator=generator, device=generator.device)
    place = torch.arange(size, device=generator.device)
    return (place >= start) & (place < start + side)


def _window(side: int, height: int, width: int, generator: torch.Generator) -> tuple:
    """The index of a square of ``side`` pixels at a random place."""
    top, left = (
        int(torch.randint(size - side + 1, (), generator=generator, device=generator.device))
        for size in (height, width)
    )
    return ..., slice(top, top + side), slice(left, left + side)


def _signs(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Random plus and minus ones, in the dtype and on the device of ``like``."""
    return (2 * torch.randint(2, shape, generator=generator, device=generator.device) - 1).to(like)


def _bumps(side: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """A positive and a negative bump side by side or one above the other, of norm 1 together: (side, side)."""
    half = side // 2
    both = torch.cat([_bump(side, half), -_bump(side, side - half)], dim=1)
    if int(torch.randint(2, (), generator=generator, device=generator.device)):
        both = both.T
    return (both / both.norm()).to(like)


def _bump(height: int, width: int) -> Tensor:
    """Concentric squares whose heights 1/j^2 add up towards the middle (Eq. 2): (height, width)."""
    rows, columns = (torch.arange(size) - size // 2 for size in (height, width))
    distance = torch.maximum(rows.abs()[:, None], columns.abs()[None, :])
    heights = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64).square()
    return heights.flip(0).cumsum(0).flip(0)[distance]


def _unit_channels(change: Tensor) -> Tensor:
    """Each channel of ``change`` (B, C, H, W) scaled to norm 1; 0 stays."""
    length = change.square().sum((2, 3), keepdim=True).sqrt()
    return change / torch.where(length == 0, 1, length)
