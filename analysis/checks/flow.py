"""Does V fall as promised along trajectories of the stabilised field? Nothing is refuted by an integrator's own error.

A trajectory that seems to break the bound is followed again, by another method and to smaller tolerances, until two successive
paths give the same excess to a hundredth of it, or none.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.checks.witness import Replay, lyapunov_of, state_of, violation_of
from analysis.evidence.sampling import directions
from analysis.findings import Finding, Verdict
from analysis.measure.subject import Subject
from analysis.measure.trajectories import PRECISIONS, trajectories
from stabdeq.errors import NotReplayableError

TRAJECTORIES, TIMES = 8, 60
NUMBERS = 2**26  # in the states at all times, 512 MiB: of large ones fewer trajectories are followed
# Numbers in a state, beyond which no trajectory is followed beside a proof: each takes a thousand evaluations.
LARGEST = 2**17
HORIZON = 5.0  # trajectories run until alpha t reaches this
EVALUATIONS = 20000  # of the field, after which a trajectory is given up
TOLERANCE = 1e-5  # relative, against the integrator's 1e-8
RESOLVED = 1e-2  # of an excess: what two successive paths may differ by


@dataclass(frozen=True)
class _Excess:
    """V along k trajectories, and by how much it rises above exp(-alpha t) V(z(0)), relative to that.

    ``values`` (T, k) are those of the last path, ``worst`` (k,) its largest excess over all times, NaN where V is not finite.
    ``doubt`` says why the excess is not known, and is empty where it is, or is within the tolerance.
    """

    values: Tensor
    worst: Tensor
    doubt: str

    @property
    def holds(self) -> bool:
        """Whether the last path shows no excess beyond the tolerance."""
        return bool((self.worst <= TOLERANCE).all())


def times(subject: Subject) -> Tensor:
    """Return the times (T,) at which trajectories are looked at."""
    return torch.linspace(0, HORIZON / lyapunov_of(subject).alpha, TIMES, dtype=torch.float64)


@torch.no_grad()
def judge_flow(subject: Subject, *, is_proved: bool) -> tuple[Finding, dict[str, Any]]:
    """Integrate the stabilised field from random states and compare V(z(t)) with exp(-alpha t) V(z(0)).

    ``is_proved`` says that V-dot <= -alpha V is proved along the field, so that no trajectory can break the bound.
    """
    lyapunov = lyapunov_of(subject)
    count = min(TRAJECTORIES, len(subject.equilibria), max(1, NUMBERS // (TIMES * subject.dim)))
    start = subject.centres()[:count] + subject.radius / 2 * directions(count, subject.dim, subject.generator())
    common = _common(subject, count)
    try:
        excess = _follow(subject, start)
    except FloatingPointError as error:
        evidence = f"No trajectory to judge: {error}."
        return Finding(verdict=Verdict.INCONCLUSIVE, margin=None, evidence=evidence, **common), {}
    ratio, bound = excess.values / excess.values[0], torch.exp(-lyapunov.alpha * times(subject))
    series = {
        "times": times(subject).tolist(),
        "median": ratio.median(1).values.tolist(),
        "maximum": ratio.amax(1).tolist(),
        "bound": bound.tolist(),
    }
    worst = float(excess.worst.max())
    evidence = (
        f"{count} trajectories, one image each, from distance {subject.radius / 2:.3g}, until V may have fallen by e^-{HORIZON:g} "
        f"(Runge-Kutta, relative tolerance 1e-8, smaller where V rises above its bound): the largest "
        f"V(z(t)) / (exp(-alpha t) V(z(0))) is {_above_one(worst)}."
    )
    if excess.holds:
        return Finding(verdict=Verdict.SUPPORTED, margin=TOLERANCE - worst, evidence=evidence, **common), series
    doubt = excess.doubt or _contradiction(is_proved)
    if doubt:
        return Finding(verdict=Verdict.INCONCLUSIVE, margin=None, evidence=f"{evidence} {doubt}", **common), series
    position = int(excess.worst.argmax())
    witness = {"image": int(subject.indices[subject.found[position]]), "start": start[position].tolist()}
    evidence += f" Two paths, by different methods, agree on it to {100 * RESOLVED:g} %."
    refuted = Finding(verdict=Verdict.REFUTED, margin=TOLERANCE - worst, evidence=evidence, witness=witness, **common)
    return refuted, series


def unfollowed_flow(subject: Subject, proof: str) -> tuple[Finding, dict[str, Any]]:
    """Return the finding that the bound holds, by ``proof``, where states are too large for a trajectory to be followed beside it."""
    reason = f"states have {subject.dim} numbers, and beside a proof trajectories are followed of up to {LARGEST}"
    evidence = f"{proof} No trajectory was followed: {reason}."
    return Finding(verdict=Verdict.PROVED, margin=None, evidence=evidence, **_common(subject, 0)), {"not_drawn": reason}


def _common(subject: Subject, count: int) -> dict[str, Any]:
    """Return what every finding on ``count`` trajectories says."""
    alpha = lyapunov_of(subject).alpha
    return {
        "check": "decay",
        "name": "flow",
        "claim": f"Trajectories of the stabilised field obey V(z(t)) <= exp(-{alpha:g} t) V(z(0)).",
        "samples": count,
        "tolerance": TOLERANCE,
        "dtype": "float64",
        "seed": subject.seed,
    }


@torch.no_grad()
def replay_flow(subject: Subject, finding: Finding, *, is_proved: bool) -> Replay:
    """Follow the trajectory from the start that the witness of ``finding`` names anew, and judge it by the same rule."""
    try:
        excess = _follow(subject, state_of(finding, "start", subject.dim)[None])
    except FloatingPointError as error:
        raise NotReplayableError(f"the trajectory cannot be followed: {error}") from error
    reported = violation_of(finding)
    return Replay(
        quantity="V above its bound along the trajectory, relative",
        reported=None if reported is None else reported + TOLERANCE,
        now=float(excess.worst),
        refutes=not excess.holds and not excess.doubt and not is_proved,
    )


def _contradiction(is_proved: bool) -> str:
    if not is_proved:
        return ""
    return "V-dot <= -alpha V is proved along the field, so this is the integrator's error: its paths agree on what is wrong."


def _follow(subject: Subject, start: Tensor) -> _Excess:
    """Follow the trajectories from ``start`` (k, n) of the first k images until what V does is known, or cannot be.

    Raises FloatingPointError where there is no trajectory to judge.
    """
    lyapunov, centres = lyapunov_of(subject), subject.centres()[: len(start)]
    if not bool((lyapunov(start - centres)[0] > 0).all()):
        raise FloatingPointError("V is not positive where the trajectories start")
    growth = torch.exp(lyapunov.alpha * times(subject))[:, None]
    found: list[_Excess] = []
    for precision in PRECISIONS:
        try:
            states = trajectories(subject, start, times(subject), EVALUATIONS, precision)
        except FloatingPointError as error:
            if not found:
                raise
            doubt = f"This may be the integrator's error: to a relative tolerance of {precision.relative:g} {error}."
            return _Excess(found[-1].values, found[-1].worst, doubt)
        values = torch.stack([lyapunov(state - centres)[0] for state in states])
        worst = (values / values[0] * growth - 1).amax(0)  # NaN where one is
        found.append(_Excess(values, worst, ""))
        if not bool(worst.isfinite().all()):
            return _Excess(values, worst, "V is not finite there, so there is nothing to compare.")
        if found[-1].holds or (len(found) > 1 and _agree(found[-2].worst, worst)):
            return found[-1]
    doubt = (
        f"This may be the integrator's error: at a relative tolerance of {PRECISIONS[-2].relative:g} it is "
        f"{_above_one(float(found[-2].worst.max()))}."
    )
    return _Excess(found[-1].values, found[-1].worst, doubt)


def _above_one(excess: float) -> str:
    """Return in words what is by ``excess`` above 1: as a sum, where its value would show nothing of it."""
    if math.isnan(excess):
        return "NaN"
    return "1" if excess == 0 else f"1 {'+' if excess > 0 else '-'} {abs(excess):.1e}"


def _agree(before: Tensor, now: Tensor) -> bool:
    """Whether the largest of a path's excesses (k,) is, on the path before, the same to far less than itself."""
    position = int(now.argmax())
    return bool((before - now).abs()[position] <= RESOLVED * now[position])
