"""Claims about the centre alone: V vanishes there, and the dynamics rest."""

from typing import Any

import torch

from analysis.evidence.judge import CLEAR_OF_CENTRE
from analysis.evidence.noise import NOISE_MARGIN
from analysis.findings import Finding, Verdict
from analysis.user_function.subject import Subject
from stabdeq.lyapunov import claims
from stabdeq.lyapunov.claims import Violation


@torch.no_grad()
def zero(subject: Subject) -> Finding:
    """V(c) = 0."""
    value = subject.value(subject.centre[None])
    reference = subject.typical_value + NOISE_MARGIN * subject.value_noise / subject.tolerance
    violation = claims.zero(value, torch.full_like(value, reference))
    words = (
        f"V(c) = {float(value):.3g}, against a median of |V| = {subject.typical_value:.3g} over {subject.region.words}"
    )
    sign = None if subject.certainty is None else subject.certainty.of_value(subject.centre)[0]
    # Of a steep V the values elsewhere say nothing of the terms at the centre: rounding must explain V(c) there.
    nearest = subject.value(
        (subject.centre + CLEAR_OF_CENTRE * subject.region.radius / len(subject.centre) ** 0.5)[None]
    )
    beside = claims.zero(value, nearest.abs() + NOISE_MARGIN * subject.value_noise / subject.tolerance)
    is_explained = float(beside.relative) <= subject.tolerance  # not so where V is NaN there
    if sign != 0 and float(violation.relative) <= subject.tolerance and not is_explained:
        reason = f"Evaluated at the centre: {words}, but V = {float(nearest):.3g} next to the centre: rounding does not explain V(c)."
        return subject.finding(
            "zero", Verdict.INCONCLUSIVE, reason, witness={"state": subject.centre.tolist(), "value": float(value)}
        )
    return _judged(subject, "zero", violation, words, {"value": float(value)}, sign)


@torch.no_grad()
def equilibrium(subject: Subject) -> Finding:
    """f(c) = 0, or z+ = c in steps."""
    velocity = subject.moved(subject.centre[None])
    typical = subject.typical_speed
    reference = typical + NOISE_MARGIN * subject.noise(subject.moved) / subject.tolerance
    violation = claims.equilibrium(velocity, velocity.new_full((1,), reference))
    speed = float(velocity.norm())
    symbol = "||z+ - c||" if subject.in_steps else "||f(c)||"
    words = f"{symbol} = {speed:.3g}, against a median of {typical:.3g} over {subject.region.words}"
    details = {"value": speed, "velocity": velocity[0].tolist()}
    sign = None if subject.certainty is None else subject.certainty.of_speed(subject.centre)[0]
    return _judged(subject, "equilibrium", violation, words, details, sign)


def _judged(
    subject: Subject, name: str, violation: Violation, words: str, details: dict[str, Any], sign: int | None
) -> Finding:
    """Return the finding; where the functions can be read, what is false has a ``sign`` in ball arithmetic that is not 0."""
    relative = float(violation.relative)
    if relative <= subject.tolerance:
        return subject.finding(name, Verdict.SUPPORTED, f"Evaluated at the centre: {words}.", margin=-relative)
    witness = {"state": subject.centre.tolist(), **details}
    if relative != relative or float(violation.excess) == torch.inf:
        reason = f"Not finite at the centre: {words}."
        return subject.finding(name, Verdict.INCONCLUSIVE, reason, witness=witness)
    if subject.certainty is not None and not sign:
        least = "ball arithmetic gives 0" if sign == 0 else "ball arithmetic does not tell it from 0"
        verdict = Verdict.SUPPORTED if sign == 0 else Verdict.INCONCLUSIVE
        return subject.finding(
            name, verdict, f"Evaluated at the centre: {words}, by rounding, for {least}.", witness=None
        )
    reason = f"False at the centre: {words}."
    return subject.finding(name, Verdict.REFUTED, reason, margin=-relative, witness=witness)
