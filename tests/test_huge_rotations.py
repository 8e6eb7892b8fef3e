"""An orthogonal layer whose weights are huge, and finite: its audit ends in verdicts that do not say what the numbers cannot.

The layer is the exponential of a skew-symmetric matrix made of the weights; of huge ones its rounding leaves no orthogonal matrix.
"""

from typing import Any

import numpy as np
import pytest
import torch
from small_models import images, model

import stabdeq
from analysis.measure.embedding import embed

WEIGHTS = torch.linspace(0.5, 1, 36).view(6, 6)
LABELS = torch.arange(6) % 2


@pytest.mark.parametrize("where", [(5, 0), ...])
@pytest.mark.parametrize("size", [1e8, 1e30, 3.4e38])  # the last is about the largest weight that a file holds
def test_the_audit_of_a_huge_orthogonal_layer_ends_in_verdicts(size: float, where: Any) -> None:
    network = model("lyadeq")
    with torch.no_grad():
        network.head.rotation.parametrizations.weight.original[where] = size * WEIGHTS[where]
    report = stabdeq.audit(network, images(len(LABELS)), LABELS, checks=["separation"])
    finding = report.named["separation.increases"]
    assert finding.verdict == "INCONCLUSIVE"
    assert finding.witness is None
    assert ("is no isometry to within" in finding.evidence) != ("are not finite" in finding.evidence)
    drawn = report.series["separation"]["embedding"]
    assert ("not_drawn" in drawn) == ("are not finite" in finding.evidence)


def test_the_map_of_huge_states_is_that_of_small_ones() -> None:
    states = torch.rand(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(embed(states * 2.0**100, 0), embed(states, 0))  # as they are, t-SNE ends the whole process
