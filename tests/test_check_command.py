"""``stabdeq check`` on objects with a known truth, and on functions that are broken in every way that users break them."""

import json
import math
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from cyclopts import App
from zoo import CASES, Case

from analysis.evidence.regions import Ball
from analysis.proofs import boxes as box_proofs
from analysis.user_function.function import ForeignFunction, load_function
from analysis.user_function.jumps import find_jump
from stabdeq.errors import StabdeqError


def run(arguments: list[str], folder: Path) -> tuple[int, dict[str, Any]]:
    """Return the exit code of ``stabdeq check`` and the findings it writes, by claim."""
    app = App()
    app.command("analysis.commands.check:check", name="check")
    file = folder / "findings.json"
    with pytest.raises(SystemExit) as exit_info:
        app(["check", *arguments, "--json", str(file)], exit_on_error=False, print_error=False)
    report = json.loads(file.read_text())
    assert report["schema"] == 1
    return int(exit_info.value.code or 0), {finding["check"]: finding for finding in report["findings"]}


@pytest.fixture(autouse=True)
def _import_from_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_known_answers(case: Case, tmp_path: Path) -> None:
    code, findings = run(case.arguments(), tmp_path)
    finding = findings[case.claim]
    assert finding["verdict"] in (("SUPPORTED", "PROVED") if case.is_valid else ("REFUTED",)), finding["evidence"]
    assert code == (0 if case.is_valid else 1)
    if not case.is_valid:
        assert_replays(case, finding["witness"])


def assert_replays(case: Case, witness: dict[str, Any]) -> None:
    """The witness violates by this test's own formulas."""
    found = getattr(zoo, case.value)
    value = found().double().requires_grad_(False) if isinstance(found, type) else found

    def at(state: list[float]) -> float:
        z = torch.tensor([state], dtype=torch.float64)
        return float(value(z.numpy() if "array" in case.value else z)[0])

    state = witness["state"]
    if case.claim == "zero":
        assert abs(at(state)) > 1e-9
    elif case.claim == "positive":
        assert at(state) <= 0
    elif case.claim == "convex":
        a, b = witness["a"], witness["b"]
        middle = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
        assert at(middle) > (at(a) + at(b)) / 2
    elif case.claim == "equilibrium":
        velocity = getattr(zoo, str(case.dynamics))(torch.tensor([state], dtype=torch.float64))[0]
        assert float(velocity.norm()) > 1e-9
    else:
        velocity = getattr(zoo, str(case.dynamics))(torch.tensor([state], dtype=torch.float64))[0]
        step = 1e-4 * max(map(abs, state)) / float(velocity.norm() + 1e-300)
        ahead = [x + step * float(v) for x, v in zip(state, velocity, strict=True)]
        behind = [x - step * float(v) for x, v in zip(state, velocity, strict=True)]
        slope = (at(ahead) - at(behind)) / (2 * step)
        rate = case.alpha if case.claim == "decay" else 0.0
        assert slope + (rate or 0.0) * at(state) >= -1e-7 * max(1e-12, abs(at(state)))


BROKEN = """
import torch, numpy as np

def wrong_shape(z): return z.square().sum(1, keepdim=True)
def wrong_axis(z): return z.square().sum(0)
def summed(z): return z.square().sum()
def imaginary(z): return z.square().sum(1) + 0j
def random(z): return z.square().sum(1) + torch.rand(len(z))
def coupled(z): return (z - z.mean(0)).square().sum(1)
def raises(z): raise RuntimeError("the tank is empty")
def raises_far_out(z):
    if (z[:, 0] > 0.9).any():
        raise ValueError("x beyond 0.9")
    return z.square().sum(1)
def nan_far_out(z): return z.square().sum(1) + 0 * (0.9 - z[:, 0]).log()
def infinite_at_centre(z): return z.square().sum(1) + 1 / z.square().sum(1)
def bounded(z): return 1 - torch.exp(-z.square().sum(1))
def flat(z): return -z[:, :1]
def make_energy():
    return lambda z: z.square().sum(1)
class Energy(torch.nn.Module):
    def forward(self, z): return torch.nn.functional.dropout(z, 0.5, self.training).square().sum(1)
energy = Energy()
number = 3
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "broken_energy.py").write_text(textwrap.dedent(BROKEN))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong_shape", r"must return shape \(5,\) .* got \(5, 1\)"),
        ("wrong_axis", r"must return shape \(5,\) .* got \(2,\)"),
        ("summed", r"must return shape \(5,\) .* got \(\)"),
        ("imaginary", "must return real numbers"),
        ("random", r"is random: at \["),
        ("coupled", "couples the states"),
        ("raises", r"RuntimeError: the tank is empty, at the state \["),
        ("number", "is of type int; expected a function"),
        ("enrgy", "did you mean 'energy'"),
    ],
)
def test_unusable_functions_are_refused(broken: Path, name: str, said: str) -> None:
    with pytest.raises(StabdeqError, match=said):
        run_unchecked([f"broken_energy:{name}", "--dim", "2"])


def run_unchecked(arguments: list[str]) -> None:
    app = App()
    app.command("analysis.commands.check:check", name="check")
    app(["check", *arguments], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", ["raises_far_out", "nan_far_out"])
def test_a_fault_at_some_states_is_inconclusive_with_the_state(broken: Path, name: str) -> None:
    code, findings = run([f"broken_energy:{name}", "--dim", "2", "--claims", "positive"], broken)
    assert code == 3
    assert findings["positive"]["verdict"] == "INCONCLUSIVE"
    assert findings["positive"]["witness"]["state"][0] > 0.9


def test_an_infinite_centre_is_inconclusive(broken: Path) -> None:
    code, findings = run(["broken_energy:infinite_at_centre", "--dim", "2", "--claims", "zero"], broken)
    assert code == 3
    assert findings["zero"]["witness"] == {"state": [0.0, 0.0], "value": "inf"}


def test_a_bounded_function_is_not_called_proper(broken: Path) -> None:
    code, findings = run(["broken_energy:bounded", "--dim", "2", "--claims", "proper"], broken)
    assert code == 3
    assert "stops growing" in findings["proper"]["evidence"]


@pytest.mark.parametrize("name", ["make_energy", "Energy", "energy"])
def test_factories_and_modules(broken: Path, name: str) -> None:
    code, findings = run([f"broken_energy:{name}", "--dim", "2"], broken)
    assert code == 0
    assert set(findings) == {"zero", "positive"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["square", "--dim", "2"], "expected MODULE:NAME"),
        (["nowhere:V", "--dim", "2"], "no module 'nowhere'"),
        (["zoo:square", "--dim", "2", "--claims", "convx"], "did you mean 'convex'"),
        (["zoo:square", "--dim", "2", "--claims", "decay"], "needs --"),
        (["zoo:square", "--dim", "2", "--box", "1,2"], "with the centre between them"),
        (["zoo:square", "--dim", "2", "--box", "-1,1", "--radius", "1"], "give one region"),
        (["zoo:square", "--dim", "2", "--center", "1,2,3"], "expected 1 or 2 numbers"),
        (["zoo:square", "--dim", "2", "--center", "a"], "expected numbers"),
        (["zoo:nothing", "--dim", "2", "--sublevel", "1"], "give --radius"),
        (["zoo:square", "--dim", "2", "--sublevel", "max"], "--sublevel max is for the claims"),
        (["zoo:square", "--dim", "2", "--samples", "0"], "--samples must be positive"),
        (["zoo:square", "--dim", "2", "--json", "/nowhere/at/all.json"], "there is no directory"),
        (["zoo:square", "--dim", "2", "--alpha", "1"], "which needs --dynamics"),
    ],
)
def test_bad_options(arguments: list[str], said: str) -> None:
    with pytest.raises(StabdeqError, match=said):
        run_unchecked(arguments)


def test_a_box_and_a_centre_with_negative_numbers(tmp_path: Path) -> None:
    (tmp_path / "moved_energy.py").write_text(
        "def V(z):\n    return ((z + 1) ** 2).sum(1)\n\ndef f(z):\n    return -(z + 1)\n"
    )

    sys.path.append(str(tmp_path))
    options = ["moved_energy:V", "--dim", "3", "--dynamics", "moved_energy:f", "--alpha", "1.9"]
    code, findings = run([*options, "--center", "-1", "--box", "-3,2"], tmp_path)
    sys.path.remove(str(tmp_path))
    assert code == 0
    assert set(findings) == {"zero", "positive", "equilibrium", "decrease", "decay"}


def test_the_same_seed_gives_the_same_findings(tmp_path: Path) -> None:
    arguments = ["zoo:square", "--dim", "2", "--dynamics", "zoo:shear", "--seed", "5"]
    first, second = (run(arguments, tmp_path)[1] for _ in range(2))
    for findings in (first, second):
        for finding in findings.values():
            finding.pop("seconds")
    assert first == second


@pytest.mark.parametrize("name", ["wrong_backward", "half_detached"])
def test_a_gradient_that_is_not_the_slope_is_not_believed(broken: Path, name: str) -> None:
    (broken / "deceived.py").write_text(
        textwrap.dedent("""
        import torch

        class Deceived(torch.autograd.Function):
            @staticmethod
            def forward(ctx, z):
                ctx.save_for_backward(z)
                return z.square().sum(1)

            @staticmethod
            def backward(ctx, upstream):
                return -2 * ctx.saved_tensors[0] * upstream[:, None]

        def wrong_backward(z):
            return Deceived.apply(z)

        def half_detached(z):
            return 4 * (z[:, 0] * z[:, 0].detach()) + z[:, 1] ** 2

        def unstable(z):
            return z
        """)
    )
    for dynamics, verdict in (("zoo:sink", "SUPPORTED"), ("deceived:unstable", "REFUTED")):
        options = ["--dim", "2", "--dynamics", dynamics, "--claims", "decrease"]
        finding = run([f"deceived:{name}", *options], broken)[1]["decrease"]
        assert finding["verdict"] == verdict
        assert "is not its slope" in finding["evidence"]


OWN = """
import torch

calls = 0
generator = torch.Generator().manual_seed(0)

def counting(z):
    global calls
    calls += 1
    return z.square().sum(1) * (1 if calls < 40 else 2)

def seldom_random(z):
    value = z.square().sum(1)
    return torch.where(torch.rand(len(z), generator=generator) < 0.003, 1.5 * value, value)

def coupled_when_many(z):
    value = z.square().sum(1)
    return value * (value.max() / (1 + value.max()) if len(z) > 500 else 1)

def torn(z):
    return z.square().sum(1) + (z[:, 0] > 0.3).to(z.dtype)

def torn_flow(z):
    return -z - z.sign()

def sink(z):
    return -z

def not_a_number(z):
    return z.square().sum(1) + torch.nan

def steep(z):
    return z.square().sum(1) + torch.tanh(1e4 * (z[:, 0] - 0.3)) - torch.tanh(torch.tensor(-3e3))

def rooted(z):
    return z.abs().sqrt().sum(1)

weights = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

def kinked(z):
    return (z @ weights.T).relu().sum(1)

def bump(z):
    return 1 - torch.exp(-z.square().sum(1))

def shelf(z):
    return z.square().sum(1).clamp(max=0.5)

def growing_outside(z):
    return z * (z.square().sum(1, keepdim=True) - 4)

def unstable(z):
    return z

def inside_only(z):
    if bool((z.norm(dim=1) > 1.001).any()):
        raise ValueError("outside")
    return z.square().sum(1)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_functions.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_functions", raising=False)
    return tmp_path


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


STRUCTURE = {
    "zero": "g(0) is recomputed",
    "positive": "0.1 ||z - c||^2 <= V <=",
    "convex": "0.2-strongly convex",
    "proper": "0.1 ||z - c||^2 <= V",
}


def test_the_weights_of_our_own_family_prove_its_claims(tmp_path: Path) -> None:
    options = ["--dim", "3", "--center", "1,-2,0.5", "--samples", "2000", "--starts", "8", "--claims"]
    code, findings = run(["zoo:structured", *options, ",".join(STRUCTURE)], tmp_path)
    assert code == 0
    for name, words in STRUCTURE.items():
        assert findings[name]["verdict"] == "PROVED"
        assert words in findings[name]["evidence"]
    assert run(["zoo:Structured", *options, "proper"], tmp_path)[1]["proper"]["verdict"] == "SUPPORTED"


class TestProofs:
    """What ``prove_claim`` answers decides between PROVED and SUPPORTED, and nothing else."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        names: list[str] = []

        def prove_claim(name: str, *_: Any, **__: Any) -> box_proofs.Proof | box_proofs.Unproved:
            names.append(name)
            return box_proofs.Proof("Shown.", 1) if name == "positive" else box_proofs.Unproved("time is up")

        monkeypatch.setattr(box_proofs, "prove_claim", prove_claim)
        return names

    def test_a_proof_comes_first_and_its_lack_is_said(self, asked: list[str], tmp_path: Path) -> None:
        findings = run(["zoo:square", "--dim", "2"], tmp_path)[1]
        assert findings["positive"]["verdict"] == "PROVED"
        assert findings["positive"]["evidence"].startswith("Shown. Tried besides: No violation")
        assert findings["zero"]["verdict"] == "SUPPORTED"
        assert findings["zero"]["evidence"].startswith("Not proved: time is up.")
        assert asked == ["zero", "positive"]

    def test_no_proof_is_sought_of_what_is_refuted_or_jumps(self, asked: list[str], own: Path) -> None:
        assert run(["zoo:nothing", "--dim", "2", "--claims", "positive"], own)[1]["positive"]["verdict"] == "REFUTED"
        assert run(["own_functions:torn", "--dim", "2"], own)[1]["positive"]["verdict"] == "SUPPORTED"
        assert asked == []

    @pytest.mark.parametrize(
        ("function", "dim", "why"),
        [("zoo:square", 7, "at most 6 coordinates"), ("zoo:square_of_array", 2, "not written in PyTorch")],
    )
    def test_beyond_the_means(self, asked: list[str], tmp_path: Path, function: str, dim: int, why: str) -> None:
        finding = run([function, "--dim", str(dim), "--claims", "positive"], tmp_path)[1]["positive"]
        assert finding["verdict"] == "SUPPORTED"
        assert why in finding["evidence"]
        assert asked == []


@pytest.mark.parametrize("claim", ["decrease", "invariant"])
def test_the_largest_level_of_van_der_pol(tmp_path: Path, claim: str) -> None:
    options = ["--dim", "2", "--dynamics", "zoo:van_der_pol", "--sublevel", "max", "--claims", claim]
    options += ["--samples", "4096", "--starts", "32"]
    code, findings = run(["zoo:van_der_pol_energy", *options], tmp_path)
    finding = findings[claim]
    assert code == 0
    assert finding["witness"]["level"] == pytest.approx(2.30, rel=0.01)
    assert finding["witness"]["level"] < finding["witness"]["refuted_level"] < 2.34
    assert f"V <= {finding['witness']['level']:.4g}" in finding["claim"]


def largest(folder: Path, value: str, dynamics: str, *options: str) -> dict[str, Any]:
    arguments = [value, "--dynamics", dynamics, "--sublevel", "max", "--claims", "decrease", *options]
    return run(arguments, folder)[1]["decrease"]


def test_the_largest_level_against_known_answers(own: Path) -> None:
    found = largest(own, "zoo:square", "own_functions:growing_outside", "--dim", "3")
    assert found["witness"]["level"] == pytest.approx(4, rel=0.01)
    # Nothing is refuted within the radius: the limit is what is closed there.
    found = largest(own, "own_functions:bump", "own_functions:sink", "--dim", "2", "--radius", "1")
    assert found["verdict"] in ("SUPPORTED", "PROVED")
    assert "No larger set is closed within 1" in found["evidence"]
    assert float(found["claim"].split("<= ")[1].split("}")[0].split()[0]) == pytest.approx(1 - math.exp(-1), rel=0.01)
    # A jump of V at x = 0.3, where V = 0.09, bounds the level too; below it the claim can be proved.
    found = largest(own, "own_functions:torn", "own_functions:sink", "--dim", "2", "--radius", "2")
    assert found["verdict"] in ("SUPPORTED", "PROVED")
    assert found["witness"]["level"] == pytest.approx(0.09, rel=0.01)


def test_where_no_level_holds(own: Path) -> None:
    found = largest(own, "zoo:square", "own_functions:unstable", "--dim", "2", "--radius", "1")
    assert found["verdict"] == "REFUTED"
    assert "at every level tried" in found["evidence"]
    found = largest(own, "zoo:nothing", "own_functions:sink", "--dim", "2", "--radius", "1")
    assert found["verdict"] == "INCONCLUSIVE"
    assert "no sublevel set is closed" in found["evidence"]


def test_a_sublevel_set_that_is_open_along_one_axis_is_noticed(tmp_path: Path) -> None:
    # In 24 dimensions no drawn ray points along the axis on which V hardly rises; descent finds it.
    sys.path.append(str(tmp_path))
    (tmp_path / "long_set.py").write_text(
        "def V(z):\n    return z[:, 1:].square().sum(1) + 1e-4 * z[:, 0] ** 2\n\ndef f(z):\n    return -z\n"
    )
    options = ["--dim", "24", "--dynamics", "long_set:f", "--sublevel", "1", "--claims", "invariant"]
    assert run(["long_set:V", *options, "--radius", "3"], tmp_path)[1]["invariant"]["verdict"] == "INCONCLUSIVE"
    assert run(["long_set:V", *options], tmp_path)[1]["invariant"]["verdict"] == "SUPPORTED"
    sys.path.remove(str(tmp_path))


def test_samples_and_starts_are_as_asked(tmp_path: Path) -> None:
    few, many = (
        run(["zoo:square", "--dim", "2", "--claims", "positive", "--samples", count, "--starts", "8"], tmp_path)[1]
        for count in ("500", "5000")
    )
    assert "Of 500 drawn" in few["positive"]["evidence"]
    assert "Of 5000 drawn" in many["positive"]["evidence"]
