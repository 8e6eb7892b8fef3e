"""``stabdeq check`` on objects with a known truth, and on functions that are broken in every way that users break them."""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from cyclopts import App
from zoo import CASES, Case

from stabdeq.errors import StabdeqError


def run(arguments: list[str], folder: Path) -> tuple[int, dict[str, Any]]:
    """Return the exit code of ``stabdeq check`` and the findings it writes, by claim."""
    app = App()
    app.command("analysis.check_command:check", name="check")
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
    assert finding["verdict"] == ("SUPPORTED" if case.is_valid else "REFUTED"), finding["evidence"]
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
        ("number", "is a int; expected a function"),
        ("enrgy", "did you mean 'energy'"),
    ],
)
def test_unusable_functions_are_refused(broken: Path, name: str, said: str) -> None:
    with pytest.raises(StabdeqError, match=said):
        run_unchecked([f"broken_energy:{name}", "--dim", "2"])


def run_unchecked(arguments: list[str]) -> None:
    app = App()
    app.command("analysis.check_command:check", name="check")
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
        (["zoo:square", "--dim", "2", "--json", "/nowhere/at/all.json"], "there is no folder"),
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


def test_a_wrong_backward_refutes_nothing(tmp_path: Path, broken: Path) -> None:
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

        def V(z):
            return Deceived.apply(z)
        """)
    )
    code, findings = run(["deceived:V", "--dim", "2", "--dynamics", "zoo:sink", "--claims", "decrease"], tmp_path)
    assert code == 3
    assert "the paths disagree" in findings["decrease"]["evidence"]
