"""One evaluation of the map, and what it tells of each sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.solvers.solution import accumulation_dtype

PATIENCE = 30  # evaluations without a better state after which a sample has stagnated
DIVERGENCE = 1e6  # a state this many times larger than the first two has diverged
SETBACK = 100.0  # a residual this many times the best is a step back; Broyden on linear maps rises tenfold on its way
COUPLED_SETBACK = 10.0  # the same where samples are coupled: a history that sees one sample alone is less to be trusted


@dataclass(frozen=True)
class Problem:
    """z = f(z, *context, *parameters) for the samples in the batch, states of ``shape`` (*)."""

    f: Callable[..., Tensor]
    shape: torch.Size
    context: tuple[Tensor, ...]  # a row for each sample
    parameters: tuple[Tensor, ...]  # the same for all samples
    tolerance: Tensor  # () so that compiled code serves every tolerance
    coupled: bool

    def evaluate(self, z: Tensor) -> Tensor:
        """Return f(z) flattened, (B, n) -> (B, n)."""
        fz = self.f(z.view(len(z), *self.shape), *self.context, *self.parameters)
        if fz.dtype != z.dtype or fz.shape[1:] != self.shape or len(fz) != len(z):
            raise ConfigError(
                f"the map must keep the state's shape and dtype {(len(z), *self.shape)} {z.dtype}: "
                f"it returned {tuple(fz.shape)} {fz.dtype}"
            )
        return fz.flatten(1)


class State(NamedTuple):
    """Where the solve of a batch stands; all (B,) but for the states, (B, n)."""

    z: Tensor  # to be evaluated next
    best: Tensor  # the best state so far
    best_residual: Tensor  # there; infinite before there is one
    found_at: Tensor  # the evaluation that found it, 0 where none has
    active: Tensor  # bool: still at work
    size: Tensor  # norm of the state evaluated last
    residual: Tensor  # there
    allowed: Tensor  # norm beyond which a sample has diverged
    memory: Any  # the solver's

    @classmethod
    def start(cls, z: Tensor, memory: Any) -> "State":
        """Return the state before the first evaluation. No two tensors share memory, which compiled code does not allow."""
        norms = {"size": (len(z),), "fill_value": torch.inf, "dtype": accumulation_dtype(z.dtype), "device": z.device}
        return cls(
            z=z,
            best=z.clone(),
            best_residual=torch.full(**norms),
            found_at=torch.zeros(len(z), dtype=torch.int64, device=z.device),
            active=torch.ones(len(z), dtype=torch.bool, device=z.device),
            size=torch.full(**norms),
            residual=torch.full(**norms),
            allowed=torch.full(**norms),
            memory=memory,
        )

    def select(self, samples: Tensor, memory: Any) -> "State":
        """Return the state of the ``samples`` (K,) alone, with the solver's ``memory`` of them."""
        return self._replace(**{name: getattr(self, name)[samples] for name in self._fields[:-1]}, memory=memory)

    @property
    def runaway(self) -> Tensor:
        """The samples whose state evaluated last is larger than allowed."""
        return self.size > self.allowed

    def judged(self, coupled: bool) -> Tensor:
        """Return by what the state evaluated last is judged: its residual, or the largest of the batch."""
        # Far enough out any map looks solved: the residual is relative to a state that has run away.
        judged = self.residual.masked_fill(self.runaway, torch.inf)
        return judged.amax().expand_as(judged) if coupled else judged

    def astray(self, coupled: bool) -> Tensor:
        """Return the samples whose state evaluated last is far behind the best one, or not finite."""
        judged, setback = self.judged(coupled), COUPLED_SETBACK if coupled else SETBACK
        return self.active & ~((judged <= setback * _bar(self.best_residual, coupled)) & (judged < torch.inf))

    def stuck(self, count: int | Tensor) -> Tensor:
        """Return the samples that have waited for a better state for so long that the safeguard takes note."""
        waiting = count - self.found_at
        return self.active & (waiting > 0) & (waiting % PATIENCE == 0)


def observe(problem: Problem, state: State, count: int | Tensor) -> tuple[State, Tensor]:
    """Evaluate the map at ``state.z``, the ``count``-th time; return what is known now, and the field f(z) - z (B, n).

    Where it is compiled, ``count`` is a tensor () and no value is looked at on the host.
    """
    z, dtype = state.z, state.allowed.dtype
    field = problem.evaluate(z) - z
    size, length = (torch.linalg.vector_norm(one, dim=1, dtype=dtype) for one in (z, field))
    allowed = state.allowed
    if isinstance(count, Tensor):
        allowed = torch.where(count == 1, _allowed(size, length), allowed)
    elif count == 1:
        allowed = _allowed(size, length)
    state = state._replace(size=size, residual=length / size.clamp(min=1), allowed=allowed)
    judged = state.judged(problem.coupled)
    better = state.active & (judged < _bar(state.best_residual, problem.coupled))
    within = judged <= problem.tolerance
    if isinstance(count, int) and bool((better & ~within).all()):
        # Nearly always so until the first arrive: nothing has to be chosen.
        found_at = torch.full_like(state.found_at, count)
        return state._replace(best=z, best_residual=state.residual, found_at=found_at), field
    return (
        state._replace(
            best=torch.where(better[:, None], z, state.best),
            best_residual=torch.where(better, state.residual, state.best_residual),
            found_at=torch.where(better, count, state.found_at),
            active=state.active & ~(better & within),
        ),
        field,
    )


def _bar(best_residual: Tensor, coupled: bool) -> Tensor:
    """Return the residual (B,) that a state must go below to be better than the best one so far."""
    return best_residual.amax().expand_as(best_residual) if coupled else best_residual


def _allowed(size: Tensor, length: Tensor) -> Tensor:
    """Return the norm (B,) beyond which a sample has diverged, from the norms of its first state and field."""
    first = DIVERGENCE * (1 + (2 * size + length).nan_to_num(posinf=0))
    return first.clamp(max=torch.finfo(size.dtype).max ** 0.5)
