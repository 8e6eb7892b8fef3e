"""``stabdeq certify``: what the weights of a checkpoint, or of somebody's own dynamics, prove."""

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
    require_files,
)
from stabdeq.errors import ConfigError


def certify(
    subject: str,
    *,
    dim: OptionalCount = None,
    deployed: bool = False,
    limit: Annotated[
        tuple[int | Path, ...],
        renamed("--images", "--limit", count_or_path),
        Parameter(show_default=False, negative=()),
    ] = (),
    labels: Path | None = None,
    resize: OptionalCount = None,
    data_dir: Path | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    sarif: Path | None = None,
    proof: Path | None = None,
    seed: Seed = 0,
    jobs: OptionalCount = None,
    ray: Ray = False,
    shard: OptionalShard = None,
    out: Path | None = None,
    trusted: Trusted = False,
    github: Annotated[bool, Parameter(negative="")] = False,
    baseline: Path | None = None,
    quiet: Quiet = False,
) -> int:
    """Prove what weights allow: one equilibrium, its decay, gains, and l2 radii of predictions, with certificates.

    Parameters
    ----------
    subject
        A checkpoint.safetensors that "stabdeq train" wrote; or, with --images FILE, one of this library's models from your own code,
        as MODULE:NAME, which is run; or, with --dim, a velocity as MODULE:NAME, continuous and piecewise affine.
    dim
        N, the number of coordinates of a state, for a velocity.
    deployed
        Certify radii of the model as it runs, too: its own dtype, sums in any order, its own solver's tolerance.
    limit
        How many test images to judge, drawn at random (1000). Or images of your own: a folder CLASS/*, or a .npz or .safetensors
        file with "images" (N, C, H, W) in [0, 1] and "labels" (N,). Given twice, it says both.
    labels
        The labels (N,), as .npy, .npz or .safetensors, where the file of images has none.
    resize
        Scale the pictures in a folder of your own to so many pixels in height and width, whatever their proportions are.
    data_dir
        Where the data set lies, for sets that are not embedded.
    json_file
        Write all of it to this file: findings, the matrices P, multipliers, the radius of each image.
    sarif
        Write what does not hold as SARIF 2.1.0 to this file, for a code host's list of findings.
    proof
        Write a proof to this file, which "python -m stabdeq.checker PROOF CHECKPOINT" checks
        without trusting this library; for a checkpoint.
    seed
        Decides the images and every random choice.
    github
        In a job of GitHub Actions: print an annotation for each claim that does not hold, and append to the job's summary.
    baseline
        A file of --json of before: only claims that are new or end worse than in it decide the exit code.
    jobs
        Prove in so many processes, which share the claims.
    out
        With --shard: the folder for its part.
    """
    from analysis.shards.work import Work, begun, require_part_folder, require_shared

    path = Path(subject)
    of_whole = {"--json": json_file, "--sarif": sarif, "--github": github, "--baseline": baseline}
    require_shared(shard, jobs, ray, out, of_whole, {"--proof": proof, "--dim": dim})
    require_part_folder(shard, out)
    require_files({"--json": json_file, "--sarif": sarif, "--proof": proof}, path)
    count, place = count_and_file(limit)
    is_code = ":" in subject and not path.exists()
    _require_fitting(subject, is_code, dim, place)
    if dim is not None:
        _require_none(
            {"--images": limit or None, "--labels": labels, "--resize": resize, "--data-dir": data_dir},
            "a velocity has no images",
        )
        _require_none({"--deployed": deployed or None}, "a velocity has no solver")
    if is_code:
        _require_none({"--proof": proof}, "a proof names the file whose weights it is about")

    from analysis.certify import certify as prove
    from analysis.certify import units
    from analysis.commands.in_ci import InCI
    from analysis.report.made_by import made_by
    from analysis.report.page import write_data
    from analysis.report.terminal import print_verdicts
    from analysis.shards.jobs import parts_by_jobs
    from analysis.shards.part import require_free, write_part
    from analysis.shards.reports import joined_report, report_part
    from stabdeq.shard import WHOLE
    from stabdeq.terminal import Console

    in_ci = InCI.asked(baseline, github)
    asked = {
        "deployed": deployed,
        "images": limit,
        "labels": labels,
        "resize": resize,
        "data-dir": data_dir,
        "seed": seed,
    }
    work = Work("certify", subject, asked | {"trusted": trusted})
    if shard is not None:
        work = begun(work)
    console = Console()
    if shard is not None and out is not None:
        require_free(out, work, shard)
    options = {"data_dir": data_dir, "resize": resize, "trusted": trusted}
    model, images = _model_and_images(subject, is_code and dim is None, place, labels, count, seed, **options)
    with Console(stderr=True, quiet=quiet).status("certifying") as status:
        if ray or (jobs or 1) > 1:
            report = joined_report(parts_by_jobs(work, jobs, ray=ray))
        else:
            report = prove(
                model,
                **images,
                dim=dim,
                deployed=deployed,
                samples=count or 1000,
                data_dir=data_dir,
                seed=seed,
                proof=proof,
                trusted=trusted,
                shard=shard or WHOLE,
                on_stage=lambda words: status.update(f"certifying: {words}"),
            )
            if images:  # the function was given tensors, which have no names
                named = asked | {"images": place, "limit": count, "proof": proof}
                report = replace(report, command=made_by("certify", subject, named))
    if shard is not None and out is not None:
        written = write_part(out, report_part(work, shard, units(deployed=deployed), report))
        console.print(f"wrote {written}", soft_wrap=True, highlight=False)
        return 0
    written = write_data(report, json=json_file, sarif=sarif)  # before the rest: printing may fail
    print_verdicts(report, console)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    if proof is not None:
        told = report.certificates["proof"]
        held = (
            f"wrote {proof}: {', '.join(told['claims'])}" if told["claims"] else "no proof file: no claim can be in it"
        )
        console.print(held, soft_wrap=True, highlight=False)
        for name, reason in told["omitted"].items():
            console.print(f"not in it: {name}: {reason}", soft_wrap=True, highlight=False)
    return in_ci.exit_code(report)


def _require_fitting(subject: str, is_code: bool, dim: int | None, place: Path | None) -> None:
    """Refuse a velocity, or a model of the user's, without what it takes, and a checkpoint with what it does not."""
    if is_code and dim is None and place is None:
        raise ConfigError(
            f"{subject}: of a velocity, say with --dim how many coordinates a state has; of a model, name images with --images FILE"
        )
    if not is_code and dim is not None:
        raise ConfigError("--dim is for a velocity MODULE:NAME; a checkpoint knows its own")


def _require_none(options: dict[str, Any], reason: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise ConfigError(f"{option} is for a checkpoint: {reason}")


def _model_and_images(
    subject: str, is_model: bool, place: Path | None, labels: Path | None, count: int | None, seed: int, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """Return what is certified, a name as it stands where that will do, and images of the user's; ``options`` of ``read_given``."""
    from analysis.commands.own_model import own_images, read_given

    if not is_model and place is None:
        return subject, own_images(None, labels, None, seed, needed=False, data_dir=None, resize=options["resize"])
    given = read_given(subject, place, labels, count, seed, **options)
    return given.model if is_model else subject, given.images
