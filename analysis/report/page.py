"""The report of an audit: ``report.json``, which holds everything, and ``report.html``, drawn from it alone."""

import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.findings.values import TOO_DEEP, mapping, mappings, number, printable, sequence
from analysis.report import figures
from analysis.report.drawing import Drawing
from analysis.report.figures.witness import MAX_MARKUP, pictures
from analysis.report.plain_words import in_plain_words
from analysis.report.quantities import GAP, cut, quantity
from analysis.report.reading import VERDICT_ORDER, by_check, finding_ids, gaps, outcome, verdict, verdict_counts
from stabdeq.files import strict, encoded, replace_file, strict_json

if TYPE_CHECKING:
    from jinja2 import Environment

# What each check asks, for a reader who knows no Lyapunov theory.
QUESTIONS = {
    "equilibrium": "Does the model settle in a state, in one only, and does stabilising leave that state alone?",
    "positivity": "Is V an energy: zero at the equilibrium and positive everywhere else?",
    "convexity": "Is V a single bowl, with no second dip where a trajectory could be caught?",
    "decay": "Does V fall along every trajectory, at the promised rate, until the equilibrium is reached?",
    "separation": "Do the classes lie apart, and does the orthogonal map change how far?",
    "spectrum": "Does a small push away from the equilibrium die out or grow?",
    "convergence": "How much work does each solver need to reach the equilibrium?",
    "robustness": "Is the measured robust accuracy the model's own, or did the attack fail?",
}
MEANINGS = {
    "PROVED": "true by construction, or certified",
    "SUPPORTED": "searched for a counterexample, found none; not a proof",
    "REFUTED": "a counterexample was found",
    "INCONCLUSIVE": "could not be settled either way",
    "UNKNOWN": "a verdict this version does not know",
}
_FULL_VALUES = 4096
_SHORT_VALUES = 4
_MAX_CELL = 200  # characters of a text that may stand in thousands of cells


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that the page says of one check."""

    check: str
    question: str
    findings: list[dict[str, Any]]
    measurements: list[dict[Any, Any]]
    skipped: list[str]
    drawings: list[Drawing]
    missing: list[str]


def write_report(report: dict[str, Any], out_dir: Path) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into ``out_dir``, made where missing; return their paths.

    The JSON is strict: a float that is not finite is written as the string "nan", "inf" or "-inf", so that no
    reader misses it. Each file appears whole or not at all: it is written under a temporary name and renamed.
    The page is drawn from the JSON text, so that it can be drawn again from the file.

    Raises:
        OSError: where ``out_dir`` cannot be written.
        TypeError: where ``report`` holds what JSON cannot (a tensor, a path).
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    json_path, html_path = out_dir / "report.json", out_dir / "report.html"
    text = strict_json(report)
    replace_file(json_path, encoded(text))
    replace_file(html_path, encoded(render_html(json.loads(text))))
    return json_path, html_path


def render_html(report: dict[str, Any]) -> str:
    """Return the report as one self-contained page: no script, no request, light and dark, fit for paper.

    ``report`` may be foreign: every text in it is escaped, and cut where it is very long; what is missing is said, and
    nothing in it raises.
    """
    deciding, sentence = outcome(report)
    cards = _cards(report)
    page = (
        templates()
        .get_template("report.html.j2")
        .render(
            title=title_of(report),
            deciding=deciding,
            sentence=sentence,
            exit_code=printable(report.get("exit_code", GAP)),
            counts=verdict_counts(report),
            meanings=MEANINGS,
            findings=sorted(cards, key=lambda card: VERDICT_ORDER.index(card["verdict"])),
            sections=_sections(report, cards),
            facts=_facts(report),
            config=_pairs(mapping(report.get("checkpoint")).get("model")),
            gaps=gaps(report),
        )
    )
    return page + "\n"


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


def _sections(report: dict[str, Any], findings: list[dict[str, Any]]) -> list[Section]:
    told, measured, skipped = map(
        by_check, (findings, mappings(report.get("measurements")), mappings(report.get("skipped")))
    )
    series = mapping(report.get("series"))
    named = dict.fromkeys([*told, *measured, *skipped, *map(printable, series)])
    known = [check for check in QUESTIONS if check in named]
    return [
        _section(check, told.get(check, []), measured.get(check, []), skipped.get(check, []), series)
        for check in dict.fromkeys([*known, *named])  # in our own order first, then as the report has them
    ]


def _section(check: str, findings: list, measurements: list, skipped: list, series: dict[Any, Any]) -> Section:
    drawings, missing = figures.draw(check, mapping(series.get(check)))
    reasons = [printable(item.get("reason")) for item in skipped]
    return Section(
        check=check or "unnamed",
        question=QUESTIONS.get(check, ""),
        findings=findings,
        measurements=measurements,
        skipped=reasons,
        drawings=drawings,
        missing=[] if reasons else missing,
    )


def _cards(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every finding as the page shows it, in the report's order: with its pictures, and how to replay it."""
    cards, room = [], MAX_MARKUP
    for name, item in zip(finding_ids(report), mappings(report.get("findings")), strict=True):
        drawn, missing = pictures(report, item, room)
        room -= sum(len(picture.markup) for picture in drawn)
        cards.append(
            _finding(item) | {"pictures": drawn, "missing": missing, "replay": _replay_line(report, item, name)}
        )
    return cards


def _replay_line(report: dict[str, Any], item: dict[Any, Any], name: str) -> str:
    """Return the command that evaluates a refuted finding's witness anew; empty where the report names no checkpoint."""
    checkpoint = mapping(report.get("checkpoint"))
    if verdict(item) != "REFUTED" or not checkpoint.get("path"):
        return ""
    data = mapping(checkpoint.get("data"))
    is_embedded = data.get("name") == "digits" and not data.get("robust")
    return f"stabdeq replay report.json --finding {shlex.quote(name)}{'' if is_embedded else ' --data-dir DIR'}"


def _finding(item: dict[Any, Any]) -> dict[str, Any]:
    """Return a finding with every key that the template asks for."""
    keys = (
        "check",
        "name",
        "claim",
        "evidence",
        "margin",
        "samples",
        "tolerance",
        "dtype",
        "seed",
        "seconds",
    )
    witness = [(printable(key), *_abbreviated(value)) for key, value in mapping(item.get("witness")).items()]
    return {key: item.get(key) for key in keys} | {
        "verdict": verdict(item),
        "plain": in_plain_words(item),
        "witness": witness,
    }


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


def title_of(report: dict[str, Any]) -> str:
    """Return which kind of model on which data set the report is about."""
    checkpoint = mapping(report.get("checkpoint"))
    kind = printable(checkpoint.get("kind")) or "unnamed model"
    data = printable(mapping(checkpoint.get("data")).get("name"))
    return f"{kind} on {data}" if data else kind


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    checkpoint, environment = mapping(report.get("checkpoint")), mapping(report.get("environment"))
    classes = sequence(mapping(checkpoint.get("data")).get("classes"))
    listed = ", ".join(printable(name) for name in classes[:12]) + (", …" if len(classes) > 12 else "")
    facts = [(key, printable(checkpoint.get(name))) for key, name in (("Checkpoint", "path"), ("SHA-256", "sha256"))]
    facts += [("Classes", f"{len(classes)}: {listed}" if classes else "")]
    facts += [("Epoch", printable(checkpoint.get("epoch"))), ("Seed", printable(checkpoint.get("seed")))]
    facts += [(printable(key).capitalize(), printable(value)) for key, value in environment.items()]
    return [(key, value or GAP) for key, value in facts]


def _pairs(value: Any) -> list[tuple[str, str]]:
    return [(printable(key), _cell(item)) for key, item in mapping(value).items()]
