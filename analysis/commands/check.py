"""``stabdeq check``: judge what a user claims of a Lyapunov function of their own."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from stabdeq.arguments import (
    Count,
    OptionalCount,
    OptionalShard,
    OptionalWholeNumber,
    Quiet,
    Ray,
    Seed,
    renamed,
    require_files,
    text,
)
from stabdeq.errors import ConfigError

Signed = Parameter(allow_leading_hyphen=True)


def check(
    function: str,
    *,
    dim: Count,
    dynamics: str | None = None,
    step: str | None = None,
    uncertain: str | None = None,
    disturbance: Annotated[str | None, Signed] = None,
    alpha: float | None = None,
    kappa: float | None = None,
    initial: str | None = None,
    unsafe: str | None = None,
    on: str | None = None,
    centre: Annotated[str, Signed, renamed("--centre", "--center", text)] = "0",
    radius: float | None = None,
    box: Annotated[str | None, Signed] = None,
    sublevel: float | Literal["max"] | None = None,
    from_level: float | None = None,
    claims: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    samples: OptionalWholeNumber = None,
    starts: Count = 64,
    boxes: OptionalWholeNumber = None,
    inner_radius: float | None = None,
    json: Path | None = None,
    sarif: Path | None = None,
    figure: Path | None = None,
    proof: Path | None = None,
    seed: Seed = 0,
    budget: float | None = None,
    require: Literal["proved"] | None = None,
    github: Annotated[bool, Parameter(negative=())] = False,
    baseline: Path | None = None,
    jobs: OptionalCount = None,
    ray: Ray = False,
    shard: OptionalShard = None,
    out: Path | None = None,
    quiet: Quiet = False,
) -> int:
    """Test a Lyapunov function of your own: hunt for a counterexample and, in up to 6 dimensions, for a proof.

    Parameters
    ----------
    function
        V as MODULE:NAME, found from the current folder too, or an ONNX file: states (B, N) to (B,).
        A function of torch tensors (float64) or of NumPy arrays, a torch module, or what makes one without arguments.
    dim
        N, the number of coordinates of a state.
    dynamics
        The velocity f as MODULE:NAME or an ONNX file, (B, N) to (B, N).
    step
        The next state z+ as MODULE:NAME or an ONNX file, (B, N) to (B, N), in place of a velocity.
    uncertain
        The velocity f(z, d) as MODULE:NAME, (B, N) and (B, M) to (B, N): claims along the flow are made for every d.
    disturbance
        The box LO:HI,LO:HI,... of d, a pair for each of its M coordinates.
    alpha
        The rate of the claim "decay": V-dot <= -alpha V; 0 asks for V-dot <= 0.
    kappa
        The rate of the claim "decrease" along steps: V(z+) <= (1 - kappa) V(z).
    initial
        Judge V as a barrier B: g as MODULE:NAME, (B, N) to (B,), of the initial set {g <= 0}, where B must be at most 0.
    unsafe
        Judge V as a barrier B: g as MODULE:NAME, of the unsafe set {g <= 0}, where B must be above 0.
    on
        Judge the states with h = 0 alone, h as MODULE:NAME, (B, N) to (B,) or (B, K): sin^2 + cos^2 - 1, say.
    centre
        Where V vanishes: N numbers with commas, or one for all coordinates.
    radius
        Judge the ball of this radius around the centre (default 1).
        With --sublevel: how far to look for the set's boundary.
    box
        Judge the box LO:HI,LO:HI,... instead, a pair for each coordinate, or LO:HI for all.
    sublevel
        Judge the set {V <= C}, as far as it is seen from the centre within the ball or the box, instead.
        "max" looks for the largest C, one for each of decrease, decay, invariant and attraction.
    from_level
        Leave the states where V < C1 out of the claims positive, decrease and decay.
    claims
        zero: V = 0 at the centre;
        positive: V > 0 elsewhere;
        proper: V grows without bound;
        convex;
        equilibrium: f = 0 at the centre;
        decrease: V-dot < 0, or V(z+) < V(z), off the centre;
        decay: V-dot <= -alpha V;
        invariant: no trajectory leaves {V <= C}, or no step the region;
        attraction: every trajectory from {V <= C} tends to one equilibrium, on request;
        global: every trajectory, wherever it begins, tends to the centre, on request;
        initial: B <= 0 on the initial set;
        unsafe: B > 0 on the unsafe set;
        kept: what begins on the set of --on stays on it;
        barrier: B-dot < 0 where B = 0, or B(z+) <= 0 where B(z) <= 0.
        By default all that the options allow but proper, convex, attraction and global; with --initial or --unsafe the last
        three alone.
    samples
        How many states to draw for each claim; by default 32768.
        Fewer where gradients are finite differences: of arrays, and of what autograd does not see through.
    starts
        How many climbs of the falsifier, each from a different distance to the centre.
    boxes
        How many boxes to examine in search of each proof; by default 65536, some seconds.
    inner_radius
        Leave the ball of this radius around the centre out of the claims positive, decrease and decay.
    json
        Write the findings, with all their evidence, to this file.
    sarif
        Write what does not hold as SARIF 2.1.0 to this file, for a code host's list of findings.
    figure
        Draw V, the dynamics and what is judged into this file, .svg, .png or .pdf, where N is 2.
    proof
        Write what is proved to this file, by boxes that python -m stabdeq.checker FILE checks without the rest of this library.
        Made of as many boxes as --boxes for each claim, by the checker's own bounds, some milliseconds each.
    seed
        Seed of all random states.
    budget
        Stop after about this many seconds, half of them on fresh states. What is cut short says so.
    require
        Exit with 3 where a claim is less than this: "proved".
    github
        In a job of GitHub Actions: print an annotation for each claim that does not hold, and append to the job's summary.
    baseline
        A file of --json of before: only claims that are new or end worse than in it decide the exit code.
    jobs
        Judge in so many processes, which share the claims.
    out
        With --shard: the folder for its part.
    """
    from analysis.shards.work import Work, begun, require_part_folder, require_shared

    files = {"--json": json, "--sarif": sarif, "--figure": figure, "--proof": proof}
    require_files(files, Path(function))
    of_whole = {"--json": json, "--sarif": sarif, "--github": github, "--baseline": baseline, "--require": require}
    require_shared(shard, jobs, ray, out, of_whole, {"--proof": proof, "--figure": figure, "--budget": budget})
    require_part_folder(shard, out)
    place = _numbers("--centre", centre)
    sides = None if box is None else _sides("--box", box)
    disturbances = None if disturbance is None else _sides("--disturbance", disturbance)
    names = None if claims is None else [name for part in claims for name in part.split(",") if name]

    from analysis.check import check as judge
    from analysis.check import units
    from analysis.commands.check_progress import CheckProgress
    from analysis.commands.in_ci import InCI
    from analysis.proofs.intervals.watching import watched
    from analysis.shards.jobs import parts_by_jobs
    from analysis.shards.part import require_free, write_part
    from analysis.shards.reports import joined_report, report_part
    from stabdeq.shard import WHOLE
    from stabdeq.terminal import Console

    in_ci = InCI.asked(baseline, github)
    functions = {
        "dynamics": dynamics,
        "step": step,
        "uncertain": uncertain,
        "initial": initial,
        "unsafe": unsafe,
        "on": on,
    }
    given = {"dim": dim, "disturbance": disturbance, "alpha": alpha, "kappa": kappa, "centre": centre, "radius": radius}
    given |= {
        "box": box,
        "sublevel": sublevel,
        "from-level": from_level,
        "claims": None if names is None else ",".join(names),
    }
    given |= {"samples": samples, "starts": starts, "boxes": boxes, "inner-radius": inner_radius, "seed": seed}
    work = Work("check", function, functions | given)
    if shard is not None:
        work = begun(work)
    console = Console(stderr=True, quiet=quiet)
    if shard is not None and out is not None:
        require_free(out, work, shard)
    with console.status("judging") as status, watched((progress := CheckProgress(status.update)).on_boxes):
        if ray or (jobs or 1) > 1:
            report = joined_report(parts_by_jobs(work, jobs, ray=ray))
        else:
            report = judge(
                function,
                dynamics,
                dim=dim,
                step=step,
                uncertain=uncertain,
                disturbance=disturbances,
                alpha=alpha,
                kappa=kappa,
                initial=initial,
                unsafe=unsafe,
                on=on,
                centre=place,
                radius=radius,
                box=sides,
                sublevel=sublevel,
                from_level=from_level,
                claims=names,
                samples=samples,
                starts=starts,
                boxes=boxes,
                inner_radius=inner_radius,
                seed=seed,
                budget=budget,
                figure=figure,
                proof=proof,
                shard=shard or WHOLE,
                on_claim=progress.on_claim,
            )
    if shard is not None and out is not None:
        judged = report.command["options"]["claims"]
        written = write_part(out, report_part(work, shard, units(judged, sublevel), report, judged))
        Console().print(f"wrote {written}", soft_wrap=True, highlight=False)
        return 0

    from analysis.report.page import write_data
    from analysis.report.terminal import print_verdicts

    write_data(report, json=json, sarif=sarif)  # before the rest: printing may fail
    print_verdicts(report)
    return in_ci.exit_code(report, require)


def _sides(option: str, text: str) -> list[tuple[float, float]]:
    """Return the pairs of a box given as LO:HI for each coordinate, or as LO:HI or LO,HI for all."""
    parts = [_numbers(option, part.replace(":", ",")) for part in (text.split(",") if ":" in text else [text])]
    if not all(len(part) == 2 for part in parts):
        raise ConfigError(
            f"{option}: expected LO:HI for each coordinate, with commas between them, or LO:HI for all, got {text!r}"
        )
    return [(low, high) for low, high in parts]


def _numbers(option: str, text: str) -> list[float]:
    """Return the numbers in ``text``, with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option}: expected numbers with commas between them, got {text!r}") from None
