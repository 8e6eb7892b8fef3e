"""``python -m benchmarks.methods``: its rows say what the solvers did, and trained cells stand among them."""

import re
from pathlib import Path

import pytest
import torch
from command_runs import save_untrained

pytest.importorskip("torchdeq")
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")

from analysis.measure.solvers import SOLVERS  # noqa: E402
from benchmarks import contest, methods  # noqa: E402
from benchmarks.slow_maps import SlowMap, slow_maps  # noqa: E402


def halving(z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """z = z / 2 + h, whose last sample swings without end."""
    return torch.cat([0.5 * z[:-1] + h[:-1], h[-1:] - z[-1:].sign() - z[-1:]])


def test_a_row_has_evaluations_shares_and_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "SECONDS", 0.0)
    monkeypatch.setattr(methods, "MAX_EVALUATIONS", 40)
    h = torch.ones(4, 3, dtype=torch.float64)
    name, residual, *cells = methods.row(SlowMap("halving", halving, h, torch.zeros_like(h)), 1e-6)
    assert (name, residual, len(cells)) == ("halving", "1e-6", len(SOLVERS))
    assert cells[0].endswith(", 1.00")
    # The residual of z_k = 2 (1 - 2^-k) is 2^-k / 2: at most 1e-6 at k = 19, the 20th state evaluated.
    assert re.fullmatch(r"20 \(75 %\), \d+\.\d\d", cells[list(SOLVERS).index("picard")])


def test_the_maps_are_maps_and_a_checkpoint_is_one(tmp_path: Path) -> None:
    save_untrained(tmp_path / "model.safetensors", "deq")
    for problem in (*slow_maps(), methods.trained(tmp_path / "model.safetensors", 3)):
        image = problem.f(problem.start, problem.h)
        assert image.shape == problem.start.shape, problem.name
        assert image.dtype == torch.float64
        assert image.isfinite().all()


def test_the_row_of_an_attack_with_warm_starts(tmp_path: Path) -> None:
    save_untrained(tmp_path / "model.safetensors", "mondeq")
    name, cold, warm, *accuracies = methods.attack_row(tmp_path / "model.safetensors", 20)
    assert name == "mondeq on digits"
    assert float(warm) < float(cold)
    assert len(accuracies) == 2
