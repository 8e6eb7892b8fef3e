"""The head of the page: the outcome in words, and what was judged, on which data, when and by which checks."""

import re
from dataclasses import dataclass

from analysis.findings import Finding, Verdict
from analysis.findings.catalogue import words_of
from analysis.findings.finding import NOT_JUDGED
from analysis.findings.values import mapping, printable, sequence
from analysis.report.made_by import draws_images
from analysis.report.quantities import cut
from analysis.report.report import Report
from stabdeq.percent import percent_in_digits

_KINDS = {"certify": "Certificates of a model’s weights", "check": "Check of a Lyapunov function"}
MOST_NAMED, MAX_NAME = 12, 60  # of one verdict, and characters of one name
_HASH = 12  # digits of a hash that tell files apart


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A fact of the head: its name, its value in short, and in ``full``, for whoever asks, where that says more."""

    name: str
    value: str
    full: str = ""


def kind_of(report: Report) -> str:
    """Return what kind of report it is."""
    return _KINDS.get(printable(report.command.get("name")), "Stability audit")


def outcome(report: Report) -> str:
    """Return the verdict on all claims in words: what is refuted or open first, then what is not."""
    counts = report.counts
    words = [
        ("proved", counts[Verdict.PROVED]),
        ("supported by a search without a counterexample", counts[Verdict.SUPPORTED]),
    ]
    held = [f"{count} {'is' if count == 1 else 'are'} {word}" for word, count in words if count]
    return f"{report.sentence} {' and '.join(held)}{'.' if held else ''}".strip()


def which(report: Report) -> dict[Verdict, list[str]]:
    """Return which claims end in each verdict, in a few words each, and how many more where they are many.

    >>> from analysis.report.report import Report
    >>> found = [{"check": "decay", "name": name, "verdict": "PROVED"} for name in ("flow", "mine")]
    >>> which(Report.parse({"findings": found}))[Verdict.PROVED]
    ['V falls as promised along whole trajectories', 'decay: mine']
    """
    listed: dict[Verdict, list[str]] = {word: [] for word in Verdict}
    for finding in report.findings:
        refuted = "not so: " if finding.verdict is Verdict.REFUTED else ""  # the title says what was claimed
        listed[finding.verdict].append(f"{refuted}{title_of(finding)}")
    return {word: _few(titles) for word, titles in listed.items()}


def title_of(finding: Finding) -> str:
    """Return what a finding claims in a few words."""
    words = words_of(finding.check, finding.name, finding.claim)
    if words and words.title:
        return words.title
    check, name = in_words(finding.check), in_words(finding.name)
    return check if name == check else f"{check}: {name}"


def _few(words: list[str]) -> list[str]:
    return words[:MOST_NAMED] + ([f"{len(words) - MOST_NAMED} more"] if len(words) > MOST_NAMED else [])


def in_words(name: str) -> str:
    """Return the name of a check or a claim as a reader wants it."""
    return cut(name or "unnamed", MAX_NAME).replace("_", " ")


def facts(report: Report) -> list[Fact]:
    """Return the facts that the report holds: accuracy, data, checkpoint, date, checks."""
    found = [
        Fact(name="Accuracy", value=_accuracy(report)),
        Fact(name="Data", value=_data(report)),
        Fact(
            name="Checkpoint",
            value=printable(report.checkpoint.get("sha256"))[:_HASH],
            full=printable(report.checkpoint.get("sha256")),
        ),
        Fact(name="Date", value=_date(report), full=printable(report.environment.get("date"))),
        Fact(name="Claims" if report.command.get("name") == "check" else "Checks", value=_checks(report)),
    ]
    return [fact for fact in found if fact.value]


def _accuracy(report: Report) -> str:
    """Return the share of the images that the model classifies as labelled; empty where the report does not hold it."""
    right, count = report.sample.get("right"), len(sequence(report.sample.get("images")))
    if type(right) is not int or not 0 <= right <= count or not count:
        return ""
    return f"{percent_in_digits(right / count, 4)}, {right} of {count} images"


def _data(report: Report) -> str:
    name = printable(mapping(report.checkpoint.get("data")).get("name"))
    count = len(sequence(report.sample.get("images")))
    images = f"{count} image{'s' * (count != 1)}" if count else ""
    if not name or not images or draws_images(report.command):
        return ", ".join(part for part in (name, f"{images} of its test split" if name and images else images) if part)
    return f"{images} that were given, not drawn from the test split of {name}"


def _date(report: Report) -> str:
    """Return the date to the minute, as the report has it where it has another form.

    >>> _date(Report(environment={"date": "2026-11-28T18:16:24+00:00"}))
    '2026-11-28, 18:16 UTC'
    """
    date = printable(report.environment.get("date"))
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?\+00:00", date)
    return f"{found[1]}, {found[2]} UTC" if found else date


def _checks(report: Report) -> str:
    ran = {printable(item.check) for item in report.findings if item.name != NOT_JUDGED}
    ran |= {printable(item.check) for item in report.measurements}
    every = ran | {printable(item.check) for item in report.skipped}
    names = list(dict.fromkeys([*(printable(item.check) for item in report.findings), *sorted(ran)]))
    listed = ", ".join(in_words(name) for name in names if name in ran)
    return f"{len(ran)} of {len(every)} made: {listed}" if listed else ""
