"""``stabdeq check``: judge what a user claims of a Lyapunov function of their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from stabdeq.arguments import Count, Seed
from stabdeq.errors import ConfigError, closest

if TYPE_CHECKING:
    from torch import Tensor

    from analysis.evidence.regions import Region
    from analysis.foreign_function import ForeignFunction

NEEDS_DYNAMICS = ("equilibrium", "decrease", "decay", "invariant")
NAMES = ("zero", "positive", "proper", "convex", *NEEDS_DYNAMICS)
# Stability needs neither: a Lyapunov function need not be convex, and growth without bound is for global claims.
ON_REQUEST = ("proper", "convex")
DEFAULT_RADIUS = 1.0
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
    sublevel: float | None = None,
    claims: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    json: Path | None = None,
    seed: Seed = 0,
    budget: float | None = None,
) -> None:
    """Test a Lyapunov function of your own, by samples and by a falsifier that hunts for a counterexample.

    Exits with 0 where no claim is refuted or left open, 1 where one is refuted, 3 where one is inconclusive.

    Parameters
    ----------
    function
        V as MODULE:NAME, found from the current folder too. It maps states (B, N) to (B,): a function of torch tensors
        (float64) or of NumPy arrays, a torch module, or a factory of one that takes no arguments.
    dim
        N, the number of coordinates of a state.
    dynamics
        The velocity f as MODULE:NAME, (B, N) to (B, N).
    alpha
        The rate of the claim "decay": V-dot <= -alpha V.
    center
        Where V vanishes: N numbers with commas, or one for all coordinates.
    radius
        Judge the ball of this radius around the centre (default 1); with --sublevel, how far to look for its boundary.
    box
        Judge the box LO,HI in every coordinate instead.
    sublevel
        Judge the set {V <= C}, as far as it is seen from the centre, instead.
    claims
        Which claims, of zero, positive, proper, convex, equilibrium, decrease, decay, invariant. By default all that
        stability needs and that the options allow: not proper and convex.
    json
        Write the findings to this file.
    seed
        Seed of all random states.
    budget
        Go on with fresh states for about this many seconds.
    """
    import torch

    from analysis.evidence.judge import Effort
    from analysis.findings import exit_code
    from analysis.foreign_claims import Subject, judge_claims
    from analysis.foreign_function import load_function

    _require_options(alpha, radius, box, sublevel, budget, json)
    names = _claim_names(claims, dynamics, alpha, sublevel)
    origin = torch.tensor(_numbers("--center", center, dim), dtype=torch.float64)
    value = load_function(function, dim, "value")
    velocity = load_function(dynamics, dim, "velocity") if dynamics else None
    # Differences cost 4 N evaluations for each state.
    states = 32768 if value.is_differentiable else max(1024, 65536 // dim)
    seconds = budget / len(names) if budget else None
    subject = Subject(
        value,
        velocity,
        _region(origin, radius, box, sublevel, value),
        alpha,
        seed=seed,
        effort=Effort(samples=states, starts=128, steps=100, seconds=seconds),
    )
    findings = judge_claims(subject, names)
    _publish(findings, json)
    raise SystemExit(exit_code(findings))


def _require_options(
    alpha: float | None,
    radius: float | None,
    box: str | None,
    sublevel: float | None,
    budget: float | None,
    json: Path | None,
) -> None:
    given = {"--alpha": alpha, "--radius": radius, "--sublevel": sublevel, "--budget": budget}
    for name, number in given.items():
        if number is not None and not 0 < number < float("inf"):
            raise ConfigError(f"{name} must be positive and finite, got {number}")
    if box is not None and (radius is not None or sublevel is not None):
        raise ConfigError("--box excludes --radius and --sublevel: give one region")
    if json is not None and not json.absolute().parent.is_dir():
        raise ConfigError(f"--json: there is no folder {json.absolute().parent}")


def _claim_names(
    asked: list[str] | None, dynamics: str | None, alpha: float | None, sublevel: float | None
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
        return [name for name in NAMES if name not in missing and name not in ON_REQUEST]
    names = [name for part in asked for name in part.split(",") if name]
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"unknown claim {name!r}: {closest(name, NAMES)}")
        if name in missing:
            raise ConfigError(f"the claim {name!r} needs {missing[name]}")
    if not names:
        raise ConfigError(f"--claims names none. Valid: {', '.join(NAMES)}")
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


def _region(
    centre: "Tensor", radius: float | None, box: str | None, sublevel: float | None, value: "ForeignFunction"
) -> "Region":
    import torch

    from analysis.evidence.regions import Ball, Box, Sublevel
    from analysis.foreign_claims import sublevel_radius

    if box is not None:
        if len(box.split(",")) != 2:
            raise ConfigError(f"--box: expected LO,HI, got {box!r}")
        low, high = (torch.full_like(centre, bound) for bound in _numbers("--box", box, 2))
        if not bool(((low <= centre) & (centre <= high) & (low < high)).all()):
            raise ConfigError(f"--box: expected LO < HI with the centre between them, got {box!r}")
        return Box(centre, low, high)
    if sublevel is not None:
        reach = radius if radius is not None else sublevel_radius(value, centre, sublevel)
        return Sublevel(centre, reach, value, sublevel)
    return Ball(centre, radius if radius is not None else DEFAULT_RADIUS)


def _publish(findings: list[Any], json_path: Path | None) -> None:
    """Print the table of verdicts and, where asked, write the findings."""
    import json
    import os
    from dataclasses import asdict

    from analysis.reading import EXPECTED_KEYS, SCHEMA
    from analysis.terminal import print_verdicts

    report = {"schema": SCHEMA, "findings": [asdict(finding) for finding in findings]}
    # What only the audit of a checkpoint has is empty here, not missing.
    print_verdicts(dict.fromkeys(EXPECTED_KEYS) | report)
    if json_path is None:
        return
    # Strict JSON has no NaN: what is not finite becomes its name.
    names = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}
    strict = json.loads(json.dumps(report), parse_constant=names.__getitem__)
    temporary = json_path.with_name(f".{json_path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(strict, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, json_path)
    finally:
        temporary.unlink(missing_ok=True)
