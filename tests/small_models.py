"""Small models, their settings and their images."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stabdeq.config import AndersonConfig, ArchitectureConfig, LyapunovConfig, ModelConfig
from stabdeq.config.kinds import KINDS, model_config
from stabdeq.model import StabilisedDEQ

SHAPE = (1, 4, 4)
DIM = 6
TIGHT = AndersonConfig(tolerance=1e-11, max_evaluations=400)
WITH_EQUILIBRIUM = [name for name, kind in KINDS.items() if kind.cell != "constant"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 8, *, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=generator(seed))


def settings(kind: str = "deq", **changes: Any) -> ModelConfig:
    architecture = ArchitectureConfig(state_dim=DIM, lyapunov=LyapunovConfig(hidden=5))
    config = model_config(kind, architecture, image_shape=SHAPE, classes=3, mean=(0.4,), std=(0.3,))
    return replace(config, **changes)


def model(kind: str = "deq", *, seed: int = 0, **changes: Any) -> StabilisedDEQ:
    torch.manual_seed(seed)
    return StabilisedDEQ(settings(kind, **changes))


def trained_statistics(network: StabilisedDEQ) -> StabilisedDEQ:
    """In evaluation mode, with running statistics that belong to its images: 20 passes without a step."""
    network.train()
    for seed in range(20):
        network.predict(images(32, seed=seed).to(network.mean.dtype))
    return network.eval()
