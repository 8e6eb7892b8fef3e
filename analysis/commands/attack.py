"""The command ``stabdeq attack``: its arguments, and what it prints."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from stabdeq.arguments import (
    Count,
    OptionalCount,
    OptionalShard,
    OptionalWholeNumber,
    Quiet,
    Ray,
    Seed,
    Trusted,
    count_and_file,
    count_or_path,
    renamed,
    require_writable,
)
from stabdeq.files import replace_file
from stabdeq.percent import percent
from stabdeq.shard import WHOLE

if TYPE_CHECKING:
    from stabdeq.attacks.run import Progress


def attack(
    checkpoint: Annotated[
        str,
        Parameter(
            help="A checkpoint.safetensors that 'stabdeq train' wrote; or MODULE:NAME, a classifier of your own in PyTorch, or a function "
            "that makes one: that module is run."
        ),
    ],
    *,
    attack: Annotated[
        str,
        Parameter(
            help="ifgsm, from the image, or pgd, from random points of the ball, as in the paper; apgd-ce and apgd-t, APGD on "
            "cross-entropy or targeted DLR; square, without gradients; intermediate, PGD through intermediate states; honest, "
            "the worst over all but the first, where there is no equilibrium without intermediate; or one that an installed "
            "package brings."
        ),
    ] = "pgd",
    eps: Annotated[str, Parameter(help="Radius of the ball in pixels of [0, 1], such as 8/255 or 0.03.")] = "8/255",
    norm: Annotated[
        Literal["linf", "l2"], Parameter(help="The ball's norm: of the largest pixel, or Euclidean.")
    ] = "linf",
    steps: Annotated[
        OptionalWholeNumber,
        Parameter(
            help="Steps, or queries of Square. If not given: I-FGSM and PGD take the paper's floor(min(255 eps + 4, "
            "1.25 * 255 eps)), of 1/255 each, PGD in l2 50; APGD 100, Square 1000, intermediate 20, honest 100."
        ),
    ] = None,
    restarts: Annotated[Count, Parameter(help="Random starts; the worst is kept, sample by sample.")] = 1,
    limit: Annotated[
        tuple[int | Path, ...],
        renamed("--images", "--limit", count_or_path),
        Parameter(
            help="Attack only so many test images, drawn at random; if not given, all of them. Or images of your own: a folder CLASS/*, "
            "or a .npz or .safetensors file with 'images' (N, C, H, W) in [0, 1] and 'labels' (N,). Given twice, it says both.",
            show_default=False,
            negative="",
        ),
    ] = (),
    labels: Annotated[
        Path | None,
        Parameter(help="The labels (N,), as .npy, .npz or .safetensors, where the file of images has none."),
    ] = None,
    resize: Annotated[
        OptionalCount,
        Parameter(
            help="Scale the pictures in a folder of your own to so many pixels in height and width, whatever their proportions are."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, Parameter(name="--json", help="Where to write all of it, with the per-sample outcomes.")
    ] = None,
    data_dir: Annotated[Path | None, Parameter(help="Where the data lie, if they are not the embedded digits.")] = None,
    seed: Annotated[Seed, Parameter(help="Seed of the drawn images and of the random starts.")] = 0,
    batch_size: Annotated[Count, Parameter(help="Images attacked at a time.")] = 256,
    clamp_normalised: Annotated[
        bool,
        Parameter(
            negative="",
            help="Make a known fault on purpose, to see what it does: clamp attacked images to [0, 1] after normalisation. "
            "The result is no robust accuracy.",
        ),
    ] = False,
    jobs: Annotated[OptionalCount, Parameter(help="Attack in so many processes, which share the batches.")] = None,
    ray: Ray = False,
    shard: OptionalShard = None,
    out: Annotated[Path | None, Parameter(help="With --shard: the folder for its part.")] = None,
    trusted: Trusted = False,
    quiet: Quiet = False,
) -> None:
    """Attack a checkpoint on its test images, or a model of your own, and print what it gets right.

    The table carries a control row: the same attack, in one step, at eps = 0, must give the clean accuracy.

    Raises a StabdeqError where an argument, the checkpoint or the data are not as expected; the JSON file,
    which is written whole or not at all, is then as it was.
    """
    from analysis.shards.work import Work, begun, require_part_folder, require_shared

    require_writable("--json", json_file, Path(checkpoint))
    require_shared(shard, jobs, ray, out, {"--json": json_file})
    require_part_folder(shard, out)
    count, place = count_and_file(limit)

    from analysis.commands.own_model import is_location, load_own_classifier, own_images, require_reads, weights_dtype
    from analysis.shards.attacks import attack_part, joined_attack
    from analysis.shards.jobs import parts_by_jobs
    from analysis.shards.part import require_free, write_part
    from stabdeq.attacks.run import attack as run_attack
    from stabdeq.checkpoint import load_checkpoint
    from stabdeq.terminal import Console

    given = {
        "attack": attack,
        "eps": eps,
        "norm": norm,
        "steps": steps,
        "restarts": restarts,
        "images": limit,
        "labels": labels,
        "resize": resize,
    }
    given |= {"data-dir": data_dir, "seed": seed, "batch-size": batch_size, "clamp-normalised": clamp_normalised}
    work = Work("attack", checkpoint, given | {"trusted": trusted})
    if shard is not None:
        work = begun(work)
    own = is_location(checkpoint)
    classes = None if own or place is None else load_checkpoint(Path(checkpoint), trusted=trusted).class_names
    images = own_images(place, labels, None, seed, needed=own, data_dir=data_dir, classes=classes, resize=resize)
    model = load_own_classifier(checkpoint) if own else checkpoint
    pixels = images.get("images")
    if pixels is not None and pixels.is_floating_point():
        pixels = pixels.to(weights_dtype(model))
    if own and pixels is not None and pixels.is_floating_point():
        require_reads(model, pixels)
    console = Console(highlight=False)
    if shard is not None and out is not None:
        require_free(out, work, shard)
    if ray or (jobs or 1) > 1:
        with Console(stderr=True, quiet=quiet).status("attacking in several processes"):
            result = joined_attack(parts_by_jobs(work, jobs, ray=ray))
    else:
        with _bar(quiet) as progress:
            result = run_attack(
                model,
                pixels,
                images.get("labels"),
                name=attack,
                eps=eps,
                norm=norm,
                steps=steps,
                restarts=restarts,
                samples=count,
                seed=seed,
                batch_size=batch_size,
                data_dir=data_dir,
                clamp_normalised=clamp_normalised,
                trusted=trusted,
                shard=shard or WHOLE,
                progress=progress,
            )
    if shard is not None and out is not None:
        console.print(f"wrote {write_part(out, attack_part(work, shard, result))}", soft_wrap=True)
        return
    if json_file is not None:
        replace_file(json_file, result.to_json().encode())  # before the rest: printing may fail
    result.show(console)


@contextmanager
def _bar(quiet: bool) -> "Iterator[Progress]":
    """Yield what shows on stderr how far the control and the attack are, or nothing where it is ``quiet``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from stabdeq.terminal import Console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    bar = Progress(*columns, console=Console(stderr=True, quiet=quiet))

    def show(name: str, done: int, right: int, total: int) -> None:
        bar.start()  # not before: what is refused at the outset is one line
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=total)
        if done:
            bar.update(tasks[name], completed=done, description=f"{name}: {percent(right / done)} right")

    try:
        yield show
    finally:
        if tasks:
            bar.stop()
