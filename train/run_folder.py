"""The folder that a training writes into: its files, and that no two trainings write into one."""

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from stabdeq.errors import ConfigError
from stabdeq.files import clear_leftovers, make_folder
from stabdeq.locks import alone_in
from stabdeq.metrics_lines import METRICS_NAME

CHECKPOINT_NAME = "checkpoint.safetensors"
BEST_NAME = "best.safetensors"
NAMES = (CHECKPOINT_NAME, BEST_NAME, METRICS_NAME)


class RunFolder:
    """The folder ``path``, kept from other trainings within a ``with`` block, from the moment that it is there.

    Raises ConfigError, saying who, where another training has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = ExitStack()
        self._is_taken = False

    def __enter__(self) -> "RunFolder":
        if os.path.isdir(self.path):
            self._take()
        return self

    def __exit__(
        self, sort: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def make(self) -> None:
        """Make the folder where it is missing; raises FileError where that fails, ConfigError as ``require_no_run``."""
        make_folder(self.path)
        if not self._is_taken:
            self._take()
            self.require_no_run()

    def require_no_run(self) -> None:
        """Raise ConfigError where a training has left a file here."""
        for name in NAMES:
            if os.path.exists(self.path / name):
                raise ConfigError(
                    f"{self.path} already holds {name}: add --resume to go on with that run, or choose another --out"
                )

    def has_checkpoint(self) -> bool:
        """Whether there is a run to go on with."""
        return os.path.isfile(self.path / CHECKPOINT_NAME)

    def _take(self) -> None:
        self._held.enter_context(alone_in(self.path))
        self._is_taken = True
        for name in NAMES:
            clear_leftovers(self.path / name)
