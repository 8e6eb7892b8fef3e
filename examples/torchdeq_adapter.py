"""A model written with TorchDEQ, and the adapter through which ``stabdeq.audit`` judges it.

Run it with ``python torchdeq_adapter.py``: it trains on the handwritten digits that ship with scikit-learn, audits 64 test
images, and prints the verdicts.
"""

import sys

import torch
import torchdeq
from torch import Tensor, nn
from torch.nn import functional

import stabdeq
from stabdeq.adapters.torchdeq import TorchDEQModel
from stabdeq.config import DataConfig
from stabdeq.data import load_data, to_unit

TOLERANCE = 1e-3


class DigitsDEQ(nn.Module):
    """A model as TorchDEQ's users write it; it knows nothing of stabdeq."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Linear(64, width)
        self.inner = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 10)
        self.deq = torchdeq.get_deq(ift=True, f_solver="anderson", f_max_iter=50, f_tol=TOLERANCE, f_stop_mode="rel")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, 10) of images ``x`` (B, 1, 8, 8) in [0, 1]."""
        h = self.encoder(x.flatten(1))
        states, _ = self.deq(lambda z: torch.tanh(self.inner(z) + h), torch.zeros_like(h))
        return self.classifier(states[-1])


def adapted(model: DigitsDEQ) -> TorchDEQModel:
    """Return ``model`` as the ``EquilibriumModel`` that an audit reads: what stands in its ``forward``, in three parts."""
    return TorchDEQModel(
        model,
        model.deq,
        inject=lambda x: model.encoder(x.flatten(1)),
        cell=lambda z, h: torch.tanh(model.inner(z) + h),
        readout=model.classifier,
        tolerance=TOLERANCE,
    )


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train ``model`` on ``images`` (N, C, H, W) in [0, 1] with ``labels`` (N,), 64 at a time."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def main(epochs: int = 5) -> int:
    """Train, audit, print; return the audit's exit code."""
    torch.manual_seed(0)
    data = load_data(DataConfig(name="digits"))
    model = DigitsDEQ()
    train(model, to_unit(data.train.images), data.train.labels, epochs)
    report = stabdeq.audit(adapted(model), to_unit(data.test.images[:64]), data.test.labels[:64])
    print(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
