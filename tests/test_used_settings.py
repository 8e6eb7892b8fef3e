"""A setting of a check that none of its claims is about is refused: else a verdict would be read as one about it."""

from typing import Any

import pytest
from torch import Tensor

import stabdeq
from analysis.check import units
from stabdeq.errors import ConfigError

STEADY: dict[str, Any] = {"dim": 2, "samples": 64, "starts": 1, "boxes": 64, "box": (-1, 1)}


def bowl(z: Tensor) -> Tensor:
    return (z**2).sum(1)


def sink(z: Tensor, d: Any = 0.0) -> Tensor:
    return d - z


def half(z: Tensor) -> Tensor:
    return z / 2


@pytest.mark.parametrize(
    ("motion", "settings", "said"),
    [
        ({"f": sink}, {"disturbance": (-0.3, 0.3), "sublevel": 0.1}, "give uncertain in place of dynamics"),
        ({"step": half}, {"disturbance": (-0.3, 0.3)}, "give uncertain in place of dynamics"),
        ({}, {"disturbance": (-0.3, 0.3)}, "give uncertain in place of dynamics"),
        ({"f": sink}, {"alpha": 0.5, "sublevel": 0.1, "claims": ["attraction"]}, "alpha is for the claim decay"),
        ({"f": sink}, {"alpha": 0.5, "claims": ["positive", "decrease"]}, "judged are positive, decrease"),
        ({"step": half}, {"kappa": 0.1, "claims": ["positive"]}, "kappa is for the claim decrease"),
        (
            {"uncertain": sink},
            {"disturbance": (-0.3, 0.3), "alpha": 0.5, "sublevel": 0.5, "claims": ["invariant"]},
            "alpha is for the claim decay",
        ),
    ],
)
def test_a_setting_that_no_claim_is_about_is_refused(
    motion: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        stabdeq.check(bowl, **motion, **(STEADY | settings))


def test_claims_that_are_told_of_together_are_one_unit() -> None:
    """Nothing reaches the unsafe set: as initial and unsafe say with barrier, or with decay."""
    assert units(["initial", "unsafe", "decay"], None) == ["initial,unsafe,decay"]
    assert units(["positive", "decay"], None) == ["positive", "decay"]
