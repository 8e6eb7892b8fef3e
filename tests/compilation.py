"""Compilation without its last stage."""

from functools import cache
from typing import Any

import pytest
import torch

from stabdeq.solvers import loop
from stabdeq.solvers.compiled import compiled_for


def end_compilation_in(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it but its last stage, the C++ compiler, which takes most of the time."""
    compile_whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, options: compile_whole(function, backend=backend))
    monkeypatch.setattr(loop, "compiled_for", cache(compiled_for.__wrapped__))
