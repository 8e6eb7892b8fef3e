"""``stabdeq check`` on objects with a known truth, on functions that are broken, and its options."""

import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from check_runs import run
from cyclopts import App
from zoo import CASES, Case

from analysis.commands.replay import replay as replay_command
from stabdeq.errors import StabdeqError

pytestmark = pytest.mark.usefixtures("zoo_on_path")


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
        ("wrong_axis", r"and return values \(B,\): it takes one state: give torch\.vmap\(wrong_axis\)"),
        ("summed", r"and return values \(B,\): it takes one state: give torch\.vmap\(summed\)"),
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
        (["zoo:square", "--dim", "2", "--claims", "decay"], "the claim 'decay' needs dynamics and alpha"),
        (["zoo:square", "--dim", "2", "--box", "1,2"], "with the centre between them"),
        (["zoo:square", "--dim", "2", "--box", "-1,1", "--radius", "1"], "give one region"),
        (["zoo:square", "--dim", "2", "--centre", "1,2,3"], "expected 1 or 2 numbers"),
        (["zoo:square", "--dim", "2", "--centre", "a"], "expected numbers"),
        (["zoo:nothing", "--dim", "2", "--sublevel", "1"], "give --radius"),
        (["zoo:square", "--dim", "2", "--sublevel", "max"], "sublevel 'max' is for the claims"),
        (["zoo:square", "--dim", "2", "--samples", "0"], "samples must be positive and finite, got 0"),
        (["zoo:square", "--dim", "2", "--json", "/nowhere/at/all.json"], "there is no directory"),
        (["zoo:square", "--dim", "2", "--alpha", "1"], "alpha is the rate of the claim 'decay', which needs dynamics"),
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
    code, findings = run([*options, "--centre", "-1", "--box", "-3,2"], tmp_path)
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


def test_samples_and_starts_are_as_asked(tmp_path: Path) -> None:
    few, many = (
        run(
            ["zoo:square_of_array", "--dim", "2", "--claims", "positive", "--samples", count, "--starts", "8"], tmp_path
        )[1]
        for count in ("500", "5000")
    )
    assert "Of 500 drawn" in few["positive"]["evidence"]
    assert "Of 5000 drawn" in many["positive"]["evidence"]


def test_replay_of_a_report_about_functions_says_how(tmp_path: Path) -> None:
    arguments = ["zoo:square", "--dim", "2", "--dynamics", "zoo:sink", "--claims", "decay", "--alpha", "3"]
    assert run(arguments, tmp_path)[0] == 1
    with pytest.raises(StabdeqError, match=r"Evaluate your functions at .* or run 'stabdeq check zoo:square") as error:
        replay_command(tmp_path / "findings.json")
    assert error.value.exit_code == 2
