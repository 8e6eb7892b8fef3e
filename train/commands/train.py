"""``stabdeq train``: its arguments, and what it prints."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stabdeq.arguments import OptionalWholeNumber, Quiet
from stabdeq.percent import percent


def train(
    recipe: str,
    *,
    kind: str | None = None,
    epochs: OptionalWholeNumber = None,
    seed: OptionalWholeNumber = None,
    out: Path | None = None,
    data_dir: Path | None = None,
    download: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    resume: Annotated[bool, Parameter(negative="")] = False,
    deterministic: Annotated[bool, Parameter(negative="")] = False,
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a model from a recipe; writes checkpoint.safetensors, best.safetensors and metrics.jsonl.

    Parameters
    ----------
    recipe
        digits, mnist, mnist-robust, svhn, cifar10, cifar100 or another that "stabdeq list recipes" has, or the path of a TOML file.
    kind
        deq, deq-orth, lyadeq-noorth, lyadeq, lyadeq-anchored, lyadeq-certified, mondeq or ibp-mondeq;
        without an equilibrium, resnet20, resnet56, vgg16 or wrn-28-10.
    epochs
        Passes over the training images.
    seed
        Decides weights, order, augmentation and decay states; the splits do not depend on it.
    out
        Where to write; runs/RECIPE-KIND-seedN by default. A run already there is never written over.
    data_dir
        Where the data set lies, or where to download it to.
    download
        Download the data set where it is missing.
    settings
        Replace a recipe value, such as --set model.lyapunov.alpha=0.2; may be given several times.
    resume
        Go on from the last checkpoint in --out; begins anew where there is none.
    deterministic
        Use one thread, and kernels that give the same bits at every call: the numbers then do not depend on the threads.
    tensorboard
        Write the numbers of metrics.jsonl for TensorBoard, too, into the folder tensorboard in --out; TensorBoard must be installed.
    """
    from stabdeq.processes import is_first
    from stabdeq.terminal import Console
    from train.together import joined
    from train.training import train as run_training

    with joined():
        trained = run_training(
            recipe,
            kind=kind,
            epochs=epochs,
            seed=seed,
            out=out,
            data_dir=data_dir,
            download=download,
            settings=settings,
            resume=resume,
            deterministic=deterministic,
            tensorboard=tensorboard,
            quiet=quiet,
        )
        if not is_first():
            return
    console = Console()
    scores = trained.scores
    failed = f", {percent(scores.unconverged)} without an equilibrium" if scores.unconverged else ""
    console.print(f"test accuracy {percent(scores.accuracy)}{failed}")
    console.print(f"wrote {trained.checkpoint}", soft_wrap=True)
