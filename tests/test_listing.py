"""``stabdeq list``: everything that has a name, each with a sentence, without torch."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from command_runs import REPOSITORY, run

from analysis.findings.catalogue import CHECKS
from analysis.findings.rows import CERTIFIED, OF_A_FUNCTION
from stabdeq.config.kinds import KINDS
from stabdeq.listing import ATTACK_SENTENCES, GROUPS, SOLVER_SENTENCES, GroupName, listed
from stabdeq.registry import ATTACKS, SOLVERS, Registry
from train.recipe import recipe_names


def names(group: GroupName) -> list[str]:
    return [row.name for row in listed(group)[group]]


def test_every_name_is_listed_with_a_sentence() -> None:
    for rows in listed().values():
        for row in rows:
            assert len(row.sentence) > 10, row
            assert "\n" not in row.sentence
    assert names("recipes") == recipe_names()
    assert names("kinds") == list(KINDS)
    assert names("checks") == list(CHECKS)
    assert names("attacks") == list(ATTACKS)
    assert names("solvers") == list(SOLVERS)


def test_every_claim_is_listed_under_what_judges_it() -> None:
    assert names("claims") == [
        *(f"{name}: {claim.name}" for name in CHECKS for claim in CHECKS[name].claims),
        *(f"certify: {claim.name}" for claim in CERTIFIED),
        *(f"check: {claim.name}" for claim in OF_A_FUNCTION),
    ]


def test_every_sentence_is_of_a_name() -> None:
    assert set(ATTACK_SENTENCES) == set(ATTACKS.own_names())
    assert set(SOLVER_SENTENCES) == set(SOLVERS.own_names())


@pytest.mark.parametrize(("group", "registry"), [("attacks", ATTACKS), ("solvers", SOLVERS), ("checks", CHECKS)])
def test_a_package_s_own_is_listed_and_not_imported(
    group: GroupName, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint(name="theirs", value="no_such_package:thing", group="stabdeq.any")
    monkeypatch.setattr(registry, "_of_packages", lambda: {"theirs": point})
    assert [row.sentence for row in listed(group)[group] if row.name == "theirs"] == [
        "registered by a package that is installed"
    ]


def test_the_list_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    text = capsys.readouterr().out
    assert run("list", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(GROUPS) == [line for line in text.splitlines() if not line.startswith(" ")]
    for rows in found.values():
        for row in rows:
            assert set(row) == {"name", "sentence"}
            assert f"  {row['name']} " in text
            assert f"  {row['sentence']}\n" in text


def test_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "kinds") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(KINDS)
    assert run("list", "kindz") == 2
    assert 'Did you mean "kinds"?' in capsys.readouterr().err


def test_list_and_show_import_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from stabdeq.__main__ import main\n"
        "main(['list'])\n"
        "for name in ('cross-entropy', 'trades', 'pgd-at', 'ibp'):\n"
        "    main(['show', 'digits', '--kind', 'resnet20', '--set', f'objective.name={name}'])\n"
        "print('HEAVY', [name for name in 'torch scipy numpy sklearn cvxpy matplotlib'.split() if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
