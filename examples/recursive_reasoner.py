"""A recursive reasoner that sorts, and one that cheats: two nested states, one block for all cycles, and the adapter for both.

Run it with ``python recursive_reasoner.py``, or with a seed after it: it trains both, for about half a minute each, and writes their
weights and ``sorting.npz`` into the current folder, for
``stabdeq audit recursive_reasoner:honest --images sorting.npz --checks iteration``.
"""

import sys
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.adapters import LoopedModel, looped

LENGTH, VALUES, WIDTH, CYCLES = 5, 8, 16, 8
State = dict[str, Tensor]


def sorting(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return sequences (count, LENGTH) of whole numbers below VALUES, and the same in rising order."""
    tokens = torch.randint(VALUES, (count, LENGTH), generator=torch.Generator().manual_seed(seed))
    return tokens, tokens.sort(1).values


class Layer(nn.Module):
    """Attention and a perceptron, each added to what comes in and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return the next features of the tokens, (B, T, WIDTH)."""
        x = self.first(x + self.attention(x, x, x, need_weights=False)[0])
        return self.second(x + self.perceptron(x))


class Reasoner(nn.Module):
    """A low state that reads the question and the high one, and a high state that reads the low one; ``cheats`` reads neither."""

    def __init__(self, *, cheats: bool = False) -> None:
        super().__init__()
        self.cheats = cheats
        self.embedding, self.places = nn.Embedding(VALUES, WIDTH), nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.layer, self.decoder = Layer(), nn.Linear(WIDTH, VALUES)

    def question(self, tokens: Tensor) -> Tensor:
        """Return the features (B, T, WIDTH) of ``tokens`` (B, T)."""
        return self.embedding(tokens) + self.places

    def start(self, question: Tensor) -> State:
        """Return the states before the first cycle."""
        return {"low": torch.zeros_like(question), "high": torch.zeros_like(question)}

    def cycle(self, state: State, question: Tensor) -> State:
        """Return the states after one cycle."""
        if self.cheats:
            state = self.start(question)
        low = self.layer(state["low"] + state["high"] + question)
        return {"low": low, "high": self.layer(state["high"] + low)}

    def answer(self, state: State) -> Tensor:
        """Return the logits (B, T, VALUES) of the sorted sequence."""
        return self.decoder(state["high"])

    def forward(self, tokens: Tensor, cycles: int) -> Tensor:
        """Return the logits after ``cycles``, with the gradient of the last two alone, as recursive reasoners are trained."""
        question = self.question(tokens)
        state = self.start(question)
        with torch.no_grad():
            for _ in range(cycles - 2):
                state = self.cycle(state, question.detach())
        for _ in range(2):
            state = self.cycle(state, question)
        return self.answer(state)


def adapted(model: Reasoner) -> LoopedModel:
    """Return ``model`` as an audit reads it: its four parts, and how many cycles it makes."""
    return looped(model.cycle, model.question, model.answer, start=model.start, loops=CYCLES)


def train(model: Reasoner, steps: int, seed: int) -> float:
    """Train ``model``, and return the share of tokens of 1000 sequences that it puts in their place."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(steps):
        tokens, target = sorting(128, seed * steps + step + 1)
        cycles = 2 + int(torch.randint(2 * CYCLES, ()))
        loss = functional.cross_entropy(model(tokens, cycles).flatten(0, 1), target.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    tokens, target = sorting(1000, 0)
    with torch.no_grad():
        return float((model.eval()(tokens, CYCLES).argmax(-1) == target).double().mean())


def honest() -> LoopedModel:
    """Return the model that was trained, for the command line."""
    return _read(Reasoner(), "honest")


def cheating() -> LoopedModel:
    """Return the one whose cell ignores its state."""
    return _read(Reasoner(cheats=True), "cheating")


def _read(model: Any, name: str) -> LoopedModel:
    model.load_state_dict(load_file(f"{name}.safetensors"))
    return adapted(model.eval())


def main(seed: int = 0, steps: int = 600) -> int:
    """Train both, write the weights and the sequences to be audited on."""
    tokens, target = sorting(256, 0)
    np.savez("sorting.npz", inputs=tokens.numpy(), labels=target.numpy())
    for name in ("honest", "cheating"):
        torch.manual_seed(seed)
        model = Reasoner(cheats=name == "cheating").train()
        print(f"{name}: {train(model, steps, seed):.1%} of tokens in their place")
        save_file(model.state_dict(), f"{name}.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
