"""``stabdeq compare --fail-on-difference`` ends with 1 where reports do not say the same, and else as without it."""

import json
from pathlib import Path

import pytest
from command_runs import run

HOLDS, FAILS = {"decay.flow": "SUPPORTED", "equilibrium.unique": "PROVED"}, {"decay.flow": "REFUTED"}


def saved(path: Path, verdicts: dict[str, str], margin: float = 1.0) -> Path:
    findings = [
        {"check": name.partition(".")[0], "name": name.partition(".")[2], "claim": name, "verdict": verdict}
        | {"margin": margin, "evidence": "It was seen.", "samples": 8, "tolerance": 0.0, "dtype": "float64", "seed": 0}
        for name, verdict in verdicts.items()
    ]
    path.write_text(json.dumps({"schema": 1, "findings": findings}))
    return path


@pytest.mark.parametrize(
    ("others", "code", "words"),
    [
        ([HOLDS], 0, "0 of 2 claims end differently."),
        ([HOLDS | FAILS], 1, "1 of 2 claims end differently."),
        ([HOLDS, HOLDS | FAILS], 1, "1 of 2 claims end differently."),
        (
            [{"equilibrium.unique": "PROVED"}],
            1,
            "0 of 2 claims end differently. 1 is not in every report: 1 not judged.",
        ),
        ([HOLDS | {"decay.raw": "PROVED", "decay.more": "PROVED"}], 1, "2 are not in every report: 2 not claimed."),
    ],
)
def test_it_fails_where_a_claim_ends_differently_or_is_missing(
    others: list[dict[str, str]], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [saved(tmp_path / f"{place}.json", one) for place, one in enumerate([HOLDS, *others])]
    page = tmp_path / "compare.html"
    assert run("compare", *paths) == 0
    assert run("compare", *paths, "--fail-on-difference", "--out", page) == code
    assert words in capsys.readouterr().out
    assert page.is_file()


def test_it_fails_where_a_claim_of_the_same_name_is_another_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [saved(tmp_path / f"{rate}.json", HOLDS) for rate in (0.1, 0.1000001, 0.5)]
    for path in paths:
        path.write_text(path.read_text().replace('"decay.flow"', f'"V-dot <= -{path.stem} V"'))
    assert run("compare", *paths[:2], "--fail-on-difference") == 0
    assert run("compare", *paths[1:], "--fail-on-difference") == 1
    assert "B: V-dot <= -0.5 V" in " ".join(capsys.readouterr().out.split())
    assert run("compare", *paths) == 0


def test_another_margin_is_no_other_end(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{margin}.json", HOLDS, margin) for margin in (1.0, 2.0)]
    assert run("compare", *paths, "--fail-on-difference") == 0
