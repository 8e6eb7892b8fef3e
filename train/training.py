"""Training from a recipe's name: read the recipe, load the data, train, and say where the result lies."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from stabdeq import processes
from stabdeq.checkpoint import load_checkpoint
from stabdeq.data import DataSet, load_data
from stabdeq.errors import LostProcessError, StabdeqError, is_out_of_memory
from stabdeq.model import StabilisedDEQ
from train import determinism, trainer
from train.progress import Progress
from train.recipe import Recipe, load_recipe
from train.tensorboard import require_tensorboard
from train.together import is_first_here, joined
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

    Under torchrun each of its processes calls this alike, and takes its rows of every batch; the first one shows and writes.

    Raises:
        ConfigError: a recipe, key or value is unknown, ``out`` holds another run, or TensorBoard is asked for and not installed.
        DataError: the data set is missing or malformed.
        TrainingDivergedError: the loss stopped being finite; the last checkpoint stands.
        MetricsError: the metrics.jsonl of a run to be resumed holds what training did not write.
        FileError: ``out`` cannot be written; the last checkpoint stands.
        LostProcessError: another process of the training ended, or does not answer; the last checkpoint stands.
    """
    if tensorboard:
        require_tensorboard()
    chosen = load_recipe(str(recipe), {"kind": kind, "epochs": epochs, "seed": seed}, settings)
    folder = Path(out or Path("runs") / f"{Path(recipe).stem}-{chosen.kind}-seed{chosen.seed}")
    with joined():
        data = _data(chosen, None if data_dir is None else Path(data_dir), download)
        progress = Progress(quiet=quiet or not processes.is_first())
        counts = f"{len(data.train)} train, {len(data.validation)} validation, {len(data.test)} test"
        progress.console.print(
            f"{chosen.kind} on {data.name} ({counts} images), {chosen.epochs} epochs, seed {chosen.seed} -> {folder}",
            soft_wrap=True,
        )
        with (
            _told(chosen, folder / CHECKPOINT_NAME, progress, resume=resume),
            determinism.deterministic() if deterministic else nullcontext(),
        ):
            scores = trainer.train(chosen, data, folder, resume=resume, tensorboard=tensorboard, progress=progress)
    return Trained(scores, folder / CHECKPOINT_NAME)


def _data(recipe: Recipe, data_dir: Path | None, download: bool) -> DataSet:
    """Return the recipe's data; one process of a machine downloads what is missing, and the others wait for it."""
    if download and not is_first_here():
        processes.wait()
    data = load_data(recipe.data, data_dir=data_dir, download=download)
    if download and is_first_here():
        processes.wait()
    return data


@contextmanager
def _told(recipe: Recipe, checkpoint: Path, progress: Progress, *, resume: bool) -> Iterator[None]:
    """Say of a training that is cut short what is left of it, and how to go on; not of another run's, which it may have met."""
    others = checkpoint.is_file() and not resume
    try:
        yield
    except (KeyboardInterrupt, LostProcessError, MemoryError, RuntimeError) as error:
        kept = (
            f"{checkpoint} holds the last whole epoch: add --resume to go on"
            if checkpoint.is_file() and not others
            else ""
        )
        if isinstance(error, KeyboardInterrupt):
            if kept:
                progress.console.print(f"stopped; {kept}", soft_wrap=True)
            raise
        if isinstance(error, LostProcessError):
            raise LostProcessError("; ".join(part for part in (str(error), kept) if part)) from error
        if not is_out_of_memory(error):
            raise
        smaller = (
            f"with more processes (torchrun) or more memory, or train anew with batch_size below {recipe.batch_size}"
        )
        reason = str(error).partition(". ")[0]
        raise StabdeqError(f"out of memory ({reason}); {kept or 'begin again'} {smaller}") from error
