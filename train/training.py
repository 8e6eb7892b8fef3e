"""Training from a recipe's name: read the recipe, load the data, train, and say where the result lies."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from stabdeq.checkpoint import load_checkpoint
from stabdeq.data import load_data
from stabdeq.model import StabilisedDEQ
from train import determinism, trainer
from train.progress import Progress
from train.recipe import load_recipe
from train.tensorboard import require_tensorboard
from train.trainer import CHECKPOINT_NAME, Scores


@dataclass(frozen=True)
class Trained:
    """A run that came to its end: the scores on the test images, and the checkpoint of the last epoch."""

    scores: Scores
    checkpoint: Path

    @property
    def model(self) -> StabilisedDEQ:
        """The trained model, read from the checkpoint: in evaluation mode, on the CPU."""
        return load_checkpoint(self.checkpoint, trusted=True).model  # its settings are those of the call


def train(
    recipe: str | Path,
    *,
    kind: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    settings: Sequence[str] = (),
    resume: bool = False,
    deterministic: bool = False,
    tensorboard: bool = False,
    quiet: bool = False,
) -> Trained:
    """Train a model from a recipe, show how far it is unless ``quiet``, and return its test scores and checkpoint.

    ``recipe`` is the name of one that ships, or the path of a TOML file. ``kind``, ``epochs`` and ``seed`` replace its values;
    ``settings`` do the same for any key, as "dotted.key=value" texts. ``out``, by default runs/RECIPE-KIND-seedN, gets the
    files that ``train.trainer.train`` tells of; ``resume`` goes on from the last whole epoch in it. ``data_dir`` is where the
    data lie, or where ``download`` puts them. ``deterministic`` is ``train.determinism``'s: without it the number of threads
    changes the last bits, and so, epochs later, the numbers. ``tensorboard`` writes what metrics.jsonl holds as event files, too, into
    the folder "tensorboard" in ``out``.

    Raises:
        ConfigError: a recipe, key or value is unknown, ``out`` holds another run, or TensorBoard is asked for and not installed.
        DataError: the data set is missing or malformed.
        TrainingDivergedError: the loss stopped being finite; the last checkpoint stands.
        MetricsError: the metrics.jsonl of a run to be resumed holds what training did not write.
        FileError: ``out`` cannot be written; the last checkpoint stands.
    """
    if tensorboard:
        require_tensorboard()
    chosen = load_recipe(str(recipe), {"kind": kind, "epochs": epochs, "seed": seed}, settings)
    folder = Path(out or Path("runs") / f"{Path(recipe).stem}-{chosen.kind}-seed{chosen.seed}")
    data = load_data(chosen.data, data_dir=None if data_dir is None else Path(data_dir), download=download)
    progress = Progress(quiet=quiet)
    counts = f"{len(data.train)} train, {len(data.validation)} validation, {len(data.test)} test"
    progress.console.print(
        f"{chosen.kind} on {data.name} ({counts} images), {chosen.epochs} epochs, seed {chosen.seed} -> {folder}",
        soft_wrap=True,
    )
    checkpoint = folder / CHECKPOINT_NAME
    try:
        with determinism.deterministic() if deterministic else nullcontext():
            scores = trainer.train(chosen, data, folder, resume=resume, tensorboard=tensorboard, progress=progress)
    except KeyboardInterrupt:
        if checkpoint.is_file():
            stopped = f"stopped; {checkpoint} holds the last whole epoch: add --resume to go on"
            progress.console.print(stopped, soft_wrap=True)
        raise
    return Trained(scores, checkpoint)
