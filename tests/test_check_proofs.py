"""What ``stabdeq check`` proves: by structure, by boxes, and the largest level along the flow."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from check_runs import run

from analysis.proofs import box_search

pytestmark = pytest.mark.usefixtures("short_hunts", "zoo_on_path")


STRUCTURE = {
    "zero": "g(0) is recomputed",
    "positive": "0.1 ||z - c||^2 <= V <=",
    "convex": "0.2-strongly convex",
    "proper": "0.1 ||z - c||^2 <= V",
}


def test_the_weights_of_our_own_family_prove_its_claims(tmp_path: Path) -> None:
    options = ["--dim", "3", "--centre", "1,-2,0.5", "--samples", "2000", "--starts", "8", "--claims"]
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

        def prove_claim(name: str, *_: Any, **__: Any) -> box_search.Proof | box_search.Unproved:
            names.append(name)
            return box_search.Proof("Shown.", 1) if name == "positive" else box_search.Unproved("time is up")

        monkeypatch.setattr("analysis.user_function.proofs.prove_claim", prove_claim)
        none = box_search.Unproved("V is no polynomial.")
        monkeypatch.setattr("analysis.user_function.proofs.prove_polynomial", lambda *_, **__: none)
        return names

    def test_a_proof_comes_first_and_its_lack_is_said(self, asked: list[str], tmp_path: Path) -> None:
        findings = run(["zoo:square", "--dim", "2"], tmp_path)[1]
        assert findings["positive"]["verdict"] == "PROVED"
        assert re.fullmatch(r"Shown\. Besides, \d+ states were tried\.", findings["positive"]["evidence"])
        assert findings["zero"]["verdict"] == "SUPPORTED"
        assert findings["zero"]["evidence"].startswith("Not proved: time is up.")
        assert asked == ["zero", "positive"]

    def test_no_proof_is_sought_of_what_is_refuted_or_jumps(self, asked: list[str], own: Path) -> None:
        assert run(["zoo:nothing", "--dim", "2", "--claims", "positive"], own)[1]["positive"]["verdict"] == "REFUTED"
        assert run(["own_functions:torn", "--dim", "2"], own)[1]["positive"]["verdict"] == "SUPPORTED"
        assert asked == []

    @pytest.mark.parametrize(
        ("function", "dim", "why"),
        [
            ("zoo:square", 7, "at most 6 coordinates"),
            (
                "zoo:square_of_array",
                2,
                "Not proved: zoo:square_of_array computes with NumPy, which no proof can read: write it with torch. N",
            ),
        ],
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
    arguments += ["--samples", "4096", "--starts", "32", "--boxes", "4096"]
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
    assert run(["long_set:V", *options], tmp_path)[1]["invariant"]["verdict"] == "PROVED"
    sys.path.remove(str(tmp_path))
