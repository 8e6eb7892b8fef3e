"""``stabdeq report``: the page again, from the file."""

from pathlib import Path


def report(report: Path) -> None:
    """Draw report.html again, beside the report.json that it is drawn from.

    Parameters
    ----------
    report
        A report.json that "stabdeq audit" wrote. What it lacks, or what this version does not understand, the page says.
    """
    from rich.console import Console

    from analysis.reading import ReportError, read_report
    from analysis.report import encoded, render_html, replace_file

    page = report.with_suffix(".html")
    content = encoded(render_html(read_report(report)))
    try:
        replace_file(page, content)
    except OSError as error:
        raise ReportError(f"{page}: cannot be written ({error.strerror}): copy the report to another folder") from None
    Console().print(f"wrote {page}", soft_wrap=True, highlight=False)
