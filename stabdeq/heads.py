"""Classifiers on the stabilised features: linear, or behind an orthogonal layer."""

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from stabdeq.config import HeadName
from stabdeq.errors import ConfigError
from stabdeq.places import Shape
from stabdeq.sizes import require_sizes

POOLED = 2  # rows and columns of means


class Head(nn.Module):
    """features (B, n) -> logits (B, classes), through an orthogonal map first where ``name`` asks for one.

    ``orthogonal``: a square orthogonal layer (n -> n, an isometry), then a linear classifier. ``orthogonal-direct``: the
    classifier's own weight (n -> classes) has orthonormal rows, a projection. ``linear``: the classifier alone.

    Of features of ``shape`` (C, H, W) it reads the means over each quarter of the places, 4 C numbers for n.
    """

    def __init__(self, name: HeadName, features: int, classes: int, shape: Shape | None = None) -> None:
        super().__init__()
        self.pooling = None
        if shape is not None:
            require_sizes("a head", channels=shape[0])
            self.pooling, features = Pooling(shape), shape[0] * POOLED**2
        require_sizes("a head", features=features, classes=classes)
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

    def pool(self, features: Tensor) -> Tensor:
        """Return what the layers read of features (B, n): means over places, or the features themselves where they have none."""
        return features if self.pooling is None else self.pooling(features)

    def rotate(self, features: Tensor) -> Tensor:
        """Return pooled features (B, n) after the square orthogonal layer; unchanged where there is none."""
        return features if self.rotation is None else self.rotation(features)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.classifier(self.rotate(self.pool(features)))


class Pooling(nn.Module):
    """features (B, C H W) -> their means over each quarter of the places (B, 4 C)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, features: Tensor) -> Tensor:
        """Return the means."""
        return functional.adaptive_avg_pool2d(features.reshape(-1, *self.shape), POOLED).flatten(1)


def _orthogonal(layer: nn.Linear) -> nn.Linear:
    """Return ``layer`` with an orthogonal weight: the matrix exponential of a skew-symmetric one, and no base matrix.

    A base matrix stored in float32 would be orthogonal to float32 only, also when the model is audited in float64.
    """
    parametrizations.orthogonal(layer, orthogonal_map="matrix_exp", use_trivialization=False)
    return layer
