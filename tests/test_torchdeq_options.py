"""The options of TorchDEQ's layers: their defaults, the last values that are taken, and what they come to."""

import pytest
import torch
from torch import Tensor, nn

from stabdeq.adapters.deq_layer import get_deq
from stabdeq.adapters.deq_options import Options, read_options, resolvable
from stabdeq.adapters.looped import looped
from stabdeq.adapters.torchdeq import TorchDEQModel
from stabdeq.errors import ConfigError


def test_the_defaults() -> None:
    own = Options()
    assert (own.f_max_iter, own.b_max_iter, own.f_tol, own.b_tol) == (40, 40, 1e-3, 1e-6)
    assert (own.f_solver, own.b_solver, own.f_stop_mode, own.b_stop_mode) == (*["fixed_point_iter"] * 2, "abs", "abs")
    assert (own.eval_factor, own.eval_f_max_iter, own.grad, own.tau, own.n_states) == (1, 0, 1, 1, 1)
    assert (own.ift, own.hook_ift, own.sup_gap, own.sup_loc, own.indexing) == (False, False, -1, None, None)
    assert read_options(None, {}) == own


def test_the_tolerance_that_is_judged_by_where_none_is_given() -> None:
    parts = {"inject": lambda x: x, "cell": lambda z, h: h, "readout": lambda z: z}
    assert TorchDEQModel(nn.Identity(), nn.Identity(), **parts).tolerance == 1e-3  # pyrefly: ignore
    assert looped(lambda z, h: h, lambda x: x, lambda z: z, loops=1).tolerance == 1e-3


def test_damping_is_of_plain_iterations_alone() -> None:
    plain = Options(solver_kwargs={"tau": 0.5})
    assert (plain.damping, dict(plain.undamped)) == (0.5, {})
    anderson = Options(f_solver="anderson", solver_kwargs={"tau": 0.5, "m": 3})
    assert (anderson.damping, dict(anderson.undamped)) == (1, {"tau": 0.5, "m": 3})
    assert (Options().damping, dict(Options().undamped)) == (1, {})


@pytest.mark.parametrize(
    ("options", "places"),
    [
        (Options(n_states=1), [10]),
        (Options(n_states=2), [5, 10]),
        (Options(n_states=3), [3, 6, 9]),
        (Options(n_states=3, core="indexing"), [4, 7, 10]),
        (Options(indexing=[1, 9]), [1, 9, 10]),
    ],
)
def test_which_states_are_returned(options: Options, places: list[int]) -> None:
    assert options.places(10) == places


@pytest.mark.parametrize("indexing", [[0], [10], [3, 3], [4, 2]])
def test_places_that_do_not_rise_are_refused(indexing: list[int]) -> None:
    with pytest.raises(ConfigError, match="expected rising numbers from 1 to below 10"):
        Options(indexing=indexing, f_max_iter=10)


def test_evaluations_in_training_and_after_it() -> None:
    assert [Options(f_max_iter=9, eval_factor=1.5).evaluations(training) for training in (True, False)] == [9, 13]
    assert Options(f_max_iter=9, eval_f_max_iter=1).evaluations(training=False) == 1


def test_supervision_along_the_gradients_steps() -> None:
    """From the state 0 of z = z + 1, step by step; a gap of 0 or below, and no place, is the last alone."""

    def states(**options: object) -> list[float]:
        found, _ = get_deq(grad=4, f_max_iter=1, f_solver="simple_fixed_point_iter", **options)(step, torch.zeros(1, 1))
        return [float(one.detach()) - 1 for one in found]  # one evaluation is the solve's own

    weight = torch.ones(1, requires_grad=True)

    def step(z: Tensor) -> Tensor:
        return z + weight

    assert states() == states(sup_gap=0) == states(sup_gap=-1) == [4]
    assert states(sup_gap=2) == [2, 4]
    assert states(sup_gap=4) == [4]
    assert states(sup_loc=[1, 3]) == [1, 3, 4]
    with pytest.raises(ConfigError, match="samples no state"):
        states(sup_gap=5)


def test_the_least_tolerance_of_the_adjoint_is_taken() -> None:
    weight = nn.Parameter(torch.full((1,), 0.5, dtype=torch.float64))
    least = resolvable(torch.float64)
    assert least == 4 * torch.finfo(torch.float64).eps
    states, _ = get_deq(ift=True, b_tol=least)(lambda z: weight * z + 1, torch.zeros(2, 1).double())
    assert states[-1].requires_grad
    with pytest.raises(ConfigError, match="is below what torch"):
        get_deq(ift=True, b_tol=least / 2)(lambda z: weight * z + 1, torch.zeros(2, 1).double())


def test_a_map_that_ignores_its_state_has_the_spectral_radius_0() -> None:
    weight = nn.Parameter(torch.ones(1))
    _, info = get_deq().eval()(lambda z: weight * torch.ones_like(z), torch.zeros(3, 2), sradius_mode=True)
    assert info["sradius"].tolist() == pytest.approx([0, 0, 0], abs=1e-30)
