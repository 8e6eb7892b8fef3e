"""The tests that need a GPU, run by pytest in a process of their own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.setting import Clock, Setting
from stabdeq.data import DataSet

ROOT = Path(__file__).parents[2]
AT_MOST = 120  # seconds
TAIL = 2000  # characters of the output that are kept


def measure(setting: Setting, data: DataSet, clock: Clock) -> Iterator[dict[str, Any]]:
    """Yield pytest's exit code (None: out of time) and the end of its output."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *setting.tests]
    try:
        end = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(10.0, min(AT_MOST, clock.left))
        )
    except subprocess.TimeoutExpired as late:
        yield {"code": None, "output": str(late.stdout or "")[-TAIL:]}
        return
    yield {"code": end.returncode, "output": (end.stdout + end.stderr)[-TAIL:]}
