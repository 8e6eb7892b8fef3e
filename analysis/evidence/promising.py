"""The states from which a search climbs: the worst of all that were looked at, at every distance from the centre."""

import torch
from torch import Tensor

HELD = 2**22  # numbers in the states that are held, 32 MiB: beyond it the worst of them stay, however many are drawn


class Promising:
    """Holds the worst states at each of ``count`` distances from ``centre`` (n,), of each batch and, where these are many, of all."""

    def __init__(self, centre: Tensor, count: int) -> None:
        self.centre, self.count = centre, count
        self._held: list[tuple[Tensor, Tensor]] = []

    def add(self, states: Tensor, relative: Tensor) -> None:
        """Look at ``states`` (B, n) with their relative violations (B,)."""
        self._held.append(self._best(states, relative))
        if sum(states.numel() for states, _ in self._held) > HELD:
            self._held = [self._best(*self._joined())]

    def worst(self) -> Tensor:
        """Return the worst states (at most ``count``, n) of all batches."""
        return self._best(*self._joined())[0]

    def _joined(self) -> tuple[Tensor, Tensor]:
        states, relative = (torch.cat(parts) for parts in zip(*self._held, strict=True))
        return states, relative

    def _best(self, states: Tensor, relative: Tensor) -> tuple[Tensor, Tensor]:
        best = best_by_distance((states - self.centre).norm(dim=1), relative, self.count)
        return states[best], relative[best]


def best_by_distance(distance: Tensor, relative: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of the largest ``relative`` in each of ``count`` bins of equally many ``distance``."""
    if not count:
        return distance.new_zeros(0, dtype=torch.int64)
    order = distance.argsort()
    bins = order[: len(order) // count * count].reshape(count, -1) if len(order) >= count else order[:, None]
    return bins.gather(1, relative[bins].argmax(1, keepdim=True)).squeeze(1)
