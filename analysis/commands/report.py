"""``stabdeq report``: the page again from the file, and the curves of a training."""

from pathlib import Path


def report(report: Path) -> None:
    """Draw report.html again, beside the report.json that it is drawn from; or a training's curves, as training.html.

    Parameters
    ----------
    report
        A report.json that "stabdeq audit" wrote; what it lacks, or what this version does not understand, the page says. Or a folder
        that "stabdeq train" wrote into, whose metrics.jsonl is drawn, of a training that is still at work, too.
    """
    if report.is_dir():
        _draw_training(report)
    else:
        _draw_report(report)


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
