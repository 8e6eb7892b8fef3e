"""``stabdeq check`` on what is no function of the state, on functions that jump, and on those that are NaN."""

from pathlib import Path

import pytest
import torch
from check_runs import run

from analysis.evidence.regions import Ball
from analysis.user_function.function import ForeignFunction, load_function
from analysis.user_function.jumps import find_jump

pytestmark = pytest.mark.usefixtures("zoo_on_path")


@pytest.mark.parametrize("name", ["counting", "seldom_random", "coupled_when_many"])
def test_what_is_no_function_of_the_state_is_inconclusive(own: Path, name: str) -> None:
    code, findings = run([f"own_functions:{name}", "--dim", "2", "--claims", "zero,positive"], own)
    assert code == 3
    for finding in findings.values():
        assert finding["verdict"] == "INCONCLUSIVE"
        assert "is no function of the state alone" in finding["evidence"]
        assert finding["witness"]["first"] != finding["witness"]["second"]


@pytest.mark.parametrize(
    ("value", "dynamics", "jump_at"), [("torn", "sink", 0.3), ("steep", "torn_flow", 0.0), ("kinked", "torn_flow", 0.0)]
)
def test_a_jump_leaves_claims_along_the_flow_open(own: Path, value: str, dynamics: str, jump_at: float) -> None:
    options = ["--dim", "2", "--dynamics", f"own_functions:{dynamics}", "--claims", "zero,decrease"]
    code, findings = run([f"own_functions:{value}", *options], own)
    assert code == 3
    assert findings["decrease"]["verdict"] == "INCONCLUSIVE"
    assert min(abs(coordinate - jump_at) for coordinate in findings["decrease"]["witness"]["state"]) < 1e-9
    assert findings["zero"]["verdict"] == "SUPPORTED"
    assert "jumps from" in findings["zero"]["evidence"]


@pytest.mark.parametrize("jump_at", [-0.59, -0.44, -0.27, -0.13, 0.05, 0.21, 0.38, 0.56])
def test_a_jump_is_found_wherever_it_lies(jump_at: float) -> None:
    def torn(z: torch.Tensor) -> torch.Tensor:
        return z.square().sum(1) + 0.1 * (z[:, 0] > jump_at)

    jump = find_jump(ForeignFunction("torn", torn, 2, "value"), Ball(torch.zeros(2, dtype=torch.float64), 1.0), 0)
    assert jump is not None
    assert abs(float(jump.after - jump.before)) == pytest.approx(0.1)


def test_a_level_that_trajectories_run_along_is_not_refuted(tmp_path: Path) -> None:
    # V-dot = -(speed^2) / 2 vanishes at the turning points, and yet no trajectory leaves.
    options = [
        "--dim",
        "2",
        "--dynamics",
        "zoo:pendulum",
        "--sublevel",
        "1",
        "--alpha",
        "0",
        "--claims",
        "invariant,decay",
    ]
    code, findings = run(["zoo:pendulum_energy", *options], tmp_path)
    assert code == 0
    assert findings["decay"]["claim"].startswith("V-dot <= 0 on the sublevel set")


def test_a_v_that_is_nan_decreases_nowhere(own: Path) -> None:
    options = ["--dim", "2", "--dynamics", "own_functions:sink", "--claims", "decrease"]
    finding = run(["own_functions:not_a_number", *options], own)[1]["decrease"]
    assert finding["verdict"] == "INCONCLUSIVE"
    assert "not finite at [" in finding["evidence"]


def test_what_cannot_be_evaluated_is_named_as_it_is_written(own: Path) -> None:
    findings = run(["own_functions:inside_only", "--dim", "2", "--radius", "1.01", "--claims", "zero,positive"], own)[1]
    assert findings["zero"]["claim"] == "V vanishes at the centre."
    assert findings["positive"]["evidence"].startswith("own_functions:inside_only raises ValueError: outside")


def test_a_refutation_names_its_state(own: Path) -> None:
    options = ["--dim", "2", "--dynamics", "own_functions:unstable", "--claims", "decrease"]
    finding = run(["zoo:square", *options], own)[1]["decrease"]
    first, second = (f"{coordinate:.6g}" for coordinate in finding["witness"]["state"])
    assert finding["evidence"].startswith(f"Violated at [{first}, {second}] (")


def test_a_field_projected_around_the_origin_jumps_there(tmp_path: Path) -> None:
    options = ["--dim", "2", "--dynamics", "zoo:projected_at_origin", "--alpha", "1"]
    code, findings = run(["zoo:square", *options, "--claims", "equilibrium,decay"], tmp_path)
    assert code == 1
    assert findings["equilibrium"]["verdict"] == "REFUTED"
    assert findings["decay"]["verdict"] == "INCONCLUSIVE"
    assert findings["decay"]["witness"]["state"] == pytest.approx([0, 0], abs=1e-12)


def test_a_jump_saves_no_refuted_claim(own: Path) -> None:
    options = ["--dim", "2", "--dynamics", "own_functions:unstable", "--claims", "decrease"]
    assert run(["own_functions:torn", *options], own)[1]["decrease"]["verdict"] == "REFUTED"


@pytest.mark.parametrize("name", ["steep", "rooted", "kinked", "bump"])
def test_steep_and_kinked_functions_do_not_jump(own: Path, name: str) -> None:
    function = load_function(f"own_functions:{name}", 2, "value")
    for seed in range(5):
        assert find_jump(function, Ball(torch.zeros(2, dtype=torch.float64), 1.0), seed) is None


def test_functions_are_tried_within_the_region_alone(own: Path) -> None:
    assert run(["own_functions:inside_only", "--dim", "2"], own)[0] == 0
