"""Classifiers on the stabilised features: linear, or behind an orthogonal layer."""

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from stabdeq.config import HeadName
from stabdeq.errors import ConfigError


class Head(nn.Module):
    """features (B, n) -> logits (B, classes), through an orthogonal map first where ``name`` asks for one.

    ``orthogonal``: a square orthogonal layer (n -> n, an isometry), then a linear classifier. ``orthogonal-direct``: the
    classifier's own weight (n -> classes) has orthonormal rows, a projection. ``linear``: the classifier alone.
    """

    def __init__(self, name: HeadName, features: int, classes: int) -> None:
        super().__init__()
        if name == "orthogonal-direct" and classes > features:
            raise ConfigError(
                f"orthogonal-direct needs at least as many features as classes, not {features} for {classes}: "
                "use head orthogonal"
            )
        self.rotation = None
        if name == "orthogonal":
            self.rotation = _orthogonal(nn.Linear(features, features, bias=False))
        self.classifier = nn.Linear(features, classes)
        if name == "orthogonal-direct":
            self.classifier = _orthogonal(self.classifier)

    def rotate(self, features: Tensor) -> Tensor:
        """Return the features (B, n) after the square orthogonal layer; unchanged where there is none."""
        return features if self.rotation is None else self.rotation(features)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.classifier(self.rotate(features))


def _orthogonal(layer: nn.Linear) -> nn.Linear:
    """Return ``layer`` with an orthogonal weight: the matrix exponential of a skew-symmetric one, and no base matrix.

    A base matrix stored in float32 would be orthogonal to float32 only, also when the model is audited in float64.
    """
    parametrizations.orthogonal(layer, orthogonal_map="matrix_exp", use_trivialization=False)
    return layer
