"""``stabdeq audit``: its arguments, and what it prints."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from stabdeq.arguments import (
    OptionalCount,
    OptionalShard,
    Quiet,
    Ray,
    Seed,
    Trusted,
    count_and_file,
    count_or_path,
    renamed,
    require_writable,
)


def audit(
    checkpoint: str,
    *,
    out: Path | None = None,
    checks: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    samples: Annotated[
        tuple[int | Path, ...],
        renamed("--images", "--samples", count_or_path),
        Parameter(show_default=False, negative=()),
    ] = (),
    states: OptionalCount = None,
    labels: Path | None = None,
    resize: OptionalCount = None,
    data_dir: Path | None = None,
    seed: Seed = 0,
    junit: Path | None = None,
    markdown: Path | None = None,
    sarif: Path | None = None,
    github: Annotated[bool, Parameter(negative="")] = False,
    baseline: Path | None = None,
    jobs: OptionalCount = None,
    ray: Ray = False,
    shard: OptionalShard = None,
    trusted: Trusted = False,
    quiet: Quiet = False,
) -> int:
    """Judge the claims of a checkpoint, or of a model of your own; writes report.json and report.html.

    Parameters
    ----------
    checkpoint
        A checkpoint.safetensors that "stabdeq train" wrote; it is read as data, nothing in it is executed. Or MODULE:NAME, a model of
        your own or a function that makes one (stabdeq.model.EquilibriumModel): that module is run.
    out
        Where to write; the checkpoint's own folder by default, for a model of your own the folder "audit".
    checks
        Which checks to run: equilibrium, positivity, convexity, decay, separation, spectrum, convergence, all these by default;
        and on request alone iteration, does the solver do anything, and robustness, is a measured robust accuracy to be believed,
        which takes a minute or more.
    samples
        How many test images to audit, drawn at random (128). Or images of your own: a folder CLASS/*, or a .npz or .safetensors
        file with "images" (N, C, H, W) in [0, 1] and "labels" (N,), or with "inputs" (N, *) of any
        dtype. Given twice, it says both: --images mine.npz --images 64.
    states
        How many states each search for a counterexample to V's positivity, convexity and decay draws. By default 16384, and 4096 for
        decay; fewer of more than 1024 numbers where V's construction proves the claim. Time grows with them, memory does not.
    labels
        The labels (N,), as .npy, .npz or .safetensors, where the file of images has none.
    resize
        Scale the pictures in a folder of your own to so many pixels in height and width, whatever their proportions are.
    data_dir
        Where the data set lies, for sets that are not embedded.
    seed
        Decides the images and every random choice of the audit.
    junit
        Write the verdicts as JUnit XML to this file too, for a CI system's list of tests.
    markdown
        Write the verdicts as Markdown to this file too, for the summary of a CI job.
    sarif
        Write what does not hold as SARIF 2.1.0 to this file too, for a code host's list of findings.
    github
        In a job of GitHub Actions: print an annotation for each claim that does not hold, and append to the job's summary.
    baseline
        A report.json of before: only claims that are new or end worse than in it decide the exit code.
    jobs
        Make the checks in so many processes.
    """
    from analysis.commands.own_model import is_location, read_given
    from analysis.findings.catalogue import CHECKS, default_checks
    from analysis.shards.work import Work, begun, require_shared

    made_of_all = {
        "--junit": junit,
        "--markdown": markdown,
        "--sarif": sarif,
        "--github": github,
        "--baseline": baseline,
    }
    require_shared(shard, jobs, ray, out, made_of_all)
    wanted = [name for names in checks for name in names.split(",")] or list(default_checks())
    needs_lyapunov = {name for name in wanted if "lyapunov" in CHECKS[name].needs}
    folder = out or (Path("audit") if is_location(checkpoint) else Path(checkpoint).parent)
    _require_files(Path(checkpoint), folder, {"--junit": junit, "--markdown": markdown, "--sarif": sarif})
    number, place = count_and_file(samples)
    count = number or 128

    from analysis.audit import audit as judge
    from analysis.audit import units
    from analysis.commands.audit_progress import shown
    from analysis.commands.in_ci import InCI
    from analysis.report.made_by import made_by
    from analysis.report.terminal import print_verdicts
    from analysis.shards.jobs import parts_by_jobs
    from analysis.shards.part import require_free, write_part
    from analysis.shards.reports import joined_report, report_part
    from stabdeq.files import require_folder
    from stabdeq.shard import WHOLE
    from stabdeq.terminal import Console

    in_ci = InCI.asked(baseline, github)
    asked = {
        "checks": ",".join(wanted),
        "images": samples,
        "states": states,
        "labels": labels,
        "data-dir": data_dir,
        "seed": seed,
    }
    work = Work("audit", checkpoint, asked | {"resize": resize, "trusted": trusted})
    if shard is not None:
        work = begun(work)
    options: dict[str, Any] = {"data_dir": data_dir, "resize": resize, "trusted": trusted}
    given = read_given(checkpoint, place, labels, count, seed, **options)
    require_folder(folder)
    if shard is not None:
        require_free(folder, work, shard)
    console = Console()
    ahead = set(wanted) - (needs_lyapunov if given.model.lyapunov is None else set())
    settings: dict[str, Any] = {
        "checks": wanted,
        "samples": count,
        "states": states,
        "data_dir": data_dir,
        "seed": seed,
    }
    if ray or (jobs or 1) > 1:
        with Console(stderr=True, quiet=quiet).status("auditing in several processes"):
            report = joined_report(parts_by_jobs(work, jobs, ray=ray))
    else:
        with shown(ahead, Console(quiet=quiet)) as on_check:
            report = judge(given.subject, **settings, **given.images, shard=shard or WHOLE, on_check=on_check)
        if given.images:  # the function was given tensors, which have no names
            named = asked | {"checks": wanted, "images": place, "samples": number, "resize": resize}
            own = f"{checkpoint} on {place}" if given.checkpoint is None else report.subject
            report = replace(report, subject=own, command=made_by("audit", checkpoint, named))
    if shard is not None:
        path = write_part(folder, report_part(work, shard, units(wanted), report))
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
        return 0
    try:
        paths = report.save(folder, junit=junit, markdown=markdown, sarif=sarif)
    finally:  # a full disk does not take the verdicts too
        print_verdicts(report, console)
    for path in paths:
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    return in_ci.exit_code(report)


def _require_files(checkpoint: Path, folder: Path, files: dict[str, Path | None]) -> None:
    """Refuse before the audit, not after it, a file that could not be written, or that is another of the audit's."""
    from stabdeq.errors import ConfigError
    from stabdeq.files import require_names

    taken = {os.path.realpath(folder / name) for name in ("report.json", "report.html")}
    for option, path in files.items():
        if path is None:
            continue
        if os.path.realpath(path) in taken:
            raise ConfigError(f"{option} {path} is written by this audit already: name another file")
        taken.add(os.path.realpath(path))
        # The folder of the report is made where it is missing; any other must be there.
        if path.parent.exists() or os.path.realpath(path.parent) != os.path.realpath(folder):
            require_writable(option, path, checkpoint)
        else:
            require_names(path)
