"""Where a plain iteration shows the difference: our layer returns TorchDEQ's states and statistics, and says what it has not."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stabdeq.adapters.torchdeq import get_deq
from stabdeq.errors import ConfigError

torchdeq = pytest.importorskip("torchdeq")
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")

SHIFT = torch.tensor([[1.0], [0.2]], dtype=torch.float64)


def contracting(z: Tensor) -> Tensor:
    return torch.cos(z + SHIFT) / 2


def overshooting(z: Tensor) -> Tensor:
    return SHIFT - 1.05 * z


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("f", "options", "call"),
    [
        (overshooting, {"f_solver": "simple_fixed_point_iter"}, {}),
        (overshooting, {"f_solver": "simple_fixed_point_iter", "core": "indexing", "indexing": [2, 4]}, {}),
        (overshooting, {"f_solver": "simple_fixed_point_iter"}, {"tau": 0.3}),
        (contracting, {}, {"tau": 0.5}),
        (contracting, {"f_stop_mode": "rel"}, {"tau": 0.5}),
        (contracting, {"core": "indexing", "indexing": [2, 4]}, {"tau": 0.5}),
        (contracting, {"n_states": 3, "f_max_iter": 6}, {}),
        (contracting, {"grad": 6, "sup_loc": [2, 6]}, {}),
        (contracting, {"ift": True, "f_max_iter": 3}, {}),
    ],
)
def test_states_and_what_is_told_of_them_are_torchdeqs(
    f: Callable[[Tensor], Tensor], options: dict[str, Any], call: dict[str, Any], training: bool
) -> None:
    options = {"f_tol": 1e-9, "f_max_iter": 7, **options}
    zero = torch.zeros(2, 1, dtype=torch.float64)
    (theirs, told), (ours, said) = (
        make(**options).train(training)(f, zero, solver_kwargs=dict(call)) for make in (torchdeq.get_deq, get_deq)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for name in ("abs_lowest", "rel_lowest", "nstep"):
        torch.testing.assert_close(said[name], told[name].double(), rtol=1e-6, atol=0)


def test_a_value_in_evaluation_is_the_same_with_a_gradient_and_without() -> None:
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    layer, zero = get_deq(ift=True, f_max_iter=3).eval(), torch.zeros(2, 1, dtype=torch.float64)
    with_gradient, _ = layer(lambda z: weight * contracting(z), zero)
    with torch.no_grad():
        without, _ = layer(lambda z: weight * contracting(z), zero)
    assert with_gradient[-1].requires_grad
    assert torch.equal(with_gradient[-1], without[-1])


@pytest.mark.parametrize("config", ["model.yaml", {"learning_rate": 0.1}, None])
def test_a_programs_own_argument_may_be_called_config(config: Any) -> None:
    assert get_deq(Namespace(config=config, f_max_iter=7)).options.f_max_iter == 7


def test_torchdeqs_configuration_of_a_namespace_is_read() -> None:
    held = torchdeq.utils.config.DEQConfig(Namespace(learning_rate=0.1, f_max_iter=7))
    assert get_deq(held).options.f_max_iter == 7


def test_what_leaves_nothing_to_evaluate_is_refused() -> None:
    for options, said in (
        ({"f_max_iter": "40"}, "f_max_iter='40': expected a number"),
        ({"f_max_iter": 10, "eval_factor": 0.05}, "is no evaluation"),
        ({"f_max_iter": 3, "n_states": 5}, "leaves a slice no evaluation"),
    ):
        with pytest.raises(ConfigError, match=said):
            get_deq(**options)
    for options in ({}, {"f_solver": "simple_fixed_point_iter"}):
        with pytest.raises(ConfigError, match="no samples"):
            get_deq(**options)(torch.cos, torch.zeros(0, 3))
    with pytest.raises(ConfigError, match=r"f returned \(2, 1\) for a state \(2, 3\)"):
        get_deq(f_solver="simple_fixed_point_iter")(lambda z: z[:, :1], torch.zeros(2, 3))
