"""A proof as an assertion: its failure says what is not proved, and prints a line that fails again."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stabdeq.testing
from stabdeq import gathered
from stabdeq.errors import ConfigError
from stabdeq.testing import assert_proved

pytestmark = pytest.mark.usefixtures("short_hunts")

FEW: dict[str, Any] = {"dim": 2, "samples": 300, "starts": 2, "boxes": 200}


def V(z: Tensor) -> Tensor:
    return z.square().sum(1)


def sink(z: Tensor) -> Tensor:
    return -z


def saddle(z: Tensor) -> Tensor:
    return torch.stack([z[:, 0], -z[:, 1]], 1)


def away(z: Tensor) -> Tensor:
    return 1.1 * z + 0.01


def halved(z: Tensor) -> Tensor:
    return z / 2


def of_arrays(z: Any) -> Any:
    return -np.sin(z)


def failure(*arguments: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        assert_proved(*arguments, **FEW | options)
    return str(caught.value)


def pasted(text: str) -> list[str]:
    return re.findall(r"^To keep this case, paste:\n    (.*)$", text, re.MULTILINE)


def run_line(line: str) -> None:
    names = {name: getattr(stabdeq.testing, name) for name in stabdeq.testing.__all__}
    exec(line, names | {"V": V, "saddle": saddle, "away": away, "of_arrays": of_arrays, "torch": torch})


@pytest.mark.parametrize("options", [{"f": sink, "radius": 2, "alpha": 1.0}, {"step": halved, "kappa": 0.5}])
def test_what_is_proved_passes(options: dict[str, Any]) -> None:
    assert_proved(V, **FEW | options)


def test_a_refuted_claim_shows_verdict_evidence_witness_and_a_line() -> None:
    text = failure(V, saddle, radius=2)
    assert text.startswith("1 of 4 claims is not proved.\nREFUTED: V-dot < 0 on the ball of radius 2 around the centre")
    assert "\n    Violated at [" in text
    assert "\n    witness: state: [" in text
    (line,) = pasted(text)
    assert line.startswith("assert_decrease(V, saddle, torch.tensor([[")


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            {"f": saddle, "sublevel": 1.0, "alpha": 0.5, "centre": [0.1, 0.0], "radius": 2.0},
            [
                "assert_zero_at_centre",
                "assert_positive_definite",
                "assert_equilibrium",
                "assert_decrease",
                "assert_decay",
                "assert_invariant",
            ],
        ),
        (
            {"step": away, "sublevel": 1.0, "radius": 2.0},
            ["assert_step_rests", "assert_step_decrease", "assert_proved"],
        ),
    ],
)
def test_each_line_that_is_printed_fails_again(options: dict[str, Any], lines: list[str]) -> None:
    found = pasted(failure(V, **options))
    assert [line.partition("(")[0] for line in found] == lines
    for line in found:
        with pytest.raises(AssertionError):
            run_line(line)


def test_what_is_only_supported_fails_with_its_own_proof_as_the_line() -> None:
    text = failure(V, of_arrays, claims=["decrease", "equilibrium"])
    assert text.count("\nSUPPORTED: ") == 2
    decrease, equilibrium = sorted(pasted(text))
    assert decrease == "assert_proved(V, of_arrays, dim=2, samples=300, starts=2, boxes=200, claims=['decrease'])"
    with pytest.raises(AssertionError, match=r"^1 of 1 claims is not proved"):
        run_line(equilibrium)


@pytest.mark.parametrize(
    ("motion", "options"),
    [
        ({"f": of_arrays}, {"alpha": 0.5}),
        ({"f": of_arrays}, {"sublevel": "max", "claims": ["positive", "decrease"]}),
        ({"step": lambda z: 0.5 * np.asarray(z)}, {"kappa": 0.1, "sublevel": 0.5}),
    ],
)
def test_the_line_of_a_claim_has_the_settings_that_it_is_about_alone(
    motion: dict[str, Any], options: dict[str, Any]
) -> None:
    """Others are refused, which would be another error than the failure that is to be kept."""
    found = pasted(failure(V, **motion, **options))
    assert len(found) > 1
    for line in found:
        with pytest.raises(AssertionError):
            exec(line.replace("step=step", "step=motion['step']"), globals(), {"motion": motion})


def test_the_line_of_one_claim_of_a_barrier_names_only_its_set() -> None:
    def barrier(z: Tensor) -> Tensor:
        return z.square().sum(1) - 0.5

    def inside(z: Tensor) -> Tensor:
        return z.square().sum(1) - 0.9

    def outside(z: Tensor) -> Tensor:
        return 2 - z.square().sum(1)

    text = failure(barrier, sink, initial=inside, unsafe=outside, radius=2)
    (line,) = pasted(text)
    words = "barrier, sink, dim=2, samples=300, starts=2, boxes=200, initial=inside, radius=2, claims=['initial']"
    assert line == f"assert_proved({words})"
    with pytest.raises(AssertionError):
        exec(line, globals(), {"barrier": barrier, "inside": inside})


def test_a_wrong_argument_is_an_error_and_no_failure() -> None:
    with pytest.raises(ConfigError, match="unknown claim"):
        assert_proved(V, sink, dim=2, claims=["falls"])


def test_who_listens_is_told_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(gathered, "LISTENERS", [heard.append])
    assert_proved(V, sink, **FEW, claims=["zero"])
    failure(V, saddle, claims=["decrease"])
    assert [one.exit_code for one in heard] == [0, 1]
