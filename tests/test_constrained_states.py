"""States on the unit circle, as a set {h = 0}: where they are moved to, and which belong to it, in plain numbers."""

import math
import re
from typing import Any

import pytest
import torch
from plain_states import close, numbers, random
from solver_problems import generator
from torch import Tensor

from analysis.evidence import constrained, sampling
from analysis.evidence.claim import Claim
from analysis.evidence.constrained import Constrained
from analysis.evidence.effort import Effort
from analysis.evidence.judge import judge
from analysis.evidence.regions import Ball, Box
from analysis.findings import Verdict
from stabdeq.constraint import onto_set
from stabdeq.lyapunov.claims import Violation

BASE = Box(numbers(1, 0), numbers(-1.5, -1.5), numbers(1.5, 1.5))


def circle(z: Tensor) -> Tensor:
    return z.square().sum(1) - 1


def flat_far_out(z: Tensor) -> Tensor:
    """The same circle, but without a slope beyond the radius 2^(1/2)."""
    return circle(z).clamp(max=1)


def height(z: Tensor) -> Tensor:
    return z[:, 1]


def of_circle(level: float = math.inf, lower: float = -math.inf, **options: Any) -> Constrained:
    return Constrained(options.pop("base", BASE), height, level, lower, **{"constraint": circle, **options})


def at(*angles: float) -> Tensor:
    return torch.stack([numbers(math.cos(angle), math.sin(angle)) for angle in angles])


def test_a_set_says_what_it_is() -> None:
    within = "within the box [-1.5, 1.5]^2"
    whole = of_circle()
    assert (whole.is_curved, whole.drawn) == (True, "by projection of states drawn uniformly by volume")
    assert whole.words == f"the set {{h = 0}} {within}"
    assert of_circle(0.5).words == f"the set {{h = 0, V <= 0.5}} {within}"
    assert of_circle(0.5, -0.5).words == f"the set {{h = 0, -0.5 <= V <= 0.5}} {within}"
    assert of_circle(lower=-0.5).words == f"the set {{h = 0, V >= -0.5}} {within}"
    assert of_circle(0.5, on_boundary=True).words == f"the set {{h = 0, V = 0.5}} {within}"


def test_a_state_of_the_set_is_on_the_circle_in_the_base_and_between_the_levels() -> None:
    angles = [0.0, 0.3, 1.0, -0.3, -1.0, 3.0]
    on_it = torch.cat([at(*angles), 1.0001 * at(0.0), at(0.0) + 1e-13])
    assert of_circle().contains(on_it).tolist() == [True] * 6 + [False, True]
    heights = [math.sin(angle) for angle in angles]
    for level, lower in ((0.5, -math.inf), (math.inf, -0.5), (0.5, -0.5), (0.0, 0.0)):
        found = of_circle(level, lower).contains(at(*angles)).tolist()
        assert found == [lower <= one <= level for one in heights]
    boundary = of_circle(0.5, on_boundary=True)
    assert boundary.contains(at(math.pi / 6, 5 * math.pi / 6, 0.5, 0.0)).tolist() == [True, True, False, False]
    assert boundary.contains(at(math.pi / 6) + numbers(0, 1e-13)).tolist() == [True]  # above the level by rounding
    near = of_circle(base=Ball(numbers(1, 0), 0.5))
    assert near.contains(at(0.1, 0.4, 0.6)).tolist() == [True, True, False]
    assert of_circle(0.9, base=Ball(numbers(1, 0), 0.5)).contains(at(0.4, 0.6)).tolist() == [True, False]
    # What is rounding grows with the region, and with how far away it lies.
    for base, size in ((Ball(numbers(1, 0), 3.0), 4.0), (Ball(numbers(1, 0), 99.0), 100.0)):
        states = torch.stack([numbers(1 + 0.9e-12 * size, 0), numbers(1 + 1.1e-12 * size, 0)])
        assert of_circle(base=base).contains(states).tolist() == [True, False]


def test_what_is_0_on_the_set() -> None:
    states = random(5)
    close(of_circle(0.5).equations(states), circle(states)[:, None])
    boundary = of_circle(0.5, on_boundary=True)
    close(boundary.equations(states), torch.stack([circle(states), height(states) - 0.5], 1))
    close(boundary._open(states), boundary.equations(states))
    close(of_circle()._open(states), circle(states)[:, None])
    states = torch.stack([numbers(0.3, y) for y in (-1.0, -0.25, 0.0, 0.5, 1.0)])
    above = [0.0, 0.0, 0.0, 0.0, 0.5]
    below = [-0.75, 0.0, 0.0, 0.0, 0.0]
    close(of_circle(0.5, -0.25)._open(states)[:, 1:], torch.tensor([above, below]).T)
    close(of_circle(0.5)._open(states)[:, 1:], torch.tensor([above]).T)
    close(of_circle(lower=-0.25)._open(states)[:, 1:], torch.tensor([below]).T)
    beyond = of_circle(0.5, -0.25)._open(torch.stack([numbers(0.3, 0.5 + 1e-15), numbers(0.3, -0.25 - 1e-15)]))
    assert float(beyond[0, 1]) == pytest.approx(0.5e-12, rel=0.01)  # clear of the level
    assert float(beyond[1, 2]) == pytest.approx(-0.25e-12, rel=0.01)


def test_along_the_set_is_along_the_circle() -> None:
    for angle in (0.3, 2.0):
        normal, state = at(angle)[0], at(angle)
        close(of_circle().along(state[0]), torch.eye(2) - torch.outer(normal, normal))
        leaf = state.clone().requires_grad_()
        moved = of_circle().tangent(leaf)
        close(moved.detach(), state)
        (gradient,) = torch.autograd.grad(moved[0, 0], leaf)
        close(gradient[0], numbers(1, 0) - normal[0] * normal)


def landed(region: Constrained, state: Tensor) -> tuple[Tensor, bool]:
    """Return where a state (n,) is moved to, three times at most, and whether it is in the set then."""
    moved = region.base.project(state[None])
    for conditions in (region.equations, region._open, region._open):
        moved = region.base.project(onto_set(conditions, moved))
        if bool(region.contains(moved)):
            return moved[0], True
    return moved[0], False


@pytest.mark.parametrize("constraint", [circle, flat_far_out])
@pytest.mark.parametrize("levels", [(math.inf, -math.inf), (0.5, -math.inf), (0.5, -0.25)])
def test_a_state_is_moved_onto_the_set_or_to_the_nearest_of_its_states(
    constraint: Any, levels: tuple[float, float]
) -> None:
    region = of_circle(*levels, constraint=constraint)
    states = random(20) + numbers(0.5, 0)
    kept = states.clone()
    moved, (_, arrived) = region.project(states), region._landed(states)
    assert torch.equal(states, kept)
    assert bool(region.contains(moved).all())
    close(circle(moved), [0.0] * 20, 1e-11)
    for state, there, is_there in zip(states, moved, arrived.tolist(), strict=True):
        expected, arrives = landed(region, state)
        assert is_there is arrives
        if not arrives:
            expected = min(region.anchors, key=lambda anchor, state=state: math.dist(anchor.tolist(), state.tolist()))
        close(there, expected, 1e-9)
    assert arrived.tolist().count(True) > 10
    assert bool(arrived.all()) is (constraint is circle)


def test_states_to_go_to_are_found_once_and_the_centre_first() -> None:
    whole = of_circle()
    assert whole.anchors.shape == (256, 2)
    assert torch.equal(whole.anchors[0], numbers(1, 0))
    expected = whole._landed(BASE.sample(constrained.DRAWN, generator()))[0][:255]
    assert torch.equal(whole.anchors[1:], expected)
    assert not bool((of_circle(lower=0.5).anchors == numbers(1, 0)).all(1).any())
    nowhere = of_circle(constraint=lambda z: circle(z) + 5)
    assert nowhere.anchors.shape == (0, 2)
    assert nowhere.project(random(3)).shape == (3, 2)


def test_so_many_states_are_drawn_as_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    region = of_circle()
    first = region._landed(BASE.sample(300, generator()))[0]
    assert torch.equal(region.sample(300, generator()), first)
    assert torch.equal(region.sample(5, generator()), region._landed(BASE.sample(256, generator()))[0][:5])
    half = of_circle(constraint=lambda z: torch.where(z[:, 0] > 0, circle(z), 1.0))
    same, parts, found = generator(), [], 0
    while found < 300:
        states, arrived = half._landed(BASE.sample(max(300 - found, 256), same))
        parts.append(states[arrived])
        found += len(parts[-1])
    assert len(parts) > 1
    drawing = generator()
    assert torch.equal(half.sample(300, drawing), torch.cat(parts)[:300])
    assert torch.equal(torch.rand(2, generator=drawing), torch.rand(2, generator=same))  # no more than those were drawn
    monkeypatch.setattr(constrained, "BATCHES", 2)
    alone = of_circle(constraint=lambda z: (z - numbers(1, 0)).norm(dim=1).sqrt())  # no step leads to it
    assert alone.sample(5, generator()).tolist() == [[1, 0]]
    close(
        region.shells(64, generator()),
        region.project(sampling.on_shells(64, BASE.centre, 1e-9 * BASE.radius, BASE.radius, generator())),
    )


def test_the_nearest_is_found_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    region, states = of_circle(), random(20)
    expected = [
        min(region.anchors.tolist(), key=lambda one, state=state: math.dist(one, state)) for state in states.tolist()
    ]
    assert region._nearest(states).tolist() == expected
    monkeypatch.setattr(constrained, "BATCH", 3 * 256)
    assert region._nearest(states).tolist() == expected
    monkeypatch.setattr(constrained, "BATCH", 1)
    assert region._nearest(states).tolist() == expected


def test_states_that_were_not_found_are_not_made_up_of_copies() -> None:
    def needle(z: Tensor) -> Tensor:
        return torch.exp(-1e4 * (z - 0.5).square().sum(1)) - 0.5

    region = Constrained(Ball(numbers(0, 0), 1.0), height, constraint=needle)
    states = region.sample(1024, generator())
    assert 0 < len(states) < 1024
    assert len(states.unique(dim=0)) == len(states)
    claim = Claim(
        check="c",
        name="positive",
        sentence="V > 0",
        violation=lambda z: Violation(-1 - 0 * height(z), 1 + 0 * height(z)),
        tolerance=1e-12,
    )
    found = judge(claim, region, seed=0, effort=Effort(samples=1024, starts=0, shells=1))
    assert found.verdict is Verdict.SUPPORTED
    drawn = int(re.search(r"Of (\d+) drawn", found.evidence)[1])  # pyrefly: ignore
    assert drawn < 1024
    assert f"{100 * sampling.clopper_pearson_upper(0, drawn):.2g} %" in found.evidence
