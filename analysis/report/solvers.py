"""The comparison of fixed-point solvers as tables: in the terminal, as text, and in a notebook.

A summary is what ``analysis.solver_comparison.summarise`` returns.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.findings.values import printable
from analysis.measure.solvers import ROUNDS
from analysis.report.drawing import short
from stabdeq.percent import percent_in_digits
from stabdeq.solvers import Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

GAP = "-"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells under a heading, a row for each solver, and a remark on them."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


def print_comparison(summary: dict[str, Any], title: str, console: "Console | None" = None) -> None:
    """Print the tables of evaluations and of time, the spectral radius, and what failed."""
    from analysis.report.terminal import print_everywhere
    from stabdeq.terminal import Console

    print_everywhere(lambda console: _print_all(summary, title, console), console or Console())


def _print_all(summary: dict[str, Any], title: str, console: "Console") -> None:
    from rich.text import Text

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style))

    say(f"\n{_setting(summary, title)}")
    for table in _tables(summary):
        say(f"\n{table.title}", "bold")
        console.print(_printed(table, console))
        if table.note:
            say(table.note, "dim")
    for place, line in enumerate(_recommendation(summary)):
        say(line if place else f"\n{line}", "" if place else "bold")
    say("\n" + _radius_sentence(summary))
    if failures := _failures(summary):
        say("\nFailures", "bold")
        for line in failures:
            say(line)


def as_text(summary: dict[str, Any], title: str) -> str:
    """Return what ``print_comparison`` prints where there is no terminal."""
    from io import StringIO

    from analysis.report.terminal import TEXT_WIDTH
    from stabdeq.terminal import Console

    text = StringIO()
    print_comparison(summary, title, Console(file=text, width=TEXT_WIDTH))
    return text.getvalue().strip("\n")


def as_html(summary: dict[str, Any], title: str) -> str:
    """Return the same as elements for a notebook, in its own style; every text in them is escaped."""
    from analysis.report.page import templates

    return (
        templates()
        .get_template("solvers.html.j2")
        .render(
            setting=_setting(summary, title),
            tables=_tables(summary),
            sentences=[*_recommendation(summary), _radius_sentence(summary)],
            failures=_failures(summary),
        )
    )


def _setting(summary: dict[str, Any], title: str) -> str:
    start = f"n = {summary['dim']}, from z = 0, at most {summary['evaluations']} evaluations of the cell each"
    return f"{title}: {start}"


def _recommendation(summary: dict[str, Any]) -> list[str]:
    """Return the sentence about the solver to choose, and the options that choose it; nothing for a model without a tolerance."""
    tolerance, name, own = (summary[key] for key in ("own_tolerance", "recommended", "own_solver"))
    if tolerance is None:
        return []
    goal = f"the model's own tolerance, {_power(tolerance)}, on all {summary['images']} images"
    if name is None:
        return [f"No solver reaches {goal} within {summary['evaluations']} evaluations: none is recommended."]
    record = summary["solvers"][name]
    found = f"Fastest to {goal}: {printable(name)}, {_milliseconds(record['own_seconds'])} ms (median of {ROUNDS})"
    if name == own:
        return [f"{found}. It is the model's own."]
    if own is None:  # somebody else's model, whose code chooses
        return [f"{found}."]
    before = summary["solvers"][own]["own_seconds"]
    against = "does not reach it" if before is None else f"takes {before / record['own_seconds']:.2f} times as long"
    how = f"stabdeq train RECIPE {record['choose']}" if record["choose"] else "register it, and name it in a recipe"
    return [f"{found}; the model's own, {own}, {against}.", f"To choose it: {how}"]


def _milliseconds(seconds: float) -> str:
    """Return three digits, or all of a whole number of more: a cell that says 1.2e+03 is cut off where the terminal is narrow.

    >>> _milliseconds(0.00123), _milliseconds(0.5), _milliseconds(0.9996), _milliseconds(12.3456)
    ('1.23', '500', '1000', '12346')
    """
    value = 1000 * seconds
    return f"{value:#.3g}".removesuffix(".") if value < 999.5 else f"{value:.0f}"


def _tables(summary: dict[str, Any]) -> list[Table]:
    """Return the evaluations of each solver, by the residual that is to be reached, and its times."""
    tolerances = [_power(tolerance) for tolerance in _tolerances(summary)]
    work, times = [], []
    for name, record in summary["solvers"].items():
        runs, rate = record["tolerances"], record["rate"]["median"]
        finest_run = _finest(runs)
        counts = [run["evaluations"]["median"] for run in runs]
        cells = [GAP if count is None else f"{count:.0f}" for count in counts]
        own = short(printable(name))
        work.append([own, *cells, percent_in_digits(finest_run["converged"]), GAP if rate is None else f"{rate:.3f}"])
        marks = ["" if run["converged"] == 1 else ">" for run in runs]
        shown = [_milliseconds(run["seconds"]) for run in runs]
        times.append([own, *(mark + time for mark, time in zip(marks, shown, strict=True))])
    finest = _power(min(_tolerances(summary)))
    late = any(run["converged"] < 1 for record in summary["solvers"].values() for run in record["tolerances"])
    return [
        Table(
            title="Evaluations until the residual is at most (median over all images)",
            columns=["solver", *tolerances, f"at {finest}", "rate"],
            rows=work,
        ),
        Table(
            title=f"Milliseconds to solve all images to that residual (wall time, fastest of {ROUNDS})",
            columns=["solver", *tolerances],
            rows=times,
            note="> not every image arrived within its evaluations." if late else "",
        ),
    ]


def _printed(table: Table, console: "Console") -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    lines = box.SIMPLE_HEAD if console.is_terminal else box.Box("    \n" * 8)
    printed = RichTable(box=lines, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for place, column in enumerate(table.columns):
        printed.add_column(column, justify="right" if place else "left", no_wrap=bool(place))
    for row in table.rows:
        printed.add_row(*map(Text, row))
    return printed


def _tolerances(summary: dict[str, Any]) -> list[float]:
    return [each["tolerance"] for each in next(iter(summary["solvers"].values()))["tolerances"]]


def _finest(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return min(runs, key=lambda run: run["tolerance"])


def _power(tolerance: float) -> str:
    """Return a tolerance as briefly as it can be typed.

    >>> _power(1e-9), _power(5e-12), _power(2.5e-3)
    ('1e-9', '5e-12', '2.5e-3')
    """
    mantissa, exponent = f"{tolerance:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _radius_sentence(summary: dict[str, Any]) -> str:
    radius = summary["spectral_radius"]
    if radius["median"] is None:
        return "The spectral radius of the Jacobian is not known: no equilibrium was found, or the eigenvalue iteration failed."
    lower, upper = (f"{radius[key]:.3f}" for key in ("lower", "upper"))
    rate = radius["picard_rate"]
    picard = "Picard has none" if rate is None else f"Picard's rate there: {rate:.3f}"
    if radius["median"] >= 1:
        picard += ", as it need not converge at a radius of 1 or more"
    return (
        f"Spectral radius of the Jacobian at {radius['images']} equilibria: median {radius['median']:.3f}, "
        f"10-90 % {lower} to {upper}. {picard}. The rate is the factor of the residual per evaluation, fitted to the second "
        f"half of each run down to {summary['floor']:g}; near its equilibrium Picard's is the spectral radius."
    )


def _failures(summary: dict[str, Any]) -> list[str]:
    """Return a line for each way in which a solver failed at the finest tolerance."""
    finest = _power(min(_tolerances(summary)))
    lines = []
    for name, record in summary["solvers"].items():
        for failure in _finest(record["tolerances"])["failures"]:
            remedy = failure["remedy"].replace("max_evaluations", "--evaluations")
            met = f"{failure['count']} of {summary['images']} images {Status[failure['status']].words}"
            lines.append(f"{printable(name)}: {met} at {finest} ({remedy})")
    return lines
