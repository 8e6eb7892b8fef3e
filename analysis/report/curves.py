"""The curves of a training, from metrics.jsonl to one self-contained page."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from analysis.report import drawing, figures
from analysis.report.drawing import DASHES, INK, MAX_TABLE_CELLS, SERIES, Drawing, Table
from analysis.report.figures.series import finite, require
from analysis.report.page import templates
from analysis.report.quantities import quantity
from analysis.report.report import numbered
from analysis.report.training_log import TrainingLog
from stabdeq.metrics_lines import METRICS_NAME
from stabdeq.percent import percent_in_digits

# From this ratio of the largest to the smallest on, a curve of positive numbers is drawn on a logarithmic axis.
WIDE_RANGE = 30
LARGEST_DRAWN = 1e300  # beyond it differences of numbers overflow
FEW_EPOCHS = 60  # each of so many is marked
MOST_OTHERS = 12
NAME_LENGTH = 40  # characters of a name, which may be foreign


@dataclass(frozen=True, kw_only=True)
class Group:
    """Numbers of one figure: their names in metrics.jsonl, what they mean, and whether they are shares of 1."""

    names: tuple[str, ...]
    caption: str
    is_share: bool = False


GROUPS = {
    "Loss": Group(
        names=("loss", "cross_entropy", "decay_loss", "robust_loss", "worst_cross_entropy"),
        caption="What training minimises, and the parts of which it is made, as means over the epoch.",
    ),
    "Accuracy": Group(
        names=("accuracy", "validation_accuracy", "adversarial_accuracy", "bounded_accuracy"),
        caption="Accuracy is that in training, while the weights change; that of validation is measured after the epoch.",
        is_share=True,
    ),
    "Solver iterations": Group(
        names=("evaluations",),
        caption="Evaluations of the cell until an equilibrium is found, mean over the training images.",
    ),
    "What went wrong": Group(
        names=(
            "unconverged",
            "validation_unconverged",
            "adversarial_unconverged",
            "adjoint_unconverged",
            "steps_skipped",
            "crafting_blind",
            "decay_violations",
        ),
        caption="Shares: of images without an equilibrium or with an inexact gradient, of steps left out, of images that an attack had no "
        "gradient for, of states at which V does not fall.",
        is_share=True,
    ),
    "Learning rate": Group(names=("learning_rate",), caption="At the last step of the epoch."),
    "Seconds an epoch": Group(names=("seconds",), caption="Training and validation together."),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A name of metrics.jsonl with its first, last, smallest and largest number."""

    name: str
    cells: list[str]


def render_curves(log: TrainingLog) -> str:
    """Return the page of the training in ``log``, in the style of a report's; every text in it is escaped."""
    known = {name for group in GROUPS.values() for name in group.names}
    others = [name for name in log.columns if name not in known]
    named = [
        Group(names=(name,), caption="A number of the objective of this training.") for name in others[:MOST_OTHERS]
    ]
    # A number of an objective may be called "Loss", too.
    titles = numbered([*GROUPS, *(group.names[0][:NAME_LENGTH] for group in named)])
    groups = dict(zip(titles, [*GROUPS.values(), *named], strict=True))
    makers = {title: partial(_curves, group=group, place=place) for place, (title, group) in enumerate(groups.items())}
    drawings, missing = figures.draw_all(makers, log)
    if len(others) > MOST_OTHERS:
        missing.append(f"{len(others) - MOST_OTHERS} more numbers are not drawn: the table has them.")
    page = (
        templates()
        .get_template("curves.html.j2")
        .render(log=log, sentence=sentence(log), drawings=drawings, missing=missing, zero=_zero(log), rows=_rows(log))
    )
    return page + "\n"


def sentence(log: TrainingLog) -> str:
    """Return how far the training came, and what it reached."""
    count = len(log.epochs)
    said = [f"{count} {'epoch' if count == 1 else 'epochs'}."]
    validation = finite([value for value in log.columns.get("validation_accuracy", []) if value is not None])
    if validation:
        best = max(validation)
        epoch = max(
            epoch for epoch, value in zip(log.epochs, log.columns["validation_accuracy"], strict=True) if value == best
        )
        said.append(f"Best validation accuracy {percent_in_digits(best, 4)}, after epoch {epoch}.")
    if log.test:
        said.append(f"Accuracy on the test images {percent_in_digits(log.test['test_accuracy'], 4)}.")
    else:
        said.append("No accuracy on test images: the training is at work, or was stopped.")
    return " ".join(said)


def _curves(title: str, log: TrainingLog, *, group: Group, place: int) -> Drawing | None:
    """Draw the numbers of ``group`` that the log has, and that are not 0 throughout; None where there are none."""
    from matplotlib.ticker import MaxNLocator

    columns = {
        name: log.columns[name] for name in group.names if name in log.columns and not _is_zero(log.columns[name])
    }
    if not columns:
        return None
    values = [value for column in columns.values() for value in column if value is not None]
    shown = finite(values)
    require(shown, "none of its numbers is finite")
    require(max(map(abs, shown)) <= LARGEST_DRAWN, "its numbers are too large for an axis")
    is_log = min(shown) > 0 and max(shown) > WIDE_RANGE * min(shown)
    figure, axes = drawing.new_axes("epoch", "")
    marker = "o" if len(log.epochs) <= FEW_EPOCHS or len(shown) < len(values) else None
    for index, (name, column) in enumerate(columns.items()):
        axes.plot(
            *_broken(log.epochs, column),
            color=SERIES[index % len(SERIES)],
            linestyle=DASHES[(index + index // len(SERIES)) % len(DASHES)],
            marker=marker,
            markersize=3.5,
            label=drawing.short(name),
        )
    if lost := _lost(log.epochs, columns.values()):
        low = [0.03] * len(lost)
        axes.plot(lost, low, "x", color=INK, transform=axes.get_xaxis_transform(), label="NaN or infinite")
    test = log.test.get("test_accuracy", math.nan)
    if title == "Accuracy" and math.isfinite(test):
        axes.plot(log.test["epoch"], test, "*", markersize=11, color=INK, label="test")
    if is_log:
        drawing.log_scale(axes)
    elif group.is_share:
        axes.yaxis.set_major_formatter(lambda value, _: percent_in_digits(value, 4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    told = "; ".join(f"{name} from {quantity(column[0])} to {quantity(column[-1])}" for name, column in columns.items())
    alternative = f"Line chart over {len(log.epochs)} epochs: {told}."
    return Drawing(
        name=f"curve-{place}",
        title=title,
        caption=group.caption + (" The axis is logarithmic." if is_log else ""),
        alternative=alternative,
        svg=drawing.inline_svg(figure, f"curve-{place}", alternative),
        table=_table(log, columns),
    )


def _lost(epochs: list[int], columns: Iterable[Sequence[float | None]]) -> list[int]:
    """Return the epochs of which a number is not finite."""
    pairs = [pair for column in columns for pair in zip(epochs, column, strict=True)]
    return sorted({epoch for epoch, value in pairs if value is not None and not math.isfinite(value)})


def _broken(epochs: list[int], column: Sequence[float | None]) -> tuple[list[int], list[float]]:
    """Return the points of a line that breaks where a number is not finite, or where an epoch has none."""
    places, values = [], []
    for before, epoch, value in zip([0, *epochs], epochs, column, strict=False):
        if epoch > before + 1:
            places.append(before + 1)
            values.append(math.nan)
        places.append(epoch)
        values.append(math.nan if value is None or not math.isfinite(value) else value)
    return places, values


def _table(log: TrainingLog, columns: dict[str, list[float | None]]) -> Table:
    most = MAX_TABLE_CELLS // (1 + len(columns))
    rows = [[epoch, *map(quantity, values)] for epoch, *values in zip(log.epochs, *columns.values(), strict=True)]
    note = f"The first {most} of {len(rows)} epochs; {METRICS_NAME} holds them all." if len(rows) > most else ""
    return Table(columns=["epoch", *columns], rows=rows[:most], note=note)


def _rows(log: TrainingLog) -> list[Row]:
    rows = []
    for name, column in log.columns.items():
        numbers = finite([value for value in column if value is not None])
        ends = [min(numbers), max(numbers)] if numbers else [None, None]
        rows.append(Row(name=name, cells=[quantity(value) for value in (column[0], column[-1], *ends)]))
    return rows


def _zero(log: TrainingLog) -> list[str]:
    return [name for name, column in log.columns.items() if _is_zero(column)]


def _is_zero(column: Sequence[float | None]) -> bool:
    return all(value == 0 for value in column)
