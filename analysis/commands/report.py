"""``stabdeq report``: the page again, from the file."""

from pathlib import Path


def report(report: Path) -> None:
    """Draw report.html again, beside the report.json that it is drawn from.

    Parameters
    ----------
    report
        A report.json that "stabdeq audit" wrote. What it lacks, or what this version does not understand, the page says.
    """
    from analysis.report.page import render_html
    from analysis.report.reading import read_report
    from stabdeq.errors import ReportError
    from stabdeq.files import encoded, replace_file
    from stabdeq.terminal import Console

    content = encoded(render_html(read_report(report)))
    page = report.with_suffix(".html")
    if page.exists() and page.samefile(report):
        raise ReportError(f"{report}: the page would overwrite the report: rename it to {report.stem}.json")
    replace_file(page, content)
    Console().print(f"wrote {page}", soft_wrap=True, highlight=False)
