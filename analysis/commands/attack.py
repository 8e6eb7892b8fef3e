"""The command ``stabdeq attack``: what a checkpoint gets right within a ball of pixels."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from stabdeq.arguments import Count, OptionalWholeNumber, Seed, require_writable
from stabdeq.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from stabdeq.attacks import Attack, Outcome
    from stabdeq.checkpoint import Checkpoint
    from stabdeq.data import Split

SCHEMA = 1
CLAMPED = (
    "NOT A ROBUST ACCURACY: --clamp-normalised clamped every attacked image to [0, 1] after normalisation, a known fault. It "
    "changes images at eps = 0 and leaves the ball"
)


def attack(
    checkpoint: Annotated[Path, Parameter(help="A checkpoint.safetensors that 'stabdeq train' wrote.")],
    *,
    attack: Annotated[
        str,
        Parameter(
            help="ifgsm, from the image, or pgd, from random points of the ball, as in the paper; apgd-ce and apgd-t, APGD on "
            "cross-entropy or targeted DLR; square, without gradients; intermediate, PGD through intermediate states; honest, "
            "the worst over all but the first; or one that an installed package brings."
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
        OptionalWholeNumber,
        Parameter(help="Attack only so many test images, drawn at random; if not given, all of them."),
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
) -> None:
    """Attack a checkpoint on its test images, and print what it gets right.

    The table carries a control row: the same attack, in one step, at eps = 0, must give the clean accuracy.

    Raises a StabdeqError where an argument, the checkpoint or the data are not as expected; the JSON file,
    which is written whole or not at all, is then as it was.
    """
    radius = parse_eps(eps)
    _check_arguments(checkpoint, limit=limit, seed=seed, json_file=json_file)

    from stabdeq.attacks import ClampNormalised, build_attack
    from stabdeq.checkpoint import load_checkpoint
    from stabdeq.data import load_data

    chosen = build_attack(attack, eps=radius, steps=steps, restarts=restarts, norm=norm)
    control_attack = build_attack(attack, eps=0.0, steps=1, norm=norm)
    loaded = load_checkpoint(checkpoint)
    split, indices = _draw(load_data(loaded.data, data_dir=data_dir).test, limit, seed)
    attacks: list[Attack] = [control_attack, chosen]
    names = list(getattr(chosen, "attacks", ()))
    if clamp_normalised:
        mean, std = loaded.model.config.mean, loaded.model.config.std
        attacks = [ClampNormalised(attack=each, mean=mean, std=std) for each in attacks]
        names = []  # none of them saw the clamped image
    control, outcome = _run(attacks, loaded, split, seed=seed, batch_size=batch_size)
    warnings = [CLAMPED] * clamp_normalised + _warnings(control, outcome)
    name = f"{attack} ({norm})" + ", FAULTY ON PURPOSE" * clamp_normalised
    _print(name, eps, loaded, control, outcome, names, warnings)
    if json_file is not None:
        settings = {"attack": attack, "norm": norm, **_settings(chosen), "seed": seed, "batch_size": batch_size}
        subject = {"checkpoint": str(checkpoint), "kind": loaded.kind, "data": loaded.data.name}
        settings["clamp_normalised"] = clamp_normalised
        result = _result(control, outcome, indices, names) | {"warnings": warnings}
        _write_json(json_file, {"schema": SCHEMA, **subject, **settings, **result, "versions": _versions()})


def parse_eps(text: str) -> float:
    """Return the number that ``text`` writes, as a quotient or in decimals, or raise ConfigError.

    >>> parse_eps("8/255") == 8 / 255
    True
    """
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"eps {text!r} is not a number: expected pixels of [0, 1], such as 8/255 or 0.03") from None


def _check_arguments(checkpoint: Path, *, limit: int | None, seed: int, json_file: Path | None) -> None:
    """Refuse before the work begins what would be refused after it."""
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit}: expected 1 or more images, or no --limit for all of them")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed {seed}: expected a whole number from 0 to 2^63 - 1")
    require_writable("--json", json_file, checkpoint)


def _draw(split: "Split", limit: int | None, seed: int) -> tuple["Split", "Tensor"]:
    """Draw at most ``limit`` samples, as splits may be sorted by class, and return their indices (N,) too."""
    import torch

    from stabdeq.data import Split

    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(split), generator=generator)[:limit].sort().values
    return Split(split.images[indices], split.labels[indices]), indices


def _run(
    attacks: Sequence["Attack"], loaded: "Checkpoint", split: "Split", *, seed: int, batch_size: int
) -> tuple["Outcome", "Outcome"]:
    """Run the control at eps = 0, then the attack, on a GPU where there is one, under a progress bar."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from stabdeq.attacks import evaluate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = loaded.model.to(device)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    outcomes = []
    with Progress(*columns, console=Console(stderr=True)) as bar:
        for name, each in zip(("eps = 0", "attack"), attacks, strict=True):
            task = bar.add_task(name, total=len(split))

            def show(done: int, right: int, *, name: str = name, task: Any = task) -> None:
                bar.update(task, completed=done, description=f"{name}: {right / done:.2%} right")

            outcomes.append(
                evaluate(each, model, split, seed=seed, batch_size=batch_size, device=device, progress=show)
            )
    return outcomes[0], outcomes[1]


def _print(
    name: str,
    eps: str,
    loaded: "Checkpoint",
    control: "Outcome",
    outcome: "Outcome",
    names: list[str],
    warnings: list[str],
) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_table(name, eps, loaded, control, outcome, names))
    for warning in warnings:
        console.print(warning, markup=False, style="yellow")


def _table(
    name: str, eps: str, loaded: "Checkpoint", control: "Outcome", outcome: "Outcome", names: list[str]
) -> "Table":
    from rich.table import Table

    from stabdeq.attacks.evaluate import fraction

    count = len(outcome.clean_correct)
    table = Table(title=f"{loaded.kind} on {loaded.data.name}, {name}, {count} test images", title_justify="left")
    for heading in ("images", "accuracy", "right on clean too", "no equilibrium"):
        table.add_column(heading, justify="left" if heading == "images" else "right")
    table.add_row("clean", f"{fraction(outcome.clean_correct):.2%}", "", _percent(outcome.clean_unconverged))
    for label, row in (("attacked, eps = 0", control), (f"attacked, eps = {eps}", outcome)):
        table.add_row(
            label,
            f"{fraction(row.robust_correct):.2%}",
            f"{fraction(row.worst_correct):.2%}",
            _percent(row.robust_unconverged),
        )
    for attack, share in _standing(outcome, names).items():
        table.add_row(f"  after {attack}", "", f"{share:.2%}", "")
    return table


def _standing(outcome: "Outcome", names: list[str]) -> dict[str, float]:
    """The fraction of samples that neither the clean image nor the attacks up to each of ``names`` broke."""
    from stabdeq.attacks.evaluate import fraction

    by = outcome.broken_by
    if by is None:
        return {}
    return {name: fraction((by < 0) | (by > index)) for index, name in enumerate(names, start=1)}


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _warnings(control: "Outcome", outcome: "Outcome") -> list[str]:
    """What makes the figures doubtful, each with what it means and what to do."""
    found = []
    differing = int((control.robust_correct != control.clean_correct).sum())
    if differing:
        found.append(
            f"{differing} predictions at eps = 0 differ from the clean ones: the attack changes images that "
            "it must not change, or the model is not deterministic; do not trust the other rows"
        )
    count = len(outcome.clean_correct)
    for flags, what in ((outcome.nonfinite, "NaN or infinite"), (outcome.zero, "zero in every pixel")):
        blind = int(flags.sum())
        if blind:
            found.append(
                f"the gradient of {blind} of {count} images was {what} at some step: the attack was "
                "blind there, and the accuracy under attack may be too high; look for saturation, or use an "
                "attack without gradients"
            )
    return found


def _settings(chosen: "Attack") -> dict[str, Any]:
    """All settings of an attack; those of the paper's attacks with the steps that its rule gives."""
    from stabdeq.attacks import IFGSM, PGD, Worst, schedule

    if isinstance(chosen, Worst):
        return {"eps": chosen.eps, "attacks": {name: _settings(each) for name, each in chosen.attacks.items()}}
    settings: dict[str, Any] = {"eps": chosen.eps}
    settings |= {name: _plain(value) for name, value in getattr(chosen, "__dict__", {}).items()}
    if isinstance(chosen, IFGSM | PGD):
        norm = settings.get("norm", "linf")
        settings["steps"], settings["step_size"] = schedule(chosen.eps, chosen.steps, chosen.step_size, norm)
    return settings


def _plain(value: Any) -> Any:
    """A setting as JSON holds it, or its text where JSON has no such value: an attack of another's may have any."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value


def _result(control: "Outcome", outcome: "Outcome", indices: "Tensor", names: list[str]) -> dict[str, Any]:
    from stabdeq.attacks.evaluate import fraction

    samples = {
        "index": indices,
        "clean_correct": outcome.clean_correct,
        "eps_0_correct": control.robust_correct,
        "robust_correct": outcome.robust_correct,
        "nonfinite_gradient": outcome.nonfinite,
        "zero_gradient": outcome.zero,
    }
    return {
        "n": len(indices),
        "accuracy": {
            "clean": fraction(outcome.clean_correct),
            "eps_0": fraction(control.robust_correct),
            "robust": fraction(outcome.robust_correct),
            "worst": fraction(outcome.worst_correct),
        },
        "unconverged": {
            "clean": outcome.clean_unconverged,
            "eps_0": control.robust_unconverged,
            "robust": outcome.robust_unconverged,
        },
        "standing": _standing(outcome, names),
        "samples": {name: values.tolist() for name, values in samples.items()} | _broken_by(outcome, names),
    }


def _broken_by(outcome: "Outcome", names: list[str]) -> dict[str, list[str | None]]:
    """Which of the attacks ``names`` broke each sample first, "clean" where none was needed; None where it stands."""
    if outcome.broken_by is None or not names:
        return {}
    causes = ("clean", *names)
    return {"broken_by": [None if index < 0 else causes[index] for index in outcome.broken_by.tolist()]}


def _versions() -> dict[str, str]:
    from stabdeq.checkpoint import library_versions

    return library_versions()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write at once or not at all: temporary name, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"--json {path} could not be written ({error}): make room or name another place") from error
    finally:
        temporary.unlink(missing_ok=True)
