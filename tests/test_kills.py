"""The soak of kills: a command is killed or ends, and what is not whole afterwards is named."""

from pathlib import Path

import pytest
from command_runs import save_untrained

from tools.soak import kills


def test_a_command_is_killed_or_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "COMMANDS", {"version": (("--version",), (0,))})
    assert kills._run("version", tmp_path, None) == 0
    assert (tmp_path / "log").read_text().strip()
    assert kills._run("version", tmp_path, 1e-6) is None


def test_what_is_not_whole_is_named(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    checkpoint = save_untrained(tmp_path / "below" / "x.safetensors")
    (tmp_path / "whole.json").write_text("{}")
    assert kills.faults_in(tmp_path) == []
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    (tmp_path / "cut.json").write_text("{")
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "report.html").write_text("the page of another")
    named = [fault.partition(":")[0] for fault in kills.faults_in(tmp_path)]
    assert named == ["x.safetensors", "cut.json", "report.html is not the page of its report"]
