"""How many states a search draws is the user's to say, and memory holds as many of them whatever the number."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_runs import run, save_untrained
from small_models import images, model
from torch import Tensor

from analysis.audit import MOST_STATES, audit
from analysis.checks import convexity, decay, positivity
from analysis.checks.effort import LOOK, beside_construction, searching
from analysis.evidence import judge as judge_module
from analysis.evidence import promising as promising_module
from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.judge import CANDIDATES, judge
from analysis.evidence.promising import Promising
from analysis.evidence.regions import Ball
from analysis.findings import Verdict
from analysis.measure.subject import prepare
from analysis.report.reading import read_report
from analysis.shards.part import read_part
from stabdeq.errors import ConfigError
from stabdeq.lyapunov.claims import Floored, Violation

DIM = 64
USUAL = Effort(samples=2048, starts=4, steps=3)


def states(count: int, seed: int) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def subject(dim: int, *, structured: bool, asked_for: int | None = None) -> Any:
    return SimpleNamespace(dim=dim, structured=structured, states=asked_for)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches climb little: what they draw is looked at here."""
    little = Effort(starts=2, steps=1)
    for module in (positivity, convexity):
        monkeypatch.setattr(module, "Effort", lambda: little)
    monkeypatch.setattr(decay, "SEARCH", little)


# --- memory ---


def test_of_the_promising_states_memory_holds_no_more_whatever_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promising_module, "HELD", 32 * DIM)
    held = Promising(torch.zeros(DIM).double(), 8)
    worst, largest = torch.full((8,), -torch.inf).double(), 0
    for seed in range(50):
        drawn = states(16, seed)
        relative = drawn[:, 0]
        held.add(drawn, relative)
        worst = torch.cat([worst, relative]).topk(8).values
        largest = max(largest, sum(len(one) for one, _ in held._held))
    assert largest <= 32
    assert len(held.worst()) == 8
    assert float(held.worst()[:, 0].max()) == float(worst[0])


def test_of_the_suspects_memory_holds_no_more_and_the_worst_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def violation(offset: Tensor) -> Violation:
        return Violation(offset[:, 0], torch.ones(len(offset), dtype=torch.float64))

    claim = Claim(check="positivity", name="positive", sentence="V >= 0.", violation=violation, tolerance=1e-12)
    monkeypatch.setattr(judge_module, "HELD", 4 * CANDIDATES * DIM)
    search = judge_module._Search(claim, Ball(torch.zeros(DIM).double(), 100.0), torch.Generator().manual_seed(0))
    for seed in range(20):
        search._look(states(64, seed))
        assert sum(len(one) for one, _ in search.suspects) <= 4 * CANDIDATES
    kept, relative = search._suspects()
    assert float(relative[0]) == float(torch.cat([states(64, seed)[:, 0] for seed in range(20)]).max())
    assert torch.equal(kept[:, 0], relative)


# --- how many ---


def test_a_proof_by_construction_of_large_states_is_looked_at_and_anyones_v_is_searched() -> None:
    assert beside_construction(subject(1025, structured=True), USUAL, 1025) == LOOK
    assert beside_construction(subject(1025, structured=False), USUAL, 1025) == USUAL
    assert beside_construction(subject(1024, structured=True), USUAL, 1024) == USUAL


def test_the_number_that_was_asked_for_is_drawn_whatever_the_size() -> None:
    asked = subject(10**6, structured=True, asked_for=5000)
    for effort in (beside_construction(asked, USUAL, 10**6), searching(asked, USUAL, 10**6)):
        assert effort.samples == 5000
    assert searching(asked, replace(USUAL, starts=64), 10**6).starts == 2


def test_an_audit_draws_so_many_states_in_each_search(quick: None) -> None:
    labels, checks = torch.tensor([0, 1]), ["positivity", "convexity"]
    found = []
    for count in (100, 5000):
        report = audit(model("lyadeq-anchored"), images(2), labels, checks=checks, states=count)
        falling = decay._stabilised(prepare(model("lyadeq-anchored"), images(2), labels, states=count))
        found.append([report.named["positivity.positive"], report.named["convexity.convex"], falling])
    for few, many in zip(*found, strict=True):
        assert (few.verdict, many.verdict) == (Verdict.PROVED, Verdict.PROVED)
        # So many drawn, a quarter on shells, 256 at least, and what climbs from there.
        assert many.samples - few.samples == (5000 + 1250) - (100 + 256)


def test_a_search_of_one_state_is_a_search() -> None:
    def violation(offset: Tensor) -> Violation:
        value = offset.square().sum(1)
        return Violation(-value, value)

    claim = Claim(check="positivity", name="positive", sentence="V > 0.", violation=violation, tolerance=1e-12)
    finding = judge(claim, Ball(torch.zeros(3).double(), 1.0), seed=0, effort=replace(USUAL, samples=1))
    assert finding.verdict is Verdict.SUPPORTED
    assert "Of 1 drawn" in finding.evidence


@pytest.mark.parametrize("count", [0, -1, MOST_STATES + 1])
def test_another_number_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"states = {count}: expected from 1 to {MOST_STATES}"):
        audit(model("lyadeq-anchored"), images(2), torch.tensor([0, 1]), states=count)


# --- from the command to the report, its repetition, and shards ---


def test_the_command_says_it_in_the_report_which_is_repeated_and_joined(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_untrained(Path("model.safetensors"), "lyadeq-anchored")
    asked = ["audit", "model.safetensors", "--checks", "positivity,convexity", "--images", "2", "--states", "300"]
    assert run(*asked) == 0
    told = read_report(Path("report.json"))
    assert told.command["options"]["states"] == 300
    assert 300 < told.named["positivity.positive"].samples < 5000  # by default more than 16384
    capsys.readouterr()
    assert run("verify", "model.safetensors", "report.json") == 0
    assert "samples" not in capsys.readouterr().out
    for shard in ("1/2", "2/2"):
        assert run(*asked, "--shard", shard, "--out", "parts") == 0
    # Parts of other numbers are of another work, and the processes of --jobs get it.
    assert {read_part(path).work["options"]["states"] for path in Path("parts").iterdir()} == {300}
    assert run("merge", "parts", "--out", "joined") == 0
    joined = read_report(Path("joined/report.json"))
    assert joined.command == told.command
    assert {name: one.samples for name, one in joined.named.items()} == {
        name: one.samples for name, one in told.named.items()
    }


@pytest.mark.parametrize("count", [True, 0, "300", MOST_STATES + 1])
def test_a_report_that_names_no_such_number_is_not_repeated(
    count: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_untrained(Path("model.safetensors"), "deq")
    assert run("audit", "model.safetensors", "--checks", "equilibrium", "--images", "2") in (0, 3)
    plain = json.loads(Path("report.json").read_text())
    plain["command"]["options"]["states"] = count
    Path("report.json").write_text(json.dumps(plain))
    assert run("verify", "model.safetensors", "report.json") != 0
    assert "names no number of states" in " ".join(capsys.readouterr().err.split())


def test_where_a_sign_must_be_certain_every_suspect_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding makes all states look violated, and some most; those at the rim, which look it least, surely are."""
    monkeypatch.setattr(judge_module, "HELD", 1)

    def fails(states: Tensor) -> Tensor:
        return (states.norm(dim=1) > 0.95) & (states[:, 0] > 0.9)

    def violation(states: Tensor) -> Violation:
        bare = torch.where(fails(states), 1.0, 0.01).double()
        return Floored(bare, torch.where(fails(states), 1000.0, 1.0).double(), torch.ones_like(bare))

    def certain(state: Tensor) -> tuple[int, float]:
        return (1, 1.0) if bool(fails(state[None])[0]) else (-1, -1e-9)

    claim = Claim(check="c", name="n", sentence="x", violation=violation, tolerance=1e-9, certain=certain)
    effort = Effort(samples=20000, starts=4, steps=2)
    assert judge(claim, Ball(torch.zeros(2).double(), 1.0), seed=0, effort=effort).verdict is Verdict.REFUTED
