"""Somebody's model that fails on the inputs it is given: said in one line, which names the inputs, and no fault of ours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import stabdeq
from stabdeq.adapters import looped
from stabdeq.errors import DataError

MODEL = """
import torch
from stabdeq.adapters import looped

def make():
    return looped(lambda z, h: z / 2 + h, torch.nn.Embedding(7, 3), torch.nn.Linear(3, 7), loops=20)
"""


@pytest.mark.parametrize("command", ["audit", "solvers"])
def test_a_token_that_the_model_has_not_is_told_in_one_line(
    command: str, folder: Path, refusal: Callable[..., str]
) -> None:
    Path("of_tokens.py").write_text(MODEL)
    np.savez("mine.npz", inputs=np.full((2, 5), 7), labels=np.zeros((2, 5), dtype=np.int64))
    Path("audit").mkdir()  # the audit makes it before it begins
    line = refusal(command, "of_tokens:make", "--images", "mine.npz")
    assert "the model fails on inputs (2, 5) of torch.int64: IndexError: index out of range" in line


def test_inputs_of_another_shape_are_told_with_the_models_own_error() -> None:
    model = looped(lambda z, h: z / 2 + h, nn.Linear(3, 2), lambda z: z, loops=20)
    with pytest.raises(
        DataError, match=r"fails on inputs \(2, 4\) of torch.float64: RuntimeError: .*mat1 and mat2"
    ) as found:
        stabdeq.audit(model, torch.rand(2, 4), torch.zeros(2, dtype=torch.int64), checks=["equilibrium"])
    assert isinstance(found.value.__cause__, RuntimeError)


def test_pictures_of_another_size_are_told_before_an_attack(folder: Path, refusal: Callable[..., str]) -> None:
    Path("of_pixels.py").write_text(
        "import torch\nmake = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))\n"
    )
    np.savez("mine.npz", images=np.full((2, 1, 5, 5), 7, dtype=np.uint8), labels=np.zeros(2, dtype=np.int64))
    line = refusal("attack", "of_pixels:make", "--images", "mine.npz")
    assert "the model fails on inputs (2, 1, 5, 5) of torch.float32: RuntimeError" in line


OWN_SOLVER = """
import torch

class Mine:
    lyapunov = None

    def inject(self, x):
        return x.flatten(1)

    def cell(self, z, h):
        return z / 2 + h

    def readout(self, z):
        return z[:, :3]

    def solve(self, h):
        return 2 * h
"""


@pytest.mark.parametrize("command", ["audit", "solvers", "attack"])
def test_a_solver_that_returns_its_state_is_told_what_to_return(
    command: str, folder: Path, refusal: Callable[..., str]
) -> None:
    Path("of_states.py").write_text(OWN_SOLVER)
    np.savez("mine.npz", images=np.full((2, 1, 2, 2), 7, dtype=np.uint8), labels=np.zeros(2, dtype=np.int64))
    line = refusal(command, "of_states:Mine", "--images", "mine.npz")
    assert "solve(h) returned a Tensor, without z, residual, status, evaluations" in line
    assert "Solution.of_state(z, self.cell(z, h), tolerance=1e-3, evaluations=steps)" in line


@pytest.mark.parametrize(("command", "fault"), [("audit", "torch.addmm(h, h, h)"), ("attack", "Path(h)")])
def test_the_line_of_their_code_is_named(command: str, fault: str, folder: Path, refusal: Callable[..., str]) -> None:
    """Though the error arises in a library that it calls, torch or Python's own."""
    broken = OWN_SOLVER.replace("return 2 * h", f"return {fault}").replace(
        "import torch", "import torch\nfrom pathlib import Path"
    )
    Path("of_faults.py").write_text(broken)
    np.savez("mine.npz", images=np.full((2, 1, 2, 2), 7, dtype=np.uint8), labels=np.zeros(2, dtype=np.int64))
    number = broken.splitlines().index(f"        return {fault}") + 1
    assert f"(of_faults.py, line {number}); " in refusal(command, "of_faults:Mine", "--images", "mine.npz")
