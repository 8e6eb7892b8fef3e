"""Cells by name: the maps f(z, h) whose equilibria a model reads, one family a file."""

from stabdeq.alteration import alteration, prototype
from stabdeq.cells.batchnorm import Cell
from stabdeq.cells.certified import CertifiedCell
from stabdeq.cells.constant import ConstantCell
from stabdeq.cells.convolution import BatchConvolutionCell, ConvolutionCell
from stabdeq.cells.equilibrium import EquilibriumCell, FoldedMap
from stabdeq.cells.interval import IntervalCell
from stabdeq.cells.monotone import MonotoneCell
from stabdeq.cells.multiscale import MultiscaleCell
from stabdeq.cells.relu import ReluCell
from stabdeq.errors import ConfigError
from stabdeq.places import Places
from stabdeq.registry import BACKBONES, CELLS

LARGEST_VECTOR = 65536  # numbers in a state without places

__all__ = [
    "BatchConvolutionCell",
    "Cell",
    "CertifiedCell",
    "ConstantCell",
    "ConvolutionCell",
    "EquilibriumCell",
    "FoldedMap",
    "IntervalCell",
    "MonotoneCell",
    "MultiscaleCell",
    "ReluCell",
    "build_cell",
    "cell_alteration",
    "is_as_made",
]


def build_cell(name: str, state_dim: int, places: Places | None = None) -> EquilibriumCell:
    """Return the cell ``name`` for states of ``state_dim`` numbers, on ``places`` (H, W) where the features have them.

    Raises ConfigError where the name is unknown, the cell needs places and there are none, or the state is too large for it.
    """
    make = CELLS[name]
    if getattr(make, "reads_places", False):
        if places is None:
            having = ", ".join(name for name in BACKBONES.own_names() if BACKBONES[name].stride)
            raise ConfigError(
                f"cell {name} needs features that keep their places: set model.backbone to one of {having}"
            )
        return make(state_dim, places)
    if state_dim > LARGEST_VECTOR:
        raise ConfigError(
            f"model.state_dim = {state_dim}, and cell {name} takes up to {LARGEST_VECTOR}: for more, set model.cell=convolution"
        )
    cell = make(state_dim)
    if not isinstance(cell, EquilibriumCell):
        raise ConfigError(
            f"the cell {name!r} is registered with a maker of {type(cell).__name__}: expected a subclass of "
            "stabdeq.cells.EquilibriumCell"
        )
    return cell


def cell_alteration(cell: object) -> str | None:
    """Return in words what may make ``cell`` another map than the weights of one of this library's cells say; or None.

    A subclass, or a cell that was registered, is such, and whatever ``stabdeq.alteration`` finds.
    """
    if not isinstance(cell, EquilibriumCell) or type(cell) not in CELLS.own_makers():
        return f"the cell is a {type(cell).__name__}, expected one of this library's cells, no subclass of it"
    if isinstance(cell, ConvolutionCell | MultiscaleCell):
        try:
            like = prototype(type(cell), cell.state_dim, tuple(cell.places))
        except (ConfigError, TypeError, AttributeError):  # they are plain attributes, and may be anything
            return f"the cell's state_dim and places are those of no {type(cell).__name__}"
    else:
        sizes = (size for tensor in cell.parameters() for size in tensor.shape)
        like = prototype(type(cell), max([1, *sizes]))
    return alteration(cell, "the cell", like)


def is_as_made(cell: object) -> bool:
    """Return whether ``cell`` is one of this library's, unaltered: proofs from the weights hold of no other."""
    return cell_alteration(cell) is None
