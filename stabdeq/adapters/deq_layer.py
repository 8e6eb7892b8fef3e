"""The equilibrium layer that ``get_deq`` makes: TorchDEQ's calls and return values, solved by our solvers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from stabdeq.adapters.deq_options import TO_THE_LAST, Options, read_options, resolvable, solver
from stabdeq.adapters.states import Layout
from stabdeq.errors import ConfigError
from stabdeq.solvers import Solution, Status, norm, solve
from stabdeq.solvers.implicit import attach_gradient, offset_of

Map = Callable[[Tensor], Tensor]
Info = dict[str, Tensor]
SMALL = 2.0**-10  # norm of states below which the mode "rel" becomes "abs"
POWER_STEPS = 100  # products with the Jacobian for a spectral radius, of which the later half counts


def get_deq(args: Any = None, **kwargs: Any) -> "EquilibriumLayer":
    """Return an equilibrium layer with the options of ``torchdeq.get_deq``, solved by our solvers.

    ``args`` is a Namespace, a mapping or None; keywords come first. Raises ConfigError for an option that we do not have.
    """
    return EquilibriumLayer(read_options(args, kwargs))


class EquilibriumLayer(nn.Module):
    """``layer(f, z0)``: equilibria z = f(z) from ``z0`` (B, *), and statistics, as TorchDEQ's layers return them.

    In training mode all states that ``n_states``, ``indexing``, ``sup_gap`` and ``sup_loc`` ask for are returned, in evaluation
    mode the equilibrium alone. The last has the implicit gradient, where ``ift`` or ``hook_ift``, in both modes; the others have
    that of ``grad`` steps damped by ``tau``. The adjoint equation is solved to ``b_tol`` of the loss's gradient.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options

    def forward(
        self,
        func: Callable[..., Any],
        z_init: Any,
        solver_kwargs: Mapping[str, Any] | None = None,
        sradius_mode: bool = False,
        backward_writer: Callable[[Info], None] | None = None,
    ) -> tuple[list[Any], Info]:
        """Return the states, each like ``z_init``, and by name what the solve came to, (B,), or (B, N) along its N evaluations.

        ``z_init`` is a tensor, or a tuple or list of those, which ``func`` takes as its arguments and returns. With
        ``sradius_mode``, in evaluation mode, "sradius" is the spectral radius of df/dz by power iteration. ``backward_writer`` is
        given the statistics of the adjoint equation.
        """
        options = self.options.with_call(solver_kwargs)
        f, z0, restore = _of_one_tensor(func, z_init)
        if not len(z0):
            raise ConfigError(f"z_init has no samples, shape {tuple(z0.shape)}: leave an empty batch out")
        run = _Run(f, options, self.training)
        states, solution = run.states(z0, backward_writer)
        info = run.statistics()
        if not self.training:
            radius = _spectral_radius(f, solution.z) if sradius_mode else torch.zeros_like(info["nstep"])
            info["sradius"] = radius
        return [restore(one) for one in states], info


def _of_one_tensor(func: Callable[..., Any], z_init: Any) -> tuple[Map, Tensor, Callable[[Tensor], Any]]:
    """Return f on states (B, n), the first state, and what puts a state together as ``z_init`` is."""
    if isinstance(z_init, Tensor):
        whole = z_init.shape
        batched = z_init if z_init.dim() > 1 else z_init.reshape(-1, 1)  # of a vector, each number is a sample
        if z_init.dim() > 1:
            return func, batched, lambda flat: flat
        return lambda z: func(z.view(whole)).reshape(-1, 1), batched, lambda flat: flat.view(whole)
    if not isinstance(z_init, tuple | list):
        raise ConfigError(f"z_init is a {type(z_init).__name__}: expected a tensor, or a tuple or list of tensors")
    layout = Layout.of(z_init)
    return (
        lambda z: layout.flatten(func(*layout.restore(z))),
        layout.flatten(z_init),
        lambda flat: list(layout.restore(flat)),
    )


@dataclass
class _Run:
    """One call of the layer: the solve in one part or several, and what was seen at each evaluation."""

    f: Map
    options: Options
    training: bool
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # ||f(z) - z|| and ||f(z)||, (B,), by evaluation
    kept: dict[int, Tensor] = field(default_factory=dict)  # f(z) at evaluations that are asked for

    def states(self, z0: Tensor, writer: Callable[[Info], None] | None) -> tuple[list[Tensor], Solution]:
        """Return the states that the layer returns, with their gradients, and the last solve."""
        options = self.options
        total = options.evaluations(self.training)
        places = options.places(total) if self.training else [total]
        steps = options.steps * len(places) if len(options.steps) == 1 else options.steps[: len(places)]
        sliced = options.core == "sliced"
        found, z = [], z0.detach()
        solution = None if sliced else self._solved(z, total, set(places[:-1]))
        for number, ((before, place), count) in enumerate(zip(pairwise([0, *places]), steps, strict=True)):
            last = number == len(places) - 1
            if sliced:
                self.seen.clear()  # the statistics are of the last slice, as the state is
                solution = self._solved(z, place - before, set())
            assert solution is not None
            z = solution.z if sliced or last else self.kept.get(place, solution.z)
            z = z.masked_fill(_wide(solution.status == Status.nan, z), torch.nan)  # a gradient there would be invented
            found += self._with_gradient(z, solution, count, last, writer)
            z = found[-1].detach()
        assert solution is not None
        return found, solution

    def _with_gradient(
        self, z: Tensor, solution: Solution, steps: int, last: bool, writer: Callable[[Info], None] | None
    ) -> list[Tensor]:
        if last and self.options.is_implicit:
            return [self._implicit(z, solution, writer)]
        return list(self._truncated(z, steps)) if self.training else [z]

    def _truncated(self, z: Tensor, steps: int) -> Iterator[Tensor]:
        """Yield the states that ``steps`` more damped evaluations, which autograd records, lead to: the last, or those asked for."""
        options, tau = self.options, self.options.tau
        for step in range(1, steps + 1):
            z = torch.lerp(z, self.f(z), tau) if tau != 1 else self.f(z)
            asked = step % options.sup_gap == 0 if options.sup_gap > 0 else step in (options.sup_loc or ())
            if asked:
                yield z
        if options.sup_gap <= 0:  # the last one, again where sup_loc names it, as TorchDEQ returns it
            yield z
        if options.sup_gap > 0 and steps < options.sup_gap:
            raise ConfigError(
                f"sup_gap={options.sup_gap} with {steps} steps of the gradient samples no state: raise grad"
            )

    def _implicit(self, z: Tensor, solution: Solution, writer: Callable[[Info], None] | None) -> Tensor:
        """Return ``z`` with the gradient of the equilibrium by all that f reads, though f does not say what that is.

        f(z) is recorded once, and its offset from itself is an argument of the equilibrium (``offset_of``).
        """
        options = self.options
        image = self.f(z)
        value = image.detach() if self.training else z  # in either mode as TorchDEQ's
        if not image.requires_grad:
            return value
        if options.b_tol < resolvable(z.dtype):
            raise ConfigError(
                f"b_tol={options.b_tol:g} is below what {z.dtype} resolves ({resolvable(z.dtype):.1e}): raise it"
            )
        offset = offset_of(image)
        if writer is not None:
            offset.register_hook(lambda gradient: writer(_of_adjoint(solution.adjoint[-1])))
        return attach_gradient(
            lambda z, offset: self.f(z) + offset,
            (offset,),
            replace(solution, z=value),
            solver(options.b_solver, {}),
            tolerance=options.b_tol,
            max_evaluations=options.b_max_iter,
        )

    def _solved(self, z: Tensor, evaluations: int, wanted: set[int]) -> Solution:
        """Return the solve from ``z`` to ``f_tol`` in the mode of TorchDEQ's that is asked for.

        Our residual is ||f(z) - z|| / max(1, ||z||). Of states divided by a scale it is ||f(z) - z|| / scale where that is larger
        than ||z||, and ||f(z) - z|| / ||z|| where it is smaller.
        """
        options, least = self.options, resolvable(z.dtype)
        if options.f_solver == TO_THE_LAST:
            return self._iterated(z, evaluations, wanted)
        rule, tolerance = solver(options.f_solver, options.undamped), options.f_tol
        if options.f_stop_mode == "rel":
            return self._scaled(z, SMALL, rule, tolerance, evaluations, wanted)
        most = max(1.0, tolerance / least)  # with a larger scale the tolerance is below what the dtype resolves
        scale = _power_of_two(min(most, 4 * z[:1].numel() ** 0.5))
        solution = self._scaled(z, scale, rule, tolerance / scale, evaluations, wanted)
        left = evaluations - int(solution.evaluations.max()) if len(z) else 0
        largest = float(norm(solution.z).nan_to_num(posinf=0).amax()) if len(z) else 0.0
        if largest > scale < _power_of_two(most) and left > 0:
            scale = _power_of_two(min(most, 2 * largest))
            return self._scaled(solution.z, scale, rule, tolerance / scale, left, wanted)
        return solution

    def _scaled(
        self, z: Tensor, scale: float, rule: Any, tolerance: float, evaluations: int, wanted: set[int]
    ) -> Solution:
        before, latest = len(self.seen), []

        def f(y: Tensor) -> Tensor:
            state = y * scale
            image = self._damped(state)
            if not state.is_inference() and state._version:  # f has written into it
                state = y * scale
            if _alike(image, state):  # else the solver says what is wrong
                latest[:] = state, image
                self._see(state, image, wanted)
            return image / scale

        solution = solve(f, z / scale, rule, tolerance=tolerance, max_evaluations=evaluations)
        made = int(solution.evaluations.max()) if len(z) else 0
        del self.seen[before + made :]  # evaluations that judged the result
        z = solution.z * scale
        if latest:  # the value of f at a state that was judged is nearer to the equilibrium, and is known
            state, image = latest
            z = torch.where(_wide((state == z).flatten(1).all(1), z), image, z)
        return replace(solution, z=z)

    def _iterated(self, z: Tensor, evaluations: int, wanted: set[int]) -> Solution:
        """Return the last of all ``evaluations``, whatever the residuals are on the way."""
        with torch.no_grad():
            for _ in range(evaluations):
                state, z = z, self._damped(z.clone())  # f may write into it
                if not _alike(z, state):
                    found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
                    raise ConfigError(f"f returned {found} for a state {tuple(state.shape)}: expected a tensor like it")
                self._see(state, z, wanted)
        absolute, size = self.seen[-1]
        residual = absolute / size.clamp(min=1)
        status = torch.where(residual <= self.options.f_tol, Status.converged, Status.max_steps)
        status = torch.where(residual.isfinite(), status, Status.nan)
        return Solution(z=z, residual=residual, status=status, evaluations=torch.full_like(status, evaluations))

    def _damped(self, z: Tensor) -> Tensor:
        """Return f(z), of a plain iteration damped by its ``tau``: TorchDEQ judges and returns that."""
        image, damping = self.f(z), self.options.damping
        return torch.lerp(z, image, damping) if damping != 1 and _alike(image, z) else image

    def _see(self, state: Tensor, image: Tensor, wanted: set[int]) -> None:
        self.seen.append((_length(image - state), _length(image)))
        if len(self.seen) in wanted:
            self.kept[len(self.seen)] = image.clone()

    def statistics(self) -> Info:
        """Return what TorchDEQ tells of a solve, by its names."""
        absolute = torch.stack([length for length, _ in self.seen], 1)
        relative = absolute / (torch.stack([size for _, size in self.seen], 1) + 1e-9)
        judged = absolute if self.options.f_stop_mode == "abs" else relative
        first = absolute.shape[1] - 1 if self.options.f_solver == TO_THE_LAST else 0  # of which a state may be returned
        least = first + judged[:, first:].nan_to_num(nan=torch.inf).argmin(1)
        return {
            "abs_lowest": absolute[:, first:].nan_to_num(nan=torch.inf).amin(1),
            "rel_lowest": relative[:, first:].nan_to_num(nan=torch.inf).amin(1),
            "abs_trace": absolute,
            "rel_trace": relative,
            "nstep": (least + 1).to(absolute.dtype),
            "sradius": torch.full_like(absolute[:, 0], -1),
        }


def _of_adjoint(adjoint: Solution) -> Info:
    """Return the statistics of the adjoint equation: its residual is relative to the loss's gradient."""
    size = norm(adjoint.z)
    absolute = adjoint.residual * size.clamp(min=1)
    relative = absolute / (size + 1e-9)
    return {
        "abs_lowest": absolute,
        "rel_lowest": relative,
        "abs_trace": absolute[:, None],
        "rel_trace": relative[:, None],
        "nstep": adjoint.evaluations.to(absolute.dtype),
        "sradius": torch.full_like(absolute, -1),
    }


def _spectral_radius(f: Map, z: Tensor) -> Tensor:
    """Return the spectral radius (B,) of df/dz at ``z``: the growth of products with it, by their later half."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        image = f(leaf)
    if not image.requires_grad:
        return torch.zeros(len(z), dtype=z.dtype, device=z.device)
    vector, grown = torch.randn_like(z), torch.zeros(len(z), dtype=z.dtype, device=z.device)
    for step in range(POWER_STEPS):
        (vector,) = torch.autograd.grad(image, leaf, vector, retain_graph=True, materialize_grads=True)
        size = norm(vector).clamp(min=torch.finfo(z.dtype).tiny)
        vector = vector / _wide(size, vector)
        grown = grown + (size.log() if step >= POWER_STEPS // 2 else 0)
    return (grown / (POWER_STEPS - POWER_STEPS // 2)).exp().detach()


def _alike(image: Any, z: Tensor) -> bool:
    return isinstance(image, Tensor) and image.shape == z.shape


def _length(z: Tensor) -> Tensor:
    return torch.linalg.vector_norm(z.flatten(1), dim=1)


def _wide(values: Tensor, z: Tensor) -> Tensor:
    return values.view(-1, *[1] * (z.dim() - 1))


def _power_of_two(value: float) -> float:
    """Return the largest power of two up to ``value``: dividing by it rounds nothing."""
    return 2.0 ** torch.tensor(value, dtype=torch.float64).log2().floor().item()
