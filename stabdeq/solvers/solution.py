"""What a solve returns, and the one definition of the residual."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import torch
from torch import Tensor

from stabdeq.errors import ConfigError

Map = Callable[[Tensor], Tensor]  # state (B, *) -> state (B, *)
Returned = Literal["state", "image"]


class Status(IntEnum):
    """How the solve of one sample ended, in ``words``, with what to do about it in ``remedy``.

    ``converged``, ``max_steps``, ``diverged``, ``nan``, ``stagnated``, ``noisy`` or ``coupled``.
    """

    converged = 0
    max_steps = 1
    diverged = 2
    nan = 3
    stagnated = 4
    noisy = 5
    coupled = 6

    @property
    def words(self) -> str:
        """The end of a sentence about a sample that ended so."""
        return {
            Status.converged: "converged",
            Status.max_steps: "ran out of evaluations",
            Status.diverged: "diverged",
            Status.nan: "met NaN or infinity",
            Status.stagnated: "stagnated",
            Status.noisy: "met two values at one state",
            Status.coupled: "depend on the others of the batch",
        }[self]

    @property
    def remedy(self) -> str:
        """One sentence of advice."""
        return {
            Status.converged: "nothing to mend",
            Status.max_steps: "raise max_evaluations, or loosen the tolerance",
            Status.diverged: "the map expands here: try another solver, a smaller mixing, or another start",
            Status.nan: "the map returned NaN or infinity: look at its weights and inputs",
            Status.stagnated: "no further progress: try another solver or start",
            Status.noisy: "the map gives another value at the same state: switch off dropout and other noise",
            Status.coupled: "the map couples the samples of a batch: pass coupled=True, or solve each sample alone",
        }[self]


@dataclass(frozen=True)
class Trace:
    """The residual of every evaluated state, ``residual`` (T, B), one row per evaluation of the map."""

    residual: Tensor


@dataclass(frozen=True)
class Solution:
    """The outcome of a batched solve of z = f(z).

    ``z`` (B, *) is each sample's best evaluated state, or, where it was asked for and the sample converged, the image f of that
    state; ``residual`` (B,) is the residual of that very state; ``status`` (B,) holds ``Status`` values; ``evaluations`` (B,) counts
    calls of f until the sample stopped, alike for all solvers. Not counted are calls that judge the result: one of all samples
    together where the batch did not stay whole, and two more where some failed. ``adjoint`` fills, after a backward pass through
    ``z``, with the solutions of the adjoint equation.
    """

    z: Tensor
    residual: Tensor
    status: Tensor
    evaluations: Tensor
    trace: Trace | None = None
    adjoint: list["Solution"] = field(default_factory=list)

    @classmethod
    def of_state(cls, z: Tensor, fz: Tensor, *, tolerance: float, evaluations: int | Tensor) -> "Solution":
        """Return what the state ``z`` (B, *) of any solver amounts to, where the map has the value ``fz`` (B, *).

        A sample converged where its residual is at most ``tolerance``; else it ran out of ``evaluations``, of all samples or (B,),
        or met NaN. Raises ConfigError where ``fz`` or ``evaluations`` are of other shapes, of which a residual would be another's.

        >>> half = torch.full((1, 2), 0.5)
        >>> Solution.of_state(half, half + 0.001, tolerance=0.01, evaluations=20).converged
        tensor([True])
        """
        counts = torch.as_tensor(evaluations, device=z.device).long()
        if not z.dim() or fz.shape != z.shape or counts.shape not in ((), (1,), (len(z),)):
            raise ConfigError(
                f"a state (B, *) of shape {tuple(z.shape)}, the map's value {tuple(fz.shape)}, evaluations {tuple(counts.shape)}: expected "
                "both of one shape, and evaluations as one number or (B,)"
            )
        residual = relative_residual(z.detach(), fz.detach())
        status = torch.where(residual <= tolerance, Status.converged, Status.max_steps)
        status = torch.where(residual.isfinite(), status, Status.nan)
        return cls(z, residual, status, counts.expand(len(z)))

    @property
    def converged(self) -> Tensor:
        """(B,) bool: which samples met the tolerance."""
        return self.status == Status.converged

    def describe_failures(self) -> str:
        """Say how many samples failed, in which way, and what to do; empty where none did."""
        parts = []
        for status in Status:
            count = int((self.status == status).sum())
            if status is not Status.converged and count:
                finer = ", or float64" if status is Status.stagnated and self.z.dtype != torch.float64 else ""
                parts.append(f"{count} of {len(self.status)} {status.words} ({status.name}: {status.remedy}{finer})")
        return "; ".join(parts)


def require_solution(found: Any) -> Solution:
    """Return what a model's ``solve`` has ``found``; raises ConfigError where it is no Solution, but a state perhaps."""
    if lacking := [name for name in ("z", "residual", "status", "evaluations") if not hasattr(found, name)]:
        raise ConfigError(
            f"solve(h) returned a {type(found).__name__}, without {', '.join(lacking)}: expected a stabdeq.solvers.Solution; of a "
            "state z of your own solver it is Solution.of_state(z, self.cell(z, h), tolerance=1e-3, evaluations=steps)"
        )
    return found


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which sums over states of ``dtype`` are taken: float32 at least."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def norm(z: Tensor) -> Tensor:
    """Return the Euclidean norm of each sample, (B, *) -> (B,), without overflow or underflow on the way.

    The norm of half-precision states is in float32.
    """
    flat = z.flatten(1)
    accurate = accumulation_dtype(z.dtype)
    plain = torch.linalg.vector_norm(flat, dim=1, dtype=accurate)
    info = torch.finfo(accurate)
    in_range = (plain > (info.tiny / info.eps) ** 0.5) & (plain < info.max**0.5)
    if bool(in_range.all()) or not flat.shape[1]:
        return plain
    largest = flat.abs().amax(1, keepdim=True).to(accurate)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return torch.where(in_range, plain, (flat / scale).norm(dim=1) * scale.squeeze(1))


def relative_residual(z: Tensor, fz: Tensor) -> Tensor:
    """Return ||f(z) - z|| / max(1, ||z||) of each sample, (B, *), (B, *) -> (B,): the only residual in this library."""
    return norm(fz - z) / norm(z).clamp(min=1)
