"""The matrix of a cell, whose making takes a singular value decomposition, is not made anew at every state that a proof looks at."""

import pytest
import torch
from proof_cells import states

from analysis.certify import certify
from stabdeq.cells import certified
from stabdeq.config import LyapunovConfig, ModelConfig
from stabdeq.model import StabilisedDEQ


def test_a_certification_makes_the_matrix_of_its_cell_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(
        image_shape=(1, 8, 8),
        classes=10,
        mean=(0.3,),
        std=(0.4,),
        state_dim=6,
        cell="certified",
        stability="anchored",
        lyapunov=LyapunovConfig(alpha=0.1),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config)
    images = states(4, 64, 0).abs().clamp(max=1).reshape(4, 1, 8, 8)
    calls = []
    step = certified.forward_backward

    def counted(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(arguments)
        return step(*arguments)

    monkeypatch.setattr(certified, "forward_backward", counted)
    report = certify(model, images, torch.zeros(4).long())
    assert {"linf", "iss_gain"} <= {found.check for found in report.findings}
    assert len(calls) <= 12
