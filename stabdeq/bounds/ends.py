"""What lies before and after the cell in a model: whether weights tell what it computes."""

from stabdeq.alteration import alteration, own_alteration, prototype, require_unaltered
from stabdeq.backbones import (
    DeepLipschitzFullyConnected,
    FullyConnected,
    LipschitzConvolutional,
    LipschitzFullyConnected,
)
from stabdeq.errors import ConfigError
from stabdeq.heads import Head
from stabdeq.model import StabilisedDEQ

EXTRACTORS = (FullyConnected, LipschitzFullyConnected, DeepLipschitzFullyConnected, LipschitzConvolutional)


def require_unaltered_model(model: StabilisedDEQ) -> None:
    """Raise ConfigError where ``model`` itself, its normalisation or its head is not as its settings make it; the cell,
    the extractor and V are asked for where they are read.
    """
    if type(model) is not StabilisedDEQ:
        require_unaltered(f"the model is a {type(model).__name__}, expected a StabilisedDEQ, no subclass")
    channels, _, _ = model.config.image_shape
    for name, tensor in (("mean", model.mean), ("std", model.std)):
        if tensor.shape != (1, channels, 1, 1):
            require_unaltered(f"the model's {name} is of shape {tuple(tensor.shape)}, expected {(1, channels, 1, 1)}")
    require_unaltered(own_alteration(model, "the model"))
    like = prototype(Head, model.config.head, model.config.state_dim, model.config.classes)
    require_unaltered(alteration(model.head, "the head", like))


def require_unaltered_extractor(model: StabilisedDEQ) -> None:
    """Raise ConfigError where the extractor of ``model`` has no bound by its make, or is not as it was made."""
    backbone = model.backbone
    if type(backbone) not in EXTRACTORS:
        raise ConfigError(
            f"the extractor {model.config.backbone} has no Lipschitz constant by its make: use backbone fcn, lipschitz-fcn, "
            "lipschitz-fcn-8 or lipschitz-cnn"
        )
    like = prototype(type(backbone), model.config.image_shape, model.config.state_dim)
    require_unaltered(alteration(backbone, "the backbone", like))
