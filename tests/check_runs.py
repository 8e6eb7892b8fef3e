"""Runs of ``stabdeq check`` in this process, and functions that are no functions of the state, that jump or are NaN."""

import json
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App


def run(arguments: list[str], folder: Path) -> tuple[int, dict[str, Any]]:
    """Return the exit code of ``stabdeq check`` and the findings it writes, by claim."""
    app = App()
    app.command("analysis.commands.check:check", name="check")
    file = folder / "findings.json"
    with pytest.raises(SystemExit) as exit_info:
        app(["check", *arguments, "--json", str(file)], exit_on_error=False, print_error=False)
    report = json.loads(file.read_text())
    assert report["schema"] == 1
    return int(exit_info.value.code or 0), {finding["check"]: finding for finding in report["findings"]}


OWN = """
import torch

calls = 0
generator = torch.Generator().manual_seed(0)

def counting(z):
    global calls
    calls += 1
    return z.square().sum(1) * (1 if calls < 40 else 2)

def seldom_random(z):
    value = z.square().sum(1)
    return torch.where(torch.rand(len(z), generator=generator) < 0.003, 1.5 * value, value)

def coupled_when_many(z):
    value = z.square().sum(1)
    return value * (value.max() / (1 + value.max()) if len(z) > 500 else 1)

def torn(z):
    return z.square().sum(1) + (z[:, 0] > 0.3).to(z.dtype)

def torn_flow(z):
    return -z - z.sign()

def sink(z):
    return -z

def not_a_number(z):
    return z.square().sum(1) + torch.nan

def steep(z):
    return z.square().sum(1) + torch.tanh(1e4 * (z[:, 0] - 0.3)) - torch.tanh(torch.tensor(-3e3))

def rooted(z):
    return z.abs().sqrt().sum(1)

weights = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

def kinked(z):
    return (z @ weights.T).relu().sum(1)

def bump(z):
    return 1 - torch.exp(-z.square().sum(1))

def shelf(z):
    return z.square().sum(1).clamp(max=0.5)

def growing_outside(z):
    return z * (z.square().sum(1, keepdim=True) - 4)

def unstable(z):
    return z

def inside_only(z):
    if bool((z.norm(dim=1) > 1.001).any()):
        raise ValueError("outside")
    return z.square().sum(1)
"""
