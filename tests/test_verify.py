"""A report is repeated: what was changed in it by hand is found, and what cannot be repeated is said, never passed."""

import json
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_runs import run, save_untrained

import stabdeq
from analysis import verify as verify_module
from analysis.audit import audit
from analysis.report.likeness import same_sentence
from analysis.report.reading import read_report
from stabdeq.checkpoint import load_checkpoint
from stabdeq.errors import ConfigError, DataError, NotReplayableError, ReportError

CHECKS = "equilibrium,separation"  # of an untrained LyaDEQ two claims are refuted
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.safetensors and its report.json and report.html, made in it: no path in them is another's in a copy."""
    folder = tmp_path_factory.mktemp("audited")
    with chdir(folder):
        save_untrained(Path("model.safetensors"), "lyadeq")
        assert run("audit", "model.safetensors", "--checks", CHECKS, "--images", "8", "--seed", "5") == 1
    return folder


@pytest.fixture
def copied(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for file in audited.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def once(audited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the audit that is repeated be the one that was made: it is a test of its own that it is."""
    made = read_report(audited / "report.json")
    monkeypatch.setattr(verify_module, "audit", lambda *_, **__: made)


def edit(path: Path, change: Change) -> None:
    """Change a report by hand, and throw its page away: to draw it again would take longer than the test."""
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    path.with_suffix(".html").unlink(missing_ok=True)


def verified(folder: Path) -> int:
    return run("verify", folder / "model.safetensors", folder / "report.json")


def refuted_to_proved(plain: dict[str, Any]) -> None:
    for finding in plain["findings"]:
        if finding["verdict"] == "REFUTED":
            finding |= {"verdict": "PROVED", "witness": None}
    plain["exit_code"] = 0


def refuted_left_out(plain: dict[str, Any]) -> None:
    plain["findings"] = [one for one in plain["findings"] if one["verdict"] != "REFUTED"]
    plain["exit_code"] = 0


def test_an_honest_report_is_repeated(
    audited: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(audited)
    before = (audited / "report.json").read_bytes()
    assert verified(audited) == 0
    told = capsys.readouterr().out
    assert "claims end as the report says: it is repeated." in told
    assert "Partial: 2 of 7 checks were run." in told
    assert "Not as the report says" not in told
    assert "decides nothing" not in told
    assert (audited / "report.json").read_bytes() == before


def test_verdicts_turned_by_hand_are_found(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(copied / "report.json", refuted_to_proved)
    assert run("report", copied / "report.json") == 0
    assert 'class="finding refuted"' not in (copied / "report.html").read_text()  # the page is clean
    found = stabdeq.verify(copied / "model.safetensors", copied / "report.json")
    turned = {one.what: (one.reported, one.now) for one in found.differences if one.decides}
    assert turned == {
        "equilibrium.preserved": ("PROVED", "REFUTED"),
        "separation.increases": ("PROVED", "REFUTED"),
    }
    assert not found.holds
    assert verified(copied) == 1
    assert "it is not repeated" in capsys.readouterr().out


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (refuted_left_out, "separation.increases"),
        (lambda plain: plain["findings"].append(plain["findings"][0] | {"name": "invented"}), "equilibrium.invented"),
        (lambda plain: plain["findings"][0].update(claim="The model is robust."), "equilibrium.exists"),
        (lambda plain: plain.update(exit_code=0), "the file"),
        (lambda plain: plain.update(exit_code="0"), "the file"),
        (lambda plain: plain.update(exit_code=True), "the file"),  # to Python, that is the 1 that it should be
        (lambda plain: plain["environment"].update(torch=["2.0"]), "the file"),
        (lambda plain: plain["skipped"][0].update(asked_for="no"), "the file"),
        (lambda plain: plain["checkpoint"].update(epoch=False), "checkpoint epoch"),  # it is 0
        (lambda plain: plain["checkpoint"].update(path=7), "checkpoint path"),
        (lambda plain: plain["checkpoint"].update(kind="lyadeq-certified"), "checkpoint kind"),
        (lambda plain: plain["checkpoint"]["data"].update(name="mnist"), "checkpoint data"),
        (lambda plain: plain.update(subject="a certified model"), "report subject"),
        (lambda plain: plain["skipped"][0].update(asked_for=True), "the checks that were skipped"),  # and so no banner
        (lambda plain: plain["skipped"].clear(), "the checks that were skipped"),
        (lambda plain: plain["skipped"].insert(0, plain["skipped"][0] | {"reason": "proved by hand"}), "the checks that were skipped"),
    ],
)  # fmt: skip
def test_what_else_was_changed_by_hand_is_found(change: Change, what: str, copied: Path) -> None:
    edit(copied / "report.json", change)
    found = stabdeq.verify(copied / "model.safetensors", copied / "report.json")
    assert what in {one.what for one in found.differences if one.decides}
    assert found.exit_code == 1


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda plain: plain["findings"][0].update(samples=10**9), "equilibrium.exists"),
        (lambda plain: plain["findings"][0].update(samples=plain["findings"][0]["samples"] + 1), "equilibrium.exists"),
        (lambda plain: plain["findings"][-1]["witness"].update(image=3), "separation.increases"),
        (lambda plain: plain["series"]["separation"].update(before=[[0.0]]), "numbers of the figures: separation"),
        (lambda plain: plain["measurements"][0].update(value=77.0), "measured "),
    ],
)
def test_other_numbers_are_told_and_decide_nothing(change: Change, what: str, copied: Path) -> None:
    edit(copied / "report.json", change)
    found = stabdeq.verify(copied / "model.safetensors", copied / "report.json")
    (one,) = [one for one in found.differences if one.what.startswith(what)]
    assert not one.decides
    assert found.holds


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(("true", "forged"), [("All 8 images", "All 9 images"), ("residual at most", "no residual")])
def test_other_evidence_is_shown_beside_what_came(
    true: str, forged: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(plain: dict[str, Any]) -> None:
        finding = plain["findings"][0]
        finding["evidence"] = finding["evidence"].replace(true, forged)

    edit(copied / "report.json", change)
    (one,) = stabdeq.verify("model.safetensors", "report.json").differences
    assert (one.what, one.decides) == ("equilibrium.exists evidence", False)
    assert one.reported == one.now.replace(true, forged) != one.now
    capsys.readouterr()
    assert run("verify", "model.safetensors", "report.json") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.endswith("it is repeated, but for the evidence of 1, which decides nothing: compare both above.")


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("change", "what", "now"),
    [
        (lambda plain: plain["environment"].update(torch="0.1"), "environment torch", torch.__version__),
        (lambda plain: plain["environment"].update(approved="by all"), "environment approved", "not there"),
        (
            lambda plain: plain["checkpoint"].update(path="certified\0.safetensors"),
            "checkpoint path",
            "model.safetensors",
        ),
        (
            lambda plain: plain["command"].update(subject="good.safetensors"),
            "command's checkpoint",
            "model.safetensors",
        ),
    ],
)
def test_other_versions_and_places_are_told_and_decide_nothing(
    change: Change, what: str, now: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copied / "report.json", change)
    assert run("verify", "model.safetensors", "report.json") == 0
    assert "Otherwise than in the report, which decides nothing" in capsys.readouterr().out
    (one,) = stabdeq.verify("model.safetensors", "report.json").differences
    assert (one.what, one.now, one.decides) == (what, now, False)


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    "foreign", ["<script>alert()</script>", '<g style="position: fixed"/>', '<a href="https://x.org"/>']
)
def test_a_drawing_with_what_ours_never_hold_is_found(foreign: str, copied: Path) -> None:
    page = copied / "report.html"
    page.write_text(page.read_text().replace("</svg>", f"{foreign}</svg>", 1))
    found = stabdeq.verify(copied / "model.safetensors", copied / "report.json")
    assert [one.what for one in found.differences] == ["report.html"]
    assert not found.holds


def test_numbers_of_a_claim_are_part_of_it() -> None:
    assert same_sentence("V >= 0.1 ||z||^2, to 1e-12.", "V >= 0.10000001 ||z||^2, to 1e-12.")
    assert not same_sentence("V >= 1000 ||z||^2.", "V >= 0.1 ||z||^2.")
    assert not same_sentence("V-dot <= -1 V.", "V-dot <= 1 V.")
    assert not same_sentence("V >= 0.1 ||z||^2.", "V > 0.1 ||z||^2.")
    assert not same_sentence("On 10000 images.", "On 10001 images.")
    assert not same_sentence("On 10,000 images.", "On 10,001 images.")
    assert same_sentence("On 10,000 images.", "On 10000 images.")
    assert not same_sentence("At 1,2,3.", "At 123.")
    assert same_sentence("V-dot <= -1e+04 V, to 12,345.6.", "V-dot <= -1.0001e+04 V, to 12,345.7.")


@pytest.mark.usefixtures("once")
def test_what_another_machine_leaves_of_numbers_is_no_difference(copied: Path) -> None:
    def rounded(plain: dict[str, Any]) -> None:
        for finding in plain["findings"]:
            finding["margin"] = None if finding["margin"] is None else finding["margin"] * (1 + 1e-9)

    edit(copied / "report.json", rounded)
    assert not stabdeq.verify(copied / "model.safetensors", copied / "report.json").differences


@pytest.mark.usefixtures("once")
def test_a_page_that_says_something_else_is_found(copied: Path) -> None:
    page = copied / "report.html"
    text = page.read_text()
    page.write_text(text.replace("2 claims are refuted", "No claim is refuted"))
    found = stabdeq.verify(copied / "model.safetensors", copied / "report.json")
    assert [one.what for one in found.differences] == ["report.html"]
    assert found.exit_code == 1
    page.write_text(text.replace("<svg ", '<svg id="drawn-otherwise" '))
    assert stabdeq.verify(copied / "model.safetensors", copied / "report.json").holds


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plain: plain["checkpoint"].update(sha256="0" * 64), "another checkpoint"),
        (lambda plain: plain.update(checkpoint={}), "verify repeats reports of"),
        (lambda plain: plain["environment"].update(stabdeq="0.0.1"), "made by stabdeq 0.0.1"),
        (lambda plain: plain["environment"].clear(), "of no version"),
        (lambda plain: plain.update(schema=7), "found 7"),
        (lambda plain: plain.pop("command"), "which command made it"),
        (lambda plain: plain["command"].pop("subject"), "made in Python"),
        (lambda plain: plain["command"].update(name="check"), "on code that is not run for a report"),
        (lambda plain: plain["command"]["options"].update(seed="5"), "no seed"),
        (lambda plain: plain["command"]["options"].update(images=0), "no number of images"),
        (lambda plain: plain["command"]["options"].update(alpha=9), "options that 'audit' does not have: alpha"),
        (lambda plain: plain["command"]["options"].update(images=9), "are not those of the report"),
        (lambda plain: plain["command"]["options"].update(checks=["vibes", 3]), "none of this version: vibes, 3"),
        (lambda plain: plain["command"]["options"].pop("checks"), "none of this version"),
        (lambda plain: plain["sample"].update(sha256="0" * 64), "are not those of the report"),
        (lambda plain: plain.pop("sample"), "are not those of the report"),
    ],
)
def test_what_cannot_be_repeated_is_said(
    change: Change, words: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copied / "report.json", change)
    with pytest.raises(NotReplayableError, match=words):
        stabdeq.verify(copied / "model.safetensors", copied / "report.json")
    assert verified(copied) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stabdeq: ")


def test_another_checkpoint_or_missing_data_cannot_be_repeated(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise DataError("no such folder")

    other = save_untrained(copied / "other.safetensors", "lyadeq-anchored")
    assert run("verify", other, copied / "report.json") == 3
    assert "another checkpoint: its SHA-256 is" in capsys.readouterr().err
    monkeypatch.setattr("stabdeq.trained_on.load_data", missing)
    assert verified(copied) == 3
    assert "the images are not to be had: no such folder" in capsys.readouterr().err


def test_what_is_no_report_or_no_checkpoint_is_a_usage_error(copied: Path) -> None:
    with pytest.raises(ReportError):
        stabdeq.verify(copied / "model.safetensors", copied / "model.safetensors")
    assert run("verify", copied / "gone.safetensors", copied / "report.json") == 2


def test_a_certification_is_repeated(copied: Path) -> None:
    model, path = copied / "model.safetensors", copied / "certified.json"
    assert run("certify", model, "--images", "4", "--seed", "2", "--json", path) == 3
    assert not stabdeq.verify(model, path).differences
    with pytest.raises(ConfigError, match="dim is of dynamics"):
        stabdeq.certify(load_checkpoint(model), dim=2)
    plain = json.loads(path.read_text())
    finding = next(one for one in plain["findings"] if one["verdict"] == "INCONCLUSIVE")
    finding["verdict"] = "PROVED"
    path.write_text(json.dumps(plain))
    assert stabdeq.verify(model, path).exit_code == 1


def test_reports_of_python_or_of_functions_say_how_to_repeat_them(copied: Path) -> None:
    model = copied / "model.safetensors"
    audit(model, torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), checks=["positivity"]).save(copied / "own")
    with pytest.raises(NotReplayableError, match="made in Python, on a model or images that no command draws"):
        stabdeq.verify(model, copied / "own" / "report.json")
    stabdeq.check(lambda z: z.square().sum(1), dim=2, claims=["zero"], samples=64).save(copied / "function")
    with pytest.raises(NotReplayableError, match=r"one of 'check'.*make it again in Python.*--fail-on-difference"):
        stabdeq.verify(model, copied / "function" / "report.json")


def test_a_report_about_a_model_of_ones_own_says_how_to_repeat_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"verified_{abs(hash(folder))}"
    (folder / f"{name}.py").write_text(
        "from stabdeq.adapters import from_functions\n"
        "make = from_functions(lambda x: x.flatten(1), lambda z, h: z / 2 + h, lambda z: z[:, :2])\n"
    )
    np.savez(folder / "mine.npz", images=np.full((3, 1, 2, 2), 7, dtype=np.uint8), labels=np.zeros(3, dtype=np.int64))
    monkeypatch.syspath_prepend(folder)
    assert (
        run("audit", f"{name}:make", "--images", "mine.npz", "--images", "2", "--checks", "equilibrium", "--out", "own")
        == 0
    )
    capsys.readouterr()
    assert run("verify", f"{name}:make", "own/report.json") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"run 'stabdeq audit {name}:make --checks equilibrium --images mine.npz --seed 0 --samples 2' again" in line
    assert "--fail-on-difference" in line
    assert read_report(folder / "own" / "report.json").title == f"{name}:make on mine.npz"


def test_a_report_on_images_of_ones_own_says_how_to_repeat_it(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied)
    np.savez("mine.npz", images=np.full((3, 1, 8, 8), 7, dtype=np.uint8), labels=np.zeros(3, dtype=np.int64))
    assert run("audit", "model.safetensors", "--images", "mine.npz", "--checks", "positivity", "--out", "own") == 0
    capsys.readouterr()
    assert run("verify", "model.safetensors", "own/report.json") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "on images of your own: run 'stabdeq audit model.safetensors --checks positivity --images mine.npz" in line
