"""The check of a user's own Lyapunov function: what is claimed of V, and of dynamics, judged on a region of states."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from analysis.user_function.sentences import ALONG_THE_FLOW, NAMES, NEEDS_DYNAMICS
from stabdeq.errors import ConfigError, closest

if TYPE_CHECKING:
    from torch import Tensor

    from analysis.evidence.regions import Region
    from analysis.report.report import Report
    from analysis.user_function.function import ForeignFunction

Function = str | Callable[[Any], Any]
# Stability needs neither: a Lyapunov function need not be convex, and growth without bound is for global claims.
ON_REQUEST = ("proper", "convex")
DEFAULT_RADIUS = 1.0
# Where the largest level is sought, each further out than the one before, as long as none is refuted.
RADII = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)


def check(
    V: Function,
    f: Function | None = None,
    *,
    dim: int,
    alpha: float | None = None,
    centre: float | Sequence[float] = 0.0,
    radius: float | None = None,
    box: tuple[float, float] | None = None,
    sublevel: float | Literal["max"] | None = None,
    claims: Sequence[str] | None = None,
    samples: int | None = None,
    starts: int = 64,
    boxes: int | None = None,
    inner_radius: float | None = None,
    seed: int = 0,
    budget: float | None = None,
    on_claim: Callable[[str], object] = lambda name: None,
) -> "Report":
    """Judge what is claimed of V, (B, dim) -> (B,), and of the dynamics z' = f(z), (B, dim) -> (B, dim).

    V and f are functions of float64 torch tensors or of NumPy arrays, one state a row; torch modules; or "module:name".
    The states are the ball of ``radius`` (1) around the ``centre``; the ``box`` (low, high) in every coordinate; or the set
    {V <= ``sublevel``}, sought as far as ``radius``. With ``sublevel`` "max" the largest such set is looked for, one for each of
    decrease, decay and invariant. ``claims`` are names of ``analysis.user_function.sentences.NAMES``: by default all that the
    arguments allow but proper and convex. ``alpha`` is the rate of "decay". ``samples`` states are drawn for each claim (32768;
    fewer where gradients are finite differences), ``starts`` climbs of the falsifier made, and ``boxes`` examined in search of a proof
    (65536). ``inner_radius`` leaves a ball around the centre out of the claims positive, decrease and decay. ``budget`` is a stop: about so
    many seconds are spent, half of them on fresh states; what it cuts short says so. ``on_claim`` is told the name of each claim as
    it begins.

    Raises ConfigError where an argument is out of range, or V or f is not a function of a batch of states, with how to wrap it.
    """
    _require_ranges(
        alpha,
        f,
        box,
        sublevel,
        radius=radius,
        samples=samples,
        starts=starts,
        boxes=boxes,
        inner_radius=inner_radius,
        budget=budget,
    )
    names = _claim_names(claims, f, alpha, sublevel)
    # After what is told at once of a mistyped argument: these take seconds.
    import torch

    from analysis.evidence.judge import Effort
    from analysis.measure.sample import environment
    from analysis.report.report import Report
    from analysis.user_function.function import load_function
    from analysis.user_function.judgement import judge_claims, judge_largest_levels
    from analysis.user_function.subject import BOXES, Subject

    origin = torch.tensor(_coordinates(centre, dim), dtype=torch.float64)
    region = _ball_or_box(origin, radius, box)
    # More states than coordinates, so that a sum over the wrong axis shows.
    trial = region.sample(dim + 3, torch.Generator().manual_seed(0))
    value = load_function(V, dim, "value", centre=origin, trial=trial)
    velocity = None if f is None else load_function(f, dim, "velocity", trial=trial)
    # Differences cost 4 N evaluations for each state.
    states = samples or (32768 if value.is_differentiable else max(1024, 65536 // dim))
    share = budget / len(names) / 2 if budget else None
    subject = Subject(
        value,
        velocity,
        region if sublevel in (None, "max") else _sublevel(region, radius, float(sublevel), value),
        alpha,
        seed=seed,
        effort=Effort(samples=states, starts=starts, steps=100, seconds=share),
        boxes=BOXES if boxes is None else boxes,
        deadline=time.monotonic() + budget if budget else math.inf,
        inner=inner_radius or 0.0,
    )
    if subject.inner >= subject.region.radius:
        raise ConfigError(
            f"inner_radius {subject.inner:g} leaves nothing of {subject.region.words}: give a smaller one"
        )
    if sublevel == "max":
        findings = judge_largest_levels(subject, names, (radius,) if radius else RADII, on_claim=on_claim)
        where = "its largest sublevel sets"
    else:
        findings = judge_claims(subject, names, on_claim=on_claim)
        where = subject.region.words
    along = "" if velocity is None else f" along {velocity.name}"
    return Report(subject=f"{value.name}{along}, on {where}", findings=tuple(findings), environment=environment())


def _require_ranges(
    alpha: float | None,
    f: Function | None,
    box: tuple[float, float] | None,
    sublevel: float | str | None,
    *,
    radius: float | None,
    **positive: float | None,
) -> None:
    if alpha is not None and not 0 <= alpha < float("inf"):
        raise ConfigError(f"alpha must be at least 0 and finite, got {alpha}")
    if alpha is not None and f is None:
        raise ConfigError("alpha is the rate of the claim 'decay', which needs dynamics")
    if isinstance(sublevel, str) and sublevel != "max":
        raise ConfigError(f"sublevel must be a number or 'max', got {sublevel!r}")
    level = None if sublevel == "max" else sublevel
    for name, number in {"radius": radius, "sublevel": level, **positive}.items():
        if number is not None and not 0 < float(number) < float("inf"):
            raise ConfigError(f"{name} must be positive and finite, got {number}")
    if box is not None and (radius is not None or sublevel is not None):
        raise ConfigError("box excludes radius and sublevel: give one region")


def _claim_names(
    asked: Sequence[str] | None, f: Function | None, alpha: float | None, sublevel: float | str | None
) -> list[str]:
    """Return the claims to judge; raise ConfigError where one is unknown or lacks what it is about."""
    given = {"dynamics": f is not None, "alpha": alpha is not None, "sublevel": sublevel is not None}
    needed = dict.fromkeys(NEEDS_DYNAMICS, ("dynamics",))
    needed |= {"decay": ("dynamics", "alpha"), "invariant": ("dynamics", "sublevel")}
    missing = {
        name: lacking for name, all_of in needed.items() if (lacking := [one for one in all_of if not given[one]])
    }
    if asked is None:
        asked = [name for name in NAMES if name not in missing and name not in ON_REQUEST]
    for name in asked:
        if name not in NAMES:
            raise ConfigError(f"unknown claim {name!r}: {closest(name, NAMES)}")
        if name in missing:
            raise ConfigError(f"the claim {name!r} needs {' and '.join(missing[name])}")
    if not asked:
        raise ConfigError(f"claims names none. Valid: {', '.join(NAMES)}")
    if sublevel == "max" and not set(asked) & set(ALONG_THE_FLOW):
        raise ConfigError(f"sublevel 'max' is for the claims {', '.join(ALONG_THE_FLOW)}, which need dynamics")
    return list(dict.fromkeys(asked))


def _coordinates(centre: float | Sequence[float], dim: int) -> list[float]:
    """Return the ``dim`` coordinates of the centre, given as that many numbers, or as one that stands for all."""
    numbers = [float(centre)] if isinstance(centre, int | float) else [float(number) for number in centre]
    if not all(abs(number) < float("inf") for number in numbers):
        raise ConfigError(f"centre: expected finite numbers, got {numbers}")
    if len(numbers) not in (1, dim):
        raise ConfigError(f"centre: expected 1 or {dim} numbers, got {len(numbers)}")
    return numbers if len(numbers) == dim else numbers * dim


def _ball_or_box(centre: "Tensor", radius: float | None, box: tuple[float, float] | None) -> "Region":
    import torch

    from analysis.evidence.regions import Ball, Box

    if box is None:
        return Ball(centre, radius if radius is not None else DEFAULT_RADIUS)
    low, high = (torch.full_like(centre, bound) for bound in box)
    if not bool(((low <= centre) & (centre <= high) & (low < high) & (high - low).isfinite()).all()):
        raise ConfigError(
            f"box: expected low < high, finite, with the centre between them, got {box[0]:g} and {box[1]:g}"
        )
    return Box(centre, low, high)


def _sublevel(region: "Region", radius: float | None, level: float, value: "ForeignFunction") -> "Region":
    from analysis.evidence.regions import Sublevel
    from analysis.user_function.levels import sublevel_radius

    reach = radius if radius is not None else sublevel_radius(value, region.centre, level)
    return Sublevel(region.centre, reach, value, level)
