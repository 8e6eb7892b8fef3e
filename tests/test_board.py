"""The board of equilibrium models: entries are whole, the page shows them, and what is at odds with a checkpoint is found."""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.certify import certify
from analysis.findings import Measurement
from analysis.report.report import Report
from benchmarks import board
from benchmarks.board import (
    ENTRIES,
    L2,
    LINF,
    PAGE,
    SCHEMA,
    Entry,
    differences,
    entries,
    main,
    read_entry,
    schema,
    with_entries,
)
from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import DataConfig, ModelConfig
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

SHARES = {"0.1": 96.68, "0.3": 92.3, "0.5": None, "1": 27, "1.58": 0.0}
PLAIN: dict[str, Any] = {
    "name": "a model",
    "kind": "deq",
    "data": "digits",
    "recipe": "stabdeq train digits",
    "parameters": 100,
    "clean": {"accuracy": 97.5, "images": 40},
    "honest": [{"norm": "linf", "eps": "8/255", "images": 40, "accuracy": 92.5}],
    "certification": {
        "images": 40,
        "seed": 3,
        "images_sha256": None,
        "l2": SHARES,
        "linf": {"2/255": 90.0, "0.1": None},
        "deployed": None,
    },
    "sha256": "ab" * 32,
    "date": "2026-01-02",
    "machine": "one core",
    "commands": ["stabdeq certify CHECKPOINT"],
    "who": "somebody",
    "note": "Once.",
}


def written(folder: Path, plain: Any) -> Path:
    path = folder / "entry.json"
    path.write_text(json.dumps(plain))
    return path


def changed(**values: Any) -> dict[str, Any]:
    return PLAIN | values


def certification(**values: Any) -> dict[str, Any]:
    return changed(certification=PLAIN["certification"] | values)


def test_the_page_and_the_schema_are_what_the_generator_writes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_entries(page, entries()) == page, "docs/board.md is not what its entries say: run `make results`"
    assert SCHEMA.read_text(encoding="utf-8") == schema(), "docs/board/schema.json is old: run `make results`"


def test_every_entry_is_on_the_page_in_one_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = entries()
    assert {path.stem for path in ENTRIES.iterdir()} == {*found, "schema"}
    for file, entry in found.items():
        assert page.count(f"(board/{file}.json)") == 1
        assert f"\n| {entry.name} |" in page
    named = [(entry.data, entry.name) for entry in found.values()]
    assert len(set(named)) == len(named)


def test_a_row_says_what_was_measured_and_what_was_not(tmp_path: Path) -> None:
    entry = read_entry(written(tmp_path, PLAIN))
    page = with_entries("<!-- board: digits -->\n<!-- end -->\n<!-- board: mnist -->\n<!-- end -->", {"entry": entry})
    assert "| a model | 97.5 | 96.68 | 92.3 | · | 27 | 0.0 | 90.0 | · | · | 92.5 at l-inf 8/255 (n = 40) |\n" in page
    assert page.count("a model") == 1
    bare = changed(clean=None, honest=None, certification=None, sha256=None, parameters=None)
    line = with_entries("<!-- board: digits -->\n<!-- end -->", {"entry": read_entry(written(tmp_path, bare))})
    assert f"| a model |{' · |' * 10}\n" in line


def test_the_most_robust_comes_first(tmp_path: Path) -> None:
    found = {
        name: read_entry(written(tmp_path, plain | {"name": name}))
        for name, plain in (
            ("attacked", changed(certification=None)),
            ("clean", changed(certification=None, honest=None)),
            ("less", certification(l2=SHARES | {"0.3": 9.5})),
            ("most", PLAIN),
        )
    }
    page = with_entries("<!-- board: digits -->\n<!-- end -->", found)
    assert [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")][2:] == [
        *("| most", "| less", "| attacked", "| clean"),
    ]


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({key: value for key, value in PLAIN.items() if key != "seed" and key != "who"}, "who: Field required"),
        (changed(stars=5), "stars: Extra inputs"),
        (changed(clean={"accuracy": 101, "images": 40}), "clean.accuracy: Input should be less"),
        (changed(clean={"accuracy": "97", "images": 40}), "clean.accuracy"),
        (changed(clean={"accuracy": True, "images": 40}), "clean.accuracy"),
        (changed(sha256="short"), "sha256"),
        (changed(commands=[]), "commands"),
        (changed(honest=[{"norm": "l1", "eps": "8/255", "images": 40, "accuracy": 1.0}]), "norm"),
        (certification(l2={"0.1": 90.0}), "needs l2 at 0.1, 0.3, 0.5, 1, 1.58"),
        (certification(l2=SHARES | {"0.7": 3.0}), "0.7"),
        (changed(honest=PLAIN["honest"] * 2), "one accuracy for each norm and eps, got more at linf 8/255"),
        (changed(name="a | b"), "name: Value error, expected one line of plain text"),
        (changed(who="<script>x</script>"), "who: Value error, expected one line"),
        (changed(machine="[a](javascript:b)"), "machine: Value error, expected one line"),
        (changed(note="Once.\n# Twice"), "note: Value error, expected one line"),
        (changed(recipe="stabdeq train `digits`"), "recipe: Value error, expected one line"),
        (changed(commands=["stabdeq\u202e certify"]), "commands.0: Value error, expected one line"),
        ([], "valid dictionary"),
    ],
)
def test_what_is_no_entry_is_refused(plain: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"entry\.json") as refused:
        read_entry(written(tmp_path, plain))
    assert said in str(refused.value)


def test_an_entry_that_says_two_things_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)
    path.write_text(path.read_text().replace('"parameters": 100', '"parameters": 100, "parameters": 10'))
    with pytest.raises(ConfigError, match="the key 'parameters' stands twice"):
        read_entry(path)


def test_what_is_no_file_of_an_entry_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "large.json").write_text(json.dumps(PLAIN | {"note": "n" * board.MOST}))
    for name, said in (("pipe", "no regular file"), ("large", "larger than"), ("lost", "No such file")):
        with pytest.raises(ConfigError, match=said):
            read_entry(tmp_path / f"{name}.json")


def report(**values: Any) -> Report:
    """A certification that the entry agrees with, but for ``values``."""
    shares = {"accuracy": 0.975, "0.1": 0.96682, "0.3": 0.9251, "1": 0.274, "1.58": 0.0, "0.5": 0.3} | values
    shares["0.3"] = values.get("0.3", 0.92345)
    measured = [
        Measurement(
            check="radius", name=name if name == "accuracy" else f"certified accuracy {name}", value=value, text=""
        )
        for name, value in shares.items()
        if name in (*L2, "accuracy")
    ]
    measured += [
        Measurement(check="linf", name=f"certified accuracy {eps}", value=values.get(f"linf {eps}", 0.9), text="")
        for eps in LINF
    ]
    data = {"name": values.get("data", "digits")}
    checkpoint = {"sha256": values.get("sha256", "ab" * 32), "kind": "deq", "data": data}
    return Report(measurements=tuple(measured), checkpoint=checkpoint, sample={"sha256": values.get("images")})


@pytest.mark.parametrize(
    ("values", "parameters", "said"),
    [
        ({}, 100, []),
        ({"0.5": 0.99, "linf 0.1": 0.2}, 100, []),  # of what the entry says null, it claims nothing
        ({"1": 0.275}, 100, []),
        ({"1": 0.276}, 100, ["radius, certified accuracy 1: the entry says 27 %, certified anew it is 27.60 %"]),
        (
            {"0.1": 0.9669},
            100,
            ["radius, certified accuracy 0.1: the entry says 96.68 %, certified anew it is 96.69 %"],
        ),
        (
            {"linf 2/255": 0.8},
            100,
            ["linf, certified accuracy 2/255: the entry says 90.0 %, certified anew it is 80.00 %"],
        ),
        ({"accuracy": 0.97}, 100, ["radius, accuracy: the entry says 97.5 %, certified anew it is 97.00 %"]),
        ({"sha256": "cd" * 32}, 100, [f"SHA-256: the entry says {'ab' * 32}, the checkpoint {'cd' * 32}"]),
        ({}, 99, ["parameters: the entry says 100, the checkpoint 99"]),
    ],
)
def test_what_differs_is_said(values: dict[str, Any], parameters: int, said: list[str], tmp_path: Path) -> None:
    assert differences(read_entry(written(tmp_path, PLAIN)), report(**values), parameters) == said


def test_what_was_not_certified_anew_differs(tmp_path: Path) -> None:
    entry = read_entry(written(tmp_path, certification(deployed=90.0)))
    assert differences(entry, report(), 100) == [
        "deployed, certified accuracy 0.3: the entry says 90.0 %, certified anew it is nothing"
    ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board") / "checkpoint.safetensors"
    config = ModelConfig(image_shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.4,), state_dim=4, cell="certified")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config)
    names = tuple("0123456789")
    save_checkpoint(path, Checkpoint(model=model, data=DataConfig(), class_names=names, seed=0, epoch=0))
    return path


def entry_of(checkpoint: Path, samples: int = 40, data_dir: Path | None = None) -> dict[str, Any]:
    """An entry with the numbers of a certification, as somebody would copy them."""
    found = certify(checkpoint, samples=samples, seed=3, data_dir=data_dir)
    shares = {(one.check, one.name): round(100 * one.value, 2) for one in found.measurements if one.value is not None}
    return changed(
        kind=found.checkpoint["kind"],
        parameters=None,
        sha256=found.checkpoint["sha256"],
        clean={"accuracy": shares["radius", "accuracy"], "images": samples},
        honest=None,
        certification={
            "images": samples,
            "seed": 3,
            "images_sha256": found.sample["sha256"],
            "l2": {eps: shares["radius", f"certified accuracy {eps}"] for eps in L2},
            "linf": {eps: shares["linf", f"certified accuracy {eps}"] for eps in LINF},
            "deployed": None,
        },
    )


def test_an_entry_is_certified_anew_and_a_tampered_one_is_caught(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = entry_of(checkpoint)
    assert main([str(checkpoint), str(written(tmp_path, honest))]) == 0
    assert "stands" in capsys.readouterr().out
    better = honest | {"clean": {"accuracy": honest["clean"]["accuracy"] + 2.5, "images": 40}}
    assert main([str(checkpoint), str(written(tmp_path, better))]) == 1
    assert "radius, accuracy: the entry says" in capsys.readouterr().out


def test_what_cannot_be_certified_anew_ends_with_2(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(checkpoint), str(written(tmp_path, changed(certification=None)))]) == 2
    assert "nothing of it can be certified anew" in capsys.readouterr().err
    assert main([str(tmp_path / "none.safetensors"), str(written(tmp_path, PLAIN))]) == 2
    assert main([str(checkpoint), str(tmp_path / "lost.json")]) == 2


def test_without_arguments_the_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "board.md"
    page.write_text("# B\n<!-- board: digits -->\nold\n<!-- end -->\nafter\n")
    for name, value in (
        ("PAGE", page),
        ("ENTRIES", tmp_path / "board"),
        ("SCHEMA", tmp_path / "board" / "schema.json"),
    ):
        monkeypatch.setattr(board, name, value)
    (tmp_path / "board").mkdir()
    written(tmp_path / "board", PLAIN)
    assert main([]) == 0
    text = page.read_text()
    assert "old" not in text
    assert "| a model |" in text
    assert text.endswith("after\n")
    assert json.loads(board.SCHEMA.read_text())["properties"].keys() == Entry.model_fields.keys()


def test_decimals_are_kept_as_written(tmp_path: Path) -> None:
    entry = read_entry(written(tmp_path, PLAIN))
    assert entry.certification is not None
    assert entry.certification.l2["1"] == Decimal(27)
    assert str(entry.certification.l2["1.58"]) == "0.0"
