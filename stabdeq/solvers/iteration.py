"""One evaluation of the map, and what it tells of each sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.shared_batch import is_any, largest
from stabdeq.solvers.solution import accumulation_dtype

PATIENCE = 30  # evaluations without a better state after which a sample has stagnated
DIVERGENCE = 1e6  # a state this many times larger than the first two has diverged
SETBACK = 100.0  # a residual this many times the best is a step back; Broyden on linear maps rises tenfold on its way
COUPLED_SETBACK = 10.0  # the same where samples are coupled: a history that sees one sample alone is less to be trusted
FLATTEN = (
    "flatten several states into one, torch.cat([part.flatten(1) for part in parts], 1), and split it inside the map"
)


@dataclass
class Problem:
    """z = f(z, *context, *parameters) for the samples in the batch, states of ``shape`` (*)."""

    f: Callable[..., Tensor]
    shape: torch.Size
    context: tuple[Tensor, ...]  # a row for each sample
    parameters: tuple[Tensor, ...]  # the same for all samples
    tolerance: Tensor  # () so that compiled code serves every tolerance
    coupled: bool
    channels_last: bool = False  # how f takes its states
    images: bool = False  # whether f(z) is returned in place of z
    spares_state: bool = False  # whether f was seen not to write into the state it is given

    def flat(self, states: Tensor) -> Tensor:
        """Return states (B, *) as rows (B, n), in the order in which f's states lie in memory."""
        return (states.movedim(1, -1) if self.channels_last else states).flatten(1)

    def shaped(self, rows: Tensor) -> Tensor:
        """Return the rows (B, n) as states (B, *)."""
        if not self.channels_last:
            return rows.view(len(rows), *self.shape)
        channels, *places = self.shape
        return rows.view(len(rows), *places, channels).movedim(-1, 1)

    def evaluate(self, z: Tensor) -> Tensor:
        """Return f(z) flattened, (B, n) -> (B, n). An f that writes into the state writes into a copy."""
        state = self.shaped(z)
        if torch.compiler.is_compiling():  # where a copy costs nothing
            fz = self.f(state.clone(), *self.context, *self.parameters)
        else:
            given = state if self.spares_state else state.clone()
            before, version = self.versions(), _version(given)
            fz = self.f(given, *self.context, *self.parameters)
            self.require_unwritten(before)
            untouched = _version(given) == version
            if self.spares_state and not untouched:
                raise ConfigError(
                    "the map writes into the state at some evaluations, not at the first: it must return a new tensor"
                )
            # By value too: not all that writes is counted.
            self.spares_state = self.spares_state or (untouched and torch.equal(given, state))
        require_next_state(fz, state)
        return self.flat(fz)

    def versions(self) -> tuple[int, ...]:
        """Return how often each tensor that f reads beside the state has been written into."""
        return tuple(_version(one) for one in (*self.context, *self.parameters))

    def require_unwritten(self, before: tuple[int, ...]) -> None:
        """Raise ConfigError where one of them has been written into since there were ``before`` versions."""
        if before != self.versions():
            raise ConfigError(
                "the map writes into an input or a parameter, which is another at its next evaluation: it must return a new "
                "tensor and leave these as they are (no ReLU(inplace=True), relu_ or += on them)"
            )


class State(NamedTuple):
    """Where the solve of a batch stands; all (B,) but for the states, (B, n)."""

    z: Tensor  # to be evaluated next
    best: Tensor  # the best state so far
    best_residual: Tensor  # there; infinite before there is one
    bar: Tensor  # what a better state must go below: that residual, or where samples are coupled the largest of the batch
    found_at: Tensor  # the evaluation that found it, 0 where none has
    active: Tensor  # bool: still at work
    size: Tensor  # norm of the state evaluated last
    residual: Tensor  # there
    allowed: Tensor  # norm beyond which a sample has diverged
    first_size: Tensor  # norm of the state evaluated first, at least 1
    longest: Tensor  # the largest norm of a field so far
    field: Tensor | tuple[()]  # f(z) - z at the state evaluated last, (B, n), where the image f(z) will be returned
    memory: Any  # the solver's

    @classmethod
    def start(cls, z: Tensor, memory: Any, *, images: bool = False) -> "State":
        """Return the state before the first evaluation; with ``images`` it will hold fields."""
        unknown = z.new_full((len(z),), torch.inf, dtype=accumulation_dtype(z.dtype))
        return cls(
            z=z,
            best=z,
            best_residual=unknown,
            bar=unknown,
            found_at=torch.zeros(len(z), dtype=torch.int64, device=z.device),
            active=torch.ones(len(z), dtype=torch.bool, device=z.device),
            size=unknown,
            residual=unknown,
            allowed=unknown,
            first_size=unknown,
            longest=torch.zeros_like(unknown),
            field=z if images else (),  # any: not read before there is one
            memory=memory,
        )

    def select(self, samples: Tensor, memory: Any) -> "State":
        """Return the state of the ``samples`` (K,) alone, with the solver's ``memory`` of them."""
        chosen = {name: getattr(self, name)[samples] for name in self._fields[:-2]}
        field = self.field[samples] if isinstance(self.field, Tensor) else ()
        return self._replace(**chosen, field=field, memory=memory)

    @property
    def runaway(self) -> Tensor:
        """The samples whose state evaluated last is larger than allowed."""
        return self.size > self.allowed

    def judged(self, coupled: bool) -> Tensor:
        """Return by what the state evaluated last is judged: its residual, or the largest of the batch."""
        # Far enough out any map looks solved: the residual is relative to a state that has run away.
        judged = self.residual.masked_fill(self.runaway, torch.inf)
        return largest(judged).expand_as(judged) if coupled else judged

    def astray(self, coupled: bool) -> Tensor:
        """Return the samples whose state evaluated last is far behind the best one, or not finite."""
        judged, setback = self.judged(coupled), COUPLED_SETBACK if coupled else SETBACK
        return self.active & ~((judged <= setback * self.bar) & (judged < torch.inf))

    def idle(self, count: int | Tensor) -> Tensor:
        """Return how many rows were evaluated for samples that had stopped, up to the ``count``-th evaluation, ()."""
        return (count - self.found_at).masked_fill(self.active, 0).sum()

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
    allowed, first_size = state.allowed, state.first_size
    if isinstance(count, Tensor):
        allowed = torch.where(count == 1, _allowed(size, length), allowed)
        first_size = torch.where(count == 1, size.clamp(min=1), first_size)
    elif count == 1:
        allowed, first_size = _allowed(size, length), size.clamp(min=1)
    longest = torch.fmax(state.longest, length)  # NaN is passed over
    residual = length / size.clamp(min=1)
    state = state._replace(size=size, residual=residual, allowed=allowed, first_size=first_size, longest=longest)
    if isinstance(state.field, Tensor):
        state = state._replace(field=field)
    judged = state.judged(problem.coupled)
    better = state.active & (judged < state.bar)
    beyond = judged > problem.tolerance
    if isinstance(count, int) and bool((better & beyond).all()):
        # Nearly always so until the first arrive: nothing has to be chosen.
        found_at = torch.full_like(state.found_at, count)
        return state._replace(best=z, best_residual=state.residual, bar=judged, found_at=found_at), field
    active = state.active
    if isinstance(count, Tensor) or not bool(beyond.all()):
        departing = _departing(state, length, problem.tolerance)
        going_on = beyond | (is_any(departing) if problem.coupled else departing)
        active = torch.where(better, going_on, active)
    return (
        state._replace(
            best=torch.where(better[:, None], z, state.best),
            best_residual=torch.where(better, state.residual, state.best_residual),
            bar=torch.where(better, judged, state.bar),
            found_at=torch.where(better, count, state.found_at),
            active=active,
        ),
        field,
    )


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # under inference_mode nobody counts


def _departing(state: State, length: Tensor, tolerance: Tensor) -> Tensor:
    """Return the samples (B,) whose residual is small by their state's growth alone, with a field of norm ``length`` (B,).

    The residual is relative to the state, so that along z + 1 it falls as 1 / k, though nothing comes to rest. Such a sample
    would not have arrived, measured by its first state's size, and its field is more than half of the longest so far. Where
    f contracts at a constant rate, a field that has not halved has more of the way before it than behind: the state is no
    approximation of an equilibrium yet, and a sample that has one goes on and stops later. At its first evaluation no sample
    has grown.
    """
    return (length > tolerance * state.first_size) & (length > state.longest / 2)


def lie_channels_last(states: Tensor) -> bool:
    """Return whether ``states`` (B, C, H, W) or (B, C, D, H, W) hold a place's channels side by side in memory."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if states.dim() not in formats or states.is_contiguous():
        return False
    return states.is_contiguous(memory_format=formats[states.dim()])


def require_tensors(z0: object, inputs: Sequence[object]) -> None:
    """Raise ConfigError unless the state ``z0`` is one tensor, and ``inputs`` are several."""
    if not isinstance(z0, Tensor):
        raise ConfigError(f"expected states as one tensor (B, *), not a {type(z0).__name__}: {FLATTEN}")
    if isinstance(inputs, Tensor):
        raise ConfigError("expected a list of tensors beside the state, not a tensor: write [h] for h")
    for one in inputs:
        if not isinstance(one, Tensor):
            raise ConfigError(
                f"expected tensors beside the state, not a {type(one).__name__}: give each tensor on its own, and let the map "
                "hold all else"
            )


def require_next_state(image: object, z: Tensor) -> None:
    """Raise ConfigError unless ``image``, what f returned at ``z`` (B, *), is a state like it."""
    if not isinstance(image, Tensor):
        raise ConfigError(
            f"the map must return one tensor, the next state, not a {type(image).__name__}: of (state, more) return the state "
            f"alone; {FLATTEN}"
        )
    if image.dtype != z.dtype or image.shape != z.shape:
        raise ConfigError(
            f"the map must keep the state's shape and dtype {tuple(z.shape)} {z.dtype}: "
            f"it returned {tuple(image.shape)} {image.dtype}"
        )


def _allowed(size: Tensor, length: Tensor) -> Tensor:
    """Return the norm (B,) beyond which a sample has diverged, from the norms of its first state and field."""
    first = DIVERGENCE * (1 + (2 * size + length).nan_to_num(posinf=0))
    return first.clamp(max=torch.finfo(size.dtype).max ** 0.5)
