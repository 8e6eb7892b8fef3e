"""Plain words: a sentence of its own for every finding that the code can produce, and none that says more than its verdict."""

import importlib
import pkgutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from sample_report import page_of
from short_hunts import shorten_hunts

from analysis.audit import audit
from analysis.certify import certify
from analysis.checks import robustness
from analysis.checks.robustness.indicator import Indicator
from analysis.findings import CheckResult, Finding, Verdict
from analysis.findings.catalogue import CHECKS, ClaimWords, default_checks, register_check, rows, words_of
from analysis.findings.rows import CERTIFIED, OF_A_FUNCTION
from analysis.report.plain_words import in_plain_words
from analysis.report.report import Report
from analysis.user_function.sentences import NAMES
from stabdeq.config import ArchitectureConfig, LyapunovConfig
from stabdeq.config.kinds import model_config
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

# Each row's words by the finding's id, the words of an audit first.
ROWS = {(check.name, row.name, row.about): row for check in rows() for row in check.claims} | {
    (row.name, row.name, row.about): row for row in (*CERTIFIED, *OF_A_FUNCTION)
}
VERDICTS = [word for word in Verdict if word is not Verdict.UNKNOWN]


def read(item: dict[str, Any]) -> Finding:
    """Return the finding that a report's ``item`` holds."""
    return Report.parse({"findings": [item]}).findings[0]


def finding(key: tuple[str, str, str], word: str) -> Finding:
    check, name, about = key
    return read({"check": check, "name": name, "claim": f"Of {about}.", "verdict": word})


def untrained(kind: str, **options: Any) -> StabilisedDEQ:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        architecture = ArchitectureConfig(state_dim=6, lyapunov=LyapunovConfig(hidden=4), **options)
        return StabilisedDEQ(
            model_config(kind, architecture, image_shape=(1, 4, 4), classes=3, mean=(0.5,), std=(0.3,))
        )


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return images, torch.arange(6) % 3


def words(report: Report) -> list[ClaimWords | None]:
    """Return the row of each finding."""
    return [words_of(item.check, item.name, item.claim) for item in report.findings]


# Every finding has its row, and every row its finding.


def test_every_row_of_a_check_that_audits_make_is_of_a_finding_that_they_make(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_hunts(monkeypatch)
    made = [words(audit(untrained(kind), *sample())) for kind in ("lyadeq-certified", "lyadeq", "deq")]
    assert {row for report in made for row in report} == {
        row for check in rows() if check.name in default_checks() for row in check.claims
    }


def test_every_indicator_of_robustness_has_a_row_and_every_row_is_an_indicators() -> None:
    found = set()
    for module in pkgutil.iter_modules(robustness.__path__):
        values = vars(importlib.import_module(f"analysis.checks.robustness.{module.name}")).values()
        found |= {value.name for value in values if isinstance(value, Indicator)}
    assert "eps = 0" in found
    assert found == {row.name for row in CHECKS["robustness"].claims}


def test_every_claim_that_weights_prove_has_a_row() -> None:
    models = untrained("lyadeq-anchored", cell="interval"), untrained("lyadeq-certified")
    said = [row for model in models for row in words(certify(model, *sample(), deployed=True))]
    assert None not in said
    assert {row.name for row in said if row} == {row.name for row in CERTIFIED}


def test_every_claim_about_a_users_function_has_a_row() -> None:
    assert [row.name for row in OF_A_FUNCTION] == list(NAMES)


@pytest.mark.parametrize("change", [{"name": "unheard of"}, {"check": "decay", "name": "stable"}])
def test_an_audit_takes_no_finding_that_its_check_has_no_row_for(
    change: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = replace(finding(("toy", "stable", ""), "SUPPORTED"), **change)
    told = replace(CHECKS["spectrum"], name="toy", run=lambda subject: CheckResult(findings=[made]))
    monkeypatch.setitem(CHECKS._registered, "toy", told)
    with pytest.raises(TypeError, match=rf"the check 'toy' has no claim {made.check}\.{made.name}: give it one"):
        audit(untrained("deq"), *sample(), checks=["toy"])


# What the rows say.


@pytest.mark.parametrize("word", Verdict)
def test_sentences_are_sentences_and_tell_verdicts_apart(word: Verdict) -> None:
    # An anchored model's second equilibrium is told in the words of any other's.
    keys = [key for key in ROWS if (key[2], word) != ("stabilised field", Verdict.REFUTED)]
    said = [in_plain_words(finding(key, word)) for key in keys]
    for sentence in said:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert ".." not in sentence
    assert len(set(said)) == len(said)
    others = {in_plain_words(finding(key, other)) for key in ROWS for other in Verdict if other != word}
    assert not others & set(said)


def test_only_what_is_proved_is_called_proved() -> None:
    foreign = ("foreign", "claim", "")
    for key in [*ROWS, foreign]:
        assert "proved" in in_plain_words(finding(key, "PROVED"))
        for word in ("SUPPORTED", "REFUTED", "INCONCLUSIVE", "WORD"):
            said = in_plain_words(finding(key, word))
            assert "prove" not in said.replace("no proof", "")
    for key in ROWS:
        assert in_plain_words(finding(key, "SUPPORTED")).startswith("As far as we looked, ")
    assert "no proof" in in_plain_words(finding(foreign, "SUPPORTED"))


def test_a_row_about_something_else_is_passed_over() -> None:
    plain = in_plain_words(read({"check": "equilibrium", "name": "unique", "verdict": "PROVED"}))
    stabilised = in_plain_words(finding(("equilibrium", "unique", "stabilised field"), "PROVED"))
    assert plain.startswith("This is proved: for an image on which the cell comes to rest at all")
    assert stabilised.startswith("This is proved: the stabilised model rests where a resting state was found")


@pytest.mark.parametrize("item", [{}, {"check": None, "name": ["x"], "verdict": 3}, {"check": "decay", "name": "<b>"}])
def test_what_is_unknown_still_gets_a_sentence(item: dict) -> None:
    assert read(item).verdict == "UNKNOWN"
    assert in_plain_words(read(item)) == "The report does not say, in words known here, whether this is true."


def test_a_check_that_was_not_made_is_not_worded_as_one() -> None:
    item = read({"check": "decay", "name": "not judged", "verdict": "INCONCLUSIVE"})
    assert in_plain_words(item) == "This was not looked into, so nothing is known of it."


def test_the_page_says_it_once() -> None:
    """Beside the claim, of which the evidence is a part that opens."""
    item = {"check": "equilibrium", "name": "unique", "verdict": "SUPPORTED", "claim": "It is unique."}
    assert page_of({"findings": [item]}).count(in_plain_words(read(item))) == 1


def test_a_check_of_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ConfigError, match="the check 'decay' exists already: choose another name"):
        register_check(replace(CHECKS["spectrum"], name="decay"))
