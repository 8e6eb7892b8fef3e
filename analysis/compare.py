"""Reports side by side: what each says of the same claims, and where they cannot be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from string import ascii_uppercase
from typing import Any

from analysis.findings import Finding, Measurement, Verdict
from analysis.findings.catalogue import in_order, question_of
from analysis.findings.finding import NOT_JUDGED
from analysis.findings.numbers import title_of_number
from analysis.findings.values import mapping, printable, sequence
from analysis.report import figures
from analysis.report.drawing import Drawing
from analysis.report.figures import certified
from analysis.report.header import title_of
from analysis.report.likeness import same_sentence
from analysis.report.made_by import command_line
from analysis.report.page import templates
from analysis.report.quantities import GAP, quantity
from analysis.report.report import Report, by_check, numbered

COMPARED = {
    "Certified accuracy in l2": partial(certified.compared, norm="l2"),
    "Certified accuracy in l-infinity": partial(certified.compared, norm="linf"),
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A column: its letter, what it is, where its report lies, and how its claims ended."""

    letter: str
    title: str
    source: str
    sentence: str
    counts: dict[Verdict, int]
    facts: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one report says of a claim: its ``title``, in a few words, and the sentence; ``margin`` is empty where it gives none."""

    title: str
    claim: str
    verdict: Verdict
    margin: str


class Gap(StrEnum):
    """Why a report says nothing of a claim that another one judges."""

    NOT_CLAIMED = "not claimed"
    SKIPPED = "skipped"  # the audit could not, or the model has nothing of the kind: the report gives the reason
    NOT_CHECKED = "not checked"  # the audit was not asked to
    JUDGED = "judged"  # where the other report says that it did not judge


class Standing(StrEnum):
    """How reports stand to each other in a claim: the first of these that is so."""

    DIFFERS = "Verdicts that differ"
    OTHERWISE = "Claims that differ"
    MISSING = "Not in every report"
    ALIKE = "Alike in all"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A row: for each model its finding, or why it has none."""

    name: str
    claim: str
    cells: list[Judged | Gap]

    @property
    def title(self) -> str:
        """What it says in a few words; where the models do not claim the same, what each kind of them does."""
        return " / ".join(dict.fromkeys(cell.title for cell in self.cells if isinstance(cell, Judged)))

    @property
    def differs(self) -> bool:
        """Whether the verdicts, of those reports that have one, are not all the same."""
        return len({cell.verdict for cell in self.cells if isinstance(cell, Judged)}) > 1

    @property
    def is_worded_otherwise(self) -> bool:
        """Whether the reports claim different things under the one name."""
        said = [cell.claim for cell in self.cells if isinstance(cell, Judged)]
        return not all(same_sentence(said[0], other) for other in said[1:])

    @property
    def sentences(self) -> str:
        """What each report claims, a line a report."""
        said = {_letter(place): cell.claim for place, cell in enumerate(self.cells) if isinstance(cell, Judged)}
        return "\n".join(f"{letter}: {claim}" for letter, claim in said.items())

    @property
    def is_missing(self) -> bool:
        """Whether a report says nothing of it."""
        return any(isinstance(cell, Gap) for cell in self.cells)

    @property
    def is_unclaimed(self) -> bool:
        """Whether a report says nothing of it, since the model does not claim it, and no other reason."""
        return {cell for cell in self.cells if isinstance(cell, Gap)} == {Gap.NOT_CLAIMED}

    @property
    def standing(self) -> Standing:
        """Where the row belongs."""
        if self.differs:
            return Standing.DIFFERS
        if self.is_worded_otherwise:
            return Standing.OTHERWISE
        return Standing.MISSING if self.is_missing else Standing.ALIKE


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A row of numbers: what they are, and for each model its value and what that means, or why it has none."""

    title: str
    cells: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The rows of one check."""

    check: str
    question: str
    claims: list[Claim]
    measured: list[Measured]

    def rows(self, standing: Standing) -> list[Claim]:
        """Return the claims that stand so."""
        return [row for row in self.claims if row.standing is standing]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Models, what they claim and measure by check, and warnings where the reports are not comparable.

    ``skipped`` are sentences on which report left out what, and why; ``drawings`` are figures of all models in one, ``missing``
    sentences on those that could not be drawn.
    """

    models: list[Model]
    groups: list[Group]
    skipped: list[str]
    warnings: list[str]
    drawings: list[Drawing]
    missing: list[str]

    @property
    def claims(self) -> list[Claim]:
        """The rows of all checks."""
        return [row for group in self.groups for row in group.claims]

    @property
    def standings(self) -> dict[Standing, list[Group]]:
        """The groups that have such claims, by how the reports stand in them: what differs first."""
        parts = {word: [group for group in self.groups if group.rows(word)] for word in Standing}
        return {word: groups for word, groups in parts.items() if groups}

    @property
    def sentence(self) -> str:
        """How many claims end differently, or are other ones, and how many are not in every report, for which reason."""
        differing = sum(row.differs for row in self.claims)
        otherwise = sum(row.standing is Standing.OTHERWISE for row in self.claims)
        missing = [row for row in self.claims if row.is_missing]
        unclaimed = sum(row.is_unclaimed for row in missing)
        said = f"{differing} of {len(self.claims)} claims end differently."
        if otherwise:
            said += f" {otherwise} say{'s' if otherwise == 1 else ''} something else."
        if not missing:
            return said
        reasons = [(unclaimed, "not claimed"), (len(missing) - unclaimed, "not judged")]
        told = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
        return f"{said} {len(missing)} {'is' if len(missing) == 1 else 'are'} not in every report: {told}."


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What one report says of a check: findings by id, measurements by name, and why there are no more."""

    findings: dict[str, Finding]
    measured: dict[str, Measurement]
    why_missing: Gap
    reasons: list[str]


_NOT_CHECKED = _Told(findings={}, measured={}, why_missing=Gap.NOT_CHECKED, reasons=[])


def compare_reports(reports: Sequence[Report], sources: Sequence[str]) -> Comparison:
    """Return ``reports``, which may be foreign, side by side in their order; ``sources`` say where they lie."""
    models = [
        _model(_letter(place), report, source)
        for place, (report, source) in enumerate(zip(reports, sources, strict=True))
    ]
    columns = [_column(report) for report in reports]
    ordered = in_order(check for column in columns for check in column)
    drawings, missing = figures.draw_all(
        COMPARED, {model.letter: report.series for model, report in zip(models, reports, strict=True)}
    )
    return Comparison(
        models=models,
        groups=(groups := [group for check in ordered if (group := _group(check, columns)) is not None]),
        skipped=_skipped(models, columns, {group.check for group in groups}),
        warnings=_warnings(models, reports),
        drawings=drawings,
        missing=missing,
    )


def render_comparison(comparison: Comparison) -> str:
    """Return the comparison as one self-contained page in the style of a report's; every text in it is escaped."""
    return templates().get_template("compare.html.j2").render(comparison=comparison) + "\n"


def _letter(place: int) -> str:
    """Return A, B, ..., Z, AA, AB, ... as columns of a sheet are called.

    >>> _letter(0), _letter(25), _letter(26)
    ('A', 'Z', 'AA')
    """
    before, last = divmod(place, len(ascii_uppercase))
    return (_letter(before - 1) if before else "") + ascii_uppercase[last]


def _model(letter: str, report: Report, source: str) -> Model:
    return Model(
        letter=letter,
        title=report.title,
        source=printable(source),
        sentence=report.sentence,
        counts=report.counts,
        facts=_facts(report),
    )


def _facts(report: Report) -> dict[str, str]:
    checkpoint, environment = report.checkpoint, report.environment
    facts = {
        "Checkpoint": checkpoint.get("path"),
        "SHA-256": checkpoint.get("sha256"),
        "Epoch": checkpoint.get("epoch"),
        "Seed of training": checkpoint.get("seed"),
        "Data": mapping(checkpoint.get("data")).get("name"),
        "Test images": _images(report),
        "Seed of the audit": _seeds(report),
        "Command": command_line(report.command),
        "Date": environment.get("date"),
        "stabdeq": environment.get("stabdeq"),
    }
    return {name: printable(value) or GAP for name, value in facts.items()}


def _images(report: Report) -> int | None:
    """Return how many images were drawn; a report that does not list them says so where it looks for equilibria."""
    listed = sequence(report.sample.get("images"))
    exists = report.named.get("equilibrium.exists")
    return len(listed) or (exists.samples if exists else None)


def _seeds(report: Report) -> str:
    seeds = [report.sample.get("seed"), *(finding.seed for finding in report.findings)]
    return ", ".join(dict.fromkeys(printable(seed) for seed in seeds if seed is not None))


def _column(report: Report) -> dict[str, _Told]:
    """Return what ``report`` says of each check."""
    measured, skipped = by_check(report.measurements), by_check(item for item in report.skipped if item.asked_for)
    named: dict[str, dict[str, Finding]] = {}
    for name, finding in report.named.items():
        named.setdefault(printable(finding.check), {})[name] = finding
    return {
        check: _Told(
            findings=named.get(check, {}),
            measured=_by_name(measured.get(check, [])),
            why_missing=Gap.SKIPPED if check in skipped else Gap.NOT_CLAIMED,
            reasons=[printable(item.reason) or "it gives no reason" for item in skipped.get(check, [])],
        )
        for check in dict.fromkeys([*named, *measured, *skipped])
    }


def _group(check: str, columns: Sequence[dict[str, _Told]]) -> Group | None:
    """Return the rows of ``check``, None where all reports skipped it."""
    told = [column.get(check, _NOT_CHECKED) for column in columns]
    missing = [own.why_missing for own in told]
    findings, measured = [own.findings for own in told], [own.measured for own in told]
    claims = [_claim(name, [own.get(name) for own in findings], missing) for name in _names(findings)]
    rows = [_row(check, name, [own.get(name) for own in measured], missing) for name in _names(measured)]
    if not claims and not rows:
        return None
    return Group(check=check or "unnamed", question=question_of(check), claims=claims, measured=rows)


def _names(columns: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for column in columns for name in column))


def _by_name(measurements: list[Measurement]) -> dict[str, Measurement]:
    names = numbered(printable(item.name) for item in measurements)
    return dict(zip(names, measurements, strict=True))


def _skipped(models: Sequence[Model], columns: Sequence[dict[str, _Told]], shown: set[str]) -> list[str]:
    return [
        f"{model.letter} skipped {check}: {reason}"
        for model, column in zip(models, columns, strict=True)
        for check, told in column.items()
        if check in shown
        for reason in told.reasons
    ]


def _row(check: str, name: str, found: Sequence[Measurement | None], missing: Sequence[Gap]) -> Measured:
    cells = [
        (gap.replace("claimed", "measured"), "") if item is None else (quantity(item.value), printable(item.text))
        for item, gap in zip(found, missing, strict=True)
    ]
    return Measured(title=title_of_number(check, name), cells=cells)


def _claim(name: str, found: Sequence[Finding | None], missing: Sequence[Gap]) -> Claim:
    says_not = any(item is not None and item.name == NOT_JUDGED for item in found)
    cells = [
        (Gap.JUDGED if says_not and gap is Gap.NOT_CLAIMED else gap)
        if item is None
        else Judged(
            title=title_of(item),
            claim=printable(item.claim) or "A claim without words",
            verdict=item.verdict,
            margin="" if item.margin is None else quantity(item.margin),
        )
        for item, gap in zip(found, missing, strict=True)
    ]
    claim = next(cell.claim for cell in cells if isinstance(cell, Judged))
    return Claim(name=name, claim=claim, cells=cells)


def _warnings(models: Sequence[Model], reports: Sequence[Report]) -> list[str]:
    """Return, as sentences, what is wrong with a report, and what differs that must not where reports are compared."""
    said = [
        f"{model.letter}: {gap}"
        for model, report in zip(models, reports, strict=True)
        for gap in (*report.gaps, *([report.partial] if report.partial else []))
    ]
    for fact, words in (
        ("Data", "The models were judged on different data sets"),
        ("Seed of the audit", "The audits have different seeds, so they drew different images and states"),
        ("Test images", "The audits drew different numbers of images"),
        ("stabdeq", "The audits were made by different versions of stabdeq"),
    ):
        values = [model.facts[fact] for model in models]
        if len(set(values)) > 1:
            listed = ", ".join(f"{model.letter}: {value}" for model, value in zip(models, values, strict=True))
            said.append(f"{words} ({listed}).")
    hashes = [model.facts["SHA-256"] for model in models]
    for value in dict.fromkeys(value for value in hashes if value != GAP and hashes.count(value) > 1):
        same = " and ".join(model.letter for model in models if model.facts["SHA-256"] == value)
        said.append(f"{same} are reports of the same checkpoint.")
    return said
