"""Functions that differentiate inside: they are read as one graph, proved, and refused where they read values."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, jacrev, jvp, vjp, vmap

from analysis.check import check
from analysis.findings import Verdict
from analysis.proofs.balls import evaluate, exact
from analysis.proofs.intervals.graph import FunctionEnclosure, UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.tracing import read

GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(4, 2, generator=GENERATOR, dtype=torch.float64)
OUTPUT = torch.randn(4, generator=GENERATOR, dtype=torch.float64)
TURN = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
STATES = torch.randn(5, 2, generator=GENERATOR, dtype=torch.float64)
LINEAR = torch.nn.Linear(2, 2).double()


def potential(z: Tensor) -> Tensor:
    """(B, 2) -> (B,)"""
    return (torch.tanh(z @ WEIGHT.mT) * OUTPUT).sum(1) + 4 * (z**2).sum(1)


def at_one(x: Tensor) -> Tensor:
    """(2,) -> (), the same."""
    return (torch.tanh(WEIGHT @ x) * OUTPUT).sum() + 4 * (x**2).sum()


def slope(z: Tensor) -> Tensor:
    """The gradient of the potential, written out."""
    return (OUTPUT * (1 - torch.tanh(z @ WEIGHT.mT) ** 2)) @ WEIGHT + 8 * z


def by_autograd(z: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = z.detach().requires_grad_() if not z.requires_grad else z
        (found,) = torch.autograd.grad(potential(leaf).sum(), leaf, create_graph=z.requires_grad)
    return found


def by_vjp(z: Tensor) -> Tensor:
    value, back = vjp(potential, z)
    return back(torch.ones_like(value))[0]


SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "autograd.grad": by_autograd,
    "grad of a sum": lambda z: grad(lambda y: potential(y).sum())(z),
    "grad of each": vmap(grad(at_one)),
    "grad_and_value": lambda z: vmap(grad_and_value(at_one))(z)[0],
    "vjp": by_vjp,
    "jacrev": lambda z: vmap(jacrev(lambda x: at_one(x)[None]))(z)[:, 0],
    "autograd.functional": lambda z: torch.autograd.functional.jacobian(lambda y: potential(y).sum(), z),
}


@pytest.mark.parametrize("name", SLOPES)
def test_a_gradient_inside_is_the_gradient(name: str) -> None:
    graph = read(SLOPES[name], STATES)
    for state in STATES:
        found = evaluate(graph, exact(state)).value
        expected = slope(state[None])[0]
        assert [float(number.mid()) for number in found.reshape(-1)] == pytest.approx(expected.tolist(), rel=1e-12)
    bounds = FunctionEnclosure(SLOPES[name], STATES)(Interval(STATES - 0.01, STATES + 0.01), 1)
    assert bool(((bounds.value.low <= slope(STATES)) & (slope(STATES) <= bounds.value.high)).all())
    assert bool((bounds.value.high - bounds.value.low < 1).all())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # by PyTorch itself, for jvp
@pytest.mark.parametrize(
    "function",
    [
        lambda z: jvp(potential, (z,), (z @ TURN,))[1],
        lambda z: torch.autograd.functional.jvp(potential, z, z @ TURN)[1],
        lambda z: (vmap(grad(at_one))(z) * (z @ TURN)).sum(1),
    ],
)
def test_a_derivative_along_the_dynamics_is_read(function: Callable[[Tensor], Tensor]) -> None:
    graph = read(function, STATES)
    for state in STATES:
        found = evaluate(graph, exact(state)).value.reshape(-1)[0]
        assert float(found.mid()) == pytest.approx(float(slope(state[None])[0] @ (state @ TURN)), rel=1e-11)


def test_weights_given_by_name_are_read() -> None:
    def function(z: Tensor) -> Tensor:
        return functional_call(LINEAR, dict(LINEAR.named_parameters()), (z,))

    FunctionEnclosure(function, STATES)


@pytest.mark.parametrize(
    "function",
    [
        lambda z: grad(lambda y: potential(y).sum() * y[0, 0].item())(z),
        lambda z: grad(lambda y: (potential(y) if bool(y[0, 0] > 0) else 2 * potential(y)).sum())(z),
        lambda z: grad(lambda y: (potential(y) * torch.rand(1, dtype=torch.float64)).sum())(z),
        lambda z: vmap(lambda x: x * torch.rand(2, dtype=torch.float64), randomness="different")(z),
        lambda z: grad(lambda y: potential(y).sum() ** 2)(z),  # of a state it depends on the others
        lambda z: grad(lambda y: potential(y).sum() * sum(y.flatten().tolist()))(z),
    ],
    ids=["item", "branch", "random", "random in vmap", "the whole batch", "list"],
)
def test_what_reads_values_inside_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnboundedError):
        FunctionEnclosure(function, STATES)


def bowl(z: Tensor) -> Tensor:
    return (z**2).sum(1) + (z**4).sum(1)


def downhill(z: Tensor) -> Tensor:
    return -grad(lambda y: bowl(y).sum())(z)


def uphill(z: Tensor) -> Tensor:
    return -downhill(z)


def hamiltonian(z: Tensor) -> Tensor:
    """With friction on the second coordinate."""
    gradient = vmap(grad(lambda x: x[0] ** 2 + x[1] ** 2))(z)
    return gradient @ TURN.mT - gradient


@pytest.mark.parametrize(
    ("value", "velocity", "verdict"),
    [(bowl, downhill, Verdict.PROVED), (bowl, uphill, Verdict.REFUTED), (bowl, hamiltonian, Verdict.PROVED)],
)
def test_a_flow_along_its_own_gradient_is_judged(
    value: Callable[[Tensor], Tensor], velocity: Callable[[Tensor], Tensor], verdict: Verdict
) -> None:
    report = check(value, velocity, dim=2, claims=["decrease"], samples=1024, starts=4)
    assert report["decrease"].verdict is verdict


def test_the_proof_of_a_plain_function_does_not_load_the_compiler() -> None:
    program = """
import sys, torch
import stabdeq
from analysis.check import check
def value(z):
    return (z**2).sum(1)
def velocity(z):
    with torch.enable_grad():
        leaf = z if z.requires_grad else z.detach().requires_grad_()
        return -torch.autograd.grad((leaf**2).sum(), leaf, create_graph=z.requires_grad)[0]
assert check(value, velocity, dim=2, claims=["decrease"], samples=256, starts=2).holds
print("torch._dynamo" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]
