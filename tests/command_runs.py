"""Runs of the command line in this process, and the files it is given."""

from pathlib import Path

import torch

import stabdeq
from stabdeq.__main__ import main
from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig, LyapunovConfig
from stabdeq.config.kinds import model_config
from stabdeq.model import StabilisedDEQ

REPOSITORY = Path(stabdeq.__file__).parents[1]


def run(*arguments: str | Path) -> int:
    """Run the command line in this process and return its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


def save_untrained(path: Path, kind: str = "lyadeq-anchored", data: DataConfig | None = None) -> Path:
    """Write a checkpoint of an untrained model for the digits, or for 5 x 6 images of two classes in folders."""
    shape, names = ((1, 8, 8), tuple("0123456789")) if data is None else ((3, 5, 6), ("a", "b"))
    architecture = ArchitectureConfig(state_dim=8, lyapunov=LyapunovConfig(hidden=8))
    config = model_config(
        kind, architecture, image_shape=shape, classes=len(names), mean=(0.4,) * shape[0], std=(0.3,) * shape[0]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config).eval()
    save_checkpoint(path, Checkpoint(model=model, data=data or DataConfig(), class_names=names, seed=0, epoch=0))
    return path
