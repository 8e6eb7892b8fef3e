"""A work in several shards: joined, the parts are what one process finds; what is missing, foreign or damaged is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_runs import run, save_untrained
from tiny_checkpoints import tiny_model

from analysis.audit import audit, units
from analysis.findings.catalogue import default_checks
from analysis.report.report import Report
from analysis.shards.attacks import attack_part, joined_attack
from analysis.shards.part import Part, read_part, write_part
from analysis.shards.reports import joined_report, report_part
from analysis.shards.work import Work
from stabdeq.__main__ import build_app
from stabdeq.attacks.run import attack
from stabdeq.errors import ConfigError
from stabdeq.shard import Shard

COUNTS = (1, 2, 4, 7)
WORK = Work("audit", "torch", {"seed": 1})
Change = Callable[[dict[str, Any]], Any]


def timeless(plain: Any) -> Any:
    """Plain data without the only two things that time decides."""
    if isinstance(plain, dict):
        return {key: timeless(value) for key, value in plain.items() if key not in ("seconds", "date")}
    return [timeless(item) for item in plain] if isinstance(plain, list) else plain


def shards(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(1, count + 1)]


def through_files(folder: Path, parts: list[Part]) -> list[Part]:
    return [read_part(write_part(folder, part)) for part in parts]


# --- what is joined is what one process finds ---


@pytest.mark.parametrize(
    ("kind", "checks"),
    [
        ("lyadeq", ["spectrum", "equilibrium", "separation", "convergence"]),
        ("deq", list(default_checks())),  # most of them are skipped: there is no V
    ],
)
def test_an_audit_in_shards_is_that_of_one_process(kind: str, checks: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images, labels = tiny_model(kind), torch.rand(4, 1, 3, 3), torch.tensor([0, 1, 0, 1])

    def judged(shard: Shard) -> Report:
        return audit(model, images, labels, checks=checks, seed=1, shard=shard)

    whole = judged(Shard(1, 1))
    assert any(finding.verdict == "REFUTED" for finding in whole.findings) is (kind == "lyadeq")
    assert bool(whole.skipped) is True
    for count in COUNTS:
        parts = through_files(
            tmp_path, [report_part(WORK, shard, units(checks), judged(shard)) for shard in shards(count)]
        )
        joined = json.loads(joined_report(parts).to_json())
        # As text: the order, too, in which a reader meets all of it.
        assert json.dumps(timeless(joined)) == json.dumps(timeless(json.loads(whole.to_json())))


@pytest.mark.parametrize(("name", "counts"), [("pgd", COUNTS), ("honest", (2,))])  # honest takes long
def test_an_attack_in_shards_is_that_of_one_process(name: str, counts: tuple[int, ...], tmp_path: Path) -> None:
    """Of four batches, more shards than there are have nothing to do."""
    torch.manual_seed(0)
    model, images, labels = tiny_model().eval(), torch.rand(16, 1, 3, 3), torch.randint(2, (16,))

    def attacked(shard: Shard) -> Any:
        settings: dict[str, Any] = {"name": name, "steps": 2, "restarts": 2, "samples": 13, "batch_size": 4, "seed": 3}
        return attack(model, images, labels, eps="64/255", **settings, shard=shard)

    whole = attacked(Shard(1, 1)).to_json()
    assert len(set(json.loads(whole)["samples"].get("broken_by", ["clean", None]))) > 1
    for count in counts:
        parts = [attack_part(Work("attack", "torch", {}), shard, attacked(shard)) for shard in shards(count)]
        assert joined_attack(through_files(tmp_path, parts)).to_json() == whole


# --- the command line ---


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.safetensors, the report of one process in ``whole``, and the parts of two in ``parts``."""
    folder = tmp_path_factory.mktemp("shards")
    options = ("--checks", "equilibrium,separation", "--images", "8", "--seed", "5")
    model = save_untrained(folder / "model.safetensors", "lyadeq")
    assert run("audit", model, *options, "--out", folder / "whole") == 1
    for shard in ("2/2", "1/2"):
        assert run("audit", model, *options, "--shard", shard, "--out", folder / "parts") == 0
    assert sorted(path.name for path in (folder / "parts").iterdir()) == [
        "audit-1-of-2.part.json",
        "audit-2-of-2.part.json",
    ]
    return folder


@pytest.fixture
def parts(audited: Path, folder: Path) -> Path:
    """A copy of the parts, in the current folder."""
    return Path(shutil.copytree(audited / "parts", folder / "parts"))


def edit(path: Path, change: Change) -> None:
    """Change what a part says, and its hash with it: the work of a foreign program."""
    from analysis.shards.part import _digest

    plain = json.loads(path.read_text())
    change(plain["part"])
    path.write_text(json.dumps(plain | {"sha256": _digest(plain["part"])}))


def test_a_merged_report_is_repeated_and_replayed(audited: Path, folder: Path) -> None:
    assert run("merge", audited / "parts", "--out", "merged") == 1
    assert sorted(path.name for path in Path("merged").iterdir()) == ["report.html", "report.json"]
    one, two = (json.loads((at / "report.json").read_text()) for at in (audited / "whole", Path("merged")))
    assert timeless(one) == timeless(two)
    assert run("verify", audited / "model.safetensors", "merged/report.json") == 0
    assert run("replay", "merged/report.json") == 0


def test_a_shard_that_is_made_again_changes_nothing(audited: Path, parts: Path) -> None:
    first = parts / "audit-1-of-2.part.json"
    before = json.loads(first.read_text())["part"]
    options = ("--checks", "equilibrium,separation", "--images", "8", "--seed", "5")
    assert run("audit", audited / "model.safetensors", *options, "--shard", "1/2", "--out", parts) == 0
    assert timeless(json.loads(first.read_text())["part"]) == timeless(before)
    shutil.copy(audited / "parts" / first.name, parts / "copied.part.json")
    assert run("merge", parts, "--out", "merged") == 1


def test_an_attack_is_merged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_untrained(folder / "model.safetensors", "deq")
    options = ("--images", "10", "--batch-size", "4", "--steps", "2", "--quiet")
    assert run("attack", model, *options, "--json", "whole.json") == 0
    for shard in ("1/2", "2/2"):
        assert run("attack", model, *options, "--shard", shard, "--out", "parts") == 0
    capsys.readouterr()
    assert run("merge", "parts", "--out", "merged") == 0
    assert "deq on digits, pgd (linf), 10 test images" in capsys.readouterr().out
    assert Path("merged/attack.json").read_text() == Path("whole.json").read_text()


def test_the_words_of_a_shard_are_read_as_the_work_was() -> None:
    options = {"images": (Path("own.npz"), 64), "labels": None, "trusted": True, "github": False, "seed": 7}
    words = Work("audit", "module:make", options).words(Shard(2, 3), Path("parts"))
    _, bound, _ = build_app().parse_args(words, exit_on_error=False, print_error=False)
    assert bound.arguments == {
        "checkpoint": "module:make",
        "samples": (Path("own.npz"), 64),
        "trusted": True,
        "seed": 7,
        "shard": Shard(2, 3),
        "out": Path("parts"),
    }


# --- what is refused ---


def test_a_lost_shard_is_named_with_the_command_that_makes_it(
    audited: Path, parts: Path, refusal: Callable[..., str]
) -> None:
    (parts / "audit-2-of-2.part.json").unlink()
    line = refusal("merge", "parts", "--out", "merged")
    assert "1 of 2 shards missing: 2/2: run stabdeq audit" in line
    command = line.rpartition("run stabdeq ")[2].split()
    assert run(*command) == 0
    assert run("merge", "parts", "--out", "merged") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda part: part["work"]["files"].update(subject="0" * 64), "files.subject is 0000"),
        (lambda part: part["work"]["files"].update(images="0" * 64), "files.images is 0000"),
        (lambda part: part["work"]["options"].update(seed=6), "options.seed is 6, not 5"),
        (lambda part: part["work"]["options"].pop("images"), "options.images is not given, not [8]"),
        (lambda part: part["work"]["environment"].update(torch="1.0"), "environment.torch is 1.0, not"),
        (lambda part: part["work"].update(command="attack"), "command is attack, not audit"),
        (lambda part: part.update(shard="2/3"), "one of 3 shards"),
        (lambda part: part.update(shard="1/2"), "shard 1/2 is there twice, and says something else"),
        (lambda part: part.update(shard="3/2"), "no part that --shard wrote"),
        (lambda part: part.update(schema=2), "a part of schema 2, expected 1"),
        (lambda part: part["work"].pop("units"), "no part that --shard wrote"),
        (lambda part: part["result"].update(findings="none"), "holds no report of separation"),
        (lambda part: part["result"]["findings"][0].update(check="decay"), "holds no report of separation"),
    ],
)
def test_a_part_of_another_work_is_refused(parts: Path, refusal: Callable[..., str], change: Change, said: str) -> None:
    edit(parts / "audit-2-of-2.part.json", change)
    assert said in refusal("merge", "parts", "--out", "merged")


def test_a_damaged_part_is_refused(parts: Path, refusal: Callable[..., str]) -> None:
    second = parts / "audit-2-of-2.part.json"
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    assert f"{second.relative_to(Path.cwd())}: truncated or broken" in refusal("merge", "parts", "--out", "merged")
    second.write_bytes(whole.replace(b'"REFUTED"', b'"PROVED"', 1))
    assert "changed since it was written" in refusal("merge", "parts", "--out", "merged")
    for text in (b"[]", b"{}", b'{"part": {}, "sha256": ""}', b"[" * 100_000):
        second.write_bytes(text)
        refusal("merge", "parts", "--out", "merged")
    second.unlink()
    second.mkdir()
    refusal("merge", "parts", "--out", "merged")


def test_a_folder_without_parts_is_refused(folder: Path, refusal: Callable[..., str]) -> None:
    for place in ("nowhere", "."):
        assert "no parts there" in refusal("merge", place, "--out", "merged")


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "a/b", "2/0", "1/4/4", "", "²/4", "1.0/4"])
def test_a_malformed_shard_is_refused(text: str, refusal: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="expected I/N"):
        Shard.parse(text)
    assert "expected I/N" in refusal("audit", "no.safetensors", f"--shard={text}", "--out", "parts")


@pytest.mark.parametrize("command", ["audit", "attack"])
def test_options_that_make_no_sense_with_a_shard_are_refused(
    command: str, folder: Path, refusal: Callable[..., str]
) -> None:
    assert "say with --out into which folder" in refusal(command, "x", "--shard", "1/2")
    assert "give one of both" in refusal(command, "x", "--shard", "1/2", "--out", "parts", "--jobs", "2")
    assert "--ray starts them: give one" in refusal(command, "x", "--shard", "1/2", "--out", "parts", "--ray")
    of_all = {"audit": ("--junit", "--markdown", "--sarif", "--baseline"), "attack": ("--json",)}[command]
    for option in of_all:
        assert f"{option} is of the whole" in refusal(command, "x", "--shard", "1/2", "--out", "p", option, "file")


def test_a_part_of_another_work_is_not_written_over(audited: Path, parts: Path, refusal: Callable[..., str]) -> None:
    line = refusal("audit", audited / "model.safetensors", "--checks", "spectrum", "--shard", "1/2", "--out", parts)
    assert "is the part of another work: options.checks is equilibrium,separation, not spectrum" in line
