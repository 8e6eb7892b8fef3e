"""``stabdeq reproduce``: the paper's tables and figures, from the jobs that they are made of."""

import math
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from cyclopts import Parameter
from cyclopts.validators import Number

from stabdeq.arguments import Count, OptionalCount, Quiet, renamed
from stabdeq.errors import ConfigError, JobsFailedError
from stabdeq.files import make_folder, replace_files, require_folder, strict_json

if TYPE_CHECKING:
    from analysis.reproduce.jobs import Attack, Training
    from analysis.reproduce.plan import Study
    from analysis.reproduce.run import Engine, Job
    from analysis.reproduce.table import Row


def reproduce(
    what: Literal["table1", "table2", "table3", "figure3", "figure4"],
    *,
    data: str | None = None,
    kinds: str | None = None,
    seeds: str | None = None,
    limit: Annotated[OptionalCount, renamed("--images", "--limit")] = None,
    honest_limit: Annotated[Count, renamed("--honest-images", "--honest-limit")] = 1000,
    epochs: OptionalCount = None,
    out: Path = Path("runs/reproduce"),
    data_dir: Path | None = None,
    download: Annotated[bool, Parameter(negative="")] = False,
    folders: Annotated[bool, Parameter(negative="")] = False,
    jobs: OptionalCount = None,
    hours: Annotated[float | None, Parameter(validator=Number(gt=0, lte=1e5))] = None,
    ray: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    quiet: Quiet = False,
) -> None:
    """Train and attack what a table or figure of the paper needs, and show the paper's figures beside ours.

    What is in --out already is not run again, so that an interrupted run goes on. Attacks with other settings, or older than
    their checkpoint, are run anew; a model trained with other settings is refused, never written over.

    Parameters
    ----------
    what
        table1, table2, table3, figure3 or figure4.
    data
        Data sets, with commas; the paper's if not given. "digits" needs no download and is not in the paper.
    kinds
        Rows, with commas, such as deq,lyadeq; all if not given. A kind that is no row by itself is all its rows.
    seeds
        Seeds of training and attack, with commas; 0,1,2 if not given, for figure3 0.
    limit
        Test images under the paper's attacks; all if not given, for figure3 1000.
    honest_limit
        Test images under the honest attack, the worst of several, which takes up to some hundred times as long an image.
    epochs
        Passes over the training images; the paper's if not given.
    out
        Where everything goes: DATA/KIND-seedN/ with checkpoint.safetensors, ATTACK-EPS.json and logs, and the table or figures.
    data_dir
        Where the data sets lie, or where to download them to.
    download
        Download data sets that are missing.
    folders
        Read each data set as a folder of images: --data-dir/cifar10/train/CLASS/* beside --data-dir/cifar10/test/CLASS/*.
    jobs
        Jobs at a time on this machine; with several, each has one thread, or as many as OMP_NUM_THREADS says. 1 if not given.
    hours
        End after this time: what is done stays, what is next is said, and the same command goes on from there.
    ray
        Run the jobs through Ray, on all machines of the cluster that RAY_ADDRESS names (pip install ray).
    dry_run
        Print the command lines of what is missing, for a cluster of your own, and run nothing.
    """
    from analysis.reproduce.plan import STUDIES, attacks, parse_seeds, select, trainings
    from analysis.reproduce.run import LocalEngine, RayEngine

    if ray and jobs is not None:
        raise ConfigError("--jobs with --ray: Ray decides how many run at a time; leave one of them out")
    if dry_run and (ray or download or jobs is not None or hours is not None):
        raise ConfigError("--dry-run runs nothing: leave out --jobs, --hours, --ray and --download")
    if folders and (download or data_dir is None):
        raise ConfigError(
            "--folders reads folders of images that are there: say in which with --data-dir, without --download"
        )
    study = select(STUDIES[what], data, kinds)
    chosen_seeds = study.seeds if seeds is None else parse_seeds(seeds)
    models = trainings(study, seeds=chosen_seeds, epochs=epochs, out=out, data_dir=data_dir, as_folder=folders)
    planned = [(model, attacks(study, model, limit=limit, honest_limit=honest_limit)) for model in models]
    missing = _missing(planned)
    if dry_run:
        _print_commands(missing)
        return
    results = [attack for _, each in planned for attack in each]
    failures: dict[str, str] = {}
    engine: Engine | None = None
    if missing:
        require_folder(out)
        engine = RayEngine() if ray else LocalEngine(jobs or 1)
        _require_data(missing, download)
        make_folder(out)
    try:
        if engine is not None:
            failures = _run(missing, len(models) + len(results), engine, out, hours, quiet)
    finally:  # after an interrupt, too: a table shows what is missing as a gap
        if what.startswith("table"):
            _show_table(what, study, results, chosen_seeds, out)
    if what == "figure3":
        _draw_figure3([model for model in models if model.name not in failures and model.is_done()], limit)
    if what == "figure4":
        _draw_figure4(study, results, chosen_seeds, out)
    if failures:
        name, reason = next(iter(failures.items()))
        raise JobsFailedError(f"{len(failures)} jobs failed or could not run; the first, {name}: {reason}")


def _missing(planned: "list[tuple[Training, list[Attack]]]") -> "list[Job]":
    """Return the jobs to run; what a model that is not trained to the end left earlier does not count."""
    missing: list[Job] = []
    for training, attacks in planned:
        trained = training.is_done()
        missing += [] if trained else [training]
        missing += [attack for attack in attacks if not (trained and attack.is_done())]
    return missing


def _print_commands(missing: "list[Job]") -> None:
    """Print shell commands: the trainings first, as the attacks need them."""
    for comment, wanted in (("trainings", True), ("attacks: each needs its training", False)):
        chosen = [job for job in missing if (job.action == "train") == wanted]
        if chosen:
            print(f"# {comment}")
        for job in chosen:
            print(shlex.join(["python", "-P", "-m", "stabdeq", *job.command()]))


def _require_data(missing: "list[Job]", download: bool) -> None:
    """Refuse before the work begins data that are not there, or fetch them: once, and not in every job."""
    from analysis.reproduce.jobs import Attack
    from stabdeq.config import DataConfig, parse_config
    from stabdeq.data import load_data

    models = [job.training if isinstance(job, Attack) else job for job in missing]
    for name, folder in dict.fromkeys((model.data_name, model.images_dir) for model in models):
        if name == "folder" and folder and folder.is_dir() and not (folder / "test").is_dir():
            raise ConfigError(f"{folder}: --folders reads train/CLASS/* and test/CLASS/* there, and there is no test")
        load_data(parse_config(DataConfig, {"name": name}, "--data"), data_dir=folder, download=download)


def _run(
    missing: "list[Job]", total: int, engine: "Engine", out: Path, hours: float | None, quiet: bool
) -> dict[str, str]:
    """Run what is missing of ``total`` jobs; return why the failed ones failed, by name."""
    from analysis.reproduce.child import ENDS_WITH_ITS_PARENT
    from analysis.reproduce.jobs import Attack
    from analysis.reproduce.run import run_jobs

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    trainings = sum(job.action == "train" for job in missing)
    stale = sum(job.result.exists() for job in missing if isinstance(job, Attack))
    say(
        f"{total - len(missing)} of {total} jobs are done; to run: {trainings} trainings, {len(missing) - trainings} attacks "
        f"(their output: {out}/*/*/*.log)"
    )
    if stale:
        say(f"{stale} results of other settings, or older than their checkpoint, are replaced")
    if not ENDS_WITH_ITS_PARENT:
        say("on this system a job goes on to its end where this command is killed by force")
    with _terminated_as_interrupted():
        return run_jobs(missing, engine, say, seconds=math.inf if hours is None else 3600 * hours)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let the signal that asks to end, as batch systems send it, end the jobs too."""

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_table(what: str, study: "Study", results: "list[Attack]", seeds: Sequence[int], out: Path) -> None:
    from analysis.reproduce.table import make_rows, print_table

    rows = make_rows(study, results)
    print_table(study, rows, seeds)
    _write_rows(what, study, rows, seeds, out)


def _write_rows(what: str, study: "Study", rows: "list[Row]", seeds: Sequence[int], out: Path) -> None:
    from analysis.reproduce.table import markdown, plain

    text, numbers = markdown(study, rows, seeds), strict_json(plain(study, rows, seeds))
    _write({out / f"{what}.md": text.encode(), out / f"{what}.json": numbers.encode()})


def _draw_figure3(models: "list[Training]", limit: int | None) -> None:
    """Draw one figure for each model, beside its checkpoint."""
    from analysis.reproduce.figure3 import IMAGES, draw_states, gather_states

    for model in models:
        states = gather_states(model.checkpoint, model.images_dir, limit=limit or IMAGES, seed=model.seed)
        drawn = draw_states(states, f"{model.system.name} on {model.data}", seed=model.seed)
        _write({model.checkpoint.with_name(f"figure3{suffix}"): content for suffix, content in drawn.items()})


def _draw_figure4(study: "Study", results: "list[Attack]", seeds: Sequence[int], out: Path) -> None:
    """Draw one figure for each data set, and write its numbers."""
    from analysis.reproduce.figure4 import draw_radii
    from analysis.reproduce.table import make_rows, notes

    rows = make_rows(study, results)
    for note in notes(rows):
        print(note)
    for data in study.data:
        drawn = draw_radii([row for row in rows if row.data == data], data, len(seeds))
        _write({out / f"figure4-{data}{suffix}": content for suffix, content in drawn.items()})
    _write_rows("figure4", study, rows, seeds, out)


def _write(contents: dict[Path, bytes]) -> None:
    replace_files(contents)
    for path in contents:
        print(f"wrote {path}")
