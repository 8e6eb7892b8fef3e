"""``stabdeq check``: judge what a user claims of a Lyapunov function of their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from analysis.user_function.sentences import ALONG_THE_FLOW, NAMES, NEEDS_DYNAMICS
from stabdeq.arguments import Count, OptionalWholeNumber, Seed, require_writable
from stabdeq.errors import ConfigError, closest

if TYPE_CHECKING:
    from torch import Tensor

    from analysis.evidence.regions import Region
    from analysis.findings import Finding
    from analysis.user_function.function import ForeignFunction
    from analysis.user_function.subject import Subject

# Stability needs neither: a Lyapunov function need not be convex, and growth without bound is for global claims.
ON_REQUEST = ("proper", "convex")
DEFAULT_RADIUS = 1.0
# Where the largest level is sought, each further out than the one before, as long as none is refuted.
RADII = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
PROOF_SECONDS = 3.0
Signed = Parameter(allow_leading_hyphen=True)


def check(
    function: str,
    *,
    dim: Count,
    dynamics: str | None = None,
    alpha: float | None = None,
    center: Annotated[str, Signed] = "0",
    radius: float | None = None,
    box: Annotated[str | None, Signed] = None,
    sublevel: float | Literal["max"] | None = None,
    claims: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    samples: OptionalWholeNumber = None,
    starts: Count = 64,
    json: Path | None = None,
    seed: Seed = 0,
    budget: float | None = None,
) -> None:
    """Test a Lyapunov function of your own: hunt for a counterexample and, in up to 6 dimensions, for a proof.

    Exits with 0 where no claim is refuted or left open, 1 where one is refuted, 3 where one is inconclusive.

    Parameters
    ----------
    function
        V as MODULE:NAME, found from the current folder too: states (B, N) to (B,).
        A function of torch tensors (float64) or of NumPy arrays, a torch module, or what makes one without arguments.
    dim
        N, the number of coordinates of a state.
    dynamics
        The velocity f as MODULE:NAME, (B, N) to (B, N).
    alpha
        The rate of the claim "decay": V-dot <= -alpha V; 0 asks for V-dot <= 0.
    center
        Where V vanishes: N numbers with commas, or one for all coordinates.
    radius
        Judge the ball of this radius around the centre (default 1).
        With --sublevel: how far to look for the set's boundary.
    box
        Judge the box LO,HI in every coordinate instead.
    sublevel
        Judge the set {V <= C}, as far as it is seen from the centre, instead.
        "max" looks for the largest C, one for each of decrease, decay and invariant.
    claims
        zero: V = 0 at the centre;
        positive: V > 0 elsewhere;
        proper: V grows without bound;
        convex;
        equilibrium: f = 0 at the centre;
        decrease: V-dot < 0 off the centre;
        decay: V-dot <= -alpha V;
        invariant: no trajectory leaves {V <= C}.
        By default all that the options allow but proper and convex, which stability does not need.
    samples
        How many states to draw for each claim; by default 32768.
        Fewer where gradients are finite differences: of arrays, and of what autograd does not see through.
    starts
        How many climbs of the falsifier, each from a different distance to the centre.
    json
        Write the findings, with all their evidence, to this file.
    seed
        Seed of all random states.
    budget
        Spend about this many seconds: half on fresh states, half on proofs.
    """
    # Before the slow imports: a mistyped option is told at once.
    _require_options(dynamics, alpha, radius, box, sublevel, samples, budget)
    require_writable("--json", json, Path(function))
    names = _claim_names(claims, dynamics, alpha, sublevel)
    import torch

    from analysis.evidence.judge import Effort
    from analysis.findings.finding import exit_code
    from analysis.user_function.function import load_function
    from analysis.user_function.subject import Subject

    origin = torch.tensor(_numbers("--center", center, dim), dtype=torch.float64)
    region = _ball_or_box(origin, radius, box)
    # More states than coordinates, so that a sum over the wrong axis shows.
    trial = region.sample(dim + 3, torch.Generator().manual_seed(0))
    value = load_function(function, dim, "value", centre=origin, trial=trial)
    velocity = load_function(dynamics, dim, "velocity", trial=trial) if dynamics else None
    # Differences cost 4 N evaluations for each state.
    states = samples or (32768 if value.is_differentiable else max(1024, 65536 // dim))
    share = budget / len(names) / 2 if budget else None
    subject = Subject(
        value,
        velocity,
        _sublevel(region, radius, sublevel, value) if isinstance(sublevel, float) else region,
        alpha,
        seed=seed,
        effort=Effort(samples=states, starts=starts, steps=100, seconds=share),
        proof_seconds=share or PROOF_SECONDS,
    )
    radii = ((radius,) if radius else RADII) if sublevel == "max" else ()
    findings = _judge(subject, names, radii)
    _publish(findings, json)
    raise SystemExit(exit_code(findings))


def _judge(subject: "Subject", names: list[str], radii: tuple[float, ...]) -> "list[Finding]":
    """Return the findings; on the largest sublevel sets within ``radii`` where these are given. A terminal shows progress."""
    from rich.console import Console

    from analysis.check import judge_claims, judge_largest_levels

    with Console(stderr=True).status("judging") as status:

        def on_claim(name: str) -> None:
            place = f" ({names.index(name) + 1} of {len(names)})" if name in names else ""
            status.update(f"judging: {name}{place}")

        if radii:
            return judge_largest_levels(subject, names, radii, on_claim=on_claim)
        return judge_claims(subject, names, on_claim=on_claim)


def _require_options(
    dynamics: str | None,
    alpha: float | None,
    radius: float | None,
    box: str | None,
    sublevel: float | str | None,
    samples: int | None,
    budget: float | None,
) -> None:
    if alpha is not None and not 0 <= alpha < float("inf"):
        raise ConfigError(f"--alpha must be at least 0 and finite, got {alpha}")
    if alpha is not None and dynamics is None:
        raise ConfigError("--alpha is the rate of the claim 'decay', which needs --dynamics")
    level = None if isinstance(sublevel, str) else sublevel
    given = {"--radius": radius, "--sublevel": level, "--samples": samples, "--budget": budget}
    for name, number in given.items():
        if number is not None and not 0 < number < float("inf"):
            raise ConfigError(f"{name} must be positive and finite, got {number}")
    if box is not None and (radius is not None or sublevel is not None):
        raise ConfigError("--box excludes --radius and --sublevel: give one region")


def _claim_names(
    asked: list[str] | None, dynamics: str | None, alpha: float | None, sublevel: float | str | None
) -> list[str]:
    """Return the claims to judge; raise ConfigError where one is unknown or lacks what it is about."""
    missing = {
        name: option
        for name in NEEDS_DYNAMICS
        for option, given in (
            ("--dynamics", dynamics),
            ("--alpha", alpha if name == "decay" else 0),
            ("--sublevel", sublevel if name == "invariant" else 0),
        )
        if given is None
    }
    if asked is None:
        asked = [name for name in NAMES if name not in missing and name not in ON_REQUEST]
    names = [name for part in asked for name in part.split(",") if name]
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"unknown claim {name!r}: {closest(name, NAMES)}")
        if name in missing:
            raise ConfigError(f"the claim {name!r} needs {missing[name]}")
    if not names:
        raise ConfigError(f"--claims names none. Valid: {', '.join(NAMES)}")
    if sublevel == "max" and not set(names) & set(ALONG_THE_FLOW):
        raise ConfigError(f"--sublevel max is for the claims {', '.join(ALONG_THE_FLOW)}, which need --dynamics")
    return list(dict.fromkeys(names))


def _numbers(option: str, text: str, count: int) -> list[float]:
    """Return ``count`` finite numbers from ``text``, which has that many, or one that stands for all."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option}: expected numbers with commas between them, got {text!r}") from None
    if not all(abs(number) < float("inf") for number in numbers):
        raise ConfigError(f"{option}: expected finite numbers, got {text!r}")
    if len(numbers) not in (1, count):
        raise ConfigError(f"{option}: expected 1 or {count} numbers, got {len(numbers)}")
    return numbers if len(numbers) == count else numbers * count


def _ball_or_box(centre: "Tensor", radius: float | None, box: str | None) -> "Region":
    import torch

    from analysis.evidence.regions import Ball, Box

    if box is None:
        return Ball(centre, radius if radius is not None else DEFAULT_RADIUS)
    if len(box.split(",")) != 2:
        raise ConfigError(f"--box: expected LO,HI, got {box!r}")
    low, high = (torch.full_like(centre, bound) for bound in _numbers("--box", box, 2))
    if not bool(((low <= centre) & (centre <= high) & (low < high)).all()):
        raise ConfigError(f"--box: expected LO < HI with the centre between them, got {box!r}")
    return Box(centre, low, high)


def _sublevel(region: "Region", radius: float | None, level: float, value: "ForeignFunction") -> "Region":
    from analysis.evidence.regions import Sublevel
    from analysis.user_function.levels import sublevel_radius

    reach = radius if radius is not None else sublevel_radius(value, region.centre, level)
    return Sublevel(region.centre, reach, value, level)


def _publish(findings: "list[Finding]", json_path: Path | None) -> None:
    """Print the table of verdicts and, where asked, write the findings."""
    from dataclasses import asdict

    from analysis.report.reading import EXPECTED_KEYS, SCHEMA
    from analysis.report.terminal import print_verdicts
    from stabdeq.files import encoded, replace_file, strict_json

    report = {"schema": SCHEMA, "findings": [asdict(finding) for finding in findings]}
    # What only the audit of a checkpoint has is empty here, not missing.
    print_verdicts(dict.fromkeys(EXPECTED_KEYS) | report)
    if json_path is not None:
        replace_file(json_path, encoded(strict_json(report)))
