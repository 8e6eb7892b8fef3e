"""Verdicts on functions whose sign floating point does not tell, and on functions that are not what their trace is."""

from typing import Any

import pytest
import torch
import uncertain_functions as own
from torch import Tensor

import stabdeq
from analysis.certify import certify
from analysis.check import check
from analysis.findings import Verdict
from analysis.proofs.balls import evaluate, exact, sign_of
from analysis.proofs.tracing import TraceError, read

QUICK = {"samples": 4096, "starts": 16}
HOLD = {
    "energy, near its centre": (
        own.pendulum_energy,
        own.pendulum,
        2,
        {"radius": 1e-5},
        ["positive", "decrease", "convex"],
    ),
    "root, near its centre": (own.root, own.sink, 2, {"radius": 1e-6}, ["positive", "decrease", "convex"]),
    "written out": (own.expanded, None, 1, {"radius": 1.5}, ["positive"]),
    "cancelling terms": (own.cancelling, own.sink, 1, {"alpha": 2.0}, ["decay"]),
    "far from the origin": (own.far, own.far_sink, 2, {"centre": 1e8, "radius": 1e-6}, ["decrease"]),
    "underflow": (own.flat, None, 1, {}, ["positive"]),
    "gradients inside": (own.square, own.gradient_flow, 2, {}, ["equilibrium", "decrease"]),
    "an inner ball left out": (own.square, own.inner_cycle, 2, {"radius": 1.5, "inner_radius": 0.5}, ["decrease"]),
}
FAIL = {
    "large terms": (own.steep, own.steep_out, 2, {"radius": 20.0, "alpha": 0.0}, "decay"),
    "nearly overflowing": (own.huge, own.grow, 2, {"alpha": 0.0}, "decay"),
    "noise at the centre": (own.first_squared, own.ripple, 1, {"radius": 1000.0, "alpha": 0.0}, "decay"),
    "0 near the centre": (own.dead_zone, None, 1, {}, "positive"),
    "a pocket of V": (own.dent, None, 2, {}, "positive"),
    "a pocket of the field": (own.square, own.needle, 2, {}, "decrease"),
    "without the inner ball": (own.square, own.inner_cycle, 2, {"radius": 1.5}, "decrease"),
}
NOT_ITS_TRACE = [
    own.infinity_less_infinity,
    own.infinity_by_infinity,
    own.by_mode,
    own.by_requirement,
    own.by_batch,
    own.by_a_caught_error,
    own.by_its_text,
    own.by_its_list,
]


def slope_of(function: Any, state: Tensor, direction: Tensor) -> float:
    """The derivative at ``state`` (n,) along ``direction`` (n,), by autograd."""
    leaf = state.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf[None])[0], leaf)
    return float(gradient @ direction)


@pytest.mark.parametrize("name", HOLD)
def test_what_holds_is_not_refuted(name: str) -> None:
    V, f, dim, options, claims = HOLD[name]
    report = check(V, f, dim=dim, claims=claims, **options, **QUICK)
    assert report.holds, str(report)


@pytest.mark.parametrize("name", FAIL)
def test_what_fails_is_refuted_by_a_certain_sign(name: str) -> None:
    V, f, dim, options, claim = FAIL[name]
    report = check(V, f, dim=dim, claims=[claim], **options, **QUICK)
    (finding,) = report.findings
    assert finding.verdict is Verdict.REFUTED, finding.evidence
    witness: dict[str, Any] = finding.witness or {}
    assert "ball arithmetic" in witness["replayed_by"]
    state = torch.tensor(witness["state"], dtype=torch.float64)
    assert bool((state != 0).any())
    # By this test's own way: V, or its derivative along f, at the state alone.
    if f is None:
        assert float(V(state[None])) <= 0
    else:
        assert slope_of(V, state, f(state[None])[0]) >= 0


@pytest.mark.parametrize("V", NOT_ITS_TRACE, ids=lambda V: V.__name__)
def test_a_function_that_is_not_its_trace_is_not_proved(V: Any) -> None:
    report = check(V, dim=2, claims=["positive"], **QUICK)
    assert report["positive"].verdict is not Verdict.PROVED
    with pytest.raises(TraceError):
        read(V, torch.rand(4, 2, dtype=torch.float64))


@pytest.mark.parametrize("f", [own.seeded, own.velocity_by_mode, own.endless], ids=lambda f: f.__name__)
def test_dynamics_that_are_not_their_trace_are_not_certified(f: Any) -> None:
    (finding,) = certify(f, dim=2).findings
    assert finding.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("V", [own.rotated_valley, own.curved_valley, own.cubic_valley], ids=lambda V: V.__name__)
def test_a_valley_whose_floor_is_bounded_is_found(V: Any) -> None:
    assert check(V, dim=2, claims=["proper"]).verdict is Verdict.INCONCLUSIVE


def test_growth_along_valleys_is_growth() -> None:
    for V in (lambda z: z.abs().sum(1), lambda z: (z[:, 1] - z[:, 0] ** 2) ** 2 + z[:, 0] ** 2):
        assert check(V, dim=2, claims=["proper"]).verdict is Verdict.SUPPORTED
    assert check(own.square, dim=2, claims=["proper"]).verdict is Verdict.PROVED


def test_decrease_on_a_closed_set_implies_invariance() -> None:
    report = check(own.square, own.sink, dim=2, sublevel=0.5, claims=["decrease", "invariant"], **QUICK)
    assert [finding.verdict for finding in report.findings] == [Verdict.PROVED, Verdict.PROVED]


def test_what_is_not_finished_says_how_to_go_on() -> None:
    def twisted(z: Tensor) -> Tensor:
        x, s = z[:, 0], torch.sin(3 * z[:, 1])
        return x**2 - 2 * x * s + s**2 + 0.01 * z.square().sum(1)

    (finding,) = check(twisted, dim=2, claims=["positive"], boxes=16, **QUICK).findings
    assert finding.verdict is Verdict.SUPPORTED
    assert "give more: --boxes " in finding.evidence
    assert check(twisted, dim=2, claims=["positive"], boxes=200_000, **QUICK).verdict is Verdict.PROVED


def test_only_what_is_proved_holds_where_proofs_are_required() -> None:
    report = check(lambda z: z.abs().sum(1), own.sink, dim=8, claims=["proper"], **QUICK)
    assert report.holds
    assert report.require("proved").exit_code == 3
    proved = check(own.square, dim=2, claims=["positive"], **QUICK)
    assert proved.require("proved").holds
    with pytest.raises(stabdeq.errors.ConfigError, match="'proved'"):
        report.require("supported")


def test_a_numpy_function_is_refuted_to_rounding() -> None:
    def V(z: Any) -> Any:
        import numpy as np

        return np.square(z).sum(1) - 0.1

    (finding,) = check(V, dim=2, claims=["positive"], **QUICK).findings
    assert finding.verdict is Verdict.REFUTED
    assert "to rounding" in finding.evidence


def test_a_sign_is_certain_or_none() -> None:
    graph = read(own.expanded, torch.rand(3, 1, dtype=torch.float64))
    states = torch.linspace(0.99, 1.01, 10001, dtype=torch.float64)[:, None]
    near_one = states[own.expanded(states).argmin()]
    assert float(own.expanded(near_one[None])) < 0  # what floating point says
    assert sign_of(lambda: evaluate(graph, exact(near_one)).value.reshape(-1)[0]) == 1


FUNCTIONS = {
    "polynomial": lambda z: z[:, 0] ** 3 - 2 * z[:, 0] * z[:, 1] + (z[:, 1] - 0.5) ** 2,
    "elementary": lambda z: torch.exp(z[:, 0]) * torch.sin(z[:, 1]) + torch.tanh(z).sum(1) + torch.log1p(z[:, 0] ** 2),
    "layers": lambda z: torch.nn.functional.softplus(z @ WEIGHTS.T + 0.3).sum(1) + torch.sigmoid(z).sum(1),
    "ramps": lambda z: (
        torch.relu(z[:, 0]) + torch.maximum(z[:, 0], z[:, 1]) + z.abs().amax(1) + z.clamp(-0.5, 0.5).sum(1)
    ),
    "moved": lambda z: torch.stack(z.flip(1).split(1, 1), 2).reshape(-1, 2)[:, 0] * z[:, [1]].squeeze(1),
    "quadratic form": lambda z: torch.einsum("bi,ij,bj->b", z, WEIGHTS[:2], z) / (1 + z.square().sum(1)),
    "chosen": lambda z: torch.where(z[:, 0] > 0.1, z[:, 0] ** 2, torch.atan(z[:, 1])) + z[:, 0].sign(),
}
WEIGHTS = torch.tensor([[1.0, -0.5], [0.25, 2.0], [-1.5, 0.75]], dtype=torch.float64)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_balls_hold_values_and_slopes(name: str) -> None:
    function = FUNCTIONS[name]
    states = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    along = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    graph = read(function, states)
    for state, direction in zip(states, along, strict=True):
        value, slope = function(state[None])[0], slope_of(function, state, direction)
        found = evaluate(graph, exact(state), exact(direction))
        assert float(found.value.reshape(-1)[0].mid()) == pytest.approx(float(value), rel=1e-12, abs=1e-12)
        assert found.slope is not None
        assert float(found.slope.reshape(-1)[0].mid()) == pytest.approx(slope, rel=1e-9, abs=1e-12)
