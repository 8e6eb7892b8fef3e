"""The subject of an audit: a model in float64, the images it is audited on, and their equilibria."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from analysis.measure.failures import failure_on
from analysis.measure.inputs import Answers, as_read, kind_of_answers, require_labelled, require_places
from analysis.measure.protocol import require_protocol
from analysis.measure.rows import Rows, in_parts
from analysis.measure.solutions import joined, stateless
from analysis.proofs.structure import is_structured
from stabdeq.cells import CertifiedCell, ReluCell, is_as_made
from stabdeq.errors import StabdeqError
from stabdeq.lyapunov import LyapunovFunction, stabilised_field
from stabdeq.model import EquilibriumModel, StabilisedDEQ
from stabdeq.solvers import Anderson, Broyden, Solution, solve
from stabdeq.solvers.solution import require_solution

TOLERANCE = 1e-11  # residual to which an audit solves for equilibria, in float64
MAX_EVALUATIONS = 1000
DENSE = 1024  # largest state whose Jacobian is formed whole


@dataclass(frozen=True)
class Subject:
    """What every check reads; all tensors are float64, but for inputs and labels that are whole numbers.

    ``images`` (N, C, H, W) and ``labels`` (N,) are test images, or inputs (N, *) and labels (N, *) as ``answers`` says, ``indices``
    (N,) their places in the test split, ``h`` (N, *) their features, ``solution`` the audit's own equilibria, to a residual of
    ``TOLERANCE`` where they converged. Features and states of many images lie in files: whoever takes all takes them by ``parts``.
    ``claims`` names what the model claims, as "check.name"; ``structured`` says that V is of this library's family, whose properties
    follow from the way it is built. ``states`` are drawn by each search for a counterexample, where it is not left to the check.
    """

    model: EquilibriumModel
    images: Tensor
    labels: Tensor
    indices: Tensor
    h: Tensor
    solution: Solution
    claims: frozenset[str]
    structured: bool
    seed: int
    answers: Answers = "classes"
    states: int | None = None

    @property
    def lyapunov(self) -> LyapunovFunction | None:
        """The model's Lyapunov function, or None."""
        return self.model.lyapunov

    @cached_property
    def found(self) -> Tensor:
        """(M,) the positions, among the N images, whose equilibrium was found: no other is used by any check."""
        return self.solution.converged.nonzero().squeeze(1)

    @property
    def judged(self) -> str:
        """What the checks at equilibria are about, in words: images, or those of them whose equilibrium was found."""
        return "images" if len(self.found) == len(self.images) else "images whose equilibrium was found"

    @cached_property
    def equilibria(self) -> Tensor:
        """(M, n) the equilibria found, flattened."""
        flat = self.solution.z.flatten(1)
        if len(self.found) in (0, len(flat)):
            return flat[: len(self.found)]
        rows = Rows()
        for part in self.parts(len(self.found)):
            rows.add(flat[self.found[part]])
        return rows.gathered()

    def parts(self, count: int, states: int = 1) -> Iterator[slice]:
        """Yield slices that cover ``count`` images, of which so many are taken together as memory should hold ``states`` each of."""
        return in_parts(count, states * max(self.dim, self.h[0].numel()))

    @property
    def dim(self) -> int:
        """The number n of state components."""
        return self.solution.z[0].numel()

    @cached_property
    def radius(self) -> float:
        """Radius of the ball of states that claims are judged on: twice the largest norm of an equilibrium, at least 1."""
        largest = 1.0
        for part in self.parts(len(self.found)):
            largest = max([largest, *(2 * self.equilibria[part].norm(dim=1)).tolist()])
        return largest

    def answers_as(self, needs: frozenset[str]) -> bool:
        """Return whether a check with ``needs`` can read the answers."""
        return (self.answers == "classes" or "classes" not in needs) and (
            self.answers != "numbers" or "choices" not in needs
        )

    def read(self, z: Tensor) -> Tensor:
        """Return the classes (M,), or those of the tokens (M, T), that the readout gives for flat states ``z`` (M, n)."""
        return self.model.readout(z.view(len(z), *self.solution.z.shape[1:])).argmax(-1)

    def generator(self) -> torch.Generator:
        """Return a fresh source of randomness from the audit's seed."""
        return torch.Generator().manual_seed(self.seed)

    def centres(self) -> Tensor:
        """Return V's centre (M, n) for each equilibrium found."""
        assert self.lyapunov is not None
        if self.lyapunov.centre == "equilibrium":
            return self.equilibria
        return self.equilibria.new_zeros(self.dim).expand_as(self.equilibria)

    def field(self, z: Tensor, which: Tensor) -> Tensor:
        """Return the unprojected field F(z, h) = f(z, h) - z, (B, n), h being that of the found images ``which`` (B,)."""
        h = self.h[self.found[which]]
        state = z.view(len(z), *self.solution.z.shape[1:])
        return self.cell(state, h).flatten(1) - z

    @cached_property
    def cell(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The map f: states (B, *) and features (B, *) -> (B, *), of which all that neither changes is computed once."""
        f, beside = _map(self.model)
        return lambda z, h: f(z, beside(h))

    def cell_at(self, position: int) -> Callable[[Tensor], Tensor]:
        """Return z -> f(z, h) on flat states (B, n), all with the features of the equilibrium ``position``."""
        h = self.h[self.found[position]]

        def cell(z: Tensor) -> Tensor:
            state = z.reshape(-1, *self.solution.z.shape[1:])
            return self.cell(state, h.expand(len(z), *h.shape)).flatten(1)

        return cell

    def jacobian(self, z: Tensor, position: int) -> Tensor:
        """Return df/dz (n, n) at ``z`` (n,): the gradients of n copies, a row from each; 0 where f has no gradient."""
        with torch.enable_grad():
            copies = z.detach().expand(self.dim, self.dim).clone().requires_grad_()
            value = self.cell_at(position)(copies)
            if not value.requires_grad:
                return torch.zeros_like(copies)
            identity = torch.eye(self.dim, dtype=torch.float64)
            return torch.autograd.grad(value, copies, identity, materialize_grads=True)[0]

    def stabilised(self, z: Tensor, which: Tensor, known: LyapunovFunction | None = None) -> Tensor:
        """Return the stabilised field F^(z, h), (B, n); ``known`` is V where the caller has evaluated it."""
        lyapunov = known or self.lyapunov
        assert lyapunov is not None
        return stabilised_field(self.field(z, which), z, self.centres()[which], lyapunov)


@contextmanager
def left_as_it_was(model: object) -> Iterator[None]:
    """Give ``model``, where it is a module, its tensors, modes and gradients back, whatever an audit made of them."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(part, part.training) for part in model.modules()]
    parameters = [(one, one.data, one.grad, one.requires_grad) for one in model.parameters()]
    buffers = [(part, name, buffer) for part in model.modules() for name, buffer in part._buffers.items()]
    # Weights that a module computes of its parameters, such as normalised ones, are plain attributes.
    computed = [
        (part, name, value)
        for part in model.modules()
        for name, value in vars(part).items()
        if isinstance(value, Tensor)
    ]
    for one in model.parameters():
        one.grad = None  # what widens the parameter would widen its gradient in place
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for one, data, gradient, requires_gradient in parameters:
            one.grad = None  # a gradient must be of its parameter's dtype
            one.data = data
            one.grad = gradient
            one.requires_grad_(requires_gradient)
        for part, name, buffer in buffers:
            part._buffers[name] = buffer
        for part, name, value in computed:
            vars(part)[name] = value


def prepare(
    model: EquilibriumModel,
    images: Tensor,
    labels: Tensor,
    *,
    indices: Tensor | None = None,
    seed: int = 0,
    states: int | None = None,
) -> Subject:
    """Return the subject of an audit: features and accurate equilibria of ``images`` (N, C, H, W), ``labels`` (N,), in float64.

    Inputs of another dtype or shape are as ``as_read`` returns them, with labels of any kind that ``kind_of_answers`` knows.

    ``model``, where it is a module, is converted to float64 and put into evaluation mode in place, for as long as the subject is
    in use: see ``left_as_it_was``. Raises DataError for images or labels that do not fit, of which the model solves but one first.
    """
    require_labelled(images, labels)
    require_places(indices, len(images))
    first = as_read(images[:1])
    if isinstance(model, nn.Module):
        model.double().eval().requires_grad_(False)
    read, features, solved, equilibria = Rows(), Rows(), [], Rows()
    with torch.no_grad(), _told_of_ones_own(model, (len(images), *images.shape[1:]), first.dtype):
        h = model.inject(first)
        # The model's own solver says what shape a state has; the audit then solves to its own tolerance.
        state = require_solution(model.solve(h)).z
        answers = kind_of_answers(model.readout(state), labels)
        if model.lyapunov is not None:
            require_protocol(model.lyapunov, state[0].numel())
        cell, beside = _map(model)
        for part in in_parts(len(images), max(first.numel(), h.numel(), state.numel())):
            some = as_read(images[part])
            h = model.inject(some)
            solution = solve_accurately(cell, state.new_zeros(len(h), *state.shape[1:]), beside(h))
            if some.dtype != images.dtype:
                read.add(some)
            features.add(h)
            equilibria.add(solution.z)
            solved.append(stateless(solution))
    return Subject(
        model=model,
        images=images if first.dtype == images.dtype else read.gathered(),
        labels=labels.double() if answers == "numbers" else labels.long(),
        indices=torch.arange(len(images)) if indices is None else indices,
        h=features.gathered(),
        solution=joined(solved, equilibria.gathered()),
        claims=claims_of(model),
        structured=is_structured(model.lyapunov),
        seed=seed,
        answers=answers,
        states=states,
    )


@contextmanager
def _told_of_ones_own(model: EquilibriumModel, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[None]:
    """Raise DataError for what somebody's model raises on such inputs; an error of our own models is our fault, and stays what it is."""
    try:
        yield
    except (StabdeqError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(model, StabilisedDEQ):
            raise
        beside = (
            "its weights are float64 here; "
            if isinstance(model, nn.Module)
            else "inputs are float64 here, and of a model that is no nn.Module the weights are not made so: make it one; "
        )
        raise failure_on(error, shape, dtype, beside) from error


def _map(model: EquilibriumModel) -> tuple[Callable[..., Tensor], Callable[[Tensor], Tensor]]:
    """Return f, and what makes of features (B, *) that which f reads beside the state, a row for each image: they themselves.

    Of one of this library's cells, whose matrix takes long, all that no state changes is computed ahead.
    """
    cell = model.cell
    if isinstance(cell, ReluCell) and is_as_made(cell):
        folded = cell.fold()
        return folded, folded.inject
    return (lambda z, h: cell(z, h)), lambda h: h  # no module: what changes its own buffers is told by its values


def claims_of(model: EquilibriumModel) -> frozenset[str]:
    """Return the names of what a model of its kind claims beyond what every model is judged on.

    A model with a V claims that the stabilised field keeps its equilibrium and that the equilibrium is stable. The paper claims
    that its orthogonal layer separates fixed points; ours claims that it is an isometry. A model of the kind lyadeq-certified
    claims that its unprojected field decays, too.
    """
    claims = set()
    lyapunov = model.lyapunov
    if lyapunov is not None:
        claims |= {"equilibrium.preserved", "spectrum.stable"}
        if isinstance(model.cell, CertifiedCell) and lyapunov.centre == "equilibrium":
            claims.add("decay.unprojected")
    if isinstance(model, StabilisedDEQ) and model.head.rotation is not None:
        anchored = lyapunov is not None and lyapunov.centre == "equilibrium"
        claims.add("separation.isometry" if anchored else "separation.increases")
    return frozenset(claims)


def solve_accurately(f: Callable[..., Tensor], z0: Tensor, context: Tensor | None = None) -> Solution:
    """Return equilibria of ``f`` from ``z0`` (B, *) to the audit's tolerance: Anderson, then Broyden where that fails.

    ``context`` (B, *) is what f reads beside the state, where it does: samples that have arrived then leave the batch.
    """
    rows = () if context is None else (context,)
    first = solve(f, z0, Anderson(window=10), tolerance=TOLERANCE, max_evaluations=MAX_EVALUATIONS, context=rows)
    again = (~first.converged).nonzero().squeeze(1)
    if not len(again):
        return first
    if not rows:
        again = torch.arange(len(z0), device=z0.device)  # f reads rows of its own, which cannot be picked
    rows = tuple(row[again] for row in rows)
    second = solve(f, z0[again], Broyden(memory=40), tolerance=TOLERANCE, max_evaluations=MAX_EVALUATIONS, context=rows)
    better = ~first.converged[again] & (second.converged | (second.residual < first.residual[again]))
    found, better = again[better], better.nonzero().squeeze(1)
    return Solution(
        z=first.z.index_copy(0, found, second.z[better]),
        residual=first.residual.index_copy(0, found, second.residual[better]),
        status=first.status.index_copy(0, found, second.status[better]),
        evaluations=first.evaluations.index_add(0, again, torch.where(first.converged[again], 0, second.evaluations)),
    )
