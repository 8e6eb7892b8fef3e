"""Small models whose verdicts once said more, or other, than what was seen."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stabdeq
from analysis.findings import Finding, Verdict
from stabdeq.config import ModelConfig
from stabdeq.errors import ConfigError, DataError
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, Picard, Solution, solve

Cell = Callable[[Tensor, Tensor], Tensor]


class Quadratic:
    """V = |z - c|^2, or what is given in its place: a value, and a gradient that need not be its own."""

    def __init__(
        self,
        value: Callable[[Tensor], Tensor] = lambda e: e.square().sum(1),
        gradient: Callable[[Tensor], Tensor] = lambda e: 2 * e,
        *,
        centre: str = "equilibrium",
        alpha: float = 1.0,
    ) -> None:
        self.value, self.gradient, self.centre, self.alpha = value, gradient, centre, alpha

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(offset), self.gradient(offset)


class Model:
    """The equilibrium of ``cell`` is the logits; h are the first four pixels."""

    def __init__(self, cell: Cell, lyapunov: Any = None, dim: int = 4) -> None:
        self.cell, self.lyapunov, self.dim = cell, lyapunov, dim

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.dim]

    def solve(self, h: Tensor) -> Solution:
        start = torch.zeros_like(h)
        return solve(lambda z: self.cell(z, h), start, Anderson(), tolerance=1e-6, max_evaluations=200)

    def readout(self, z: Tensor) -> Tensor:
        return z


class Explicit(Model):
    """The features are the equilibrium, and the solver passes gradients on."""

    def __init__(self, features: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(lambda z, h: h)
        self.features = features

    def inject(self, x: Tensor) -> Tensor:
        return super().inject(x) if self.features is None else self.features(super().inject(x))

    def solve(self, h: Tensor) -> Solution:
        found = solve(lambda z: h + 0 * z, torch.zeros_like(h), Picard(), tolerance=1e-6, max_evaluations=20)
        return dataclasses.replace(found, z=h)


def audited(
    model: Any, *checks: str, count: int = 16, labels: Tensor | None = None, **options: Any
) -> dict[str, Finding]:
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(count) % 4 if labels is None else labels
    report = stabdeq.audit(model, images, labels, checks=checks, **{"states": 256} | options)
    return {f"{one.check}.{one.name}": one for one in report.findings}


def shrinking(z: Tensor, h: Tensor) -> Tensor:
    return 0.9 * z + 0.1 * h


@pytest.mark.parametrize(
    "cell",
    [
        lambda z, h: (3 * z + h).detach(),
        lambda z, h: torch.from_numpy(3 * z.detach().numpy() + h.numpy()),
        lambda z, h: 5 * torch.relu(z) + 0 * h,  # the equilibrium is at the kink
    ],
)
def test_a_jacobian_that_is_not_the_cells_shows_no_stability(cell: Cell) -> None:
    found = audited(Model(cell, Quadratic()), "spectrum")["spectrum.stable"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "difference quotients" in found.evidence


def test_a_jacobian_that_is_the_cells_shows_it() -> None:
    found = audited(Model(lambda z, h: 0.5 * torch.tanh(z) + h, Quadratic()), "spectrum")["spectrum.stable"]
    assert found.verdict is Verdict.SUPPORTED


@pytest.mark.parametrize(("factor", "expected"), [(2.0, Verdict.SUPPORTED), (4.0, Verdict.REFUTED)])
def test_the_decay_is_of_v_and_not_of_what_it_says_its_gradient_is(factor: float, expected: Verdict) -> None:
    lyapunov = Quadratic(gradient=lambda e: factor * e)  # of |e|^2 it is 2 e
    found = audited(Model(shrinking, lyapunov), "decay")
    assert found["decay.stabilised"].verdict is expected
    assert found["decay.flow"].verdict is expected


def test_a_v_that_automatic_differentiation_cannot_follow_leaves_the_decay_open() -> None:
    lyapunov = Quadratic(value=lambda e: e.detach().square().sum(1))
    found = audited(Model(shrinking, lyapunov), "decay")["decay.stabilised"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "PyTorch's operations" in found.evidence


def test_two_states_of_one_equilibrium_do_not_show_that_the_start_matters() -> None:
    model = Model(lambda z, h: z * (1 - 1e-13))  # each state is nearly one: the equilibrium is 0
    found = audited(model, "iteration")["iteration.start"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "whether at two equilibria is not known" in found.evidence


def test_two_equilibria_read_as_two_classes_show_it() -> None:
    model = Model(lambda z, h: torch.cat([torch.tanh(3 * z[:, :1]) + 0.01 * h[:, :1], 0.1 * z[:, 1:]], 1))
    images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    report = stabdeq.audit(model, images, torch.zeros(8, dtype=torch.long), checks=["iteration"])
    assert report["iteration.start"].verdict is Verdict.REFUTED


@pytest.mark.parametrize(
    "value",
    [
        lambda e: 1e16 * e.square().sum(1) + 0.3,
        lambda e: torch.exp(60 * e.square().sum(1)) - 0.5,
        lambda e: torch.exp(800 * e.square().sum(1)),  # infinite at distance 1
        lambda e: torch.where(
            e.norm(dim=1).sub(0.25).abs() < 0.25, torch.nan, e.square().sum(1)
        ),  # at c and beyond 1/2 alone
    ],
)
def test_a_steep_v_does_not_vanish_at_its_centre_for_being_large_elsewhere(value: Callable[[Tensor], Tensor]) -> None:
    found = audited(Model(shrinking, Quadratic(value)), "positivity")["positivity.zero"]
    assert found.verdict is Verdict.INCONCLUSIVE


def test_a_v_that_vanishes_to_rounding_does() -> None:
    def value(e: Tensor) -> Tensor:
        return (torch.nn.functional.softplus(e) + torch.nn.functional.softplus(-e)).sum(1) - 8 * math.log(2)

    found = audited(Model(shrinking, Quadratic(value)), "positivity")["positivity.zero"]
    assert found.verdict is Verdict.SUPPORTED


def test_logits_that_are_nan_are_not_random() -> None:
    model = Explicit()
    model.readout = lambda z: torch.where(z[:, :1] > 0.8, torch.nan, z)
    found = audited(model, "robustness", count=32)
    for name in ("deterministic", "batch", "same model"):
        assert found[f"robustness.{name}"].verdict is Verdict.INCONCLUSIVE
        assert "not finite" in found[f"robustness.{name}"].evidence


@pytest.mark.parametrize(
    ("count", "reason"), [(32, "answers all audited images alike"), (6, "chance explains any outcome")]
)
def test_no_image_is_missed_where_none_could_be_found(count: int, reason: str) -> None:
    model = Explicit(lambda h: torch.cat([5 + 0 * h[:, :1], torch.tanh(h[:, 1:])], 1)[:, : 2 if count == 6 else 4])
    labels = torch.zeros(count, dtype=torch.long)
    labels[: count // 8] = 1
    found = audited(model, "robustness", count=count, labels=labels)["robustness.unbounded"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert reason in found.evidence


def test_a_pair_of_features_is_of_two_images() -> None:
    model = StabilisedDEQ(
        ModelConfig(
            image_shape=(1, 4, 4), classes=4, mean=(0.5,), std=(0.5,), state_dim=8, stability="state", head="orthogonal"
        )
    )
    for parameter in model.backbone.parameters():  # all images have one equilibrium
        parameter.data.zero_()
    found = audited(model, "separation")["separation.increases"]
    assert found.verdict is Verdict.REFUTED
    assert found.witness is not None
    first, second = found.witness["images"]
    assert first != second


def test_what_is_seen_at_some_images_is_not_said_of_all() -> None:
    def cell(z: Tensor, h: Tensor) -> Tensor:  # no equilibrium for h > 0.3
        return torch.where(h > 0.3, z + 1.0, 0.5 * z + h)

    found = audited(Model(cell, Quadratic(), dim=1), "spectrum", "iteration", count=64, labels=torch.zeros(64).long())
    for name in ("spectrum.stable", "iteration.longer", "iteration.start"):
        assert "images whose equilibrium was found" in found[name].evidence
    assert "after 2 evaluations" not in found["iteration.longer"].evidence


def test_a_small_state_is_read() -> None:
    model = Model(lambda z, h: 0.9e-10 * torch.tanh(z / 1e-10) + 1e-10 * h)
    assert audited(model, "iteration")["iteration.state"].verdict is Verdict.SUPPORTED


def test_a_residual_that_is_nan_one_image_at_a_time_is_told() -> None:
    model = Model(lambda z, h: 0.5 * h + 0 * z + (math.nan if len(z) == 1 else 0), dim=1100)
    images = torch.rand(4, 1, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = stabdeq.audit(model, images, torch.arange(4), checks=["equilibrium"]).named["equilibrium.exists"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "couples samples" in found.evidence


@pytest.mark.parametrize(
    ("lyapunov", "message"),
    [
        (Quadratic(alpha=-1.0), "alpha = -1.0"),
        (Quadratic(alpha=0.0), "alpha = 0.0"),
        (Quadratic(alpha=math.nan), "alpha = nan"),
        (Quadratic(centre="Equilibrium"), "expected one of equilibrium, origin"),
        (Quadratic(lambda e: e.square().sum(1, keepdim=True)), r"float64 \(3, 1\), float64 \(3, 4\)"),
        (Quadratic(lambda e: e.square().sum(1).float()), r"float32 \(3,\)"),
    ],
)
def test_a_v_that_does_not_meet_the_protocol_is_refused(lyapunov: Quadratic, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        audited(Model(shrinking, lyapunov), "decay")


@pytest.mark.parametrize(
    "indices", [torch.arange(3), torch.zeros(16, dtype=torch.long), -torch.arange(16), torch.rand(16)]
)
def test_places_that_name_no_image_are_refused(indices: Tensor) -> None:
    with pytest.raises(DataError, match="expected 16 whole numbers"):
        audited(Model(shrinking), "equilibrium", indices=indices)


@pytest.mark.parametrize(
    ("option", "message"), [({"seed": 2**64}, "seed"), ({"seed": 0.5}, "seed"), ({"states": 2.5}, "states")]
)
def test_a_number_that_is_no_setting_is_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        audited(Model(shrinking), "equilibrium", **option)
