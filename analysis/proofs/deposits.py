"""Operations that put numbers at constant places of a tensor, or add them to what is there, as sums of moved numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def layers(target: Any, shape: torch.Size, source_shape: torch.Size, rest: list[Any]) -> Tensor:
    """Return (layers, *shape) places of numbers whose sum over the layers is the operation ``target``'s result.

    The numbers are those of a tensor of ``shape``, of a source of ``source_shape``, and a 0, one after the other. ``rest`` are the
    arguments besides the two. Raises TypeError where several numbers are put at one place.
    """
    count, total = shape.numel(), shape.numel() + source_shape.numel()
    numbers, source = torch.arange(count).reshape(shape), torch.arange(count, total).reshape(source_shape)
    places, sources, adds = DEPOSITS[target][1](numbers, source, *rest)
    places, order = places.reshape(-1).sort(stable=True)
    sources = sources.reshape(-1)[order]
    turn = torch.arange(len(places)) - torch.searchsorted(places, places)  # of those that go to one place
    if adds and len(places):
        piled = torch.full((2 + int(turn.max()), count), total)
        piled[0] = numbers.reshape(-1)
        piled[1 + turn, places] = sources
    elif bool(turn.any()):
        raise TypeError("expected no place twice: which number stays there is not said")
    else:
        piled = numbers.reshape(1, -1).clone()
        piled[0, places] = sources
    return piled.reshape(-1, *shape)


def pile(tensor: Tensor, source: Tensor, zero: Tensor, piled: Tensor) -> Tensor:
    """Return the numbers at the places that ``layers`` gives."""
    return torch.cat([part.reshape(-1) for part in (tensor, source, zero)])[piled]


Places = tuple[Tensor, Tensor, bool]


def _scatter(adds: bool) -> Callable[..., Places]:
    def places(numbers: Tensor, source: Tensor, dim: int, index: Tensor) -> Places:
        if source.dim():
            source = source[tuple(slice(length) for length in index.shape)]
        return numbers.gather(dim, index), source.expand(index.shape), adds

    return places


def _index_put(numbers: Tensor, source: Tensor, indices: list[Tensor | None], accumulate: bool = False) -> Places:
    if not all(index is None or isinstance(index, Tensor) for index in indices):
        raise TypeError("expected places that are constants")
    places = numbers[tuple(slice(None) if index is None else index for index in indices)]
    return places, source.expand(places.shape), accumulate


# Where the source stands among the arguments after the first, and what goes where: places, sources, and whether it adds.
DEPOSITS: dict[Any, tuple[int, Callable[..., Places]]] = {
    aten.scatter.src: (2, _scatter(adds=False)),
    aten.scatter.value: (2, _scatter(adds=False)),
    aten.scatter_add.default: (2, _scatter(adds=True)),
    aten.index_put.default: (1, _index_put),
}
