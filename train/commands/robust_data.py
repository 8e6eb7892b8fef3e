"""The command ``stabdeq robust-data``: a robust data set from a robust model."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from stabdeq.arguments import Count, OptionalCount, Quiet, Seed, Trusted, renamed
from stabdeq.percent import percent


def robust_data(
    checkpoint: Annotated[
        Path, Parameter(help="A checkpoint.safetensors of a robust model, best one of PGD-AT in l2.")
    ],
    *,
    out: Annotated[Path, Parameter(help="Where to write CIFAR_ims and CIFAR_lab: the data folder, to train on them.")],
    steps: Annotated[Count, Parameter(help="Gradient steps for each image.")] = 1000,
    step_size: Annotated[
        float, Parameter(help="Length of a step, l2, in pixels of [0, 1].", validator=Number(gt=0, lte=1e9))
    ] = 0.1,
    limit: Annotated[
        OptionalCount,
        renamed("--images", "--limit"),
        Parameter(help="Make only so many images, drawn at random; if not given, one for each training image."),
    ] = None,
    data_dir: Annotated[Path | None, Parameter(help="Where the data lie, if they are not the embedded digits.")] = None,
    seed: Annotated[
        Seed,
        Parameter(
            help="Seed of the drawn images, and of the images that they begin as.", validator=Number(gte=0, lt=2**32)
        ),
    ] = 0,
    batch_size: Annotated[Count, Parameter(help="Images made at a time; each batch is kept when it is done.")] = 256,
    trusted: Trusted = False,
    quiet: Quiet = False,
) -> None:
    """Make images that have a robust model's features of the training images and nothing else of them (Ilyas et al. 2019).

    Interrupted, it goes on where it stopped when it is called again. Train on the result with --set data.robust=true.
    """
    from dataclasses import replace

    import torch
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from stabdeq.checkpoint import load_checkpoint
    from stabdeq.terminal import Console
    from stabdeq.trained_on import data_of
    from train.robust_data import Settings, build_robust_data

    loaded = load_checkpoint(checkpoint, trusted=trusted)
    # All training images, those that were held out for validation too: the new set is divided anew.
    config = replace(loaded.data, robust=False, validation_fraction=0.0)
    split = data_of(replace(loaded, data=config), data_dir).train
    settings = Settings(
        model=str(loaded.sha256),
        count=len(split) if limit is None else limit,
        steps=steps,
        step_size=step_size,
        seed=seed,
        batch_size=batch_size,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, quiet=quiet)) as bar:
        task = bar.add_task(f"{settings.count} images", total=settings.count * steps)
        matched = build_robust_data(loaded.model.to(device), split, out, settings, lambda done: bar.advance(task, done))
    console = Console(highlight=False)
    console.print(
        f"distance of the features: {matched.before.mean():.4g} at first, {matched.after.mean():.4g} at last; "
        f"{percent(float(matched.unconverged.float().mean()))} without an equilibrium",
        soft_wrap=True,
    )
    console.print(f"wrote {len(matched.images)} images and their labels to {out}", soft_wrap=True)
