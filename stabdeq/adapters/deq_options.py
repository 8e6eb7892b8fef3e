"""The options of TorchDEQ's ``get_deq``, as what our solvers do of them; what they do not do is refused."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal

import torch

from stabdeq.config.by_name import make, require_options
from stabdeq.errors import ConfigError, closest
from stabdeq.registry import SOLVERS
from stabdeq.solvers import Solver
from stabdeq.solvers.solver import as_solver

TO_THE_LAST = "simple_fixed_point_iter"  # makes all its evaluations, whatever the tolerance
NAMES = {"fixed_point_iter": "picard", TO_THE_LAST: "picard"}
# What torchdeq.add_deq_args adds for others than get_deq.
OF_OTHERS = {
    "norm_type",
    "norm_no_scale",
    "norm_clip",
    "norm_clip_value",
    "norm_target_norm",
    "sn_n_power_iters",
    "gamma",
}
OF_OTHERS |= {"jac_loss_weight", "jac_loss_freq", "jac_incremental", "sradius_mode"}
INSTEAD = {
    "tol": "f_tol of get_deq",
    "stop_mode": "f_stop_mode of get_deq",
    "lam": "nothing: our Anderson's ridge is relative to its own history",
    "return_final": "nothing: the state of the least residual is returned",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options by TorchDEQ's names and defaults.

    ``solver_kwargs`` are those of one call: ``tau``, ``m`` (Anderson), ``LBFGS_thres`` and ``ls`` (Broyden).
    """

    core: Literal["sliced", "indexing"] = "sliced"
    f_solver: str = "fixed_point_iter"
    b_solver: str = "fixed_point_iter"
    f_max_iter: int = 40
    b_max_iter: int = 40
    f_tol: float = 1e-3
    b_tol: float = 1e-6
    f_stop_mode: Literal["abs", "rel"] = "abs"
    b_stop_mode: Literal["abs", "rel"] = "abs"
    eval_factor: float = 1.0
    eval_f_max_iter: int = 0
    ift: bool = False
    hook_ift: bool = False
    grad: int | Sequence[int] = 1
    tau: float = 1.0
    sup_gap: int = -1
    sup_loc: Sequence[int] | None = None
    n_states: int = 1
    indexing: Sequence[int] | None = None
    no_stat: bool | None = None
    solver_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, among in (
            ("core", ("sliced", "indexing")),
            ("f_stop_mode", ("abs", "rel")),
            ("b_stop_mode", ("abs", "rel")),
        ):
            if getattr(self, name) not in among:
                raise ConfigError(f"{name}={getattr(self, name)!r}: {closest(str(getattr(self, name)), among)}")
        if self.no_stat:
            raise ConfigError(
                "no_stat: statistics come with every solve; leave it out, as get_deq of TorchDEQ does not read it"
            )
        for name in ("f_max_iter", "b_max_iter", "f_tol", "b_tol", "n_states", "eval_factor"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and value > 0):
                raise ConfigError(f"{name}={value!r}: expected a number above 0")
        if not self.steps or min(self.steps) < 1:
            raise ConfigError(
                f"grad={self.grad!r}: expected steps of the gradient from 1 up; the gradient of none is zero"
            )
        if self.evaluations(training=False) < 1:
            raise ConfigError(
                f"eval_factor={self.eval_factor!r} of f_max_iter={self.f_max_iter} is no evaluation: raise it"
            )
        if self.core == "sliced" and self.n_states > self.f_max_iter:
            raise ConfigError(
                f"n_states={self.n_states} of f_max_iter={self.f_max_iter} leaves a slice no evaluation: raise f_max_iter"
            )
        if len(self.steps) not in (1, len(self.places(self.f_max_iter))):
            raise ConfigError(
                f"grad has {len(self.steps)} numbers of steps for {len(self.places(self.f_max_iter))} states: give one, or one each"
            )
        solver(self.f_solver, {})
        solver(self.b_solver, {})

    @property
    def steps(self) -> list[int]:
        """The steps of the truncated gradient, of all states or of each."""
        return [self.grad] if isinstance(self.grad, int) else list(self.grad)

    @property
    def is_implicit(self) -> bool:
        """Whether the last state has the implicit gradient, with the hook's memory in either case."""
        return self.ift or self.hook_ift

    @property
    def damping(self) -> float:
        """By how much a plain iteration steps to f(z)."""
        return self.solver_kwargs.get("tau", 1.0) if NAMES.get(self.f_solver, self.f_solver) == "picard" else 1.0

    @property
    def undamped(self) -> Mapping[str, Any]:
        """The settings of one call without the ``damping``, where f is damped itself."""
        plain = self.damping != 1
        return {name: value for name, value in self.solver_kwargs.items() if not (plain and name == "tau")}

    def evaluations(self, training: bool) -> int:
        """Return how often f may be evaluated."""
        if training:
            return self.f_max_iter
        return self.eval_f_max_iter if self.eval_f_max_iter > 0 else int(self.f_max_iter * self.eval_factor)

    def places(self, evaluations: int) -> list[int]:
        """Return after how many of ``evaluations`` each state that is returned in training is taken, in their order."""
        if self.n_states > 1:
            count = min(self.n_states, evaluations)
            every = evaluations // count
            first = 0 if self.core == "sliced" else evaluations - count * every
            return [first + (place + 1) * every for place in range(count)]
        places = [*(self.indexing or ()), evaluations]
        if any(not 0 < low < high for low, high in pairwise(places)):
            raise ConfigError(f"indexing={self.indexing!r}: expected rising numbers from 1 to below {evaluations}")
        return places

    def with_call(self, solver_kwargs: Mapping[str, Any] | None) -> "Options":
        """Return these options with those of one call; raises ConfigError for one that our solvers do not have."""
        if not solver_kwargs:
            return self
        given = dict(solver_kwargs)
        changed: dict[str, Any] = {}
        if (evaluations := given.pop("f_max_iter", None)) is not None:
            changed = {"f_max_iter": int(evaluations), "eval_f_max_iter": int(evaluations)}
        if given.get("return_final") is False:
            del given["return_final"]
        solver(self.f_solver, given)
        return replace(self, **changed, solver_kwargs=given)


def solver(name: str, settings: Mapping[str, Any]) -> Solver:
    """Return our solver for TorchDEQ's ``name`` or one of ours, with ``settings`` by TorchDEQ's names."""
    ours = NAMES.get(name, name)
    if ours not in SOLVERS:
        raise ConfigError(f"no solver {name!r}: {closest(str(name), [*NAMES, *SOLVERS])}")
    known = {"picard": {"tau": "mixing"}, "anderson": {"tau": "mixing", "m": "window"}}
    known |= {"broyden": {"LBFGS_thres": "memory", "ls": "line_search"}}
    renamed = {}
    for key, value in settings.items():
        if key in INSTEAD:
            raise ConfigError(f"solver_kwargs has {key!r}, which ours do not: give {INSTEAD[key]}")
        if key in ("tau", "m", "LBFGS_thres", "ls") and key not in known.get(ours, {}):
            raise ConfigError(
                f"solver_kwargs has {key!r}, which our {ours} does not: it takes {', '.join(known.get(ours, {})) or 'none'}"
            )
        # TorchDEQ's Anderson counts states, ours the steps between them.
        renamed[known.get(ours, {}).get(key, key)] = max(1, value - 1) if key == "m" else value
    require_options(SOLVERS, ours, renamed)
    return as_solver(make(SOLVERS, ours, renamed), ours)


def read_options(args: Any, given: Mapping[str, Any]) -> Options:
    """Return the options in ``args``, a Namespace, a mapping, or an object with such attributes, and ``given``, which come first.

    A Namespace or an object is a program's own: what it holds besides is that program's. Of a mapping, and of ``given``, each
    name must be an option. Raises ConfigError where one is none, or has a value that our solvers do not have.
    """
    known = [one.name for one in fields(Options) if one.name != "solver_kwargs"]
    if type(args).__name__ == "DEQConfig":  # TorchDEQ's own, of a dict that may be a program's Namespace
        args = Namespace(**args.config)
    if args is None or isinstance(args, Mapping):
        held = dict(args or {})
    else:
        held = {name: value for name, value in vars(args).items() if name in known}
    found = {name: value for name, value in (held | dict(given)).items() if name not in OF_OTHERS}
    for name in found:
        if name not in known:
            raise ConfigError(f"get_deq has no option {name!r}: {closest(name, known)}")
    return Options(**found)


def resolvable(dtype: torch.dtype) -> float:
    """Return the least tolerance that ``solve`` takes for states of ``dtype``."""
    return 4 * torch.finfo(dtype).eps
