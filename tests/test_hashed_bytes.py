"""A SHA-256 in a file of ours is of the bytes that were loaded, though another file takes the place of theirs meanwhile."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_runs import run, save_untrained

import stabdeq
from stabdeq import checkpoint
from stabdeq.checker.door import check as checked
from stabdeq.errors import CheckpointError

Record = Callable[[Path, Path], str]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def replaced_after_loading(monkeypatch: pytest.MonkeyPatch, other: bytes) -> None:
    """Let each checkpoint be replaced by ``other`` once it was read, as by a training that goes on."""
    parse = checkpoint.checkpoint_in

    def parse_and_replace(content: bytes, path: Path, **options: Any) -> Any:
        loaded = parse(content, path, **options)
        path.write_bytes(other)
        return loaded

    for module in ("stabdeq.checkpoint", "analysis.certify"):
        monkeypatch.setattr(f"{module}.checkpoint_in", parse_and_replace)


def by_audit(model: Path, out: Path) -> str:
    assert run("audit", model, "--checks", "positivity", "--images", "2", "--out", out.parent) in (0, 1, 3)
    return json.loads((out.parent / "report.json").read_text())["checkpoint"]["sha256"]


def by_certify(model: Path, out: Path) -> str:
    assert run("certify", model, "--images", "2", "--json", out) in (0, 3)
    return json.loads(out.read_text())["checkpoint"]["sha256"]


def by_proof(model: Path, out: Path) -> str:
    assert run("certify", model, "--images", "2", "--proof", out) in (0, 3)
    return json.loads(out.read_text())["sha256"]


def by_solvers(model: Path, out: Path) -> str:
    assert run("solvers", model, "--images", "2", "--evaluations", "4", "--json", out) == 0
    return json.loads(out.read_text())["checkpoint"]["sha256"]


def by_attack(model: Path, out: Path) -> str:
    assert run("attack", model, "--images", "2", "--steps", "1", "--json", out) == 0
    return json.loads(out.read_text())["sha256"]


def by_robust_data(model: Path, out: Path) -> str:
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # a part of the set, which bears the hash, is removed when the set is whole
        patch.setattr("train.robust_data._save_part", lambda path, found, settings: out.write_text(settings.model))
        assert run("robust-data", model, "--images", "2", "--steps", "1", "--out", out.parent / "set") == 0
    return out.read_text()


def test_a_card_is_of_the_report_that_it_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, report = save_untrained(tmp_path / "model.safetensors", "lyadeq"), tmp_path / "report.json"
    run("audit", path, "--checks", "separation", "--images", "8", "--out", tmp_path)
    read, other = report.read_bytes(), report.read_bytes().replace(b"REFUTED", b"PROVED")
    assert other != read
    load = checkpoint.load_checkpoint

    def load_and_replace(path: Path, **options: Any) -> Any:
        report.write_bytes(other)
        return load(path, **options)

    monkeypatch.setattr("analysis.report.checkpoint_of.load_checkpoint", load_and_replace)
    assert run("report", report, "--card", tmp_path / "card.md") == 0
    card = (tmp_path / "card.md").read_text()
    assert digest(read) in card
    assert digest(other) not in card


@pytest.mark.parametrize("record", [by_audit, by_certify, by_proof, by_solvers, by_attack, by_robust_data])
def test_a_replaced_checkpoint_is_not_attested(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = save_untrained(tmp_path / "model.safetensors"), save_untrained(tmp_path / "other", "lyadeq")
    judged = path.read_bytes()
    replaced_after_loading(monkeypatch, other.read_bytes())
    assert record(path, tmp_path / "out.json") == digest(judged)
    assert path.read_bytes() == other.read_bytes()


def test_a_proof_holds_though_the_file_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, proof = save_untrained(tmp_path / "model.safetensors"), tmp_path / "proof.json"
    judged = path.read_bytes()
    with monkeypatch.context() as patch:
        replaced_after_loading(patch, save_untrained(tmp_path / "other", "lyadeq").read_bytes())
        stabdeq.certify(path, samples=2, proof=proof)
    assert len(checked(proof.read_bytes(), judged)) > 1


def test_a_replay_is_of_the_bytes_that_were_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_untrained(tmp_path / "model.safetensors", "lyadeq")
    run("audit", path, "--checks", "separation", "--images", "8")
    other = save_untrained(tmp_path / "other", "lyadeq-anchored").read_bytes()
    load = checkpoint.load_checkpoint

    def replace_and_load(path: Path, **options: Any) -> Any:
        path.write_bytes(other)
        return load(path, **options)

    monkeypatch.setattr("analysis.report.checkpoint_of.load_checkpoint", replace_and_load)
    with pytest.raises(CheckpointError, match="was replaced while it was read"):
        stabdeq.replay(tmp_path / "report.json")


def test_the_source_in_a_proof_of_boxes_is_that_of_the_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "swapped_plant.py"
    source.write_text("def V(z):\n    return (z ** 2).sum(1)\n")
    judged = source.read_bytes()
    monkeypatch.syspath_prepend(tmp_path)
    stabdeq.check(
        "swapped_plant:V",
        dim=2,
        claims=["zero"],
        samples=64,
        proof=tmp_path / "proof.json",
        on_claim=lambda name: source.write_text("# another") or None,
    )
    proof = json.loads((tmp_path / "proof.json").read_text())
    assert proof["source"]["V"] == {"name": "swapped_plant:V", "sha256": digest(judged)}
