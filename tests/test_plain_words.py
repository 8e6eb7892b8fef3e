"""Plain words: a sentence of its own for every finding that the code can produce, and none that says more than its verdict."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import analysis
from analysis.checks import robustness
from analysis.checks.robustness.indicator import Indicator
from analysis.findings import Verdict
from analysis.report.page import render_html
from analysis.report.plain_words import FAILS, HOLDS, in_plain_words
from analysis.report.reading import verdict
from analysis.user_function.sentences import NAMES

ANALYSIS = Path(analysis.__file__).parent
# What makes a finding, and where in its arguments the finding's name stands.
MAKERS = {"Finding": None, "Claim": None, "_finding": 1, "find": 0, "_report_decay": 1}


def names_in(path: Path) -> set[str]:
    """Return the names that a module's source gives to findings: by keyword, by place, or in a dict of common values."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            maker = getattr(node.func, "id", getattr(node.func, "attr", None))
            if maker in MAKERS:
                place = MAKERS[maker]
                found += [keyword.value for keyword in node.keywords if keyword.arg == "name"]
                found += [] if place is None else node.args[place : place + 1]
        elif isinstance(node, ast.Dict):
            keys = [getattr(key, "value", None) for key in node.keys]
            if "check" in keys and "name" in keys:
                found.append(node.values[keys.index("name")])
        names |= {item.value for item in found if isinstance(item, ast.Constant)}
    return names


def produced() -> set[str]:
    """Return the ids of all findings that checks, indicators, certificates and judgements of a foreign V can produce."""
    ids = {f"{path.stem}.{name}" for path in (ANALYSIS / "checks").glob("*.py") for name in names_in(path)}
    for module in pkgutil.iter_modules(robustness.__path__):
        values = vars(importlib.import_module(f"analysis.checks.robustness.{module.name}")).values()
        ids |= {f"robustness.{value.name}" for value in values if isinstance(value, Indicator)}
    ids |= {f"{name}.{name}" for name in names_in(ANALYSIS / "certify.py")}
    return ids | {f"{name}.{name}" for name in NAMES}


def finding(key: str, word: str) -> dict[str, str]:
    check, _, name = key.partition(".")
    return {"check": check, "name": name, "verdict": word}


def test_every_finding_that_the_code_can_produce_has_its_sentence() -> None:
    ids = produced()
    assert {"equilibrium.exists", "decay.flow", "robustness.eps = 0", "gain.gain", "proper.proper"} <= ids
    assert ids == set(HOLDS)
    for key in FAILS:
        assert key in HOLDS


def test_each_check_module_shows_its_findings_names() -> None:
    """Else the test above would see nothing of a check that makes its findings in another way."""
    for path in (ANALYSIS / "checks").glob("[a-z]*.py"):
        assert path.stem == "robustness" or names_in(path), path


@pytest.mark.parametrize("word", [*Verdict, "UNKNOWN"])
def test_sentences_are_sentences_and_tell_verdicts_apart(word: str) -> None:
    said = [in_plain_words(finding(key, word)) for key in HOLDS]
    for sentence in said:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert ".." not in sentence
    assert len(set(said)) == len(said)
    others = {in_plain_words(finding(key, other)) for key in HOLDS for other in Verdict if other != word}
    assert not others & set(said)


def test_only_what_is_proved_is_called_proved() -> None:
    for key in [*HOLDS, "foreign.claim"]:
        assert "proved" in in_plain_words(finding(key, "PROVED"))
        for word in ("SUPPORTED", "REFUTED", "INCONCLUSIVE", "WORD"):
            said = in_plain_words(finding(key, word))
            assert "prove" not in said.replace("no proof", "")
    for key in HOLDS:
        assert in_plain_words(finding(key, "SUPPORTED")).startswith("As far as we looked, ")
    assert "no proof" in in_plain_words(finding("foreign.claim", "SUPPORTED"))


@pytest.mark.parametrize("item", [{}, {"check": None, "name": ["x"], "verdict": 3}, {"check": "decay", "name": "<b>"}])
def test_what_is_unknown_still_gets_a_sentence(item: dict) -> None:
    assert verdict(item) == "UNKNOWN"
    assert in_plain_words(item) == "The report does not say, in words known here, whether this is true."


def test_a_check_that_was_not_made_is_not_worded_as_one() -> None:
    item = {"check": "decay", "name": "not judged", "verdict": "INCONCLUSIVE"}
    assert in_plain_words(item) == "This was not looked into, so nothing is known of it."


def test_the_page_says_it_twice() -> None:
    """In the table of verdicts, and on the finding's card."""
    item = finding("equilibrium.unique", "SUPPORTED") | {"claim": "It is unique."}
    html = render_html({"findings": [item]})
    assert html.count(in_plain_words(item)) == 2
