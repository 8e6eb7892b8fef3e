"""Attacks through an equilibrium model's intermediate states, by unrolled gradients (Yang, Pang and Liu, arXiv 2306.01429)."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stabdeq.attacks.ascent import usual_step_size
from stabdeq.attacks.ball import build_ball
from stabdeq.attacks.followed import Followed
from stabdeq.attacks.pgd import PGD
from stabdeq.attacks.threat_model import Adversarial, Classifier, check_batch, check_counts, refuse_restarts
from stabdeq.attacks.worst import attack_standing
from stabdeq.errors import ConfigError
from stabdeq.model import EquilibriumClassifier, EquilibriumModel
from stabdeq.radius import NormName

STEPS = 20
STATES = (*range(8), None)
MIXINGS = (0.5, 1.0)
UNROLLED = (1, 5, 9)


@dataclass(frozen=True, eq=False)
class Unrolled:
    """The classifier that reads logits from ``unrolled`` more damped steps z <- (1 - mixing) z + mixing f(z, h) of a state.

    The state is the ``state``-th damped iterate from z = 0, or with None the equilibrium by the model's own solver. The
    gradient goes through the unrolled steps alone. ``state_shape`` is that of one sample's state.
    """

    model: EquilibriumModel | Followed
    state_shape: tuple[int, ...]
    state: int | None
    mixing: float
    unrolled: int

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of images (B, C, H, W) in [0, 1]."""
        h = self.model.inject(images)
        with torch.no_grad():
            z = self._state(h.detach())
        return self.model.readout(self._iterate(z, h, self.unrolled))

    def _state(self, h: Tensor) -> Tensor:
        if self.state is None:
            return self.model.equilibria(h) if isinstance(self.model, Followed) else self.model.solve(h).z
        return self._iterate(h.new_zeros(len(h), *self.state_shape), h, self.state)

    def _iterate(self, z: Tensor, h: Tensor, steps: int) -> Tensor:
        for _ in range(steps):
            z = torch.lerp(z, self.model.cell(z, h), self.mixing)
        return z


@dataclass(frozen=True, kw_only=True)
class Intermediate:
    """The ensemble: PGD within ``eps`` on each ``Unrolled`` classifier in turn; the model itself judges what it finds.

    Each of the ``states`` (None is the equilibrium) is combined with each of ``mixings`` and ``unrolled``, and attacks only
    the samples that no other broke. ``steps`` are those of each PGD, of ``usual_step_size`` each.
    Raises ConfigError for settings out of range.
    """

    eps: float
    steps: int = STEPS
    norm: NormName = "linf"
    states: tuple[int | None, ...] = STATES
    mixings: tuple[float, ...] = MIXINGS
    unrolled: tuple[int, ...] = UNROLLED

    def __post_init__(self) -> None:
        build_ball(self.eps, self.norm)
        for count in (self.steps, *self.unrolled):
            check_counts(steps=count)
        if not all(state is None or (isinstance(state, int) and state >= 0) for state in self.states):
            raise ConfigError(
                f"states {self.states}: expected numbers of iterations from 0 up, or None for the equilibrium"
            )
        if not all(0 < mixing <= 1 for mixing in self.mixings):
            raise ConfigError(f"mixings {self.mixings}: expected numbers above 0 and at most 1")

    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,); starts come from ``generator``.

        Raises DataError for images or labels that are not as expected; ConfigError for a model in training mode, or that is
        not an ``EquilibriumModel``.
        """
        check_batch(model, images, labels)
        equilibrium_model = _require_equilibrium(model)
        with torch.no_grad():
            state_shape = tuple(equilibrium_model.solve(equilibrium_model.inject(images[:1])).z.shape[1:])
        attack = PGD(eps=self.eps, steps=self.steps, step_size=usual_step_size(self.eps, self.steps), norm=self.norm)
        runs = [
            partial(_ascend, attack, Unrolled(equilibrium_model, state_shape, state, mixing, unrolled))
            for unrolled in self.unrolled
            for mixing in self.mixings
            for state in self.states
        ]
        return attack_standing(runs, model, images, labels, generator=generator)


def build(*, eps: float, norm: NormName, steps: int | None, restarts: int) -> Intermediate:
    """Return the attack that the name "intermediate" stands for; it starts nowhere at random."""
    refuse_restarts("intermediate", restarts)
    return Intermediate(eps=eps, norm=norm, steps=STEPS if steps is None else steps)


def _ascend(
    attack: PGD, surrogate: Unrolled, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator
) -> Adversarial:
    followed = Followed.of(model)  # anew for each run
    surrogate = surrogate if followed is None else replace(surrogate, model=followed)
    return attack(surrogate, images, labels, generator=generator)


def absent_parts(model: Any) -> list[str]:
    """Return what ``model`` lacks of an ``EquilibriumModel``."""
    return [name for name in ("inject", "cell", "readout", "solve") if not hasattr(_in_parts(model), name)]


def _in_parts(model: Any) -> Any:
    return model.model if isinstance(model, EquilibriumClassifier) else model


def _require_equilibrium(model: Any) -> EquilibriumModel:
    absent = absent_parts(model)
    if absent:
        raise ConfigError(
            f"the model has no {', '.join(absent)}: attacks on intermediate states need an EquilibriumModel; "
            "use the other attacks for this one"
        )
    return _in_parts(model)
