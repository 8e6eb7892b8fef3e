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
from stabdeq.config import DataConfig
from stabdeq.data import load_data, to_unit
from stabdeq.solvers import Solution, Status, relative_residual

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


class Adapter(nn.Module):
    """``DigitsDEQ`` as the ``EquilibriumModel`` that an audit reads: what stands in its ``forward``, in four parts."""

    lyapunov = None  # it claims no V, so it is judged on its equilibria alone

    def __init__(self, model: DigitsDEQ) -> None:
        super().__init__()
        self.model = model

    def inject(self, x: Tensor) -> Tensor:
        """Return the features h (B, n) of images ``x`` (B, C, H, W) in [0, 1]."""
        return self.model.encoder(x.flatten(1))

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the next state f(z, h), (B, n), (B, n) -> (B, n)."""
        return torch.tanh(self.model.inner(z) + h)

    def readout(self, z: Tensor) -> Tensor:
        """Return the logits (B, classes) of equilibria ``z`` (B, n)."""
        return self.model.classifier(z)

    def solve(self, h: Tensor) -> Solution:
        """Return what TorchDEQ finds for features ``h`` (B, n), with the residual of the very state that it returns."""
        states, info = self.model.deq(lambda z: self.cell(z, h), torch.zeros_like(h))
        z = states[-1]
        residual = relative_residual(z, self.cell(z, h))
        status = torch.where(residual <= TOLERANCE, Status.converged, Status.max_steps)
        return Solution(z=z, residual=residual, status=status, evaluations=info["nstep"].long().expand(len(z)))


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
    report = stabdeq.audit(Adapter(model), to_unit(data.test.images[:64]), data.test.labels[:64])
    print(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
