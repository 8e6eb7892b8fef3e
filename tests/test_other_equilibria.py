"""An equilibrium beside the centre, where V does not fall but may fall all around: no sample meets it, and Krawczyk's operator does."""

from typing import Any

import pytest
import torch
from torch import Tensor

import stabdeq

pytestmark = pytest.mark.usefixtures("short_hunts")

FEW: dict[str, Any] = {"samples": 500, "starts": 4, "boxes": 8192}
BOX = [(-2.5, 2.5), (-2, 2)]
# |x|, |y| where 4 x - 4.2 x^3 + x^5 + y and x + 2 y are 0: x^2 = 2.1 + 0.91^(1/2) and 2.1 - 0.91^(1/2)
MINIMUM, SADDLE = (
    torch.tensor([x, x / 2], dtype=torch.float64) for x in ((2.1 + 0.91**0.5) ** 0.5, (2.1 - 0.91**0.5) ** 0.5)
)


def camel(z: Tensor) -> Tensor:
    """The three-hump camel function, 0 at the origin: 0.29864 at two minima, and 0.87736 at two saddles between."""
    x, y = z.unbind(1)
    return 2 * x**2 - 1.05 * x**4 + x**6 / 6 + x * y + y**2


def downhill(z: Tensor) -> Tensor:
    x, y = z.unbind(1)
    return -torch.stack([4 * x - 4.2 * x**3 + x**5 + y, x + 2 * y], 1)


@pytest.mark.parametrize(("claim", "options"), [("decrease", {}), ("attraction", {"sublevel": 0.9})])
def test_a_gradient_rests_at_every_critical_point(claim: str, options: dict[str, Any]) -> None:
    (finding,) = stabdeq.check(camel, downhill, dim=2, box=BOX, claims=[claim], **options, **FEW).findings
    assert finding.verdict.name == "REFUTED", finding
    assert finding.witness is not None
    state = torch.tensor(finding.witness["state"], dtype=torch.float64).abs()
    assert any(torch.allclose(state, one, atol=1e-6) for one in (MINIMUM, SADDLE))
    assert "The dynamics rest within" in finding.evidence


def test_one_that_is_not_seen_from_the_centre_refutes_nothing() -> None:
    """{V <= 0.5} has three parts, and what is claimed is claimed of the one around the centre."""
    options = {"box": BOX, "claims": ["attraction"], **FEW}
    (finding,) = stabdeq.check(camel, downhill, dim=2, sublevel=0.5, **options).findings
    assert finding.verdict.name == "SUPPORTED"
    (finding,) = stabdeq.check(camel, downhill, dim=2, sublevel=0.29, **options).findings
    assert finding.verdict.name == "PROVED"


def test_of_a_step() -> None:
    """x+ = x - V'(x) / 100 rests at 0 and 2 - sqrt 2, where V' = 12 x (x^2 - 4 x + 2) is 0, and V falls elsewhere."""

    def value(z: Tensor) -> Tensor:
        return 3 * z[:, 0] ** 4 - 16 * z[:, 0] ** 3 + 12 * z[:, 0] ** 2

    def step(z: Tensor) -> Tensor:
        return z - 0.12 * z * (z**2 - 4 * z + 2)

    (finding,) = stabdeq.check(value, step=step, dim=1, box=(-2.5, 2.5), claims=["decrease"], **FEW).findings
    assert finding.verdict.name == "REFUTED", finding
    assert finding.witness is not None
    assert finding.witness["state"] == pytest.approx([2 - 2**0.5], abs=1e-9)
    assert "The dynamics rest within" in finding.evidence
