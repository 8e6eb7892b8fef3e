"""The report of an audit: ``report.json``, which holds everything, and ``report.html``, drawn from it alone."""

import html
import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.findings import Finding, Measurement, Verdict
from analysis.findings.catalogue import in_order, question_of
from analysis.findings.values import TOO_DEEP, mapping, number, printable
from analysis.findings.verdict import WORST_FIRST
from analysis.report import figures
from analysis.report.drawing import Drawing
from analysis.report.figures.witness import MAX_MARKUP, Picture, pictures
from analysis.report.junit import junit_xml
from analysis.report.made_by import command_line
from analysis.report.markdown import to_markdown
from analysis.report.plain_words import in_plain_words
from analysis.report.quantities import GAP, cut, quantity
from analysis.report.report import Report, by_check
from analysis.report.sarif import to_sarif
from stabdeq.files import encoded, make_folder, replace_files, strict

if TYPE_CHECKING:
    from jinja2 import Environment

_FULL_VALUES = 4096
_SHORT_VALUES = 4
_MAX_CELL = 200  # characters of a text that may stand in thousands of cells


@dataclass(frozen=True, kw_only=True)
class Card:
    """A finding as the page shows it: ``witness`` rows are a key, its value in short, and in full where that says more."""

    finding: Finding
    plain: str
    witness: list[tuple[str, str, str]]
    pictures: list[Picture]
    missing: list[str]
    replay: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that the page says of one check."""

    check: str
    question: str
    cards: list[Card]
    measurements: list[Measurement]
    skipped: list[str]
    drawings: list[Drawing]
    missing: list[str]


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
    cards = _cards(report)
    page = (
        templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            cards=sorted(cards, key=lambda card: WORST_FIRST.index(card.finding.verdict)),
            sections=_sections(report, cards),
            facts=_facts(report),
            made_by=command_line(report.command),
            verify=_verify_line(report),
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


def templates() -> "Environment":
    """Return the templates of pages: each text is escaped, printable and of bounded length, each missing name an error."""
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
    return environment


def _sections(report: Report, cards: list[Card]) -> list[Section]:
    told: dict[str, list[Card]] = {}
    for card in cards:
        told.setdefault(printable(card.finding.check), []).append(card)
    measured, skipped = by_check(report.measurements), by_check(item for item in report.skipped if item.asked_for)
    series = {printable(check): mapping(numbers) for check, numbers in report.series.items()}
    of_weights = series.pop("certify", {})  # the claims about weights have it in common
    series |= dict.fromkeys(figures.OF_WEIGHTS, of_weights) if of_weights else {}
    sections = []
    for check in in_order([*told, *measured, *skipped, *series]):
        drawings, missing = figures.draw(check, series.get(check, {}))
        reasons = [printable(item.reason) for item in skipped.get(check, [])]
        sections.append(
            Section(
                check=check or "unnamed",
                question=question_of(check),
                cards=told.get(check, []),
                measurements=measured.get(check, []),
                skipped=reasons,
                drawings=drawings,
                missing=[] if reasons else missing,
            )
        )
    return sections


def _cards(report: Report) -> list[Card]:
    """Return every finding as the page shows it, in the report's order: with its pictures, and how to replay it."""
    cards, room = [], MAX_MARKUP
    for name, finding in report.named.items():
        drawn, missing = pictures(report, finding, room)
        room -= sum(len(picture.markup) for picture in drawn)
        cards.append(
            Card(
                finding=finding,
                plain=in_plain_words(finding),
                witness=[(printable(key), *_abbreviated(value)) for key, value in (finding.witness or {}).items()],
                pictures=drawn,
                missing=missing,
                replay=_replay_line(report, finding, name),
            )
        )
    return cards


def _replay_line(report: Report, finding: Finding, name: str) -> str:
    """Return the command that evaluates a refuted finding's witness anew; empty where the report names no checkpoint."""
    if finding.verdict is not Verdict.REFUTED or not report.checkpoint.get("path"):
        return ""
    return f"stabdeq replay report.json --finding {shlex.quote(name)}{_data_option(report)}"


def _verify_line(report: Report) -> str:
    """Return the command that repeats the report and compares; empty where it cannot be repeated."""
    path = printable(report.checkpoint.get("path"))
    if report.command.get("name") not in ("audit", "certify") or not command_line(report.command) or not path:
        return ""
    return f"stabdeq verify {shlex.quote(path)} report.json{_data_option(report)}"


def _data_option(report: Report) -> str:
    data = mapping(report.checkpoint.get("data"))
    is_embedded = data.get("name") == "digits" and not data.get("robust")
    return "" if is_embedded else " --data-dir DIR"


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
    return f"{value:.6g}" if isinstance(value, float) else cut(value, _MAX_CELL)


def _facts(report: Report) -> list[tuple[str, str]]:
    checkpoint, classes = report.checkpoint, report.class_names
    listed = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    facts = [(key, printable(checkpoint.get(name))) for key, name in (("Checkpoint", "path"), ("SHA-256", "sha256"))]
    facts += [("Classes", f"{len(classes)}: {listed}" if classes else "")]
    facts += [("Epoch", printable(checkpoint.get("epoch"))), ("Seed", printable(checkpoint.get("seed")))]
    facts += [(printable(key).capitalize(), printable(value)) for key, value in report.environment.items()]
    return [(key, value or GAP) for key, value in facts]


def _pairs(value: Any) -> list[tuple[str, str]]:
    return [(printable(key), _cell(item)) for key, item in mapping(value).items()]
