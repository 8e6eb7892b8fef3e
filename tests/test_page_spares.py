"""A report's page leaves out what says nothing: the numbers of what was not judged, a step without a way."""

import re

from sample_report import page_of

from analysis.findings.finding import NOT_JUDGED
from analysis.report.next_steps import next_steps
from analysis.report.report import Report


def refuted(state: list[float]) -> dict[str, object]:
    return {"check": "decay", "name": "flow", "claim": "V falls.", "verdict": "REFUTED", "witness": {"state": state}}


def test_what_was_not_judged_has_a_name_and_no_numbers() -> None:
    open_claim = {"check": "spectrum", "name": NOT_JUDGED, "claim": "What it judges.", "verdict": "INCONCLUSIVE"}
    told = [
        re.findall("<dt>(Margin|Samples|Arithmetic|Name)</dt>", page_of({"findings": [item]}))
        for item in (open_claim, refuted([1]))
    ]
    assert told == [["Name"], ["Margin", "Samples", "Arithmetic", "Name"]]


def test_a_witness_is_to_be_evaluated_anew_where_a_command_does_that() -> None:
    plain = {"findings": [refuted([1.0])]}
    step, *_ = next_steps(Report.parse(plain))
    assert (step.words, step.command) == ("Look at what refutes a claim, below", "")
    first, *_ = next_steps(Report.parse(plain | {"checkpoint": {"path": "a.safetensors"}}))
    assert (first.words, first.command) == (
        "Look at what refutes a claim, below, and evaluate it anew",
        "stabdeq replay report.json --data-dir DIR",
    )
