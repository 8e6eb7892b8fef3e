"""How fast the logits of a certified model can change with its pixels."""

import torch
from torch import Tensor

from stabdeq.alteration import require_unaltered
from stabdeq.backbones import FullyConnected, LipschitzConvolutional, LipschitzFullyConnected
from stabdeq.bounds.ends import require_unaltered_extractor, require_unaltered_model
from stabdeq.cells import CertifiedCell, cell_alteration
from stabdeq.errors import ConfigError
from stabdeq.linear_algebra import spectral_norm
from stabdeq.model import StabilisedDEQ


def logit_difference_bound(model: StabilisedDEQ, labels: Tensor) -> Tensor:
    """Return K (B, classes): logit y - logit j changes by at most K[:, j] ||dx||_2, for ``labels`` y (B,), x in [0, 1].

    The product of the three parts' bounds: the extractor's Lipschitz constant, normalisation included; the cell's gain of 1; the
    norm of the difference of the classifier's rows. Differentiable. Raises ConfigError where a part has no such bound.
    """
    if not (isinstance(model.cell, CertifiedCell) and model.config.stability in ("none", "anchored")):
        raise ConfigError(
            "a bound of the logits needs model.cell=certified and a kind whose features are the equilibrium (deq, deq-orth, "
            f"lyadeq-anchored, lyadeq-certified), not cell {model.config.cell} and stability {model.config.stability}"
        )
    require_unaltered_model(model)
    require_unaltered(cell_alteration(model.cell))
    rows = model.head.classifier.weight
    difference = (rows[labels][:, None] - rows).square().sum(2)
    # The root's slope at 0, for j = y, would be infinite.
    length = torch.where(difference == 0, 0, torch.where(difference == 0, 1, difference).sqrt())
    return length * extractor_bound(model)


def extractor_bound(model: StabilisedDEQ) -> Tensor:
    """Return c () with ||dh|| <= c ||dx||_2 for pixels x in [0, 1] and the features h of ``model``'s extractor.

    Raises ConfigError where the extractor is altered, or has no such bound.
    """
    if isinstance(model.backbone, LipschitzFullyConnected | LipschitzConvolutional):
        require_unaltered_extractor(model)
        return 1 / model.std.abs().min()
    return spectral_norm(extractor_matrix(model))


def extractor_matrix(model: StabilisedDEQ) -> Tensor:
    """Return E (n, C H W): the fully connected extractor's features are E x + constant, for pixels x in [0, 1].

    Raises ConfigError where the extractor is altered, or another.
    """
    require_unaltered_extractor(model)
    assert isinstance(model.backbone, FullyConnected)
    std = model.std.expand(1, *model.config.image_shape).flatten()
    return model.backbone.linear.weight / std
