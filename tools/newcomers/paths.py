"""What each of the three writes and types, and what they must see."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """A command line, the exit code it must end with, and what it must print; ``python`` and ``stabdeq`` are the environment's."""

    line: str
    code: int = 0
    prints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Path:
    """A person's files and commands, in order."""

    person: str
    files: dict[str, str]
    commands: tuple[Command, ...] = field(default=())


MODEL = """
import torch
from torch import nn
from stabdeq.adapters import from_functions


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.readout = nn.Sequential(nn.Flatten(), nn.Linear(4 * 8 * 8, 2))
        self.inner.weight.data *= 0.3

    def features(self, x):
        return self.encoder(x)

    def cell(self, z, h):
        return torch.tanh(self.inner(z) + h)


def make():
    torch.manual_seed(0)
    mine = Mine()
    return from_functions(mine.features, mine.cell, mine.readout, tolerance=1e-3, max_evaluations=50)
"""

PICTURES = """
from pathlib import Path
import numpy as np
from PIL import Image

generator = np.random.default_rng(0)
for name, bright in (("dark", 80), ("light", 255)):
    folder = Path("pictures", name)
    folder.mkdir(parents=True)
    for count in range(12):
        Image.fromarray(generator.integers(0, bright, (8, 8), dtype=np.uint8)).save(folder / f"{count}.png")
"""

LOOP = """
import torch

K = torch.tensor([16.0, 5.0], dtype=torch.float64)
P = torch.tensor([[2.0, 0.2], [0.2, 0.25]], dtype=torch.float64)


def f(z):
    angle, speed = z.unbind(1)
    torque = (-(z @ K)).clamp(-5, 5)
    return torch.stack([speed, 9.81 * torch.sin(angle) - 0.1 * speed + torque], 1)


def V(z):
    return ((z @ P) * z).sum(1)
"""

FORGE = """
from pathlib import Path

report = Path("theirs/report.json")
Path("forged.json").write_text(report.read_text().replace('"REFUTED"', '"PROVED"').replace('"refuted"', '"proved"'))
"""

RESEARCH = Path(
    "a convolutional model and a folder of pictures of one's own",
    {"my_model.py": MODEL, "pictures.py": PICTURES},
    (
        Command("python pictures.py"),
        Command("stabdeq audit my_model:make --images pictures --out audit", 0, ("SUPPORTED",)),
    ),
)

CONTROL = Path(
    "a V and a saturated controller of one's own",
    {"my_loop.py": LOOP},
    (
        Command(
            "stabdeq check my_loop:V --dim 2 --dynamics my_loop:f --box -1:1,-3:3 --sublevel 0.05 --claims attraction",
            0,
            ("PROVED",),
        ),
    ),
)

REVIEW = Path(
    "a checkpoint and a report from elsewhere",
    {"forge.py": FORGE},
    (
        Command("stabdeq train digits --kind lyadeq --epochs 3 --out theirs"),
        Command(
            "stabdeq audit theirs/checkpoint.safetensors --images 8 --checks equilibrium,separation --out theirs",
            1,
            ("REFUTED",),
        ),
        Command("stabdeq verify theirs/checkpoint.safetensors theirs/report.json", 0, ("it is repeated",)),
        Command("python forge.py"),
        Command("stabdeq verify theirs/checkpoint.safetensors forged.json", 1, ("REFUTED", "it is not repeated")),
    ),
)

PATHS = {"research": RESEARCH, "control": CONTROL, "review": REVIEW}
