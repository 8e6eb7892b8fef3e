"""Functions that are no function of a batch of states: one sentence says what V and f must be, and how to wrap what was given."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from analysis.check import check
from stabdeq.errors import ConfigError

SINGLE = torch.eye(2)


def energy(z: Any) -> Any:
    return z[:, 0] ** 2 + z[:, 1] ** 2


VALUES = {
    "one state": (lambda z: z[0] ** 2 + z[1] ** 2, "it takes one state: give torch.vmap(V)"),
    "the sum over all": (lambda z: (z**2).sum(), "it takes one state: give torch.vmap(V)"),
    "one array": (
        lambda z: float(np.sum(np.asarray(z) ** 2)),
        "it takes one state: give lambda z: numpy.apply_along_axis(V, 1, z)",
    ),
    "float32": (
        lambda z: ((z @ SINGLE) * z).sum(1),
        "it computes with float32: make its constants and weights float64",
    ),
    "another dim": (
        lambda z: z @ torch.ones(3, dtype=torch.float64),
        "it does not compute with 2 coordinates: is dim right?",
    ),
}
VELOCITIES = {
    "time": (lambda t, x: -x, "it takes the time too: give lambda z: f(0, z)"),
    "an input": (lambda z, u: -z + u, "it takes two arguments, z and u: fix one, as in lambda z: f(z, 0)"),
    "a list": (lambda z: [-z[:, 0], -z[:, 1]], "it returns a list: give lambda z: torch.stack(f(z), 1)"),
    "a list of one state": (
        lambda z: [z[1], -z[0]],
        "it takes one state and returns a list: give lambda z: torch.stack(f(z.T), 1)",
    ),
    "a list of numbers": (
        lambda z: [math.sin(z[1]), -math.sin(z[0])],
        "it takes one state: give lambda z: numpy.apply_along_axis(f, 1, z)",
    ),
    "a list of arrays": (
        lambda z: [-np.asarray(z)[:, 0], -np.asarray(z)[:, 1]],
        "it returns a list: give lambda z: numpy.stack(f(z), 1)",
    ),
    "another dim": (
        lambda z: torch.stack([z[:, 1], z[:, 2]], 1),
        "it does not compute with 2 coordinates: is dim right?",
    ),
}


def refusal(V: Callable[[Any], Any], f: Callable[..., Any] | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        check(V, f, dim=2)
    return str(refused.value)


@pytest.mark.parametrize("name", VALUES)
def test_a_value(name: str) -> None:
    function, advice = VALUES[name]
    said = refusal(function)
    assert said.startswith("V must take states (B, 2), float64, one a row, and return values (B,): ")
    assert advice in said


@pytest.mark.parametrize("name", VELOCITIES)
def test_a_velocity(name: str) -> None:
    function, advice = VELOCITIES[name]
    said = refusal(energy, function)
    assert said.startswith("f must take states (B, 2), float64, one a row, and return velocities (B, 2): ")
    assert advice in said


def test_what_is_advised_is_taken() -> None:
    """Each wrapped as it was told."""
    values = [torch.vmap(lambda z: z[0] ** 2 + z[1] ** 2), lambda z: np.apply_along_axis(lambda x: float(x @ x), 1, z)]
    two = lambda z: [-z[:, 0], -z[:, 1]]  # noqa: E731
    velocities = [
        lambda z: torch.stack(two(z), 1),
        lambda z: np.stack(two(np.asarray(z)), 1),
        lambda z: torch.stack([-z.T[0], -z.T[1]], 1),
    ]
    for V in values:
        assert check(V, dim=2, claims=["positive"], samples=512, starts=4).holds
    for f in velocities:
        assert check(energy, f, dim=2, claims=["decrease"], samples=512, starts=4).holds


def test_another_fault_is_told_with_its_state_and_the_rule() -> None:
    def broken(z: Any) -> Any:
        raise ValueError("no such luck")

    said = refusal(broken)
    assert "broken raises ValueError: no such luck, at the state [" in said
    assert said.endswith("broken must take states (B, 2), float64, one a row, and return values (B,)")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"claims": ["decay"]}, "the claim 'decay' needs dynamics"),
        ({"alpha": 1.0}, "needs dynamics"),
        ({"radius": -1.0}, "radius must be positive and finite"),
        ({"radius": 1.0, "box": (-1.0, 1.0)}, "give one region"),
        ({"centre": [0.0, 1.0, 2.0]}, "centre: expected 1 or 2 numbers, got 3"),
        ({"sublevel": "most"}, "sublevel must be a number or 'max'"),
        ({"claims": ["positiv"]}, "did you mean 'positive'?"),
        ({"starts": 0}, "starts must be positive"),
    ],
)
def test_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(energy, dim=2, **arguments)
    assert words in str(refused.value)
