"""What a person sees while a model trains: a bar with time left on a terminal, a line per epoch elsewhere."""

import torch
from rich.progress import (
    BarColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from stabdeq.percent import percent
from stabdeq.terminal import Console

HEADS = f"{'epoch':>11}{'loss':>12}{'accuracy':>12}{'validation':>13}{'unconverged':>14}"


class Progress:
    """Shows epochs, accuracy, the fraction of samples without an equilibrium, and the time left."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet)
        self.bar = Bar(
            BarColumn(bar_width=None),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self.task: TaskID | None = None

    def begin(self, epochs: int, done: int, device: torch.device, precision: str) -> None:
        """Start showing a run of ``epochs`` of which ``done`` are behind it, its extractor in ``precision``."""
        self.epochs = epochs
        if done:
            self.console.print(f"resuming after epoch {done} of {epochs}")
        self.console.print(f"training on {device.type}, the extractor in {precision}")
        self.console.print(HEADS)
        self.bar.start()
        self.task = self.bar.add_task("", total=epochs, completed=done, state="")

    def update(self, epoch: float, means: dict[str, float]) -> None:
        """Show the position in epochs and the means of this epoch so far."""
        assert self.task is not None
        state = (
            f"epoch {int(epoch) + 1}/{self.epochs}  accuracy {percent(means['accuracy'], 1)}"
            f"  unconverged {percent(means['unconverged'], 1)}"
        )
        self.bar.update(self.task, completed=epoch, state=state)

    def end_epoch(self, epoch: int, trained: dict[str, float], validation: float | None) -> None:
        """Print the line of a finished epoch, under ``HEADS``."""
        self.bar.refresh()  # it is drawn below the line as it was at its last refreshing
        held_out = "none" if validation is None else percent(validation)
        self.console.print(
            f"{f'{epoch}/{self.epochs}':>11}{trained['loss']:>12.4f}{percent(trained['accuracy']):>12}{held_out:>13}"
            f"{percent(trained['unconverged']):>14}",
            highlight=False,
        )

    def finish(self) -> None:
        """Stop the bar."""
        self.bar.stop()
