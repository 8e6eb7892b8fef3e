"""The report of an audit: ``report.json``, which holds everything, and ``report.html``, drawn from it alone."""

import html
import json
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.findings import Finding, Measurement
from analysis.findings.catalogue import in_order, question_of
from analysis.findings.finding import NOT_JUDGED
from analysis.findings.values import TOO_DEEP, mapping, number, printable
from analysis.findings.verdict import WORST_FIRST
from analysis.report import figures, header
from analysis.report.drawing import Drawing
from analysis.report.figures.witness import MAX_MARKUP, Picture, pictures
from analysis.report.formulas import typeset
from analysis.report.junit import junit_xml
from analysis.report.made_by import command_line
from analysis.report.markdown import to_markdown
from analysis.report.next_steps import next_steps, not_run, replay_line, verify_line
from analysis.report.plain_words import in_plain_words
from analysis.report.quantities import cut, quantity
from analysis.report.report import Report, by_check
from analysis.report.sarif import to_sarif
from analysis.report.witness_words import key_in_words, value_in_words
from stabdeq.files import encoded, make_folder, replace_files, strict
from stabdeq.percent import in_percent

if TYPE_CHECKING:
    from jinja2 import Environment

_FULL_VALUES = 4096
_SHORT_VALUES = 4
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d{1,3})?) ?(%?)")
_MAX_CELL = 200  # characters of a text that may stand in thousands of cells


@dataclass(frozen=True, kw_only=True)
class Card:
    """A finding as the page shows it: ``witness`` rows are a name, the value in short, and in full where that says more."""

    finding: Finding
    check: str
    plain: str
    witness: list[tuple[str, str, str]]
    pictures: list[Picture]
    missing: list[str]
    replay: str

    @property
    def is_unjudged(self) -> bool:
        """Whether nothing was looked at, so that there are no numbers of it."""
        return self.finding.name == NOT_JUDGED


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page shows of one check besides its claims: figures, and measured numbers in words."""

    check: str
    question: str
    drawings: list[Drawing]
    missing: list[str]
    measured: list[str]

    @property
    def contents(self) -> str:
        """What the section holds, for whoever has not opened it.

        >>> Section(check="decay", question="", drawings=[], missing=["no"], measured=["a", "b"]).contents
        '2 measurements, 1 figure missing'
        """
        counts = (
            (len(self.drawings), "figure", ""),
            (len(self.measured), "measurement", ""),
            (len(self.missing), "figure", " missing"),
        )
        return ", ".join(f"{count} {word}{'s' * (count > 1)}{more}" for count, word, more in counts if count)


def write_report(
    report: Report, folder: Path, *, junit: Path | None = None, markdown: Path | None = None, sarif: Path | None = None
) -> tuple[Path, ...]:
    """Write ``report.json`` and ``report.html`` into ``folder``, made where missing, and what else is asked for; return the paths.

    Each file appears whole or not at all, and never beside one of an earlier report: see ``stabdeq.files.replace_files``. The page
    is drawn from the JSON text, so that it can be drawn again from the file.

    Raises:
        FileError: where ``folder`` or a file cannot be made or written.
        TypeError: where ``report`` holds what JSON cannot (a tensor, a path).
    """
    make_folder(folder)
    text = report.to_json()
    contents = {
        folder / "report.json": encoded(text),
        folder / "report.html": encoded(render_html(Report.parse(json.loads(text)))),
    }
    if junit is not None:
        contents[junit] = junit_xml(report)
    if markdown is not None:
        contents[markdown] = encoded(to_markdown(report))
    if sarif is not None:
        contents[sarif] = to_sarif(report)
    replace_files(contents)
    return tuple(contents)


def write_data(report: Report, *, json: Path | None, sarif: Path | None) -> tuple[Path, ...]:
    """Write what ``report.json`` holds, and SARIF, to the files that are asked for, as ``write_report`` does; return the paths."""
    contents = {path: encoded(report.to_json()) for path in (json,) if path is not None}
    contents |= {path: to_sarif(report) for path in (sarif,) if path is not None}
    replace_files(contents)
    return tuple(contents)


def render_html(report: Report) -> str:
    """Return the report as one self-contained page: no script, no request, light and dark, fit for paper.

    ``report`` may be foreign: every text in it is escaped, and cut where it is very long; what is missing is said, and
    nothing in it raises.
    """
    page = (
        templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            kind=header.kind_of(report),
            outcome=header.outcome(report),
            which=header.which(report),
            about=header.facts(report),
            steps=next_steps(report),
            cards=sorted(_cards(report), key=lambda card: WORST_FIRST.index(card.finding.verdict)),
            not_run=not_run(report),
            sections=_sections(report),
            facts=_facts(report),
            made_by=command_line(report.command),
            verify=verify_line(report),
            config=_pairs(report.checkpoint.get("model")),
        )
    )
    return page + "\n"


def framed(report: Report) -> str:
    """Return the page as a frame for a notebook, whose own style neither reaches it nor is reached by it."""
    return (
        f'<iframe srcdoc="{html.escape(render_html(report))}" title="{html.escape(report.title)}" '
        'style="width: 100%; height: 40rem; border: 0"></iframe>'
    )


@cache
def templates() -> "Environment":
    """Return the templates of pages, made once: each text is escaped, printable and of bounded length, each missing name an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if hasattr(value, "__html__") else cut(value),
    )
    environment.filters["quantity"] = quantity
    environment.filters["cell"] = _cell
    environment.filters["typeset"] = typeset
    return environment


def _sections(report: Report) -> list[Section]:
    measured, skipped = by_check(report.measurements), by_check(item for item in report.skipped if item.asked_for)
    series = {printable(check): mapping(numbers) for check, numbers in report.series.items()}
    of_weights = series.pop("certify", {})  # the claims about weights have it in common
    series |= dict.fromkeys(figures.OF_WEIGHTS, of_weights) if of_weights else {}
    judged = [] if report.command.get("name") == "check" else [printable(finding.check) for finding in report.findings]
    sections = []
    for check in in_order([*judged, *measured, *series]):
        drawings, missing = figures.draw(check, series.get(check, {}), report.class_names)
        section = Section(
            check=header.in_words(check),
            question=question_of(check),
            drawings=drawings,
            missing=[] if check in skipped else missing,
            measured=[_measured(item) for item in measured.get(check, [])],
        )
        sections += [section] if section.contents else []
    return sections


def _measured(item: Measurement) -> str:
    """Return a measurement in words, with its value where the words do not say it."""
    words = printable(item.text or item.name or "unnamed")
    value = number(item.value)
    if any(_rounds_to(value, *found) for found in _NUMBER.findall(words)):
        return words
    return f"{words}: {quantity(item.value)}"


def _rounds_to(value: float, text: str, percent: str) -> bool:
    """Return whether a number of a sentence is ``value`` with as many digits, or is that in percent."""
    mantissa, _, exponent = text.partition("e")
    unit = float(f"1e{int(exponent or 0) - len(mantissa.partition('.')[2])}")
    return abs((in_percent(value, unit) if percent else value) - float(text)) <= 0.51 * unit


def _cards(report: Report) -> list[Card]:
    """Return every finding as the page shows it, in the report's order: with its pictures, and how to replay it."""
    cards, room = [], MAX_MARKUP
    for name, finding in report.named.items():
        drawn, missing = pictures(report, finding, room)
        room -= sum(len(picture.markup) for picture in drawn)
        cards.append(
            Card(
                finding=finding,
                check=header.in_words(finding.check),
                plain=in_plain_words(finding),
                witness=_witness(report, finding),
                pictures=drawn,
                missing=missing,
                replay=replay_line(report, finding, name),
            )
        )
    return cards


def _witness(report: Report, finding: Finding) -> list[tuple[str, str, str]]:
    """Return the fields of a witness: what each is called, its value in short, and in full where that says more."""
    witness = finding.witness or {}
    rows = []
    for key, value in witness.items():
        words = value_in_words(printable(key), value, report.class_names)
        short, full = (words, "") if words else _abbreviated(value)
        rows.append((key_in_words(printable(key), witness), short, full))
    return rows


def _abbreviated(value: Any) -> tuple[str, str]:
    """Return ``value`` in short, and in full where the short form leaves something out."""
    if isinstance(value, dict):
        return f"{len(value)} entries", _full(value)
    if not isinstance(value, list | tuple):
        return (quantity(value) if _is_number(value) else printable(value)), ""
    shape, flat = _shape_and_values(value)
    head = ", ".join(quantity(item) if _is_number(item) else cut(item, _MAX_CELL) for item in flat[:_SHORT_VALUES])
    if len(shape) == 1 and len(flat) <= _SHORT_VALUES:
        return f"[{head}]", ""
    length = math.hypot(*map(number, flat)) if all(map(_is_number, flat)) else math.nan
    norm = "" if math.isnan(length) else f", Euclidean norm {quantity(length)}"
    return f"[{head}, …] ({' × '.join(map(str, shape))} values{norm})", _full(value)


def _shape_and_values(value: Any) -> tuple[list[int], list[Any]]:
    shape, flat = [len(value)], list(value)
    while flat and all(isinstance(item, list | tuple) and len(item) == len(flat[0]) for item in flat):
        shape.append(len(flat[0]))
        flat = [inner for item in flat for inner in item]
    return shape, flat


def _full(value: Any) -> str:
    try:
        return cut(json.dumps(strict(value), ensure_ascii=False), 16 * _FULL_VALUES)
    except RecursionError:
        return TOO_DEEP


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) or value in ("nan", "inf", "-inf")


def _cell(value: Any) -> str:
    return quantity(value) if isinstance(value, float) else cut(value, _MAX_CELL)


def _facts(report: Report) -> list[tuple[str, str]]:
    checkpoint, classes = report.checkpoint, report.class_names
    listed = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    facts = [(key, printable(checkpoint.get(name))) for key, name in (("Checkpoint", "path"), ("SHA-256", "sha256"))]
    facts += [("Classes", f"{len(classes)}: {listed}" if classes else "")]
    facts += [("Epoch", printable(checkpoint.get("epoch"))), ("Seed", printable(checkpoint.get("seed")))]
    facts += [(printable(key).capitalize(), printable(value)) for key, value in report.environment.items()]
    return [(key, value) for key, value in facts if value]


def _pairs(value: Any) -> list[tuple[str, str]]:
    return [(printable(key), _in_short(item)) for key, item in mapping(value).items()]


def _in_short(value: Any) -> str:
    """Return a setting in short: of settings in it each, of a list the first values."""
    if isinstance(value, dict):
        return cut(", ".join(f"{printable(key)} {printable(item)}" for key, item in value.items()), _FULL_VALUES)
    return _abbreviated(value)[0]
