"""``stabdeq certify``: what the weights of a checkpoint, or of somebody's own dynamics, prove."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stabdeq.arguments import Count, OptionalCount, OptionalShard, Seed, Trusted, renamed, require_files
from stabdeq.errors import ConfigError


def certify(
    subject: str,
    *,
    dim: OptionalCount = None,
    deployed: bool = False,
    limit: Annotated[Count, renamed("--images", "--limit")] = 1000,
    data_dir: Path | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    sarif: Path | None = None,
    proof: Path | None = None,
    seed: Seed = 0,
    jobs: OptionalCount = None,
    shard: OptionalShard = None,
    out: Path | None = None,
    trusted: Trusted = False,
    github: Annotated[bool, Parameter(negative="")] = False,
    baseline: Path | None = None,
) -> None:
    """Prove what weights allow: one equilibrium, its decay, gains, and l2 radii of predictions, with certificates.

    Parameters
    ----------
    subject
        A checkpoint.safetensors that "stabdeq train" wrote; or a velocity as MODULE:NAME,
        continuous and piecewise affine, found from the current folder too.
    dim
        N, the number of coordinates of a state, for a velocity.
    deployed
        Certify radii of the model as it runs, too: its own dtype, sums in any order, its own solver's tolerance.
    limit
        How many test images to judge, drawn at random.
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
        Prove in so many processes, of one thread each, which share the claims.
    out
        With --shard: the folder for its part.
    """
    from analysis.shards.work import Work, require_part_folder, require_shared

    path = Path(subject)
    of_whole = {"--json": json_file, "--sarif": sarif, "--github": github, "--baseline": baseline}
    require_shared(shard, jobs, out, of_whole, {"--proof": proof, "--dim": dim})
    require_part_folder(shard, out)
    require_files({"--json": json_file, "--sarif": sarif, "--proof": proof}, path)
    is_velocity = ":" in subject and not path.exists()
    if is_velocity and dim is None:
        raise ConfigError(f"{subject}: say with --dim how many coordinates a state has")
    if not is_velocity and dim is not None:
        raise ConfigError("--dim is for a velocity MODULE:NAME; a checkpoint knows its own")
    if is_velocity and deployed:
        raise ConfigError("--deployed is for a checkpoint; a velocity has no solver")
    if is_velocity and data_dir is not None:
        raise ConfigError("--data-dir is for a checkpoint; a velocity has no images")
    if is_velocity and proof is not None:
        raise ConfigError("--proof is for a checkpoint")

    from analysis.certify import certify as prove
    from analysis.certify import units
    from analysis.commands.in_ci import InCI
    from analysis.report.page import write_data
    from analysis.report.terminal import print_verdicts
    from analysis.shards.jobs import parts_by_jobs
    from analysis.shards.part import require_free, write_part
    from analysis.shards.reports import joined_report, report_part
    from stabdeq.shard import WHOLE
    from stabdeq.terminal import Console

    in_ci = InCI.asked(baseline, github)
    given = {"deployed": deployed, "images": limit, "data-dir": data_dir, "seed": seed, "trusted": trusted}
    work = Work("certify", subject, given)
    console = Console()
    if shard is not None and out is not None:
        require_free(out, work, shard)
    with console.status("certifying") as status:
        if jobs is not None and jobs > 1:
            report = joined_report(parts_by_jobs(work, jobs))
        else:
            report = prove(
                subject,
                dim=dim,
                deployed=deployed,
                samples=limit,
                data_dir=data_dir,
                seed=seed,
                proof=proof,
                trusted=trusted,
                shard=shard or WHOLE,
                on_stage=lambda words: status.update(f"certifying: {words}"),
            )
    if shard is not None and out is not None:
        written = write_part(out, report_part(work, shard, units(deployed=deployed), report))
        console.print(f"wrote {written}", soft_wrap=True, highlight=False)
        return
    written = write_data(report, json=json_file, sarif=sarif)  # before the rest: printing may fail
    print_verdicts(report, console)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    if proof is not None:
        told = report.certificates["proof"]
        console.print(f"wrote {proof}: {', '.join(told['claims']) or 'no claim'}", soft_wrap=True, highlight=False)
        for name, reason in told["omitted"].items():
            console.print(f"not in it: {name}: {reason}", soft_wrap=True, highlight=False)
    raise SystemExit(in_ci.exit_code(report))
