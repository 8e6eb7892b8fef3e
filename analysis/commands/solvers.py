"""``stabdeq solvers``: fixed-point solvers compared on a trained model, as a table, a plot and JSON.

The file of ``--json`` holds, in strict JSON (what has no number is null, and a float that is not finite the string "inf"):

    schema              1
    checkpoint          path, sha256, kind, model, data, ... of the file, as in an audit's report.json; empty for your own
    environment         versions, machine, date
    seed, indices       what the images were drawn with, and their places in the test split, or among yours
    images, dim, dtype  how many images, components n of a state, "float64"
    evaluations         of the cell that each solver had for each image
    floor               residual down to which curves and rates were traced
    own_tolerance       the model's own setting
    own_solver          the name of its own solver below
    recommended         the solver that takes the least time to own_tolerance, of those that reach it on every image, or null
    spectral_radius     of the Jacobian at the equilibrium: images, median, lower, upper; picard_rate, the median of Picard's
                        local rates at the same images
    solvers             by name:
        settings        the solver's settings, or its type
        choose          the options of "stabdeq train" that choose it, null for a solver of yours
        own_seconds     wall time of one solve of all images to own_tolerance, the median of five; null where one does not arrive
        curve           evaluations, median, lower, upper: lists; the best residual so far, over all images
        rate            images, median, lower, upper: the factor of the residual per evaluation, fitted to the second half
                        of each run down to the floor
        tolerances      a list, for each tolerance:
            tolerance, converged (fraction of the images),
            evaluations images, median, lower, upper over all images; null where that image does not arrive
            seconds     wall time of one solve of all images, failures included, the fastest of five
            failures    a list of status, count, remedy

``lower`` and ``upper`` are the 10 % and 90 % quantiles.
"""

import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from stabdeq.arguments import (
    Count,
    OptionalCount,
    Quiet,
    Seed,
    Trusted,
    count_and_file,
    count_or_path,
    renamed,
    require_writable,
)
from stabdeq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analysis.commands.own_model import Given

SCHEMA = 1
PLOTS = (".svg", ".png")


def solvers(
    checkpoint: str,
    *,
    solver: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    limit: Annotated[
        tuple[int | Path, ...],
        renamed("--images", "--limit", count_or_path),
        Parameter(show_default=False, negative=()),
    ] = (),
    labels: Path | None = None,
    resize: OptionalCount = None,
    evaluations: Count = 100,
    plot: Path | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    data_dir: Path | None = None,
    seed: Seed = 0,
    trusted: Trusted = False,
    quiet: Quiet = False,
) -> None:
    """Compare fixed-point solvers on a model, ours and your own, at equal evaluations of the cell, and recommend one.

    Each starts from z = 0, in float64, on the same test images. Recommended is what takes the least time to the model's own
    tolerance, of the solvers that reach it on every image.

    Parameters
    ----------
    checkpoint
        A checkpoint.safetensors that "stabdeq train" wrote; it is read as data, nothing in it is executed. Or MODULE:NAME, a model of
        your own or a function that makes one (stabdeq.model.EquilibriumModel): that module is run.
    solver
        A solver of your own as MODULE:NAME, found from the current folder too: an object with init, step, forget, select and
        safeguarded (stabdeq.solvers.Solver), or a class or function that makes one without arguments. May be repeated.
    limit
        How many test images, drawn at random as in an audit (128). Or images of your own: a folder CLASS/*, or a .npz or
        .safetensors file with "images" (N, C, H, W) in [0, 1] and "labels" (N,), or with "inputs" (N, *) of any dtype. Given
        twice, it says both.
    labels
        The labels (N,), as .npy, .npz or .safetensors, where the file of images has none.
    resize
        Scale the pictures in a folder of your own to so many pixels in height and width, whatever their proportions are.
    evaluations
        How often each solver may evaluate the cell for each image.
    plot
        Draw the residuals into this file, .svg or .png.
    json_file
        Write all numbers to this file.
    data_dir
        Where the data set lies, for sets that are not embedded.
    seed
        Decides which images are drawn.
    """
    _require_files(Path(checkpoint), plot, json_file)
    number, place = count_and_file(limit)
    count = number or 128

    from analysis.commands.own_model import read_given
    from analysis.measure.sample import environment
    from analysis.report.solvers import print_comparison
    from analysis.solver_comparison import compare_solvers, gather, summarise

    own = find_solvers(solver)
    gather(own)  # a solver that lacks a method is refused before the model is read
    options: dict[str, Any] = {"data_dir": data_dir, "resize": resize, "trusted": trusted}
    given = read_given(checkpoint, place, labels, count, seed, **options)
    settings: dict[str, Any] = {"samples": count, "data_dir": data_dir, "seed": seed, "evaluations": evaluations}
    with _progress(quiet) as on_step:
        compared = compare_solvers(given.subject, own, **settings, **given.images, on_step=on_step)
    summary, indices = summarise(compared), compared.subject.indices.tolist()
    title = _title(checkpoint, given, place, len(indices))
    origin = {"checkpoint": compared.checkpoint, "environment": environment()}
    content = {"schema": SCHEMA, **origin, "seed": seed, "indices": indices, **summary}
    written = _write(plot, json_file, title, content)  # before the rest: printing may fail
    print_comparison(summary, title)
    for path in written:
        print(f"wrote {path}")


def _title(subject: str, given: "Given", place: Path | None, count: int) -> str:
    """Return what is compared, on which images."""
    from analysis.findings.values import printable

    kind = subject if given.checkpoint is None else given.checkpoint.kind
    if place is not None or given.checkpoint is None:
        return printable(f"{kind} on {place}, {count} images")
    return f"{kind} on {given.checkpoint.data.name}, {count} test images"


def find_solvers(locations: tuple[str, ...]) -> dict[str, Any]:
    """Return the solvers at ``locations``, "module:name", by name, or by location where two have one name."""
    from analysis.measure.solvers import SOLVERS
    from analysis.user_function.function import find_object, made_by_factory

    found: dict[str, Any] = {}
    for location in locations:
        if location in SOLVERS:
            raise ConfigError(
                f"--solver {location}: it is always compared; --solver takes MODULE:NAME, a solver of your own"
            )
        made = made_by_factory(find_object(location, "my_solvers:Mine"), location)
        name = location.rpartition(":")[2]
        found[location if name in found or name in SOLVERS else name] = made
    return found


def _require_files(checkpoint: Path, plot: Path | None, json_file: Path | None) -> None:
    if plot is not None and plot.suffix not in PLOTS:
        raise ConfigError(f"--plot {plot}: expected a name that ends in .svg or .png")
    if plot is not None and json_file is not None and os.path.realpath(plot) == os.path.realpath(json_file):
        raise ConfigError(f"--plot and --json name the same file {plot}: name two")
    require_writable("--plot", plot, checkpoint)
    require_writable("--json", json_file, checkpoint)


@contextmanager
def _progress(quiet: bool) -> "Iterator[Callable[[str, int, int], None]]":
    """Yield what shows a step on stderr, where that is a terminal and it is not ``quiet``."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from stabdeq.terminal import Console

    console = Console(stderr=True, quiet=quiet)
    what = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), what)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("equilibria", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def _write(plot: Path | None, json_file: Path | None, title: str, content: dict[str, Any]) -> list[Path]:
    """Write the files that were asked for, and return them."""
    from analysis.report.figures.convergence import plot_comparison
    from stabdeq.files import encoded, replace_files, strict_json

    files = {}
    if plot is not None:
        files[plot] = plot_comparison(content, title, plot.suffix)
    if json_file is not None:
        files[json_file] = encoded(strict_json(content))
    replace_files(files)
    return list(files)
