"""``stabdeq report``: the page again from the file, and the curves of a training."""

import os
from pathlib import Path

from stabdeq.arguments import Trusted, require_writable
from stabdeq.errors import ConfigError


def report(report: Path, *, card: Path | None = None, checkpoint: Path | None = None, trusted: Trusted = False) -> None:
    """Draw report.html again, beside the report.json that it is drawn from; or a training's curves, as training.html.

    Parameters
    ----------
    report
        A report.json that "stabdeq audit" wrote; what it lacks, or what this version does not understand, the page says. Or a folder
        that "stabdeq train" wrote into, whose metrics.jsonl is drawn, of a training that is still at work, too.
    card
        Write a model card to this file instead, such as README.md: Markdown under YAML, of the report and its checkpoint.
    checkpoint
        For the card: where the checkpoint lies, if not where the report says; its SHA-256 must be the report's all the same.
    """
    if card is None and (checkpoint is not None or trusted):
        raise ConfigError("--checkpoint and --trusted are for a model card: name its file with --card")
    if card is not None:
        _write_card(report, card, checkpoint, trusted)
    elif report.is_dir():
        _draw_training(report)
    else:
        _draw_report(report)


def _write_card(report: Path, card: Path, checkpoint: Path | None, trusted: bool) -> None:
    if report.is_dir():
        raise ConfigError(f"--card: {report} is a folder: give the report.json of an audit")
    made_of = ConfigError(f"--card {card} is a file that the card is made of: name another")
    if os.path.realpath(card) == os.path.realpath(report):
        raise made_of
    require_writable("--card", card, report)

    from hashlib import sha256

    from analysis.report.card import model_card
    from analysis.report.checkpoint_of import checkpoint_of
    from analysis.report.reading import read_content, report_in
    from stabdeq.files import encoded
    from stabdeq.metrics_lines import METRICS_NAME

    content = read_content(report)
    told = report_in(content, report, of_this_schema=True)
    loaded = checkpoint_of(told, report, checkpoint, trusted=trusted)
    assert loaded.path is not None
    sources = (report, loaded.path, loaded.path.parent / METRICS_NAME)
    if card.exists() and any(path.exists() and card.samefile(path) for path in sources):
        raise made_of
    _write(card, encoded(model_card(told, loaded, report_path=report, report_sha256=sha256(content).hexdigest())))


def _draw_report(report: Path) -> None:
    from analysis.report.page import render_html
    from analysis.report.reading import read_report
    from stabdeq.errors import ReportError
    from stabdeq.files import encoded

    content = encoded(render_html(read_report(report)))
    page = report.with_suffix(".html")
    if page.exists() and page.samefile(report):
        raise ReportError(f"{report}: the page would overwrite the report: rename it to {report.stem}.json")
    _write(page, content)


def _draw_training(folder: Path) -> None:
    from analysis.report.curves import render_curves, sentence
    from analysis.report.training_log import read_training
    from stabdeq.files import encoded
    from stabdeq.terminal import Console

    log = read_training(folder)
    for line in (sentence(log), *log.gaps):
        Console().print(line, soft_wrap=True, highlight=False)
    _write(folder / "training.html", encoded(render_curves(log)))


def _write(page: Path, content: bytes) -> None:
    from stabdeq.files import replace_file
    from stabdeq.terminal import Console

    replace_file(page, content)
    Console().print(f"wrote {page}", soft_wrap=True, highlight=False)
