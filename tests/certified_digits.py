"""A small model with a certified cell, trained on the digits, for tests of what its weights prove."""

import torch
from torch import nn

from stabdeq.config import AndersonConfig, DataConfig, ModelConfig
from stabdeq.data import load_data, to_unit
from stabdeq.model import StabilisedDEQ


def trained() -> StabilisedDEQ:
    """A certified model of the digits after a few seconds of training."""
    data = load_data(DataConfig())
    config = ModelConfig(image_shape=(1, 8, 8), classes=10, mean=data.mean, std=data.std, cell="certified", state_dim=12,
                         head="orthogonal", solver=AndersonConfig(tolerance=1e-6, max_evaluations=300))  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        images, labels = to_unit(data.train.images), data.train.labels
        for _ in range(3):
            for batch in torch.randperm(len(images)).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimiser.step()
    return model.double().eval().requires_grad_(False)
