"""The benchmark runs, and its numbers mean what it says: no test here judges a time."""

import json

import pytest
import torch

pytest.importorskip("torchdeq")
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")

from benchmarks.__main__ import main  # noqa: E402
from benchmarks.contest import find_loosest  # noqa: E402
from benchmarks.contestants import Outcome, Setting  # noqa: E402
from benchmarks.overhead import peak_bytes  # noqa: E402
from benchmarks.results_format import Results  # noqa: E402


def test_quick_benchmark_writes_results_that_print_as_markdown(tmp_path, capsys):
    path = tmp_path / "results.json"
    main(["--quick", "--out", str(path)])
    printed = capsys.readouterr().out
    records = json.loads(path.read_text())["records"]
    assert {record["direction"] for record in records} == {"forward", "forward and backward"}
    main(["--markdown", str(path)])
    assert capsys.readouterr().out == printed


def test_every_contestant_truly_meets_the_tolerance_and_agrees_on_the_gradient(tmp_path):
    path = tmp_path / "results.json"
    main(["--quick", "--out", str(path)])
    for record in json.loads(path.read_text())["records"]:
        for found in record["contestants"].values():
            assert found["true_residual"] <= record["tolerance"]
            assert found.get("gradient_error", 0) < 10 * record["tolerance"]


def test_the_loosest_setting_that_meets_the_tolerance_is_raced():
    groups = [[Setting(tolerance) for tolerance in (1.0, 0.5, 0.2, 0.1)]]

    def attempt(setting):
        return Outcome(torch.tensor(2 * setting.tolerance), 1, converged=True)

    entry = find_loosest(attempt, groups, lambda outcome: outcome.z.item(), tolerance=1.0)
    assert entry is not None
    assert entry.setting.tolerance == 0.5


def test_a_group_is_left_once_the_solver_itself_gives_up():
    tried = []

    def attempt(setting):
        tried.append(setting)
        return Outcome(torch.zeros(()), 1, converged=False)

    groups = [[Setting(1.0), Setting(0.5)], [Setting(1.0, steps=9), Setting(0.5, steps=9)]]
    assert find_loosest(attempt, groups, lambda outcome: 2.0, tolerance=1.0) is None
    assert [setting.tolerance for setting in tried] == [1.0, 1.0]


def test_peak_memory_counts_what_is_held_at_a_time():
    def run():
        for _ in range(3):
            held = torch.empty(1000, dtype=torch.float64)
        return held

    assert 8000 <= peak_bytes(run) <= 2.1 * 8000


def picard(f, z0, tolerance, most_calls):
    for _ in range(most_calls):
        z, z0 = z0, f(z0)
        if (z0 - z).flatten(1).norm(dim=1).amax() <= tolerance:
            break
    return z0


def test_a_solver_of_ones_own_is_raced_at_the_same_measured_residual(tmp_path, capsys):
    path = tmp_path / "results.json"
    main(["--quick", "--contestant", "test_benchmarks:picard", "--out", str(path)])
    forward = [r for r in Results.model_validate_json(path.read_text()).records if r.direction == "forward"]
    found = {record.problem: record.contestants["test_benchmarks:picard"] for record in forward}
    assert found.keys() == {"convolution, 4 x 4 x 4", "linear, radius 0.99", "attention", "graph"}
    assert found["attention"] is None  # it goes round there
    for record in forward:
        if (reached := found[record.problem]) is not None:
            assert reached.true_residual <= record.tolerance
            assert 5 < reached.evaluations <= 300
            assert "test_benchmarks:picard/eager" in record.ratios
    assert found["graph"]  # which contracts at a rate of 0.9
    assert "test_benchmarks:picard over ours eager" in capsys.readouterr().out
