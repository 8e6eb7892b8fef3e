"""Claims between levels of V, in boxes by coordinate, along steps and under disturbances, about systems with a known truth."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stabdeq
from analysis.evidence.regions import Box
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Verdict
from analysis.proofs.box_search import Proof
from analysis.proofs.boxes import prove_claim
from analysis.user_function.function import load_function
from analysis.user_function.proofs import proved
from analysis.user_function.subject import Subject
from analysis.user_function.uncertain import with_disturbances
from stabdeq.errors import ConfigError

pytestmark = pytest.mark.usefixtures("short_hunts")

Function = Callable[[Tensor], Tensor]

FEW: dict[str, Any] = {"samples": 1000, "starts": 8}  # a proof needs no search


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


def to_the_circle(z: Tensor) -> Tensor:
    """All but the origin tends to the circle of radius 1/2: V-dot = -2 V (V - 1/4) for V = |z|^2."""
    return -z * (square(z) - 0.25)[:, None]


def rotation(z: Tensor) -> Tensor:
    return torch.stack([-z[:, 1], z[:, 0]], 1)


def verdicts(value: Function, velocity: Function | None = None, **options: Any) -> dict[str, str]:
    report = stabdeq.check(value, velocity, dim=2, **options)
    return {finding.name: finding.verdict.name for finding in report.findings}


@pytest.mark.parametrize(
    ("lower", "level", "expected"),
    [(0.251, 0.9, "PROVED"), (0.249, 0.9, "REFUTED"), (0.251, None, "PROVED"), (0.1, 0.2, "REFUTED")],
)
def test_decrease_between_levels(lower: float, level: float | None, expected: str) -> None:
    found = verdicts(square, to_the_circle, from_level=lower, sublevel=level, box=(-1, 1), claims=["decrease"])
    assert found == {"decrease": expected}


def test_a_level_leaves_out_what_lies_below_it_alone() -> None:
    """V is below the lower level again further out, where it rises: those states are not of the region, nor seen as such."""

    def dented(z: Tensor) -> Tensor:
        return square(z) * torch.exp(-square(z))

    region = Sublevel(Box(*torch.tensor([[0.0, 0.0], [-3.0, -3.0], [3.0, 3.0]], dtype=torch.float64)), dented, 1.0, 0.2)
    states = region.sample(500, torch.Generator().manual_seed(0))
    kept = states[region.contains(states)]
    assert len(kept) > 100
    assert (dented(kept) >= 0.2).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"from_level": 0.5, "sublevel": 0.4}, "no state lies between the levels"),
        ({"from_level": 0.0}, "must exceed V at the centre"),
        ({"from_level": 3.0}, "no state was found"),
        ({"kappa": 0.1}, "which needs step"),
        ({"box": [(-1, 1)] * 3}, "expected 1 or 2 pairs"),
        ({"box": (-1, 1), "radius": 1.0}, "box excludes radius"),
        ({"step": square}, "each the dynamics"),
        ({"claims": ["decay"], "f": None, "step": rotation}, "along steps, kappa"),
    ],
)
def test_regions_and_dynamics_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stabdeq.check(square, options.pop("f", to_the_circle), dim=2, **options)


def test_a_box_by_coordinate() -> None:
    """V-dot = -2 V + 2 x^2 is positive from |x| = |y| on: in the box below nowhere, for it is narrow along x but at the corners."""

    def narrow(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0] * (z[:, 0].abs() - 0.3), -z[:, 1]], 1)

    assert verdicts(square, narrow, box=[(-0.29, 0.29), (-5, 5)], claims=["decrease"]) == {"decrease": "PROVED"}
    assert verdicts(square, narrow, box=[(-0.32, 0.32), (-5, 5)], claims=["decrease"]) == {"decrease": "REFUTED"}


@pytest.mark.parametrize(
    ("step", "kappa", "expected"),
    [
        (lambda z: z / 2, None, "PROVED"),
        (lambda z: z / 2, 0.7499, "PROVED"),  # V(z+) is V / 4 exactly
        (lambda z: z / 2, 0.75, "PROVED"),
        (lambda z: z / 2, 0.7500001, "REFUTED"),
        (rotation, None, "REFUTED"),
        (lambda z: -1.1 * z, None, "REFUTED"),
    ],
)
def test_decrease_along_steps(step: Function, kappa: float | None, expected: str) -> None:
    found = verdicts(square, step=step, kappa=kappa, claims=["decrease"], inner_radius=0.01)
    assert found == {"decrease": expected}


def test_steps_that_stay_and_steps_that_leave() -> None:
    box = {"box": [(-1, 1), (-2, 2)], "claims": ["invariant"]}
    assert verdicts(square, step=lambda z: z / 2, **box) == {"invariant": "PROVED"}
    assert verdicts(square, step=rotation, **box) == {"invariant": "REFUTED"}
    assert verdicts(square, step=rotation, sublevel=0.9, **box) == {"invariant": "SUPPORTED"}  # equality, to rounding
    assert verdicts(square, step=lambda z: 0.9 * rotation(z), sublevel=0.9, **box) == {"invariant": "PROVED"}
    assert verdicts(square, step=lambda z: 1.01 * rotation(z), sublevel=0.9, **box) == {"invariant": "REFUTED"}
    # Out of the box, though V is small there.
    far = stabdeq.check(
        lambda z: z[:, 1] ** 2 + z[:, 0] ** 2 / 1e4, step=lambda z: z * z.new_tensor([1.5, 0.1]), dim=2, **box
    )
    assert far["invariant"].verdict.name == "REFUTED"


def two_machines(z: Tensor) -> Tensor:
    """The power angle of two machines; sin(pi / 3) is rounded, so that the equilibrium is 1e-17 beside the origin."""
    x, y = z.unbind(1)
    return torch.stack([y, -0.5 * y - (torch.sin(x + math.pi / 3) - math.sin(math.pi / 3))], 1)


def test_an_equilibrium_that_is_no_machine_number_is_enclosed() -> None:
    def energy(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return 2 * x**2 + 2 * x * y + 3 * y**2

    claims = ["equilibrium", "decrease", "invariant", "attraction"]
    report = stabdeq.check(energy, two_machines, dim=2, radius=1, sublevel=0.4, claims=claims, **FEW)
    assert [finding.verdict.name for finding in report.findings] == ["PROVED"] * 4
    rests, falls, _, attracts = report.findings
    assert "rest within" in rests.claim
    assert "further than" in falls.claim
    assert "which closes the hole" in falls.evidence
    assert "which closes the hole" in attracts.evidence


def test_what_is_truly_not_at_rest_is_no_rounding() -> None:
    found = verdicts(square, lambda z: 1e-6 - z, claims=["equilibrium", "decrease"])
    assert found == {"equilibrium": "REFUTED", "decrease": "REFUTED"}


def test_a_value_that_vanishes_to_rounding_is_positive_beside_it() -> None:
    def soft(z: Tensor) -> Tensor:
        return (torch.nn.functional.softplus(z) + torch.nn.functional.softplus(-z)).sum(1) - 4 * math.log(2)

    found = verdicts(soft, claims=["positive"])
    assert found == {"positive": "PROVED"}


@pytest.mark.parametrize(
    ("velocity", "options", "expected"),
    [
        (lambda z: -z, {"sublevel": 0.9}, "PROVED"),
        (lambda z: -z, {"sublevel": 0.9, "from_level": 0.1}, "PROVED"),
        (to_the_circle, {"sublevel": 0.9, "from_level": 0.26}, "not PROVED"),  # to the circle, not to the origin
        (
            lambda z: -z + 2 * z * (square(z) < 0.01).double()[:, None],
            {"sublevel": 0.9, "from_level": 0.1},
            "not PROVED",
        ),
        (lambda z: -z, {"sublevel": 1.5}, "not PROVED"),  # it leaves the box
        (lambda z: -(z**3), {"sublevel": 0.9}, "PROVED"),  # no linearisation tells, but V falls right up to the centre
        (lambda z: -(z**3), {"sublevel": 0.9, "from_level": 0.1}, "not PROVED"),  # true, but no linearisation tells
    ],
)
def test_regions_of_attraction(velocity: Function, options: dict[str, Any], expected: str) -> None:
    effort = FEW if expected == "PROVED" else {}
    found = verdicts(square, velocity, box=(-1, 1), claims=["attraction"], **options, **effort)["attraction"]
    assert (found == "PROVED") == (expected == "PROVED")
    assert found != "REFUTED"


@pytest.mark.parametrize(
    "motion",
    [
        {"velocity": lambda z: torch.stack([4 * z[:, 0] * (1 - z[:, 0] ** 2), -2 * z[:, 1]], 1)},
        {"step": lambda z: torch.stack([z[:, 0] + 0.2 * z[:, 0] * (1 - z[:, 0] ** 2), 0.9 * z[:, 1]], 1)},
    ],
)
@pytest.mark.parametrize(("box", "expected"), [([(-2, 2)] * 2, "not PROVED"), ([(0.1, 2), (-2, 2)], "PROVED")])
def test_a_second_equilibrium_at_a_low_level_is_not_said_to_be_drawn_to_the_centre(
    motion: dict[str, Function], box: list[tuple[float, float]], expected: str
) -> None:
    def wells(z: Tensor) -> Tensor:  # two, of which the box on the right holds one
        return (z[:, 0] ** 2 - 1) ** 2 + z[:, 1] ** 2

    options = {"centre": [1.0, 0.0], "sublevel": 0.5, "from_level": 0.01, "claims": ["attraction"]}
    found = verdicts(wells, **motion, box=box, **options, **FEW)["attraction"]
    assert (found == "PROVED") == (expected == "PROVED")


def test_attraction_along_steps_whose_linearisation_is_the_identity() -> None:
    found = verdicts(square, step=lambda z: z - z**3 / 2, box=(-1, 1), sublevel=0.9, claims=["attraction"], **FEW)
    assert found == {"attraction": "PROVED"}


def test_attraction_along_steps_under_a_controller_that_saturates() -> None:
    def step(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        push = (-(x + 1.5 * y)).clamp(-1, 1)
        return torch.stack([x + 0.1 * y, y + 0.1 * push], 1)

    def energy(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return 2 * x**2 + 2 * x * y + 2 * y**2

    claims = ["decrease", "invariant", "attraction"]
    assert verdicts(energy, step=step, box=(-2, 2), sublevel=0.2, claims=claims, **FEW) == dict.fromkeys(
        claims, "PROVED"
    )


def pushed(z: Tensor, d: Tensor) -> Tensor:
    """V-dot = -2 (1 + d2) V + 0.2 d1 (x + y): below 0 for |d1| <= 1, |d2| <= 1/2 from |z| > 0.2 sqrt 2 on."""
    return -z * (1 + d[:, 1:]) + 0.1 * d[:, :1]


@pytest.mark.parametrize(("lower", "expected"), [(0.081, "PROVED"), (0.078, "REFUTED")])
def test_decrease_for_every_disturbance(lower: float, expected: str) -> None:
    options = {"box": (-1, 1), "disturbance": [(-1, 1), (-0.5, 0.5)], "sublevel": 0.9, "from_level": lower}
    report = stabdeq.check(square, uncertain=pushed, dim=2, boxes=2**18, **options)
    found = {finding.name: finding.verdict.name for finding in report.findings}
    assert found == {"zero": "PROVED", "positive": "PROVED", "decrease": expected, "invariant": "PROVED"}
    assert "for every disturbance in" in report.named["decrease.decrease"].claim


def test_a_disturbance_that_pushes_out_refutes_invariance() -> None:
    options = {"box": (-1, 1), "disturbance": [(-8, 8), (-0.5, 0.5)], "sublevel": 0.9, "claims": ["invariant"]}
    assert verdicts(square, uncertain=pushed, **options) == {"invariant": "REFUTED"}


def test_a_parameter_that_moves_no_equilibrium_is_proved_to_decay() -> None:
    """A mass between 0.8 and 1.2 on a spring that stiffens, with a damper."""

    def mass(z: Tensor, d: Tensor) -> Tensor:
        place, speed = z.unbind(1)
        return torch.stack([speed, (-2 * place - place**3 - 1.5 * speed) / d[:, 0]], 1)

    def energy(z: Tensor) -> Tensor:
        place, speed = z.unbind(1)
        return 2.3 * place**2 + place**4 / 2 + speed**2 + 0.8 * place * speed

    options = {"box": (-2, 2), "disturbance": (0.8, 1.2), "sublevel": 3, "samples": 500, "starts": 4}
    for alpha, expected in ((0.1, "PROVED"), (2.0, "REFUTED")):
        found = verdicts(energy, uncertain=mass, alpha=alpha, claims=["positive", "decay", "invariant"], **options)
        assert found == {"positive": "PROVED", "decay": expected, "invariant": "PROVED"}


@pytest.mark.parametrize(
    ("alpha", "moved", "expected"), [(0.99, 0.0, "PROVED"), (1.01, 0.0, "REFUTED"), (0.5, 1e-9, "REFUTED")]
)
def test_a_parameter_of_dynamics_that_are_no_polynomial(alpha: float, moved: float, expected: str) -> None:
    """V = x^2 falls at the rate 2 (1 + d) or faster, at 1 for d = -1/2, unless the equilibrium is moved."""

    def motion(z: Tensor, d: Tensor) -> Tensor:
        return -(1 + d) * torch.sinh(z) + moved * d

    options = {"box": (-1, 1), "disturbance": (-0.5, 0.5), "samples": 500, "starts": 16, "claims": ["decay"]}
    report = stabdeq.check(square, uncertain=motion, dim=1, alpha=alpha, **options)
    assert report["decay"].verdict.name == expected, report


@pytest.mark.parametrize(("alpha", "moved", "expected"), [(0.99, 0.0, True), (1.01, 0.0, False), (0.5, 1e-9, False)])
def test_forms_around_the_centre_hold_for_all_disturbances(alpha: float, moved: float, expected: bool) -> None:
    """The same, whatever the falsifier sees, with a disturbance more that does nothing."""
    base = Box(*torch.tensor([[0.0], [-1.0], [1.0]], dtype=torch.float64))
    low = torch.tensor([-0.5, -1.0], dtype=torch.float64)
    region = with_disturbances(base, low, -low)

    def motion(both: Tensor) -> Tensor:
        x, d, _ = both.unbind(1)
        return torch.stack([-(1 + d) * torch.sinh(x) + moved * d, 0 * d, 0 * d], 1)

    found = prove_claim("decay", lambda both: both[:, 0] ** 2, motion, region, alpha, max_boxes=2**14)
    assert isinstance(found, Proof) == expected, found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"box": (-1, 1)}, "the box of their disturbances"),
        ({"box": (-1, 1), "disturbance": (-1, 1), "claims": ["decrease"]}, "needs from_level"),
        (
            {"box": (-1, 1), "disturbance": (-1, 1), "claims": ["equilibrium"]},
            r"may move with .* decay with alpha above 0",
        ),
        ({"box": (-1, 1), "disturbance": (1, -1), "claims": ["positive"]}, "low < high"),
    ],
)
def test_uncertain_dynamics_need_what_they_are_about(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stabdeq.check(square, uncertain=pushed, dim=2, **options)


def test_a_next_state_given_as_a_velocity_is_asked_about() -> None:
    def step(z: Tensor) -> Tensor:
        return z - 0.1 * z

    refuted = stabdeq.check(square, step, dim=2, claims=["decrease"]).findings[0]
    assert refuted.verdict.name == "REFUTED"
    assert "--step" in refuted.evidence
    assert verdicts(square, step=step, claims=["decrease"]) == {"decrease": "PROVED"}
    unstable = stabdeq.check(square, lambda z: rotation(z) + z, dim=2, claims=["decrease"]).findings[0]
    assert "--step" not in unstable.evidence


@pytest.mark.parametrize("box", [(-2.0, 2.0), None])
def test_a_boundary_is_judged_where_functions_take_arrays(box: tuple[float, float] | None) -> None:
    """They have no gradient at the centre, which is then projected to the boundary along no ray of its own."""
    claims = ["invariant", "attraction"]
    options = {"box": box, "sublevel": 0.5, "claims": claims, "samples": 200, "starts": 4}
    found = verdicts(lambda z: np.square(z).sum(1), lambda z: np.negative(z), **options)
    assert found == dict.fromkeys(claims, "SUPPORTED")


@pytest.mark.parametrize("options", [{"sublevel": "max", "radius": 2.0}, {"from_level": 0.1}])
def test_a_claim_that_no_level_bounds_names_none(options: dict[str, Any]) -> None:
    report = stabdeq.check(square, lambda z: -z, dim=2, claims=["convex", "decrease"], **options, samples=200, starts=4)
    assert "{V" not in report.named["convex.convex"].claim
    assert report.named["convex.convex"].evidence.count("inf") == 0
    assert "V" in report.named["decrease.decrease"].claim


def ages(z: Tensor) -> Tensor:
    """A stock and its mean age group about their equilibrium at 1: near z = (-0.9, 2.2) a step leaves the box by some 0.002."""
    stock, older = (z + 1).unbind(1)
    return torch.stack([stock * torch.exp(0.8 * (1 - 0.7 * stock - 0.3 * older)), (stock + older) / 2], 1) - 1


def leaning(z: Tensor) -> Tensor:
    return z[:, 0] ** 2 + 0.3 * z[:, 1] ** 2


def bump(z: Tensor) -> Tensor:
    """All tends to the origin but about (0.3, 0.1), where V = |z|^2 rises."""
    return z * (5 * torch.exp(-1e4 * (z - torch.tensor([0.3, 0.1])).square().sum(1)) - 1)[:, None]


@pytest.mark.parametrize(
    ("claim", "value", "motion", "in_steps", "level", "expected"),
    [
        ("invariant", leaning, ages, True, 2.3, Verdict.REFUTED),
        ("attraction", leaning, ages, True, 2.3, Verdict.INCONCLUSIVE),
        ("attraction", square, bump, False, 0.5, Verdict.INCONCLUSIVE),
    ],
)
def test_what_samples_missed_and_a_proof_met_is_supported_no_more(
    claim: str, value: Function, motion: Function, in_steps: bool, level: float, expected: Verdict
) -> None:
    functions = load_function(value, 2, "value"), load_function(motion, 2, "velocity")
    base = Box(*torch.tensor([[0.0, 0.0], [-0.9, -0.9], [4.0, 4.0]], dtype=torch.float64))
    subject = Subject(*functions, Sublevel(base, functions[0], level), in_steps=in_steps)
    found = proved(subject, subject.finding(claim, Verdict.SUPPORTED, "No violation found."))
    assert found.verdict is expected, found.evidence
    assert "the search for a proof did, on its boxes" in found.evidence
    assert found.witness is not None
    assert found.witness["replayed_excess"] > 0
