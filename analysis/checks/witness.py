"""What a check says of a refuted finding's witness that it evaluated anew, and how it reads one from a report.

A report is untrusted: what its witness lacks or holds in the wrong form ends in NotReplayableError, never in a verdict.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from analysis.findings import Finding
from analysis.findings.values import numbers, printable
from analysis.measure.subject import TOLERANCE, Subject
from stabdeq.errors import NotReplayableError
from stabdeq.lyapunov import LyapunovFunction
from stabdeq.lyapunov.claims import Violation
from stabdeq.solvers import Status, relative_residual

# Up to which relative difference two amounts are one: what other machines and batches leave of float64, with room.
SAME = 1e-3
RELATIVE = "violation, of its terms' size"


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What a witness gives today: ``refutes`` by the check's own rule; ``quantity`` names what was ``reported`` and is ``now``."""

    quantity: str
    reported: float | None
    now: float | None
    refutes: bool

    @property
    def is_same_amount(self) -> bool:
        """Whether ``now`` is what was reported, to ``SAME`` of it or to the audit's tolerance."""
        if self.reported is None or self.now is None:
            return self.reported is self.now
        return bool(np.isclose(self.now, self.reported, rtol=SAME, atol=TOLERANCE, equal_nan=True))


def state_of(finding: Finding, key: str, size: int) -> Tensor:
    """Return the vector (size,) under ``key`` of the witness, float64."""
    values = numbers((finding.witness or {}).get(key))
    if len(values) != size or not np.isfinite(values).all():
        raise NotReplayableError(f"the witness holds no {key!r} of {size} finite numbers, as the model's states have")
    return torch.tensor(values, dtype=torch.float64)


def violation_of(finding: Finding) -> float | None:
    """Return the violation that the report gives: minus its margin."""
    return None if finding.margin is None else -finding.margin


def judged(finding: Finding, violation: Violation, tolerance: float, *, equality_counts: bool = False) -> Replay:
    """Return the replay of a claim about states, by its ``violation`` (1,) at the witness, beyond ``tolerance``."""
    relative = float(violation.relative.detach())
    refutes = relative > tolerance or (equality_counts and relative >= 0)
    return Replay(quantity=RELATIVE, reported=violation_of(finding), now=relative, refutes=refutes)


def at_equilibrium(subject: Subject, state: Tensor) -> Subject | Replay:
    """Return ``subject``, of one image, with ``state`` (n,) as its equilibrium; a replay that fails where it is none."""
    require_one_image(subject)
    z = state.view_as(subject.solution.z)
    residual = relative_residual(z.flatten(1), subject.model.cell(z, subject.h).flatten(1))
    if not float(residual) <= 10 * TOLERANCE:
        return Replay(quantity="residual of the equilibrium", reported=None, now=float(residual), refutes=False)
    status = torch.full_like(subject.solution.status, int(Status.converged))
    return replace(subject, solution=replace(subject.solution, z=z, residual=residual, status=status))


def lyapunov_of(subject: Subject) -> LyapunovFunction:
    """Return the model's V, without which the claim means nothing."""
    if subject.lyapunov is None:
        raise NotReplayableError("the model has no Lyapunov function")
    return subject.lyapunov


def require_one_image(subject: Subject) -> None:
    """Refuse to go on where a witness names several images and the claim is about one."""
    if len(subject.images) != 1:
        raise NotReplayableError(f"the witness names {len(subject.images)} images, where the claim is about one")


def require_equilibria(subject: Subject) -> None:
    """Refuse to go on where an image that the witness names has no equilibrium."""
    if len(subject.found) < len(subject.images):
        raise NotReplayableError("no equilibrium was found for an image that the witness names")


def unknown_claim(finding: Finding) -> NotReplayableError:
    """Return the error for a finding that its check, in this version, never refutes."""
    return NotReplayableError(f"this version refutes no claim {printable(finding.name)!r} in that check")
