"""From violations to an AssertionError that names the worst state and prints a line that fails there again."""

from collections.abc import Callable

import torch
from torch import Tensor

from stabdeq.lyapunov.claims import Violation
from stabdeq.testing.literals import short

PASTE = "To keep this case, paste:\n    "

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line


def judge(
    claim: str,
    batch: tuple[Tensor, ...],
    measure: Callable[..., tuple[Violation, float]],
    line: Callable[..., str],
) -> None:
    """Raise AssertionError where ``claim`` fails for some row of ``batch``, tensors (B, ...).

    ``measure`` returns the violation (B,) at such tensors and the relative one that passes; a strict claim lets only a
    negative one pass. ``line`` returns the source text of a call that repeats the judgement.
    """
    batch = tuple(part.detach() for part in batch)
    violation, allowed = measure(*batch)
    failing = _failing(violation, allowed)
    if not bool(failing.any()):
        return
    relative = violation.relative
    worst = int(torch.where(failing, relative.nan_to_num(nan=torch.inf), -torch.inf).argmax())
    alone = tuple(part[worst : worst + 1] for part in batch)
    # A function that couples the states of a batch, such as BatchNorm in training, may fail in that company only.
    fails_alone = bool(_failing(*measure(*alone)).all())
    shown = " and ".join(short(part[worst]) for part in batch)
    excess = float(violation.excess[worst])
    if bool(relative[worst].isfinite()):
        fault = f"by {excess:.6g}, {float(relative[worst]):.3g} of its terms' size (at most {allowed:.2g} passes)"
    else:
        fault = f"since its terms are not finite ({excess:g})"
    company = "" if fails_alone else f" in a batch of {len(batch[0])}, though not again alone,"
    source = line(*(alone if fails_alone else batch))
    raise AssertionError(f"{claim} fails at {shown}{company} {fault}.\n{PASTE}{source}")


def where(applies: Tensor, violation: Violation) -> Violation:
    """Return the violation where it ``applies`` (B,), none elsewhere."""
    excess = torch.where(applies, violation.excess, -torch.ones_like(violation.excess))
    return Violation(excess, torch.where(applies, violation.scale, torch.ones_like(violation.scale)))


def worst_of(excess: Tensor, scale: Tensor) -> Violation:
    """Return, of violations (K, B), each state's largest relative one; NaN is the largest."""
    relative = Violation(excess, scale).relative
    worst = relative.argmax(0, keepdim=True)
    return Violation(excess.gather(0, worst)[0], scale.gather(0, worst)[0])


def _failing(violation: Violation, allowed: float) -> Tensor:
    # NaN compares false with everything, and is a failure.
    return ~(violation.relative <= allowed)
