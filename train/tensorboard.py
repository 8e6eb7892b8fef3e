"""The curves of a training for TensorBoard: event files that hold the numbers of metrics.jsonl, a step an epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stabdeq.errors import ConfigError, FileError
from stabdeq.metrics_lines import LARGEST, METRICS_NAME, parsed_metrics
from stabdeq.reading import read_regular

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Raise ConfigError, saying what to install, where TensorBoard cannot be imported."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--tensorboard needs stabdeq's extra of that name, which is not installed ({error}): pip install tensorboard, or leave "
            "the option out; 'stabdeq report RUN' draws the curves without"
        ) from None


@contextmanager
def event_files(run: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that writes a line of metrics, numbers with an epoch, as events into ``run``/tensorboard.

    What metrics.jsonl in ``run`` holds is written first, and is all that TensorBoard then shows: events of before count no more. Raises
    FileError where events cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    path, folder = run / METRICS_NAME, run / FOLDER
    before = read_regular(path, LARGEST).splitlines() if path.exists() else []
    with _told_of(folder):
        writer = SummaryWriter(str(folder), purge_step=0)

    def write(metrics: dict[str, Any]) -> None:
        with _told_of(folder):
            for name in metrics.keys() - {"epoch"}:
                writer.add_scalar(name, float(metrics[name]), metrics["epoch"])
            writer.flush()

    try:
        for line in before:
            write(parsed_metrics(line))
        yield write
    finally:
        with _told_of(folder):
            writer.close()


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(
            f"{folder} could not be written ({error.strerror or error}): make room or move it away"
        ) from error
