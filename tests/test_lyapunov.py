"""The learned Lyapunov function: what holds by construction, its closed-form gradient, its digits near the centre."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from analysis.proofs.cells.iss_gain import iss_gain
from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import InputConvexLyapunov, InputConvexNetwork
from stabdeq.lyapunov.claims import convex, equilibrium, positive, tolerance, zero
from stabdeq.lyapunov.input_convex import smooth_relu, smooth_relu_rise, smooth_relu_slope

DIM = 5
EPS = torch.finfo(torch.float64).eps


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lyapunov(
    seed: int = 0, *, spread: float = 1.0, dtype: torch.dtype = torch.float64, **config: float
) -> InputConvexLyapunov:
    """A V whose weights are all random, the unconstrained ones of the positive weights too."""
    function = InputConvexLyapunov(DIM, LyapunovConfig(hidden=7, **config), "origin")
    with torch.no_grad():
        for parameter in function.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator(seed)))
    return function.to(dtype)


def states(count: int, *, size: float = 1.0, seed: int = 1) -> Tensor:
    return size * torch.randn(count, DIM, generator=generator(seed), dtype=torch.float64)


functions = st.builds(
    lyapunov,
    st.integers(0, 2**16),
    spread=st.sampled_from([0.1, 1.0, 5.0]),
    smoothing=st.sampled_from([0.01, 1.0, 3.0]),
    eta=st.sampled_from([1e-4, 0.1, 2.0]),
)
batches = st.builds(states, st.just(8), size=st.sampled_from([1e-8, 1e-3, 1.0, 100.0]), seed=st.integers(0, 2**16))


# The smooth ReLU


@pytest.mark.parametrize("width", [0.25, 1.0, 3.0])
def test_smooth_relu_at_its_kinks(width: float) -> None:
    t = torch.tensor([-1.0, -1e-300, 0.0, width / 2, width, 2 * width], dtype=torch.float64)
    expected = torch.tensor([0, 0, 0, width / 8, width / 2, 1.5 * width], dtype=torch.float64)
    torch.testing.assert_close(smooth_relu(t, width), expected, rtol=1e-15, atol=0)
    slopes = torch.tensor([0, 0, 0, 0.5, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(smooth_relu_slope(t, width), slopes, rtol=1e-15, atol=0)


@pytest.mark.parametrize("width", [0.25, 1.0, 3.0])
def test_smooth_relu_against_its_definition(width: float) -> None:
    t = torch.linspace(-2 * width, 3 * width, 1001, dtype=torch.float64)
    definition = torch.where(t <= 0, 0, torch.where(t < width, t**2 / (2 * width), t - width / 2))
    torch.testing.assert_close(smooth_relu(t, width), definition, rtol=1e-13, atol=1e-16)
    differences = (smooth_relu(t + 1e-6, width) - smooth_relu(t - 1e-6, width)) / 2e-6
    torch.testing.assert_close(smooth_relu_slope(t, width), differences, rtol=0, atol=1e-6 / width)
    assert (smooth_relu(t, width) <= t**2 / (2 * width) + 1e-15).all()


def test_smooth_relu_at_the_ends_of_the_range() -> None:
    t = torch.tensor([-3e38, -1e-38, 1e-38, 1e-20, 3e38])
    assert smooth_relu(t, 1.0).isfinite().all()
    assert smooth_relu(t, 1.0)[-1] == 3e38
    assert smooth_relu_slope(t, 1.0).tolist() == pytest.approx([0, 0, 1e-38, 1e-20, 1], rel=1e-6, abs=0)


def exact_smooth_relu(t: Fraction, width: Fraction) -> Fraction:
    return Fraction(0) if t <= 0 else t * t / (2 * width) if t < width else t - width / 2


@given(
    st.floats(-4, 4) | st.sampled_from([0.0, 1.0, 0.5, -1e-9, 1 - 1e-9, 1 + 1e-9]),
    st.floats(-1, 1),
    st.integers(-30, 1),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_rise_against_exact_arithmetic(t: float, step: float, exponent: int, width: float, dtype: torch.dtype) -> None:
    """Right to a few units of roundoff of itself, however small the step is; denormal results to a denormal step."""
    level = torch.tensor([t], dtype=torch.float64).to(dtype)
    change = torch.tensor([step * 10.0**exponent], dtype=torch.float64).to(dtype)
    a, b, d = Fraction(level.item()), Fraction(change.item()), Fraction(width)
    expected = exact_smooth_relu(a + b, d) - exact_smooth_relu(a, d)
    found = Fraction(smooth_relu_rise(level, change, width).item())
    info = torch.finfo(dtype)
    assert abs(found - expected) <= 6 * Fraction(info.eps) * abs(expected) + Fraction(info.smallest_normal)


# What holds for all weights


@given(functions, batches)
def test_positive_and_zero_at_the_centre(function: InputConvexLyapunov, z: Tensor) -> None:
    value, gradient = function(z)
    bound = function.eta * z.square().sum(1)
    assert (positive(value, bound).relative <= tolerance(z.dtype, DIM)).all()
    assert (gradient.norm(dim=1) >= 2 * bound.sqrt() * function.eta**0.5 * (1 - 1e-12)).all()
    centre_value, centre_gradient = function(torch.zeros_like(z))
    assert torch.equal(centre_value, torch.zeros_like(value))
    assert torch.equal(centre_gradient, torch.zeros_like(gradient))


@given(functions, batches, batches)
def test_strongly_convex(function: InputConvexLyapunov, a: Tensor, b: Tensor) -> None:
    def value(z: Tensor) -> Tensor:
        return function(z)[0]

    assert (convex(value((a + b) / 2), value(a), value(b)).relative <= tolerance(a.dtype, DIM)).all()
    # The tangent plane lies below, by eta times the squared distance: V(b) >= V(a) + grad V(a) . (b - a) + eta |b - a|^2.
    value_a, gradient = function(a)
    tangent = (gradient * (b - a)).sum(1)
    gap = value(b) - value_a - tangent - function.eta * (b - a).square().sum(1)
    scale = value(b) + value_a + gradient.norm(dim=1) * (b - a).norm(dim=1)
    assert (gap >= -tolerance(a.dtype, DIM) * scale).all()


@given(functions, batches)
def test_growth_bound(function: InputConvexLyapunov, z: Tensor) -> None:
    value, gradient = function(z)
    bound = function.growth_bound()
    assert (value <= bound * z.square().sum(1) * (1 + 1e-12)).all()
    assert (gradient.norm(dim=1) <= 2 * bound * z.norm(dim=1) * (1 + 1e-12)).all()


@given(functions, batches, batches)
def test_lipschitz_bound(function: InputConvexLyapunov, a: Tensor, b: Tensor) -> None:
    bound = function.network.lipschitz_bound()
    (rise_a, gradient), (rise_b, _) = function.network(a), function.network(b)
    rounding = tolerance(a.dtype, DIM) * bound * (a.norm(dim=1) + b.norm(dim=1))
    assert ((rise_a - rise_b).abs() <= bound * (a - b).norm(dim=1) + rounding).all()
    assert (gradient.norm(dim=1) <= bound * (1 + 1e-12)).all()


def test_lipschitz_bound_is_attained() -> None:
    """One path, wide open: g(z) = s(w . z + b) far to the right has slope |w|."""
    function = lyapunov()
    with torch.no_grad():
        function.network.raw_mix.fill_(-100.0)
        function.network.skip.bias.fill_(100.0)
    _, gradient = function.network(states(3))
    assert gradient.norm(dim=1).tolist() == pytest.approx([function.network.lipschitz_bound()] * 3)


def test_mixing_weights_are_never_negative() -> None:
    """ZOO 5 cannot be built: relu(x) - relu(x - 1) needs a negative one."""
    network = InputConvexNetwork(1, 2, 1.0)
    with torch.no_grad():
        network.raw_mix.copy_(torch.tensor([-1e30, 3.0]))
    assert (network.mix >= 0).all()
    assert InputConvexNetwork(3, 50, 1.0).mix.tolist() == pytest.approx([1 / 50] * 50, rel=1e-5)


def test_negative_mixing_weight_is_not_convex() -> None:
    """ZOO 5: g = relu(x) - relu(x - 1), V = s(g) + 0.01 x^2: convexity is refuted, the Lipschitz constant of g is 1."""

    def g(x: Tensor) -> Tensor:
        return torch.relu(x) - torch.relu(x - 1)

    def value(x: Tensor) -> Tensor:
        return smooth_relu(g(x), 1.0) + 0.01 * x.square()

    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    a, b = torch.meshgrid(x, x, indexing="ij")
    violation = convex(value((a + b) / 2), value(a), value(b)).relative
    assert violation.max() > 0.1
    assert g(x).diff().abs().max() / 0.01 == pytest.approx(1)
    # The property that the learned function passes fails here.
    assert (violation > tolerance(torch.float64, 1)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_zero_at_the_centre_survives_training(dtype: torch.dtype) -> None:
    """ZOO 17: g(0) stored at construction drifts; recomputed, V(c) = 0 exactly whatever the weights are."""
    function = lyapunov(spread=0.5, dtype=dtype)
    network = function.network
    origin, z = torch.zeros(1, DIM, dtype=dtype), states(32).to(dtype)

    with torch.no_grad():
        network.skip.bias.fill_(1.0)
        stored = naive_value(network, origin)
    for _ in range(5):
        loss = (function(z)[0] - z.square().sum(1)).square().mean()
        # g(0) has no part in V, so its own gradient is added: what any weight decay or second loss would do.
        gradients = torch.autograd.grad(loss + naive_value(network, origin).sum(), list(function.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(function.parameters(), gradients, strict=True):
                parameter -= 0.01 * gradient / gradient.norm()
    assert zero(naive_value(network, origin) - stored, stored).relative > 1e3 * tolerance(dtype, DIM)
    assert torch.equal(function(origin)[0], torch.zeros(1, dtype=dtype))
    torch.testing.assert_close(
        network(z)[0], naive_value(network, z) - naive_value(network, origin), rtol=1e-4, atol=1e-5
    )


# The closed-form gradient


@given(functions, batches)
def test_gradient_against_autograd(function: InputConvexLyapunov, z: Tensor) -> None:
    z.requires_grad_()
    value, gradient = function(z)
    (reference,) = torch.autograd.grad(value.sum(), z)
    size = 2 * function.growth_bound() * z.detach().norm(dim=1, keepdim=True)
    assert ((gradient - reference).abs() <= 1e-9 * size).all()
    rise, g_gradient = function.network(z)
    (g_reference,) = torch.autograd.grad(rise.sum(), z)
    torch.testing.assert_close(g_gradient, g_reference, rtol=1e-9, atol=1e-9)


def test_gradient_against_finite_differences() -> None:
    function, z, step = lyapunov(spread=0.7), states(20), 1e-6
    with torch.no_grad():
        for axis in range(DIM):
            move = step * torch.eye(DIM, dtype=torch.float64)[axis]
            slope = (function(z + move)[0] - function(z - move)[0]) / (2 * step)
            torch.testing.assert_close(function(z)[1][:, axis], slope, rtol=1e-5, atol=1e-6)


def test_gradient_needs_no_graph_and_can_be_trained_through() -> None:
    function, z = lyapunov(), states(4)
    with torch.inference_mode():
        _, gradient = function(z)
    assert not gradient.requires_grad
    _, gradient = function(z)
    gradient.square().sum().backward()
    for name, parameter in function.named_parameters():
        assert parameter.grad.isfinite().all(), name
    with torch.no_grad():
        assert torch.equal(function(z)[1], gradient)


# Digits near the centre


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6, 1e-12])
def test_float32_value_near_the_centre(size: float) -> None:
    """Differences of g would be rounding alone here; V keeps its digits beside its own growth bound."""
    function = lyapunov(spread=0.5)
    z = states(200, size=size).float()
    value, gradient = function.float()(z)
    exact_value, exact_gradient = function.double()(z.double())
    bound = function.growth_bound()
    error = (value - exact_value).abs() / (bound * z.double().square().sum(1))
    assert error.max() < 50 * torch.finfo(torch.float32).eps
    gradient_error = (gradient - exact_gradient).norm(dim=1) / (2 * bound * z.double().norm(dim=1))
    assert gradient_error.max() < 50 * torch.finfo(torch.float32).eps
    assert exact_value.min() > 0
    # The difference of two values of g, for contrast: its digits are gone.
    if size <= 1e-6:
        network = function.float().network
        lost = naive_value(network, z) - naive_value(network, torch.zeros_like(z)) - network(z)[0]
        assert lost.abs().max() > 1e-2 * network(z)[0].abs().max()


def naive_value(network: InputConvexNetwork, z: Tensor) -> Tensor:
    """g(z) by its formula (paper, Eq. 10)."""
    inner = smooth_relu(network.inner(z), network.smoothing)
    return smooth_relu(inner @ network.mix + network.skip(z).squeeze(1), network.smoothing)


def test_scaling_of_the_quadratic_part() -> None:
    """V / ||z||^2 tends to a limit between eta and the growth bound as z goes to the centre, not to noise."""
    function = lyapunov(dtype=torch.float32)
    direction = states(1).float()
    ratios = [function(s * direction)[0] / (s * direction).square().sum(1) for s in (1e-3, 1e-5, 1e-8, 1e-12)]
    for ratio in ratios:
        assert function.eta * (1 - 1e-6) <= ratio <= function.growth_bound()
    assert ratios[-1].item() == pytest.approx(ratios[-2].item(), rel=1e-5)


@pytest.mark.parametrize(("eta", "width"), [(0.1, 0.5), (2.0, 3.0)])
def test_the_growth_bound_is_reached(eta: float, width: float) -> None:
    """Of an inner network that is linear, V = (eta + L^2 / (2 width)) ||z||^2 along its gradient, of length L, next to the centre."""
    function = lyapunov(eta=eta, smoothing=width)
    network = function.network
    with torch.no_grad():
        network.inner.weight[1:] = 0
        network.raw_mix[1:] = -200  # so small a weight that the first unit is the only one
        network.inner.bias[0] = network.skip.bias[0] = 100.0
        network.skip.weight.copy_(network.inner.weight[:1])
    z = 1e-3 * network.inner.weight.detach()[:1] / network.inner.weight.detach()[0].norm()
    value, gradient = (each.detach() for each in function(z))
    assert function.growth_bound() == pytest.approx(float(value) / 1e-6, rel=1e-8)
    assert 2 * function.growth_bound() == pytest.approx(float(gradient.norm()) / 1e-3, rel=1e-8)
    # alpha eta ||e||^2 <= 2 k ||e|| s ||dh||
    assert iss_gain(function, 3.0) == pytest.approx(6 * float(value) / 1e-6 / (function.alpha * eta), rel=1e-8)


def test_the_claim_that_a_field_rests_is_the_speed_beside_what_it_is_summed_from() -> None:
    velocity, reference = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([20.0, 0.0])
    violation = equilibrium(velocity, reference)
    assert violation.excess.tolist() == [5, 0]
    assert violation.scale.tolist() == [25, 0]
    assert violation.relative.tolist() == pytest.approx([0.2, 0])
