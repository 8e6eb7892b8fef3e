"""Batches, models of known optimum and distances that the tests of attacks share."""

import torch
from torch import Tensor, nn

from stabdeq.attacks import Outcome
from stabdeq.attacks.threat_model import Adversarial
from stabdeq.config import AndersonConfig, ModelConfig
from stabdeq.data import Split
from stabdeq.model import StabilisedDEQ

SHAPE = (2, 4, 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distance(first: Tensor, second: Tensor) -> float:
    return (first - second).abs().max().item()


def random_batch(count: int = 16, *, classes: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images with many pixels at 0 and at 1, where the box cuts the ball."""
    images = (torch.rand(count, *SHAPE, generator=generator(), dtype=dtype) * 1.4 - 0.2).clamp(0, 1)
    return images, torch.randint(classes, (count,), generator=generator(1))


def random_split(count: int = 24, *, classes: int = 5) -> Split:
    images = torch.randint(256, (count, *SHAPE), dtype=torch.uint8, generator=generator())
    return Split(images, torch.randint(classes, (count,), generator=generator(1)))


def network(classes: int = 5, *, scale: float = 3.0) -> nn.Module:
    """A network with random weights, curved enough for random starts to matter."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(2)) * scale / 5)
    return model.eval()


def equilibrium_model(*, max_evaluations: int = 50) -> StabilisedDEQ:
    torch.manual_seed(3)
    config = ModelConfig(
        image_shape=SHAPE,
        classes=5,
        mean=(0.5, 0.4),
        std=(0.3, 0.2),
        state_dim=12,
        stability="anchored",
        head="orthogonal",
        solver=AndersonConfig(tolerance=1e-4, max_evaluations=max_evaluations),
    )
    return StabilisedDEQ(config).eval()


class TwoClassLinear(nn.Module):
    """Logits (0, w x + b): the loss of label y falls with (2 y - 1)(w x + b) alone."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, generator=generator(5), dtype=dtype))
        self.bias = nn.Parameter(-self.weight.detach().sum() / 2)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def optimal_attack(self, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        sign = (1 - 2 * labels).view(-1, 1, 1, 1) * self.weight.detach().sign().view(SHAPE)
        return (images + eps * sign).clamp(0, 1)


def broken_by(found: Adversarial | Outcome) -> Tensor:
    assert found.broken_by is not None
    return found.broken_by
