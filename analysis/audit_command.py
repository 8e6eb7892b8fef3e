"""``stabdeq audit``: its arguments, and what it prints."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from stabdeq.arguments import Count, Seed

if TYPE_CHECKING:
    from stabdeq.checkpoint import Checkpoint


def audit(
    checkpoint: Path,
    *,
    out: Path | None = None,
    checks: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    samples: Count = 128,
    data_dir: Path | None = None,
    seed: Seed = 0,
) -> None:
    """Judge the claims of a checkpoint; writes report.json and report.html.

    Exits with 0 where no claim is refuted and none is inconclusive, 1 where one is refuted, 3 where one is inconclusive or
    none was judged, 2 on a usage error.

    Parameters
    ----------
    checkpoint
        A checkpoint.safetensors that "stabdeq train" wrote; it is read as data, nothing in it is executed.
    out
        Where to write; the checkpoint's own folder by default.
    checks
        Which checks to run: equilibrium, positivity, convexity, decay, separation, spectrum, convergence, all these by default;
        and robustness, on request alone, since it takes a minute or more: is a measured robust accuracy to be believed?
    samples
        How many test images to audit, drawn at random.
    data_dir
        Where the data set lies, for sets that are not embedded.
    seed
        Decides the images and every random choice of the audit.
    """
    from rich.console import Console

    from analysis.audit import CHECKS, ON_REQUEST, audit_model
    from analysis.report import write_report
    from analysis.terminal import print_verdicts
    from stabdeq.checkpoint import load_checkpoint
    from stabdeq.errors import ConfigError, closest

    wanted = [name for names in checks for name in names.split(",")] or list(CHECKS)
    for name in wanted:
        if name not in CHECKS + ON_REQUEST:
            raise ConfigError(f"unknown check {name!r}: {closest(name, CHECKS + ON_REQUEST)}")
    loaded = load_checkpoint(checkpoint)
    folder = out or checkpoint.parent
    _require_writable(folder)
    images, labels, indices = draw_images(loaded, data_dir, samples, seed)
    console = Console()
    with console.status("auditing") as status:
        report = audit_model(
            loaded.model,
            images,
            labels,
            indices=indices,
            checks=wanted,
            seed=seed,
            on_check=lambda what: status.update(
                f"auditing: {what} ({wanted.index(what.partition(':')[0]) + 1} of {len(wanted)})"
            ),
        )
    report["checkpoint"] = describe(checkpoint, loaded)
    paths = write_report(report, folder)
    print_verdicts(report, console)
    for path in paths:
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    raise SystemExit(report["exit_code"])


def _require_writable(folder: Path) -> None:
    """Refuse before the audit, not after it, a folder that cannot be made or written to."""
    from stabdeq.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be made ({error.strerror}): name another folder") from None
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"--out {folder}: cannot be written to: name another folder")


def draw_images(loaded: "Checkpoint", data_dir: Path | None, samples: int, seed: int) -> tuple[Any, Any, Any]:
    """Return random test images in [0, 1], their labels and their places in the test split."""
    import torch

    from stabdeq.data import load_data, to_unit
    from stabdeq.errors import DataError

    data = load_data(loaded.data, data_dir=data_dir)
    if data.image_shape != tuple(loaded.model.config.image_shape) or len(data.classes) != loaded.model.config.classes:
        raise DataError(
            f"the model reads {loaded.model.config.image_shape} images of {loaded.model.config.classes} classes, and {data.name} has "
            f"{data.image_shape} of {len(data.classes)}: give the data set it was trained on with --data-dir"
        )
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:samples]
    return to_unit(data.test.images[order], torch.float64), data.test.labels[order], order


def describe(path: Path, loaded: "Checkpoint") -> dict[str, Any]:
    from dataclasses import asdict
    from hashlib import sha256

    return {
        "path": str(path),
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "kind": loaded.kind,
        "model": asdict(loaded.model.config),
        "data": asdict(loaded.data) | {"classes": list(loaded.class_names)},
        "epoch": loaded.epoch,
        "seed": loaded.seed,
        "recipe": loaded.recipe,
        "versions": loaded.versions,
    }
