"""``get_deq`` of ours in the place of TorchDEQ's: the same states and gradients, the exact gradient, and no option that is dropped."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stabdeq.adapters.torchdeq import EquilibriumLayer, TorchDEQModel, get_deq
from stabdeq.errors import ConfigError
from stabdeq.solvers.implicit import InexactGradientWarning

torchdeq = pytest.importorskip("torchdeq")


@pytest.mark.parametrize("solver", ["anderson", "broyden", "fixed_point_iter", "simple_fixed_point_iter"])
def test_it_solves_in_inference_mode(solver: str) -> None:
    with torch.inference_mode():
        (z,), _ = get_deq(f_solver=solver).eval()(lambda z: 0.5 * z + 1, torch.zeros(2, 3))
    assert z == pytest.approx(torch.full((2, 3), 2.0), abs=1e-2)


class Program(nn.Module):
    """z = tanh(W z + V x), a contraction, in the dtype of ``x``."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(5, 4, generator=generator).to(dtype)
        self.inject = nn.Parameter(torch.randn(4, 3, generator=generator).to(dtype))
        matrix = torch.randn(3, 3, generator=generator)
        self.matrix = nn.Parameter((0.7 * matrix / torch.linalg.matrix_norm(matrix, 2)).to(dtype))
        self.weights = torch.randn(5, 3, generator=generator).to(dtype)

    def step(self, z: Tensor) -> Tensor:
        return torch.tanh(z @ self.matrix + self.x @ self.inject)

    def run(self, deq: nn.Module) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
        """Return the states, the gradient of a loss of all, and what is told of the solve."""
        states, info = deq(self.step, torch.zeros_like(self.weights))
        return states, self.gradient(sum((z * self.weights).sum() for z in states)), info

    def gradient(self, loss: Any) -> Tensor:
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss, (self.inject, self.matrix))])

    def unrolled(self, steps: int = 200) -> Tensor:
        z = torch.zeros_like(self.weights)
        for _ in range(steps):
            z = self.step(z)
        return z


@pytest.mark.parametrize(
    "options",
    [
        {"ift": True, "f_tol": 1e-7, "b_tol": 1e-9, "f_max_iter": 80, "b_max_iter": 90},
        {"hook_ift": True, "f_solver": "anderson", "b_solver": "anderson", "f_tol": 1e-7, "f_stop_mode": "rel"},
        {"ift": True, "f_solver": "broyden", "b_solver": "broyden", "f_tol": 1e-7, "core": "indexing"},
    ],
)
def test_the_implicit_gradient_is_that_of_the_unrolled_iteration(options: dict[str, Any]) -> None:
    program = Program()
    states, gradient, info = program.run(get_deq(**options))
    exact = program.unrolled()
    torch.testing.assert_close(states[-1], exact, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, program.gradient((exact * program.weights).sum()), rtol=1e-5, atol=1e-5)
    key = f"{options.get('f_stop_mode', 'abs')}_lowest"
    assert float(info[key].max()) <= 1e-7


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"grad": 4, "tau": 0.7},
        {"n_states": 3, "f_max_iter": 10},
        {"core": "indexing", "n_states": 3, "f_max_iter": 11},
        {"indexing": [2, 5], "f_max_iter": 9, "grad": [1, 2, 3]},
        {"core": "indexing", "indexing": [2, 5], "f_max_iter": 9, "grad": [1, 2, 3]},
        {"grad": 6, "sup_gap": 2},
        {"grad": 6, "sup_loc": [2, 5]},
        {"f_solver": "simple_fixed_point_iter", "f_max_iter": 7},
    ],
)
def test_states_and_gradients_are_torchdeqs_where_both_iterate_plainly(options: dict[str, Any]) -> None:
    options = {"f_tol": 1e-9, **options}
    program = Program()
    theirs, ours = program.run(torchdeq.get_deq(**options)), program.run(get_deq(**options))
    assert len(theirs[0]) == len(ours[0])
    for one, other in zip(theirs[0], ours[0], strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-8)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-7, atol=1e-8)


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_what_is_told_of_a_solve_has_torchdeqs_names_and_values() -> None:
    program, adjoints = Program(), []
    options = {"ift": True, "f_tol": 1e-4, "b_tol": 1e-6}
    *_, theirs = program.run(torchdeq.get_deq(**options))
    states, ours = get_deq(**options)(program.step, torch.zeros(5, 3).double(), backward_writer=adjoints.append)
    states[-1].sum().backward()
    assert set(ours) == set(theirs) == set(adjoints[0])
    assert int(ours["nstep"].max()) == int(theirs["nstep"].max())
    for name in ("abs_trace", "rel_trace"):  # theirs begins with a placeholder
        torch.testing.assert_close(ours[name][:, :3], theirs[name][:, 1:4].double(), rtol=1e-6, atol=0)
    assert float(ours["abs_lowest"].max()) <= 1e-4
    assert float(adjoints[0]["abs_lowest"].max()) <= 1e-6


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_the_gradient_of_the_jacobians_regularisation_passes_through_the_equilibrium() -> None:
    from torchdeq.loss import jac_reg

    def regularised(z: Tensor) -> Tensor:
        torch.manual_seed(1)
        return program.gradient(jac_reg(program.step(z), z))

    program = Program()
    states, _ = get_deq(ift=True, f_tol=1e-10, b_tol=1e-10, f_max_iter=90, b_max_iter=99)(
        program.step, torch.zeros(5, 3).double()
    )
    torch.testing.assert_close(regularised(states[-1]), regularised(program.unrolled()), rtol=1e-6, atol=1e-8)


def test_several_states_come_back_as_a_list_and_are_one_system() -> None:
    def step(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * b.flatten(1) + 1, 0.5 * a.view(2, 2, 2)

    states, _ = get_deq(ift=True, f_tol=1e-6)(step, (torch.zeros(2, 4), torch.zeros(2, 2, 2)))
    a, b = states[-1]
    torch.testing.assert_close(a, torch.full((2, 4), 4 / 3), rtol=0, atol=1e-4)
    torch.testing.assert_close(b, torch.full((2, 2, 2), 2 / 3), rtol=0, atol=1e-4)
    single, _ = get_deq(f_tol=1e-6)(torch.cos, torch.tensor(0.0))
    assert single[-1].shape == ()
    assert float(single[-1]) == pytest.approx(0.739085, abs=1e-5)


def test_evaluation_mode_has_its_own_budget_and_the_spectral_radius() -> None:
    program = Program()
    deq = get_deq(ift=True, f_tol=1e-9, eval_f_max_iter=3).eval()
    states, info = deq(program.step, torch.zeros(5, 3).double(), sradius_mode=True)
    assert len(states) == 1
    assert info["abs_trace"].shape == (5, 3)
    states, info = get_deq(f_tol=1e-9).eval()(
        lambda z: z @ program.matrix + 1, torch.zeros(5, 3).double(), sradius_mode=True
    )
    radius = float(torch.linalg.eigvals(program.matrix.detach()).abs().max())
    torch.testing.assert_close(info["sradius"], torch.full((5,), radius).double(), rtol=0.05, atol=0)


def test_large_and_small_states_stop_where_the_mode_says() -> None:
    size = torch.tensor([[1e-2], [1e0], [1e3]], dtype=torch.float64)
    for mode in ("abs", "rel"):
        _, info = get_deq(f_tol=1e-3, f_stop_mode=mode, f_max_iter=100)(
            lambda z: 0.7 * z + size, torch.zeros(3, 1).double()
        )
        assert float(info[f"{mode}_lowest"].max()) <= 1e-3
        _, coarse = get_deq(f_tol=1e-3, f_stop_mode=mode, f_max_iter=100)(
            lambda z: 0.7 * z + size[:1], torch.zeros(1, 1).double()
        )
        steps = int(coarse["nstep"])
        assert steps < 12 if mode == "abs" else steps > 12  # 0.01 / 0.3 is small already, in absolute terms


def test_nan_is_not_hidden_and_inexact_gradients_are_told() -> None:
    parameter = torch.ones(1, requires_grad=True)

    def broken(z: Tensor) -> Tensor:  # its third value is NaN in the second row
        calls.append(z)
        lost = torch.tensor([[False], [True]]) & (len(calls) == 3)
        return torch.where(lost, torch.nan, 0.5 * z) + parameter

    for options in ({"ift": True}, {}):
        calls: list[Tensor] = []
        states, _ = get_deq(**options)(broken, torch.zeros(2, 1))
        assert states[-1].isnan().flatten().tolist() == [False, True]
    slow, _ = get_deq(ift=True, b_max_iter=2, f_max_iter=200)(lambda z: 0.9 * z + parameter, torch.zeros(2, 1))
    with pytest.warns(InexactGradientWarning):
        slow[-1].sum().backward()


def test_a_second_derivative_is_refused() -> None:
    parameter = torch.ones(1, requires_grad=True)
    states, _ = get_deq(ift=True)(lambda z: torch.tanh(z + parameter) / 2, torch.zeros(2, 1))
    with pytest.raises(ConfigError, match="name them, in"):
        torch.autograd.grad(states[-1].sum(), parameter, create_graph=True)


def as_namespace(**options: Any) -> Namespace:
    return Namespace(learning_rate=0.1, norm_type="weight_norm", **options)


@pytest.mark.parametrize("wrap", [dict, as_namespace, lambda **options: torchdeq.utils.config.DEQConfig(options)])
def test_options_come_from_arguments_and_keywords_come_first(wrap: Callable[..., Any]) -> None:
    options = get_deq(wrap(f_max_iter=7, f_solver="anderson", gamma=0.8), f_max_iter=9).options
    assert (options.f_max_iter, options.f_solver) == (9, "anderson")


def test_all_arguments_that_torchdeq_adds_are_read() -> None:
    parser = ArgumentParser()
    torchdeq.add_deq_args(parser)
    assert isinstance(get_deq(parser.parse_args([])), EquilibriumLayer)
    assert get_deq(vars(parser.parse_args(["--ift"]))).options.is_implicit


def test_an_option_that_we_do_not_have_is_refused_and_ours_are_named() -> None:
    def refusal(call: Callable[[], Any]) -> str:
        with pytest.raises(ConfigError) as found:
            call()
        return str(found.value)

    assert "did you mean 'f_max_iter'" in refusal(lambda: get_deq(f_max_iters=3))
    assert "did you mean 'anderson'" in refusal(lambda: get_deq(f_solver="andersen"))
    assert "Valid: indexing, sliced" in refusal(lambda: get_deq(core="mine"))
    assert "no_stat" in refusal(lambda: get_deq(no_stat=True))
    assert "grad=0" in refusal(lambda: get_deq(grad=0))
    assert "f_tol=0" in refusal(lambda: get_deq(f_tol=0))
    assert "b_tol=1e-09 is below" in refusal(
        lambda: get_deq(ift=True, b_tol=1e-9)(lambda z: z * parameter, torch.ones(1, 1))
    )
    assert "give one, or one each" in refusal(lambda: get_deq(grad=[1, 2]))
    assert "rising numbers" in refusal(lambda: get_deq(indexing=[5, 2]))
    assert "samples no state" in refusal(lambda: get_deq(sup_gap=3)(torch.cos, torch.zeros(1, 1)))
    layer, zero = get_deq(f_solver="anderson"), torch.zeros(2, 1)
    for name, said in {"lam": "relative", "tol": "f_tol of", "return_final": "least residual", "ls": "tau, m"}.items():
        assert said in refusal(lambda name=name: layer(torch.cos, zero, solver_kwargs={name: 1}))
    assert layer(torch.cos, zero, solver_kwargs={"m": 3, "tau": 0.9, "f_max_iter": 30})[0][0].shape == (2, 1)
    assert "expected a tensor, or a tuple" in refusal(lambda: layer(torch.cos, {"z": zero}))


parameter = nn.Parameter(torch.full((1,), 0.5))


def test_a_model_with_our_layer_is_audited_through_the_same_adapter() -> None:
    import stabdeq

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inner, self.deq = nn.Linear(4, 4), get_deq(f_solver="anderson", f_tol=1e-6)

        def cell(self, z: Tensor, h: Tensor) -> Tensor:
            return 0.5 * torch.tanh(self.inner(z)) + h

    model = Model()
    parts: dict[str, Any] = {"inject": lambda x: x.flatten(1), "cell": model.cell, "readout": lambda z: z[:, :2]}
    adapter = TorchDEQModel(model, model.deq, tolerance=1e-3, **parts)
    report = stabdeq.audit(adapter, torch.rand(4, 1, 2, 2), torch.arange(4) % 2, checks=["equilibrium", "convergence"])
    assert report.exit_code == 0


def test_the_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import torchdeq_drop_in

    assert torchdeq_drop_in.main(steps=1) == 0
    lines = capsys.readouterr().out.splitlines()
    apart = [float(line.partition("at most ")[2].split()[0]) for line in lines]
    assert len(apart) == 3
    assert max(apart) < 1e-3
