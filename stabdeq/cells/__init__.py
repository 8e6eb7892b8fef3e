"""Cells by name: the maps f(z, h) whose equilibria a model reads, one family a file."""

from torch import nn

from stabdeq.cells.alteration import is_altered
from stabdeq.cells.batchnorm import Cell
from stabdeq.cells.certified import CertifiedCell
from stabdeq.cells.constant import ConstantCell
from stabdeq.cells.interval import IntervalCell
from stabdeq.cells.monotone import MonotoneCell
from stabdeq.cells.relu import ReluCell
from stabdeq.config import CellName

__all__ = [
    "CELLS",
    "Cell",
    "CertifiedCell",
    "ConstantCell",
    "IntervalCell",
    "MonotoneCell",
    "ReluCell",
    "SolvedCell",
    "is_altered",
    "is_as_made",
]

SolvedCell = Cell | CertifiedCell | MonotoneCell | IntervalCell
CELLS: dict[CellName, type[SolvedCell | ConstantCell]] = {
    "batchnorm": Cell,
    "certified": CertifiedCell,
    "monotone": MonotoneCell,
    "interval": IntervalCell,
    "constant": ConstantCell,
}


def is_as_made(cell: object) -> bool:
    """Return whether ``cell`` is one of this library's, unaltered: proofs from the weights hold of no other.

    A subclass, a method that was replaced on the object, or a hook may compute something else.
    """
    if type(cell) not in CELLS.values():
        return False
    assert isinstance(cell, nn.Module)
    return not is_altered(cell, "fold", "affine", "bounds")
