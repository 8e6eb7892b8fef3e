"""Programs written for TorchDEQ, trained with its layer and with ours: one line of each is another.

Run it with ``python torchdeq_drop_in.py``: it trains three small models on the handwritten digits that ship with scikit-learn, each
with both layers in turns, step by step, and prints how far their losses are apart and the median ratio of the times of a step.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torchdeq
from torch import Tensor, nn
from torch.nn import functional
from torchdeq.loss import fp_correction, jac_reg

from stabdeq.adapters.torchdeq import get_deq
from stabdeq.config import DataConfig
from stabdeq.data import load_data, to_unit

LAYERS = {"TorchDEQ": torchdeq.get_deq, "ours": get_deq}


class FromArguments(nn.Module):
    """As TorchDEQ's first example has it: options of the command line, normalised weights, a random start."""

    def __init__(self, make_deq: Callable[..., nn.Module]) -> None:
        super().__init__()
        parser = argparse.ArgumentParser()
        torchdeq.add_deq_args(parser)
        solvers = ["--ift", "--f_solver", "anderson", "--b_solver", "anderson", "--f_tol", "1e-4"]
        args = parser.parse_args([*solvers, "--b_stop_mode", "rel", "--norm_type", "spectral_norm", "--norm_clip"])
        self.inject, self.inner, self.decoder = nn.Linear(64, 40), nn.Linear(40, 40), nn.Linear(40, 10)
        torchdeq.apply_norm(self.inner, args=args)
        self.deq = make_deq(args)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy at the equilibrium."""
        torchdeq.reset_norm(self.inner)
        h = self.inject(x.flatten(1))
        states, _ = self.deq(lambda z: torch.tanh(0.7 * self.inner(z) + h), torch.randn_like(h))
        return functional.cross_entropy(self.decoder(states[-1]), y)


class SeveralEquilibria(nn.Module):
    """A system of three tensors, with the one-step gradient that is TorchDEQ's default."""

    def __init__(self, make_deq: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.inject = nn.Linear(64, 24)
        self.first, self.second, self.third = (nn.Linear(48, 24) for _ in range(3))
        self.decoder = nn.Linear(72, 10)
        self.deq = make_deq(f_max_iter=30, f_tol=1e-4)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy at the equilibrium."""
        h = self.inject(x.flatten(1))

        def f(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return (
                torch.tanh(0.5 * self.first(torch.cat([b, c], 1)) + h),
                torch.tanh(0.5 * self.second(torch.cat([a, c], 1))),
                torch.tanh(0.5 * self.third(torch.cat([a, b], 1))),
            )

        zero = torch.zeros_like(h)
        states, _ = self.deq(f, (zero, zero, zero))
        return functional.cross_entropy(self.decoder(torch.cat(states[-1], 1)), y)


class Convolutional(nn.Module):
    """A convolutional cell, with a loss at three states of the solve and the Jacobian's regularisation."""

    def __init__(self, make_deq: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.inject, self.inner = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.norm, self.decoder = nn.GroupNorm(3, 12), nn.Linear(768, 10)
        torchdeq.apply_norm(self.inner, "weight_norm")
        self.deq = make_deq(
            ift=True, n_states=3, f_max_iter=30, f_tol=1e-3, b_tol=1e-5, f_stop_mode="rel", b_stop_mode="rel"
        )

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the corrected cross-entropy with the regularisation."""
        torchdeq.reset_norm(self.inner)
        h = self.inject(x)

        def f(z: Tensor) -> Tensor:
            return torch.tanh(0.1 * self.norm(self.inner(z)) + h)

        states, _ = self.deq(f, torch.zeros_like(h))
        logits = [self.decoder(z.flatten(1)) for z in states]
        return fp_correction(functional.cross_entropy, (logits, y)) + 0.1 * jac_reg(f(states[-1]), states[-1])


PROGRAMS: tuple[type[Any], ...] = (FromArguments, SeveralEquilibria, Convolutional)


def trained(
    program: type[Any], images: Tensor, labels: Tensor, steps: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Return the losses and the seconds of each step, by layer; both see the same batches, weights and random numbers."""
    models, optimisers, found = {}, {}, {}
    for name, make_deq in LAYERS.items():
        torch.manual_seed(0)
        models[name] = program(make_deq).train()
        optimisers[name] = torch.optim.Adam(models[name].parameters(), lr=3e-3)
        found[name] = ([], [])
    order = torch.Generator().manual_seed(0)
    for step in range(steps):
        batch = torch.randint(len(images), (64,), generator=order)
        for name, model in models.items():
            torch.manual_seed(step)
            began = time.perf_counter()
            loss = model.loss(images[batch], labels[batch])
            optimisers[name].zero_grad()
            loss.backward()
            optimisers[name].step()
            found[name][0].append(float(loss.detach()))
            found[name][1].append(time.perf_counter() - began)
    return found


def main(steps: int = 100) -> int:
    """Train, compare, print."""
    data = load_data(DataConfig(name="digits"))
    images, labels = to_unit(data.train.images), data.train.labels
    for program in PROGRAMS:
        found = trained(program, images, labels, steps)
        (theirs, their_seconds), (ours, our_seconds) = found["TorchDEQ"], found["ours"]
        apart = max(abs(one - other) for one, other in zip(theirs, ours, strict=True))
        ratio = median(one / other for one, other in zip(their_seconds, our_seconds, strict=True))
        print(
            f"{program.__name__}: loss {theirs[0]:.3f}, after {steps} steps {theirs[-1]:.4f} with TorchDEQ and {ours[-1]:.4f} with ours, "
            f"at most {apart:.1e} apart; a step takes TorchDEQ {ratio:.2f} times as long as ours (median)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
