"""The rate at which V falls along the unprojected field, from the weights: true at the worst state, and rigorous."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from short_hunts import shorten_hunts
from torch import Tensor

from analysis.audit import audit
from analysis.certify import certify
from analysis.proofs.cells.unprojected_decay import curvature_bound, unprojected_rate
from stabdeq.cells import CertifiedCell, MonotoneCell
from stabdeq.cells.relu import Rates
from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import ArchitectureConfig, BroydenConfig, DataConfig, LyapunovConfig, ModelConfig
from stabdeq.config.kinds import kind_of, model_config
from stabdeq.data import load_data
from stabdeq.errors import ConfigError
from stabdeq.lyapunov import InputConvexLyapunov, claims, proved_rate
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Picard, solve
from train.proved_decay import limit_curvature, shortfall
from train.recipe import ROOM, Recipe, load_recipe
from train.trainer import train

DIM = 4


def cell(scale: float, seed: int) -> CertifiedCell:
    torch.manual_seed(seed)
    made = CertifiedCell(DIM).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return made.requires_grad_(False)


def lyapunov(scale: float, seed: int, eta: float = 0.5, smoothing: float = 0.7) -> InputConvexLyapunov:
    torch.manual_seed(seed)
    made = InputConvexLyapunov(DIM, LyapunovConfig(eta=eta, smoothing=smoothing, hidden=5), "equilibrium").double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return made.requires_grad_(False)


def worst(made: InputConvexLyapunov, map_: CertifiedCell, alpha: float, seed: int) -> float:
    """The largest of V-dot + alpha V, over ||e||^2, at states near, far, and moved uphill."""
    generator = torch.Generator().manual_seed(seed)
    h = 2 * torch.randn(600, DIM, generator=generator, dtype=torch.float64)
    centre = solve(
        map_, torch.zeros_like(h), Picard(), context=(h,), tolerance=1e-13, max_evaluations=50_000, throw=True
    ).z
    length = 10 ** (4 * torch.rand(600, 1, generator=generator, dtype=torch.float64) - 2)
    offset = length * torch.nn.functional.normalize(torch.randn(600, DIM, generator=generator, dtype=torch.float64))

    def excess(offset: Tensor) -> Tensor:
        value, gradient = made(offset)
        z = centre + offset
        return claims.decay(gradient, map_(z, h) - z, value, alpha).excess / offset.square().sum(1)

    for _ in range(30):
        with torch.enable_grad():
            leaf = offset.clone().requires_grad_()
            (slope,) = torch.autograd.grad(excess(leaf).sum(), leaf)
        moved = offset + 0.1 * offset.norm(dim=1, keepdim=True) * torch.nn.functional.normalize(slope)
        offset = torch.where((excess(moved) > excess(offset))[:, None], moved, offset)
    return float(excess(offset).max())


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0, 1), of_v=st.floats(0, 0.5), seed=st.integers(0, 10_000))
def test_no_state_is_slower_than_the_proved_rate(scale: float, of_v: float, seed: int) -> None:
    map_, made = cell(scale, seed), lyapunov(of_v, seed)
    rate = unprojected_rate(made, map_)
    if rate is not None:
        assert worst(made, map_, rate, seed) <= 1e-9


def test_the_rate_of_a_quadratic_is_twice_the_cells() -> None:
    """With g = 0, V = eta ||e||^2; of T = 0.5 I the bound of the decay is 1 - 1.5^2 / 4."""
    made = lyapunov(0.0, 0)
    rates = Rates(torch.tensor(0.4375, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))
    assert made.curvature_bound() == pytest.approx(0, abs=1e-12)
    assert float(proved_rate(made, rates)) == pytest.approx(0.875)


def test_the_rate_is_the_root_of_its_inequality() -> None:
    made = lyapunov(0.3, 1)
    a, c = 0.3, 0.9
    rate = float(proved_rate(made, Rates(torch.tensor(a), torch.tensor(c))))
    load = c**2 * float(made.curvature_bound()) / (2 * made.eta)
    assert (2 * a - rate) * (2 - rate) == pytest.approx(load, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0, 3), seed=st.integers(0, 10_000))
def test_the_rates_of_a_cell_hold_for_all_pairs_of_states(scale: float, seed: int) -> None:
    made = cell(scale, seed)
    rates, generator = made.rates(), torch.Generator().manual_seed(seed)
    z, other, h = torch.randn(3, 500, DIM, generator=generator, dtype=torch.float64)
    d, df = z - other, made(z, h) - made(other, h)
    squared = d.square().sum(1)
    assert ((d * (df - d)).sum(1) <= -rates.decay * squared + 1e-12 * squared).all()
    assert (df.norm(dim=1) <= rates.lipschitz * d.norm(dim=1) + 1e-12).all()
    assert rates.decay > 0


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0, 3), seed=st.integers(0, 10_000), smoothing=st.floats(0.1, 3))
def test_the_gradient_of_the_learned_part_turns_no_faster_than_its_bound(
    scale: float, seed: int, smoothing: float
) -> None:
    made = lyapunov(scale, seed, smoothing=smoothing)
    generator = torch.Generator().manual_seed(seed)
    e = torch.randn(400, DIM, generator=generator, dtype=torch.float64)
    step = 1e-4 * torch.randn(400, DIM, generator=generator, dtype=torch.float64)
    moved, here = (made(at)[1] - 2 * made.eta * at for at in (e + step, e))
    quotient = (moved - here).norm(dim=1) / step.norm(dim=1)
    bound = made.curvature_bound()
    assert quotient.max() <= bound * (1 + 1e-6) + 1e-9
    assert float(bound) <= curvature_bound(made) <= float(bound) * (1 + 1e-6) + 1e-12


def test_what_is_rigorous_is_no_more_than_what_is_computed() -> None:
    made, map_ = lyapunov(0.1, 3), cell(0.3, 3)
    proved = unprojected_rate(made, map_)
    computed = float(proved_rate(made, map_.rates()))
    assert proved is not None
    assert computed * (1 - 1e-5) < proved < computed


@pytest.mark.parametrize("broken", ["centre", "cell", "nan", "hook", "steep"])
def test_nothing_is_proved_of_another_v_or_cell(broken: str) -> None:
    made, map_ = lyapunov(0.1, 3), cell(0.3, 3)
    assert unprojected_rate(made, map_) is not None
    if broken == "centre":
        made.centre = "origin"
    if broken == "nan":
        made.network.inner.weight[0, 0] = math.nan
    if broken == "hook":
        map_.register_forward_hook(lambda *_: None)
    if broken == "steep":
        made.network.inner.weight *= 100
    assert unprojected_rate(made, torch.nn.Identity() if broken == "cell" else map_) is None


def test_training_asks_the_cell_for_its_rate_with_room() -> None:
    made, map_ = lyapunov(0.1, 3), cell(0.3, 3).requires_grad_()
    rate = float(map_.rates().decay.detach())
    made.alpha = rate / 2
    assert [float(part.detach()) for part in shortfall(made, map_)] == [0, 0]
    made.alpha = 2 * rate
    short, violated = shortfall(made, map_)
    assert float(short.detach()) == pytest.approx(1 - 0.5 / ROOM)
    assert violated == 1
    short.backward()
    gradient = map_.symmetric.grad
    assert gradient is not None
    with torch.no_grad():
        map_.symmetric -= 1e-4 * gradient / gradient.norm()
    assert shortfall(made, map_)[0] < short


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_learned_part_is_scaled_to_what_the_rate_allows_and_no_further(scale: float) -> None:
    made = untrained()
    v = made.lyapunov
    assert v is not None
    with torch.no_grad():
        v.network.inner.weight.mul_(scale)
        v.network.skip.weight.mul_(scale)
    before = v.network.inner.weight.clone()
    limit_curvature(made)
    allowed = 2 * v.eta * v.alpha * (2 - v.alpha)
    if scale < 1:
        assert torch.equal(before, v.network.inner.weight)
    else:
        assert float(v.curvature_bound().detach()) == pytest.approx(allowed, rel=1e-5)
    # With the decay that training asks of the cell, and no contraction at all, the rate is proved.
    rates = Rates(torch.tensor(ROOM * v.alpha), torch.tensor(1.0))
    assert float(proved_rate(v, rates).detach()) > v.alpha


def test_a_step_of_training_keeps_the_limit(tmp_path: Path) -> None:
    recipe = Recipe(kind="lyadeq-certified", epochs=1, learning_rate=0.05, model=ArchitectureConfig(state_dim=6))
    train(recipe, load_data(recipe.data), tmp_path / "run")
    found = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").model
    v = found.lyapunov
    assert v is not None
    assert float(v.curvature_bound().detach()) <= 2 * v.eta * v.alpha * (2 - v.alpha) * (1 + 1e-5)
    assert v.network.inner.weight.abs().max() > 1e-3  # and V has a learned part


def test_the_kind_has_its_own_rate_and_tolerance_unless_told() -> None:
    shape = {"image_shape": (1, 8, 8), "classes": 10, "mean": (0.5,), "std": (0.5,)}
    words = ArchitectureConfig(lyapunov=LyapunovConfig(alpha=0.3), solver=BroydenConfig(tolerance=0.02))
    usual = model_config("lyadeq-certified", ArchitectureConfig(), **shape)  # pyrefly: ignore
    told = model_config("lyadeq-certified", words, **shape)  # pyrefly: ignore
    other = model_config("lyadeq-anchored", ArchitectureConfig(), **shape)  # pyrefly: ignore
    assert (usual.lyapunov.alpha, told.lyapunov.alpha, other.lyapunov.alpha) == (0.1, 0.3, 1)
    assert (usual.solver.tolerance, told.solver.tolerance, other.solver.tolerance) == (1e-4, 0.02, 1e-3)
    same = model_config("lyadeq-anchored", ArchitectureConfig(cell="certified"), **shape)  # pyrefly: ignore
    assert same == usual
    assert ModelConfig(classes=10, image_shape=(1, 8, 8), mean=(0.5,), std=(0.5,)).solver.stopping_tolerance == 1e-3
    assert kind_of(usual) == "lyadeq-certified"


@pytest.mark.parametrize(
    ("kind", "settings"), [("lyadeq-certified", []), ("lyadeq-anchored", ["model.cell=certified"])]
)
def test_a_rate_that_no_certified_cell_has_is_refused(kind: str, settings: list[str]) -> None:
    for alpha in ("0.92", "1", "2.5"):
        with pytest.raises(
            ConfigError, match=rf"alpha={alpha} cannot be proved .* set model.lyapunov.alpha to 0.909 or"
        ):
            load_recipe("digits", {"kind": kind}, [*settings, f"model.lyapunov.alpha={alpha}"])
    assert load_recipe("digits", {"kind": kind}, [*settings, "model.lyapunov.alpha=0.909"]).kind == kind
    for other in ("lyadeq", "lyadeq-anchored"):
        assert load_recipe("digits", {"kind": other}, ["model.lyapunov.alpha=2.5"]).model.lyapunov.alpha == 2.5


def untrained(eta: float = 1.0) -> StabilisedDEQ:
    data = load_data(DataConfig())
    architecture = ArchitectureConfig(state_dim=8, lyapunov=LyapunovConfig(eta=eta, hidden=4))
    config = model_config(
        "lyadeq-certified",
        architecture,
        image_shape=data.image_shape,
        classes=10,
        mean=data.mean,
        std=data.std,
    )
    torch.manual_seed(0)
    return StabilisedDEQ(config).eval()


def test_audit_and_certify_prove_the_claim_and_another_model_does_not_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_hunts(monkeypatch)
    data = load_data(DataConfig())
    images, labels = data.test.images[:4] / 255, data.test.labels[:4]
    made = untrained()
    limit_curvature(made)
    audited = {f.name: f for f in audit(made, images=images, labels=labels, checks=["decay"]).findings}
    assert audited["unprojected"].verdict == "PROVED"
    assert "the projection never acts" in audited["unprojected"].evidence
    certified = {f.name: f for f in certify(made, images, labels).findings}
    assert certified["unprojected"].verdict == certified["iss_gain"].verdict == "PROVED"
    made.lyapunov.alpha = 5.0  # pyrefly: ignore
    audited = {f.name: f for f in audit(made, images=images, labels=labels, checks=["decay"]).findings}
    assert audited["unprojected"].verdict == "REFUTED"
    other = StabilisedDEQ(replace(made.config, cell="monotone")).eval()
    assert isinstance(other.cell, MonotoneCell)
    audited = {f.name: f for f in audit(other, images=images, labels=labels, checks=["decay"]).findings}
    assert "unprojected" not in audited
