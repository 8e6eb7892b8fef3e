"""What somebody's model raises, told in one line that names the inputs and the line of their code."""

import sysconfig
import traceback
from pathlib import Path

import torch

from stabdeq.errors import DataError

OURS = {"stabdeq", "analysis"}
LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def failure_on(error: Exception, shape: tuple[int, ...], dtype: torch.dtype, beside: str = "") -> DataError:
    """Return what says that the model fails by ``error`` on inputs of ``shape`` and ``dtype``; ``beside`` is said of it, too."""
    return DataError(
        f"the model fails on inputs {shape} of {dtype}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        f"{_line(error)}; {beside}are these the inputs that it expects?"
    )


def _line(error: Exception) -> str:
    """Return where it arose: the innermost line that is neither ours nor a library's, or nothing where there is none."""
    frames = [
        (Path(frame.f_code.co_filename).name, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in OURS
        and not frame.f_code.co_filename.startswith(LIBRARIES)
    ]
    return "".join(f" ({file}, line {line})" for file, line in frames[-1:])
