"""The projection's properties, at extreme scales, against exact arithmetic and a quadratic program."""

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import InputConvexLyapunov, project, stabilised_field
from stabdeq.lyapunov.claims import decay, equilibrium, tolerance
from stabdeq.solvers import norm

DTYPES = [torch.float32, torch.float64]
both_widths = pytest.mark.parametrize("dtype", DTYPES, ids=str)

# Exponents far beyond any dtype's, and digits enough that these sums are exact next to a float's roundoff.
EXACT = Context(prec=80, Emin=-999999, Emax=999999)


def exact(vector: Tensor) -> list[Decimal]:
    return [Decimal(number) for number in vector.double().tolist()]


def dot(a: list[Decimal], b: list[Decimal]) -> Decimal:
    return sum((x * y for x, y in zip(a, b, strict=True)), Decimal(0))


def length(vector: list[Decimal]) -> Decimal:
    return dot(vector, vector).sqrt()


def minus(a: list[Decimal], b: list[Decimal]) -> list[Decimal]:
    return [x - y for x, y in zip(a, b, strict=True)]


@dataclass(frozen=True)
class Case:
    """A field F and the gradient and value of V at one state, (1, n), (1, n), (1,)."""

    field: Tensor
    gradient: Tensor
    value: Tensor
    alpha: float

    @property
    def dtype(self) -> torch.dtype:
        return self.field.dtype

    @property
    def tolerance(self) -> Decimal:
        return Decimal(tolerance(self.dtype, self.field.shape[1]))

    @property
    def smallest(self) -> Decimal:
        """The absolute error of one component where rounding is no longer relative: a few denormal steps."""
        return 4 * Decimal(torch.finfo(self.dtype).smallest_normal) * Decimal(torch.finfo(self.dtype).eps)

    def project(self, field: Tensor | None = None) -> Tensor:
        return project(self.field if field is None else field, self.gradient, self.value, self.alpha)

    def excess(self, field: Tensor) -> Decimal:
        """grad V . field + alpha V, exactly."""
        return dot(exact(self.gradient[0]), exact(field[0])) + Decimal(self.alpha) * exact(self.value)[0]

    def allowance(self, field: Tensor) -> Decimal:
        """What rounding may leave of that: a share of ||grad V|| ||field|| + alpha V, or denormal steps in each component."""
        steepness = length(exact(self.gradient[0]))
        scale = steepness * length(exact(field[0])) + Decimal(self.alpha) * exact(self.value)[0]
        return self.tolerance * scale + steepness * self.smallest * self.field.shape[1]

    def field_allowance(self, *fields: Tensor) -> Decimal:
        """What rounding may change in a projected field: a share of the fields' and of the correction's length."""
        rate = Decimal(self.alpha) * exact(self.value)[0] / length(exact(self.gradient[0]))
        size = sum((length(exact(field[0])) for field in fields), rate)
        return self.tolerance * size + self.smallest * self.field.shape[1]


def directions(size: int) -> st.SearchStrategy[list[float]]:
    """Vectors of about unit size; small integers among them, so that symmetric, parallel and orthogonal pairs appear."""
    integers = st.lists(st.integers(-3, 3).map(float), min_size=size, max_size=size)
    reals = st.lists(st.floats(-1, 1).map(lambda x: x if abs(x) > 1e-6 else 0.0), min_size=size, max_size=size)
    return integers | reals


@st.composite
def cases(draw: st.DrawFn, *, dtype: torch.dtype | None = None, extreme: bool = True) -> Case:
    """Fields and gradients of any scale from 1e-30 to 1e30, denormals included.

    V follows from the gradient: V / ||grad V|| is at most the distance to the centre, since V is convex. Where alpha V or
    alpha V / ||grad V|| cannot be represented (V underflows but its gradient does not), the true field has no neighbour
    in the dtype, so V is 0 or both are normal numbers.
    """
    dtype = dtype or draw(st.sampled_from(DTYPES))
    info = torch.finfo(dtype)
    denormal = -40 if dtype == torch.float32 else -315
    size = draw(st.integers(1, 8))
    exponents = st.integers(-30, 30) if extreme else st.integers(-2, 2)
    gradient_exponents = exponents | st.just(denormal) if extreme else exponents
    alpha = draw(st.sampled_from([1e-3, 0.1, 1.0, 2.5, 10.0]))

    def vector(exponent: int) -> Tensor:
        numbers = [Decimal(number).scaleb(exponent) for number in draw(directions(size))]
        return torch.tensor([[float(number) for number in numbers]], dtype=torch.float64).to(dtype)

    gradient = vector(draw(gradient_exponents))
    assume(bool((gradient != 0).any()))
    aligned = draw(st.sampled_from([None, None, -1.0, 1.0]))
    field_exponent = draw(gradient_exponents)
    if aligned is None:
        field = vector(field_exponent)
    else:
        unit = gradient / gradient.abs().amax() if not gradient.abs().amax().isinf() else gradient
        field = (aligned * unit.double() * float(Decimal(1).scaleb(field_exponent))).to(dtype)
    with localcontext(EXACT):
        distance = Decimal(draw(st.floats(0.1, 1))).scaleb(draw(exponents))
        wanted = draw(st.sampled_from([0, 1])) * distance * length(exact(gradient[0]))
        smallest, largest = Decimal(info.smallest_normal), Decimal(info.max) / 100
        representable = smallest <= min(wanted, distance) * Decimal(min(alpha, 1)) and wanted * 10 <= largest
        value = torch.tensor([float(wanted) if representable else 0.0], dtype=torch.float64).to(dtype)
    return Case(field, gradient, value, alpha)


@given(cases())
def test_decay_within_the_scaled_rounding_bound(case: Case) -> None:
    projected = case.project()
    assert projected.isfinite().all()
    with localcontext(EXACT):
        assert case.excess(projected) <= case.allowance(projected)


@given(cases(extreme=False))
def test_decay_by_the_claim_that_audits_use(case: Case) -> None:
    projected = case.project()
    assert decay(case.gradient, projected, case.value, case.alpha).relative <= tolerance(case.dtype, projected.shape[1])


@pytest.mark.parametrize(("steep", "fast"), [(1e25, 1e-3), (1e-25, 1.0), (1.0, 1e25), (1.0, 1e-25)])
def test_claims_see_violations_whose_norms_leave_the_range(steep: float, fast: float) -> None:
    """An infinite or vanished scale would call each of these fields, straight up V, within rounding."""
    gradient, velocity = torch.full((1, 3), steep), torch.full((1, 3), fast)
    for violation in (decay(gradient, velocity, torch.zeros(1), rate) for rate in (1.0, 0.0)):
        assert violation.relative.item() == pytest.approx(1, rel=1e-5)
    assert equilibrium(velocity, torch.zeros(1)).relative.item() == pytest.approx(1, rel=1e-5)


@given(cases())
def test_equality_where_it_acts(case: Case) -> None:
    """V-dot = -alpha V where F violates the bound: the nearest field, not just any that decays.

    To the field's own roundoff only: rounding that makes V fall faster is left as it is.
    """
    projected = case.project()
    with localcontext(EXACT):
        assume(case.excess(case.field) > case.allowance(case.field))
        assert case.excess(projected) >= -case.allowance(case.field)


@given(cases())
def test_idempotent(case: Case) -> None:
    once = case.project()
    twice = case.project(once)
    with localcontext(EXACT):
        change = length(minus(exact(twice[0]), exact(once[0])))
        assert change <= case.field_allowance(once)


@given(cases())
def test_identity_where_the_bound_holds(case: Case) -> None:
    with localcontext(EXACT):
        assume(case.excess(case.field) < -case.allowance(case.field))
    assert torch.equal(case.project(), case.field)


def test_a_field_that_falls_fast_enough_stays_where_it_is_0_in_one_place() -> None:
    field = torch.tensor([[-3.0, 0.0], [-3.0, 1e-300], [0.0, -3.0]], dtype=torch.float64)
    gradient, value = (
        torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64),
        torch.full((3,), 0.5).double(),
    )
    assert torch.equal(project(field, gradient, value, 1.0), field)


@given(cases(), st.data())
def test_non_expansive(case: Case, data: st.DataObject) -> None:
    exponent = data.draw(st.integers(-30, 30))
    numbers = [float(Decimal(x).scaleb(exponent)) for x in data.draw(directions(case.field.shape[1]))]
    other = torch.tensor([numbers], dtype=torch.float64).to(case.dtype)
    first, second = case.project(), case.project(other)
    with localcontext(EXACT):
        before = length(minus(exact(case.field[0]), exact(other[0])))
        after = length(minus(exact(first[0]), exact(second[0])))
        assert after <= before + case.field_allowance(case.field, other)


@given(cases())
def test_correction_is_along_the_gradient_and_never_larger_than_needed(case: Case) -> None:
    projected = case.project()
    with localcontext(EXACT):
        correction = minus(exact(case.field[0]), exact(projected[0]))
        gradient = exact(case.gradient[0])
        along = dot(correction, gradient) / dot(gradient, gradient)
        rest = length(minus(correction, [along * x for x in gradient]))
        allowance = case.field_allowance(case.field)
        assert rest <= allowance
        needed = max(Decimal(0), case.excess(case.field)) / length(gradient)
        assert abs(length(correction) - needed) <= allowance


@both_widths
@pytest.mark.parametrize("size", [2, 3, 7])
def test_field_along_a_symmetric_gradient(dtype: torch.dtype, size: int) -> None:
    """All digits cancel: what rounding leaves must not point outwards."""
    gradient = torch.full((1, size), -2.0, dtype=dtype)
    for field_size in (1e-20, 1.0, 1e20):
        for value in (0.0, 1e-25):
            case = Case(field_size * gradient, gradient, torch.tensor([value], dtype=dtype), 1.0)
            with localcontext(EXACT):
                assert case.excess(case.project()) <= case.allowance(case.project())


@both_widths
def test_field_along_a_gradient_that_is_zero_in_some_places(dtype: torch.dtype) -> None:
    """What rounding leaves is told from the size of the largest component, not of the least."""
    gradient = torch.tensor([[-2.0, -3.0, 5.0, 0.0], [0.0, 0.1, 0.7, 0.3]], dtype=dtype)
    value = torch.full((2,), 1e-25, dtype=dtype)
    foot = -value[:, None] * gradient / gradient.square().sum(1, keepdim=True)
    torch.testing.assert_close(project(1.7 * gradient, gradient, value, 1.0), foot, rtol=1e-5, atol=0)


def test_value_among_the_denormals() -> None:
    """Next to the centre V is denormal long before its gradient is: the rate alpha V / ||grad V|| keeps its digits."""
    value, gradient = torch.tensor([1e-44]), torch.full((1, 16), 1e-30)
    case = Case(torch.zeros(1, 16), gradient, value, 1.0)
    with localcontext(EXACT):
        assert abs(case.excess(case.project())) <= case.allowance(case.project())


@both_widths
def test_many_states_at_once_as_one_by_one(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    field, gradient = torch.randn(2, 64, 5, generator=generator, dtype=dtype)
    value = torch.rand(64, generator=generator, dtype=dtype)
    gradient[7] = 0
    together = project(field, gradient, value, 0.7)
    apart = [project(field[i : i + 1], gradient[i : i + 1], value[i : i + 1], 0.7) for i in range(64)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("seed", range(6))
def test_nearest_field_against_a_quadratic_program(seed: int) -> None:
    import cvxpy

    generator = torch.Generator().manual_seed(seed)
    field, gradient = torch.randn(2, 1, 5, generator=generator, dtype=torch.float64)
    value = torch.rand(1, generator=generator, dtype=torch.float64)
    variable = cvxpy.Variable(5)
    constraint = gradient[0].numpy() @ variable <= -1.5 * value.item()
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(variable - field[0].numpy())), [constraint])
    problem.solve(solver="CLARABEL")
    projected = project(field, gradient, value, 1.5)
    torch.testing.assert_close(projected[0], torch.from_numpy(variable.value), rtol=0, atol=1e-6)


@given(cases(dtype=torch.float64, extreme=False), st.integers(0, 2**16))
def test_rotation_equivariance(case: Case, seed: int) -> None:
    size = case.field.shape[1]
    drawn = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rotation = torch.linalg.qr(drawn).Q
    turned = project(case.field @ rotation.T, case.gradient @ rotation.T, case.value, case.alpha)
    with localcontext(EXACT):
        allowance = float(4 * case.field_allowance(case.field))
    assert (turned - case.project() @ rotation.T).norm() <= allowance


@pytest.mark.parametrize("exponent", [-60, 0, 60])
def test_scaling(exponent: int) -> None:
    """V and grad V by one power of two, F by another: the same projection, scaled, to the last bit."""
    generator = torch.Generator().manual_seed(1)
    field, gradient = torch.randn(2, 32, 4, generator=generator)
    value = torch.rand(32, generator=generator)
    factor = 2.0**exponent
    plain = project(field, gradient, value, 0.5)
    assert torch.equal(project(field, factor * gradient, factor * value, 0.5), plain)
    assert torch.equal(project(factor * field, gradient, factor * value, 0.5), factor * plain)


# At the centre and next to it


@both_widths
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e30])
def test_field_at_the_centre_is_left_alone(dtype: torch.dtype, size: float) -> None:
    field = size * torch.tensor([[1.0, -2.0, 3.0]], dtype=dtype)
    field.requires_grad_()
    gradient = torch.zeros(1, 3, dtype=dtype, requires_grad=True)
    value = torch.zeros(1, dtype=dtype, requires_grad=True)
    projected = project(field, gradient, value, 1.0)
    assert torch.equal(projected, field)
    projected.sum().backward()
    assert torch.equal(field.grad, torch.ones_like(field))
    for tensor in (gradient, value):
        assert tensor.grad.isfinite().all()


@both_widths
def test_centre_beside_other_states(dtype: torch.dtype) -> None:
    """Derivatives too: a masked 0 / 0 would be NaN in the backward pass."""
    gradient = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=dtype, requires_grad=True)
    field = torch.ones(2, 2, dtype=dtype, requires_grad=True)
    projected = project(field, gradient, torch.tensor([0.0, 1.0], dtype=dtype), 1.0)
    torch.testing.assert_close(projected, torch.tensor([[1.0, 1.0], [-0.5, -0.5]], dtype=dtype))
    projected.square().sum().backward()
    assert gradient.grad.isfinite().all()
    assert field.grad.isfinite().all()


def test_derivatives_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(2)
    field, gradient = (torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in "ab")
    value = torch.rand(6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, g, v: project(f, g, v, 0.7), (field, gradient, value))


@both_widths
@pytest.mark.parametrize("exponent", [-18, -15, -8, -4, 0])
def test_next_to_the_centre_of_a_learned_function(dtype: torch.dtype, exponent: int) -> None:
    """The correction stays bounded: ||F^ - F|| <= ||F|| + alpha ||z - c||, by convexity."""
    torch.manual_seed(0)
    lyapunov = InputConvexLyapunov(6, LyapunovConfig(hidden=16, alpha=2.0), "origin").to(dtype)
    generator = torch.Generator().manual_seed(3)
    offset = 10.0**exponent * torch.randn(200, 6, generator=generator, dtype=dtype)
    for size in (0.0, 1e-7, 1.0):
        field = size * torch.randn(200, 6, generator=generator, dtype=dtype)
        with torch.no_grad():
            value, gradient = lyapunov(offset)
            projected = stabilised_field(field, offset, torch.zeros_like(offset), lyapunov)
        change = norm(projected - field)
        assert (change <= (norm(field) + 2 * norm(offset)) * (1 + tolerance(dtype, 6))).all()
        for i in range(0, 200, 10):
            case = Case(field[i : i + 1], gradient[i : i + 1], value[i : i + 1], 2.0)
            with localcontext(EXACT):
                assert case.excess(projected[i : i + 1]) <= case.allowance(projected[i : i + 1])


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_expanding_field_decays_at_exactly_the_rate(alpha: float) -> None:
    """ZOO 12: F = z, V = ||z||^2; an Euler step beyond 4 / alpha increases V."""
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    value, gradient = z.square().sum(1), 2 * z
    projected = project(z, gradient, value, alpha)
    torch.testing.assert_close(projected, -alpha / 2 * z)
    assert (decay(gradient, projected, value, alpha).relative.abs() <= tolerance(torch.float64, 4)).all()
    for step, decreases in ((3.9 / alpha, True), (4.1 / alpha, False)):
        assert bool(((z + step * projected).square().sum(1) < value).all()) is decreases


def test_origin_centred_projection_leaves_no_equilibrium() -> None:
    """ZOO 13: with V centred at 0 no state but 0 can rest, and 0 rests only where f(0, h) = 0."""
    h = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64).relu()
    z = torch.randn(500, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    z = torch.cat([z, h])
    projected = project(h - z, 2 * z, z.square().sum(1), 1.0)
    assert (projected.norm(dim=1) >= 0.5 * z.norm(dim=1) * (1 - 1e-12)).all()
    assert torch.equal(project(h, 0 * h, torch.zeros(1, dtype=torch.float64), 1.0), h)
