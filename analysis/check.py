"""The check of a user's own Lyapunov function: what is claimed of V, and of dynamics, judged on a region of states."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from analysis.user_function.on_settings import require_judged_on_a_set
from analysis.user_function.sentences import ALONG_THE_FLOW, GLOBAL, NAMES, NEEDS_DYNAMICS, OF_A_BARRIER
from analysis.user_function.used_settings import require_used
from analysis.user_function.whole_space_settings import require_whole_space
from stabdeq.errors import ConfigError, closest
from stabdeq.seed import require_seed
from stabdeq.shard import WHOLE, Shard

if TYPE_CHECKING:
    from analysis.report.report import Report
    from analysis.user_function.subject import Subject

Function = str | Callable[[Any], Any]
# A Lyapunov function need not be convex, growth without bound is for global claims, and attraction follows from the others.
ON_REQUEST = ("proper", "convex", "attraction", GLOBAL, "barrier")
JUDGED_TOGETHER = (("decrease", "invariant"), (*OF_A_BARRIER, "decay"))  # what follows of one for another is told, too
OF_ONE_EQUILIBRIUM = ("equilibrium", "attraction", GLOBAL)
AT_REST = "where f(c, d) = 0 for every d, the claims positive, decay with alpha above 0, and invariant say that all tends to the centre"
# Where the largest level is sought, each further out than the one before, as long as none is refuted.
RADII = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)


def check(
    V: Function,
    f: Function | None = None,
    *,
    dim: int,
    step: Function | None = None,
    uncertain: Function | None = None,
    disturbance: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
    alpha: float | None = None,
    kappa: float | None = None,
    initial: Function | None = None,
    unsafe: Function | None = None,
    on: Function | None = None,
    centre: float | Sequence[float] = 0.0,
    radius: float | None = None,
    box: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
    sublevel: float | Literal["max"] | None = None,
    from_level: float | None = None,
    claims: Sequence[str] | None = None,
    samples: int | None = None,
    starts: int = 64,
    boxes: int | None = None,
    inner_radius: float | None = None,
    seed: int = 0,
    budget: float | None = None,
    figure: str | Path | None = None,
    proof: str | Path | None = None,
    shard: Shard = WHOLE,
    on_claim: Callable[[str], object] = lambda name: None,
) -> "Report":
    """Judge what is claimed of V, (B, dim) -> (B,), and of the dynamics z' = f(z) or z+ = step(z), (B, dim) -> (B, dim).

    V, f and step are functions of float64 torch tensors or of NumPy arrays, one state a row; torch modules; or "module:name".
    The states are the ball of ``radius`` (1) around the ``centre``, or the ``box`` of (low, high), one pair for all coordinates or
    one for each; less those where V > ``sublevel``, whose set is sought as far as the ball or the box reaches. With ``sublevel``
    "max" the largest such set is looked for, one for each claim along the flow. ``from_level`` leaves the states of
    lower levels out of the claims positive, decrease and decay, ``inner_radius`` a ball around the centre. ``uncertain`` are dynamics
    f(z, d), (B, dim) and (B, m) -> (B, dim), in place of f: claims along the flow are then made for every d in the box ``disturbance``.
    ``on`` is h, (B, dim) -> (B,) or (B, k): of those states, the claims are made of the ones with h = 0, as of sin^2 + cos^2 = 1.

    V is a barrier B where ``initial`` or ``unsafe`` is given: g, (B, dim) -> (B,), of the sets {g <= 0} within the ball or the box.
    By default the claims are then "initial", "unsafe" and "barrier", as far as the arguments allow, and none of a Lyapunov function.

    ``claims`` are names of ``analysis.user_function.sentences.NAMES``: by default all that the arguments allow but proper and
    convex. ``alpha`` is the rate of "decay", ``kappa`` that of "decrease" along steps: V(z+) <= (1 - kappa) V(z). ``samples`` states
    are drawn for each claim (32768; fewer where gradients are finite differences), ``starts`` climbs of the falsifier made, and
    ``boxes`` examined in search of a proof (65536). ``budget`` is a stop: about so many seconds are spent, half of them on fresh
    states; what it cuts short says so. ``figure`` is a file, .svg, .png or .pdf, to draw the region into, where states have 2
    coordinates. ``proof`` is a file to write what is proved into, for ``python -m stabdeq.checker``. ``on_claim`` is told the name of
    each claim as it begins. A ``shard`` judges its own of the ``units`` of claims, as all would be.

    Raises ConfigError where an argument is out of range, or V or f is not a function of a batch of states, with how to wrap it.
    """
    motion = uncertain if uncertain is not None else f if step is None else step
    _require_ranges(
        alpha,
        kappa,
        {"dynamics": f, "step": step, "uncertain": uncertain},
        box,
        sublevel,
        from_level,
        radius=radius,
        samples=samples,
        starts=starts,
        boxes=boxes,
        inner_radius=inner_radius,
        budget=budget,
    )
    given = {
        "dynamics": motion is not None,
        "alpha": alpha is not None,
        "sublevel": sublevel is not None or step is not None,
        "initial": initial is not None,
        "unsafe": unsafe is not None,
        "on": on is not None,
    }
    require_seed(seed)
    sets = {role: g for role, g in (("initial", initial), ("unsafe", unsafe)) if g is not None}
    names = _claim_names(claims, given, sublevel, in_steps=step is not None)
    usual = _default_names(given, in_steps=step is not None)
    settings: dict[str, object] = {**sets, "sublevel": sublevel, "from_level": from_level, "alpha": alpha}
    settings |= {"kappa": kappa, "inner_radius": inner_radius, "uncertain": uncertain, "disturbance": disturbance}
    require_used(names, settings)
    require_whole_space(names, settings)
    beside: dict[str, object] = {"uncertain": uncertain, "initial": initial, "unsafe": unsafe, "sublevel": sublevel}
    beside |= {"on": on, "figure": figure, "proof": proof, "radius": radius, "box": box}
    require_judged_on_a_set(names, beside)
    if proof is not None and (sublevel == "max" or uncertain is not None):
        raise ConfigError("proof excludes uncertain dynamics, and sublevel 'max': give the level that was found")
    if uncertain is not None:
        names, usual = _robust_names(names, asked=claims is not None), _robust_names(usual, asked=False)
        _require_robust(names, box, disturbance, sublevel, from_level, inner_radius)
    # After what is told at once of a mistyped argument: these take seconds.
    import torch

    from analysis.evidence.effort import Effort
    from analysis.evidence.regions import Ball
    from analysis.findings import Skipped
    from analysis.findings.finding import not_asked_for
    from analysis.measure.sample import environment
    from analysis.report.figures.region import draw_region, require_drawable
    from analysis.report.made_by import made_by
    from analysis.report.report import Report
    from analysis.user_function.barrier import load_set, require_apart
    from analysis.user_function.exported import write_proof
    from analysis.user_function.function import load_function
    from analysis.user_function.judgement import judge_claims, judge_largest_levels
    from analysis.user_function.on_a_set import constrained, load_constraint
    from analysis.user_function.region_settings import ball_or_box, coordinates, region_between, sides
    from analysis.user_function.subject import BOXES, Subject

    if figure is not None:
        require_drawable(Path(figure), dim)
    origin = torch.tensor(coordinates(centre, dim), dtype=torch.float64)
    is_default = radius is None and box is None
    base = ball_or_box(origin, radius, box)
    # More states than coordinates, so that a sum over the wrong axis shows.
    trial = base.sample(dim + 3, torch.Generator().manual_seed(0))
    value = load_function(V, dim, "value", centre=origin, trial=trial)
    moving = None
    if motion is not None and uncertain is None:
        moving = load_function(motion, dim, "velocity", trial=trial)
    bounds = {role: load_set(g, dim, role, trial) for role, g in sets.items()}
    if len(bounds) == 2:
        require_apart(bounds["initial"], bounds["unsafe"], base, seed)
    constraint = None if on is None else load_constraint(on, dim, trial)
    # Differences cost 4 N evaluations for each state.
    states = samples or (32768 if value.is_differentiable else max(1024, 65536 // dim))
    share = budget / len(names) / 2 if budget else None
    level = None if sublevel in (None, "max") else float(sublevel)
    region = region_between(base, is_default, level, from_level, value, sought=sublevel == "max")
    subject = Subject(
        value,
        moving,
        region if constraint is None else constrained(region, constraint, value),
        alpha if step is None else kappa,
        seed=seed,
        effort=Effort(samples=states, starts=starts, steps=100, seconds=share),
        boxes=BOXES if boxes is None else boxes,
        deadline=time.monotonic() + budget if budget else math.inf,
        inner=inner_radius or 0.0,
        in_steps=step is not None,
        sets=bounds,
    )
    if subject.inner >= subject.region.radius:
        raise ConfigError(
            f"inner_radius {subject.inner:g} leaves nothing of {subject.region.words}: give a smaller one"
        )
    options = {"dim": dim, "dynamics": f, "step": step, "uncertain": uncertain, "alpha": alpha, "kappa": kappa}
    options |= {"disturbance": sides(disturbance), "initial": initial, "unsafe": unsafe, "on": on}
    options |= {
        "centre": origin.tolist(),
        "radius": radius,
        "box": sides(box),
        "sublevel": sublevel,
        "from-level": from_level,
        "claims": names,
    }
    options |= {"samples": states, "starts": starts, "boxes": subject.boxes, "inner-radius": inner_radius}
    command = made_by("check", V, options | {"seed": seed, "budget": budget, "proof": proof})
    left = not_asked_for(name for name in usual if name not in names)
    own = {name for unit in shard.of(units(names, sublevel)) for name in unit.split(",")}
    names = [name for name in names if name in own]
    if uncertain is not None and disturbance is not None:
        report = _robust_report(subject, uncertain, disturbance, names, on_claim, figure)
        return replace(report, command=command, skipped=left)
    if sublevel == "max":
        bases = [Ball(origin, one) for one in RADII] if is_default else [base]
        findings = judge_largest_levels(subject, names, bases, on_claim=on_claim)
        where = "its largest sublevel sets"
        levels = [float(one.witness["level"]) for one in findings if one.witness and "level" in one.witness]
        if levels and figure is not None:  # on the smallest of them all the claims hold
            shown = region_between(base, is_default, min(levels), from_level, value, sought=False)
            subject = replace(subject, region=shown)
    else:
        findings = judge_claims(subject, names, on_claim=on_claim)
        where = subject.region.words
    skipped: list[Skipped] = []
    if proof is not None:
        findings, skipped = write_proof(Path(proof), subject, findings, on_claim)
    along = "" if moving is None else f" along {moving.name}"
    report = Report(
        subject=f"{value.name}{along}, on {where}",
        findings=tuple(findings),
        skipped=(*skipped, *left),
        command=command,
        environment=environment(),
    )
    if figure is not None:
        draw_region(Path(figure), report, subject)
    return report


def units(names: Sequence[str], sublevel: float | str | None) -> list[str]:
    """Return what shards of a check share: groups of the claims ``names``, with commas between, of which one may rest on another."""
    if sublevel == "max":  # one search of levels for all
        return [",".join(names)]
    groups: dict[str, list[str]] = {}
    for name in names:
        together = next((each for each in JUDGED_TOGETHER if name in each), (name,))
        groups.setdefault(together[0], []).append(name)
    return [",".join(group) for group in groups.values()]


def _require_ranges(
    alpha: float | None,
    kappa: float | None,
    motions: dict[str, Function | None],
    box: Sequence[object] | None,
    sublevel: float | str | None,
    from_level: float | None,
    *,
    radius: float | None,
    **positive: float | None,
) -> None:
    if alpha is not None and not 0 <= alpha < float("inf"):
        raise ConfigError(f"alpha must be at least 0 and finite, got {alpha}")
    given = [name for name, motion in motions.items() if motion is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are each the dynamics: give one")
    if alpha is not None and given not in (["dynamics"], ["uncertain"]):
        raise ConfigError("alpha is the rate of the claim 'decay', which needs dynamics")
    if kappa is not None and given != ["step"]:
        raise ConfigError("kappa is the rate of the claim 'decrease' along steps, which needs step")
    if kappa is not None and not 0 <= kappa < 1:
        raise ConfigError(f"kappa must be at least 0 and less than 1, got {kappa}")
    if isinstance(sublevel, str) and sublevel != "max":
        raise ConfigError(f"sublevel must be a number or 'max', got {sublevel!r}")
    level = None if sublevel == "max" else sublevel
    for name, number in {"radius": radius, "sublevel": level, **positive}.items():
        if number is not None and not 0 < float(number) < float("inf"):
            raise ConfigError(f"{name} must be positive and finite, got {number}")
    if box is not None and radius is not None:
        raise ConfigError("box excludes radius: give one region")
    if from_level is not None and not abs(from_level) < float("inf"):
        raise ConfigError(f"from_level must be finite, got {from_level}")
    if from_level is not None and level is not None and from_level >= float(level):
        raise ConfigError(
            f"no state lies between the levels: from_level {from_level:g} must be less than sublevel {level:g}"
        )


def _lacking(given: dict[str, bool]) -> dict[str, list[str]]:
    """Return the claims that lack what they are about, with what that is."""
    needed = dict.fromkeys(NEEDS_DYNAMICS, ("dynamics",))
    needed |= {
        "decay": ("dynamics", "alpha"),
        "invariant": ("dynamics", "sublevel"),
        "attraction": ("dynamics", "sublevel"),
        "initial": ("initial",),
        "unsafe": ("unsafe",),
        "barrier": ("dynamics",),
        "kept": ("dynamics", "on"),
    }
    return {name: lacking for name, all_of in needed.items() if (lacking := [one for one in all_of if not given[one]])}


def _default_names(given: dict[str, bool], *, in_steps: bool) -> list[str]:
    """Return the claims that are judged where none are asked for."""
    missing = _lacking(given)
    if given["initial"] or given["unsafe"]:
        return [name for name in OF_A_BARRIER if name not in missing]
    return [
        name for name in NAMES if name not in missing and name not in ON_REQUEST and (name, in_steps) != ("decay", True)
    ]


def _claim_names(
    asked: Sequence[str] | None, given: dict[str, bool], sublevel: float | str | None, *, in_steps: bool
) -> list[str]:
    """Return the claims to judge; raise ConfigError where one is unknown or lacks what it is about."""
    if in_steps and asked is not None and "decay" in asked:
        raise ConfigError(
            "the claim 'decay' is of V-dot, along a velocity; along steps, kappa is the rate of 'decrease'"
        )
    missing = _lacking(given)
    if asked is None:
        asked = _default_names(given, in_steps=in_steps)
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


def _robust_names(names: list[str], *, asked: bool) -> list[str]:
    """Return the claims to judge of uncertain dynamics; raise ConfigError where one that was ``asked`` for makes no sense of them."""
    for name in names if asked else ():
        if name in OF_ONE_EQUILIBRIUM:
            raise ConfigError(
                f"the claim {name!r} is not made of uncertain dynamics, whose equilibrium may move with the disturbance; {AT_REST}"
            )
    return [name for name in names if name not in OF_ONE_EQUILIBRIUM]


def _require_robust(
    names: list[str],
    box: object,
    disturbance: object,
    sublevel: float | str | None,
    from_level: float | None,
    inner_radius: float | None,
) -> None:
    if box is None or disturbance is None:
        raise ConfigError("uncertain dynamics need a box of states, and the box of their disturbances (disturbance)")
    if sublevel == "max" or inner_radius is not None:
        raise ConfigError(
            "uncertain excludes sublevel 'max' and inner_radius: give sublevel a number, and from_level for a hole"
        )
    if "decrease" in names and from_level is None:
        raise ConfigError(
            f"decrease under disturbances needs from_level: V-dot is 0 at the centre, whatever the disturbance; {AT_REST}"
        )


def _robust_report(
    subject: "Subject",
    uncertain: Function,
    disturbance: tuple[float, float] | Sequence[tuple[float, float]],
    names: list[str],
    on_claim: Callable[[str], object],
    figure: str | Path | None,
) -> "Report":
    """Return the report on ``subject``, its claims along the flow made for every d of the box ``disturbance``."""
    import torch

    from analysis.evidence.regions import Box
    from analysis.evidence.sublevel import Sublevel
    from analysis.measure.sample import environment
    from analysis.report.figures.region import draw_region
    from analysis.report.report import Report
    from analysis.user_function.judgement import judge_claims
    from analysis.user_function.uncertain import joint_value, joint_velocity, with_disturbances

    sides = torch.as_tensor(disturbance, dtype=torch.float64).reshape(-1, 2)
    if not bool((sides[:, 0] < sides[:, 1]).all() & sides.isfinite().all()):
        raise ConfigError(f"disturbance: expected low < high, finite, got {sides.tolist()}")
    n = len(subject.centre)
    assert isinstance(subject.base, Box)
    base = with_disturbances(subject.base, *sides.unbind(1))
    trial = base.sample(n + len(sides) + 3, torch.Generator().manual_seed(0))
    value, motion = joint_value(subject.value, len(sides)), joint_velocity(uncertain, n, len(sides), trial)
    region = replace(subject.region, base=base, value=value) if isinstance(subject.region, Sublevel) else base
    joint = replace(subject, value=value, motion=motion, region=region)
    findings = {}
    for of, along in ((subject, False), (joint, True)):
        part = [name for name in names if (name in ALONG_THE_FLOW) == along]
        findings |= dict(zip(part, judge_claims(of, part, on_claim=on_claim), strict=True))
    report = Report(
        subject=f"{value.name} along {motion.name}, on {region.words}",
        findings=tuple(findings[name] for name in names),
        environment=environment(),
    )
    if figure is not None:
        draw_region(Path(figure), report, subject, joint)
    return report
