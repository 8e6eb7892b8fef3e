"""Deep equilibrium models stabilised by learned Lyapunov functions, and evidence on what is claimed of them."""

from pathlib import Path
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stabdeq.model import StabilisedDEQ


def load(path: str | Path) -> "StabilisedDEQ":
    """Return the model in the checkpoint at ``path``, in evaluation mode.

    Raises CheckpointError where the file is not a checkpoint of this library; nothing in the file is executed.
    """
    from stabdeq.checkpoint import load_checkpoint

    return load_checkpoint(Path(path)).model
