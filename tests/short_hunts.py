"""Hunts for counterexamples that end after a few steps, for tests of what is made of a finding, not of how it is found."""

from dataclasses import replace

import pytest
from torch import Tensor

from analysis.evidence import falsifier, judge
from analysis.evidence.effort import Effort
from analysis.user_function import growth

STEPS = 5


def shorten_hunts(patched: pytest.MonkeyPatch) -> None:
    """Climb by one blur in place of five, and by few steps; as many states are drawn, and as many starts taken, as before."""
    hunt = judge._Search._hunt

    def hunt_shortly(search: judge._Search, starts: Tensor, effort: Effort) -> None:
        hunt(search, starts, replace(effort, steps=min(effort.steps, STEPS)))

    patched.setattr(judge._Search, "_hunt", hunt_shortly)
    patched.setattr(falsifier, "WIDTHS", falsifier.WIDTHS[-1:])
    patched.setattr(growth, "DESCENT_STEPS", STEPS)
