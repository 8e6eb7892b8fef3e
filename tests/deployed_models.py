"""Models whose float32 runs contradict what their weights prove in real arithmetic, each on an image of ones and far around it.

After Szász, Bánhelyi and Jelasity, "No Soundness in the Real World" (ICML 2025): networks that detect the order of a sum, the
precision of the arithmetic, or, here, the tolerance of their own solver.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stabdeq.config import ModelConfig
from stabdeq.model import StabilisedDEQ

PIXELS = 16
BIG = 2.0**24  # float32 has no odd numbers beyond


def ones() -> Tensor:
    return torch.ones(1, 1, 4, 4)


def _plain_model(state_dim: int) -> StabilisedDEQ:
    """Return a model whose equilibrium is relu(h + b) / 1.001, and whose logits are its first two components."""
    config = ModelConfig(
        image_shape=(1, 4, 4), classes=2, mean=(0.0,), std=(1.0,), cell="certified", state_dim=state_dim
    )
    model = StabilisedDEQ(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    model.head.classifier.weight.copy_(torch.eye(2, state_dim))
    return model


def order_detector() -> StabilisedDEQ:
    """h_1 = 2^24 + the sum of 3/4 x_i, of which the cell takes 2^24 away: 12, or 0 where the sum begins with 2^24; z_2 is 6."""
    model = _plain_model(2)
    layer = model.backbone.linear  # pyrefly: ignore
    layer.weight[0] = 0.75
    layer.bias.copy_(torch.tensor([BIG, 6.0]))
    model.cell.bias[0] = -BIG
    return model


def precision_detector() -> StabilisedDEQ:
    """Logits (1, 3) + 2^26, which float32 does not tell apart."""
    model = _plain_model(2)
    model.backbone.linear.weight.copy_(torch.tensor([1 / PIXELS, 3 / PIXELS])[:, None])  # pyrefly: ignore
    model.head.classifier.bias.fill_(4 * BIG)
    return model


def tolerance_detector() -> StabilisedDEQ:
    """A stiff third component makes the step of the cell so small that its solver takes z = 0 for the equilibrium (1 / 2, 0, 0)."""
    model = _plain_model(3)
    model.backbone.linear.weight[0] = 0.5 / PIXELS  # pyrefly: ignore
    model.cell.symmetric[2, 2] = 2000**0.5
    model.head.classifier.bias[1] = 0.25
    return model


def summed_from_the_bias(model: StabilisedDEQ, image: Tensor) -> Tensor:
    """Return the logits where the extractor adds its products to the bias one by one, as is any order's right."""
    layer = model.backbone.linear  # pyrefly: ignore
    h = layer.bias.clone()
    for pixel, weights in zip(image.flatten(), layer.weight.T, strict=True):
        h = h + pixel * weights
    return model.readout(model.solve(h[None]).z)


Logits = Callable[[StabilisedDEQ, Tensor], Tensor]
# The model, how it is run, and the class that its weights prove.
DETECTORS: dict[str, tuple[Callable[[], StabilisedDEQ], Logits, int]] = {
    "order": (order_detector, summed_from_the_bias, 0),
    "precision": (precision_detector, lambda model, image: model(image), 1),
    "tolerance": (tolerance_detector, lambda model, image: model(image), 0),
}
