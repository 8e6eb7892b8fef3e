"""How a model runs while an objective crafts images, and in a second forward pass of the same step."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from stabdeq.model import Prediction, StabilisedDEQ


@contextmanager
def evaluating(model: StabilisedDEQ) -> Iterator[None]:
    """Put ``model``, which is in training mode, into evaluation mode for a while.

    Images are crafted in it: in training mode BatchNorm couples the samples of a batch, so that no image's gradient is that
    of its own prediction, and every step would move the running statistics.
    """
    model.eval()
    try:
        yield
    finally:
        model.train()


def predict_beside(model: StabilisedDEQ, images: Tensor) -> Prediction:
    """Run a further forward pass of a step: by the mode's own statistics, but leaving the running ones as they are."""
    with _untracked(model):
        h = model.inject(images)
        solution = model.solve(h)
        return Prediction(model.readout(solution.z), h, solution)


@contextmanager
def _untracked(model: StabilisedDEQ) -> Iterator[None]:
    """Stop the backbone's BatchNorms from updating; the cell's are updated by ``StabilisedDEQ.predict`` alone."""
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
