"""False claims that a fault of the proof would prove, and true ones that rounding must not refute: one for each fault found."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from analysis.evidence.effort import Effort
from analysis.evidence.regions import Ball
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Verdict
from analysis.proofs.box_search import Proof
from analysis.proofs.boxes import prove_claim
from analysis.proofs.cells.decay import Shortfall, find_decay
from analysis.proofs.cells.network import of_paper_cell
from analysis.user_function.function import ForeignFunction
from analysis.user_function.judgement import judge_claims, judge_largest_levels
from analysis.user_function.subject import Subject
from stabdeq.cells import Cell

ORIGIN = torch.zeros(2, dtype=torch.float64)
DISC = Ball(ORIGIN, 1.0)
NEEDLE = torch.tensor([0.3141592, 0.2718281], dtype=torch.float64)
THREE = torch.zeros(3, dtype=torch.float64)
QUICK = Effort(samples=1024, starts=16, steps=25)


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


def pit(z: Tensor) -> Tensor:
    """1 at the needle, 0 from a millionth away from it."""
    return 1e6 * torch.relu(1e-6 - (z - NEEDLE).abs().sum(1))


def sum_of_truths(z: Tensor) -> Tensor:
    """Two truths make one in PyTorch, not 2."""
    return square(z) + (((z[:, 0] > -9) + (z[:, 0] > -8)).double() - 1.9) * pit(z)


def integer_that_is_true(z: Tensor) -> Tensor:
    """2 is true: its bits do not count."""
    both = torch.logical_and(torch.tensor([2]), z[:, 0] > -9)
    return square(z) - torch.where(both, pit(z), 0 * pit(z))


def joined_truths(z: Tensor) -> Tensor:
    """The first of the truths that are joined does not depend on the state."""
    truths = torch.cat([torch.zeros_like(z[:, :1]) > 1, pit(z)[:, None] > 0], 1)
    return square(z) - 10 * truths.double().sum(1)


def stored_in_integers(z: Tensor) -> Tensor:
    """What is stored in a tensor of integers is cut off."""
    stored = torch.zeros(len(z), 1, dtype=torch.int64)
    stored[:, 0] = 0.99 * pit(z)
    return square(z) - pit(z) + 2 * stored[:, 0]


def integer_overflow(z: Tensor) -> Tensor:
    """2 * 2^62 * 2 is 0 in int64."""
    return square(z) - pit(z) + pit(z) * ((z > -9).sum(1) * 2**62 * 2)


def seeded_draw(z: Tensor) -> Tensor:
    """Random numbers with a seed make a function, but not one that the graph repeats."""
    torch.manual_seed(0)
    drawn = torch.rand((), dtype=torch.float64)
    torch.manual_seed(0)
    hit = (drawn - torch.rand((), dtype=torch.float64)).abs() < 1e-3
    return square(z) - 10 * torch.where(hit, pit(z), 0 * pit(z))


def difference_of_undefined(z: Tensor) -> Tensor:
    """NaN in the pit, where the root is of a negative number."""
    root = ((z - NEEDLE).abs().sum(1) - 1e-6).sqrt()
    return square(z) + (root - root)


FALSE: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "a pit": ("positive", lambda z: square(z) - pit(z)),
    "sum of truths": ("positive", sum_of_truths),
    "integer that is true": ("positive", integer_that_is_true),
    "joined truths": ("positive", joined_truths),
    "stored in integers": ("positive", stored_in_integers),
    "integer overflow": ("positive", integer_overflow),
    "seeded draw": ("positive", seeded_draw),
    "difference of undefined": ("positive", difference_of_undefined),
    # A column that a constant widens: each of the three elements has the column's slope.
    "widened, summed": ("positive", lambda z: (z[:, :1] + THREE).sum(1) + 2.5),
    "widened, reshaped": ("positive", lambda z: (z[:, :1] + THREE).reshape(-1, 3).sum(1) + 2.5),
    "widened, joined": ("positive", lambda z: torch.cat([z[:, :1] + THREE, z], 1).sum(1) + 3),
    "widened, one of": ("positive", lambda z: (z[:, :1] + THREE)[:, 2] + 0.5),
    "widened, curved": ("convex", lambda z: square(z) - 0.45 * (z[:, :1] + THREE).sum(1).square()),
}


@pytest.mark.parametrize("name", FALSE)
def test_false_claims_are_not_proved(name: str) -> None:
    claim, value = FALSE[name]
    assert not isinstance(prove_claim(claim, value, None, DISC, None, max_boxes=3000), Proof)


def test_widened_values_are_still_proved() -> None:
    outcome = prove_claim("positive", lambda z: (z[:, :1] + THREE).sum(1) + 3.5, None, DISC, None)
    assert isinstance(outcome, Proof)


@pytest.mark.parametrize(
    "operation", [lambda m: torch.ones_like(m, dtype=torch.float64).sum(1), lambda m: m.amax(1).double()]
)
def test_operations_on_truths_without_an_interval_form_say_so(operation: Callable[[Tensor], Tensor]) -> None:
    outcome = prove_claim("positive", lambda z: square(z) + operation(z > 0), None, DISC, None)
    assert not isinstance(outcome, Proof)
    assert "no interval form" in outcome.reason


def subject(
    value: Callable[[Tensor], Tensor],
    velocity: Callable[[Tensor], Tensor] | None,
    alpha: float | None = None,
    region: Ball | Sublevel = DISC,
) -> Subject:
    dim = len(region.centre)
    v = ForeignFunction("V", value, dim, "value", is_differentiable=True)
    f = ForeignFunction("f", velocity, dim, "velocity", is_differentiable=True) if velocity else None
    return Subject(v, f, region, alpha, seed=0, effort=QUICK, boxes=100_000)


def test_a_claim_names_the_rate_that_was_proved() -> None:
    """V-dot = -2 (1 - 1e-11) V: a claim with the rate rounded to 2 is false."""
    (finding,) = judge_claims(subject(square, lambda z: -(1 - 1e-11) * z, alpha=1.9999999), ["decay"])
    assert finding.verdict is Verdict.PROVED
    assert "-1.9999999 V" in finding.claim


def test_a_claim_names_the_region_that_was_proved() -> None:
    region = Ball(ORIGIN, 0.9999999)
    (finding,) = judge_claims(subject(square, None, region=region), ["positive"])
    assert finding.verdict is Verdict.PROVED
    assert "0.9999999" in finding.claim


def test_a_largest_level_is_claimed_within_its_radius_alone() -> None:
    """V = r^2 exp(-r^2 / 2) is small far out again, and rises along f = -z there."""
    judged = subject(lambda z: square(z) * torch.exp(-square(z) / 2), lambda z: -z)
    for finding in judge_largest_levels(judged, ["decrease", "invariant"], [Ball(judged.centre, 1.0)]):
        assert finding.verdict is Verdict.PROVED
        assert "within 1 of the centre" in finding.claim


TRUE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Ball]] = {
    "a flat valley": (lambda z: 1e-16 * z[:, 0].square() + z[:, 1].square(), lambda z: -z, DISC),
    "an overflow of norms": (lambda z: 1e300 * square(z), lambda z: -z, DISC),
    "far from the origin": (lambda z: square(z - 1e8), lambda z: 1e8 - z, Ball(ORIGIN + 1e8, 1e-3)),
}


@pytest.mark.parametrize("name", TRUE)
def test_rounding_refutes_no_true_claim(name: str) -> None:
    value, velocity, region = TRUE[name]
    for finding in judge_claims(subject(value, velocity, region=region), ["positive", "decrease"]):
        assert finding.verdict is not Verdict.REFUTED, finding.evidence


def test_equality_still_refutes_a_strict_claim() -> None:
    judged = subject(lambda z: (z[:, 0] - z[:, 1]).square(), lambda z: -z)
    findings = judge_claims(judged, ["positive", "decrease"])
    assert [finding.verdict for finding in findings] == [Verdict.REFUTED] * 2


def test_a_cell_with_weights_that_are_no_numbers_is_not_proved() -> None:
    cell = Cell(3).double().eval()
    cell.outer_norm.running_variance.fill_(-1)
    network, _ = of_paper_cell(cell.fold())
    assert isinstance(find_decay(network.flow()), Shortfall)
