"""The parts that a solve is made of, one by one: norms, who is astray or stuck, the safeguard's steps, the memory's room."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.solvers import Anderson, Broyden, Picard, Solution, Solver, Status, iteration, loop, slots, solve
from stabdeq.solvers.checked import CheckedSolver
from stabdeq.solvers.iteration import Problem, State, observe
from stabdeq.solvers.joint import Joint
from stabdeq.solvers.solution import norm, relative_residual


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def problem(f: Any, **changed: Any) -> Problem:
    settings = {
        "context": (),
        "parameters": (),
        "tolerance": numbers(1e-6)[0],
        "coupled": False,
        "channels_last": False,
    }
    return Problem(f, torch.Size([1]), **settings | changed)


def at(count: int = 1, **changed: Tensor) -> State:
    state = State.start(torch.zeros(count, 1, dtype=torch.float64), None)
    return state._replace(**changed)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_the_norm_of_small_and_large_states(scale: float) -> None:
    states = numbers(3, 4, 0, 0, 1, 0).view(3, 2) * scale
    assert norm(states).tolist() == pytest.approx([5 * scale, 0, scale], rel=1e-14, abs=0)
    assert norm(states[:, :0]).tolist() == [0, 0, 0]


def test_the_residual_is_relative_to_states_above_1() -> None:
    z = numbers(0.5, 4).view(2, 1)
    assert relative_residual(z, z + 2).tolist() == [2, 0.5]


def test_tensors_are_the_same_in_all_places_nan_included() -> None:
    one = numbers(1, torch.nan)
    assert loop.same(one, one.clone())
    assert not loop.same(one, numbers(1, 2))
    assert not loop.same(numbers(1, 2), numbers(1, 3))
    assert not loop.same(numbers(1, 2), numbers(1))


@pytest.mark.parametrize(("coupled", "setback"), [(False, iteration.SETBACK), (True, iteration.COUPLED_SETBACK)])
def test_who_is_astray(coupled: bool, setback: float) -> None:
    def astray(residual: float, bar: float, size: float = 1.0) -> bool:
        state = at(residual=numbers(residual), bar=numbers(bar), size=numbers(size), allowed=numbers(2.0))
        return bool(state.astray(coupled))

    assert not astray(0.99 * setback * 0.01, 0.01)
    assert astray(1.01 * setback * 0.01, 0.01)
    assert astray(torch.inf, torch.inf)
    assert astray(torch.nan, torch.inf)
    assert astray(1e-9, 0.01, size=3.0)  # it has run away
    assert not astray(1e-9, 0.01, size=2.0)


def test_who_is_stuck() -> None:
    patience = iteration.PATIENCE
    state = at(4, found_at=torch.tensor([2, 1, 0, patience]), active=torch.tensor([True, True, True, True]))
    assert state.stuck(patience).tolist() == [False, False, True, False]
    assert state.stuck(patience + 2).tolist() == [True, False, False, False]
    assert not bool(state._replace(active=~state.active).stuck(patience).any())


@pytest.mark.parametrize("count", [1, torch.tensor(1)])
def test_what_the_first_evaluation_tells(count: int | Tensor) -> None:
    state = State.start(numbers(0.5, 4).view(2, 1), None)
    seen, field = observe(problem(lambda z: z + 3), state, count)
    assert field.flatten().tolist() == [3, 3]
    assert seen.first_size.tolist() == [1, 4]
    assert seen.size.tolist() == [0.5, 4]
    assert seen.residual.tolist() == [3, 0.75]
    expected = [iteration.DIVERGENCE * (1 + 2 * size + 3) for size in (0.5, 4)]
    assert seen.allowed.tolist() == pytest.approx(expected)
    assert seen.longest.tolist() == [3, 3]
    later = seen._replace(z=seen.z + 3)
    again, _ = observe(problem(lambda z: z + 1), later, count + 1)
    assert again.first_size.tolist() == [1, 4]
    assert again.allowed.tolist() == seen.allowed.tolist()
    assert again.longest.tolist() == [3, 3]


def test_no_state_is_allowed_beyond_the_root_of_the_largest_number() -> None:
    most = torch.finfo(torch.float64).max ** 0.5
    assert iteration._allowed(numbers(1e300, torch.inf), numbers(0, 0)).tolist() == [most, iteration.DIVERGENCE]


def test_a_residual_that_falls_by_growth_alone_is_no_arrival() -> None:
    """A field of 1, of a longest of 1, 1.9, 2.1; and one that would have arrived, measured by the first state."""
    state = at(4, longest=numbers(1, 1.9, 2.1, 1), first_size=numbers(1, 1, 1, 1e4))
    departing = iteration._departing(state, numbers(1, 1, 1, 1), numbers(1e-3)[0])
    assert departing.tolist() == [True, True, False, False]


def test_a_map_that_spares_its_state_is_given_no_copies() -> None:
    pure, z = problem(lambda z: z + 1), numbers(1, 2).view(2, 1)
    assert not pure.spares_state
    pure.evaluate(z)
    assert pure.spares_state
    pure.evaluate(z)
    assert pure.spares_state
    writing = problem(lambda z: z.add_(1))
    writing.evaluate(z)
    assert not writing.spares_state
    assert z.flatten().tolist() == [1, 2]


class Wild(Solver):
    """Proposes what lies far off, always."""

    safeguarded = True

    def init(self, z: Tensor) -> None:
        pass

    def step(self, z: Tensor, field: Tensor, memory: None) -> tuple[Tensor, None]:
        return z + 1e5, None

    def forget(self, memory: None, samples: Tensor) -> None:
        pass

    def select(self, memory: None, samples: Tensor) -> None:
        pass


def test_the_safeguard_takes_twice_as_many_plain_steps_after_every_restart() -> None:
    seen: list[bool] = []

    def f(z: Tensor) -> Tensor:
        seen.append(bool(z > 1e4))
        return -z if seen[-1] else 0.99 * z + 1e-3

    solve(f, torch.zeros(1, 1, dtype=torch.float64), Wild(), tolerance=1e-9, max_evaluations=40)
    wild = [place for place, is_wild in enumerate(seen[:40]) if is_wild]
    between = [after - before - 1 for before, after in pairwise(wild)]
    # The state that it is thrown back to is evaluated again, and one step more is plain than 2, 4, 8 and 16.
    assert between == [2 + 2, 2 + 4, 2 + 8, 2 + 16][: len(between)]
    assert len(between) >= 3


def test_a_large_state_is_solved_in_parts_and_judged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for tile, parts in ((4, {1}), (2, {1}), (6, {2, 1})):
        monkeypatch.setattr(loop, "TILE", tile)
        sizes: list[int] = []

        def f(z: Tensor, h: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(len(z))
            return z / 2 + h

        h = torch.arange(15, dtype=torch.float64).view(5, 3)
        found = solve(f, torch.zeros_like(h), Picard(), context=[h], tolerance=1e-9, max_evaluations=99)
        torch.testing.assert_close(found.z, 2 * h, rtol=1e-7, atol=1e-7)
        assert set(sizes[:-1]) == parts
        assert sizes[-1] == 5
        assert bool(found.converged.all())


@pytest.mark.parametrize(
    ("converged", "gone", "is_apart"), [(True, False, False), (True, True, True), (False, False, False)]
)
def test_who_arrived_apart_from_the_others(converged: bool, gone: bool, is_apart: bool) -> None:
    state = at(residual=numbers(1e-9), best_residual=numbers(1e-9))
    status = torch.tensor([Status.converged if converged else Status.max_steps])
    left = torch.tensor([Status.converged if gone else Status.nan])
    run = SimpleNamespace(state=state, status=status, gone=[(None, None, None, left, None)])
    assert loop._Run.is_apart.fget(run) is is_apart  # pyrefly: ignore
    moved = SimpleNamespace(state=state._replace(residual=numbers(0.1)), status=status, gone=[])
    assert loop._Run.is_apart.fget(moved) is converged  # pyrefly: ignore


@pytest.mark.parametrize(("compiled", "count", "is_small"), [(False, 2, False), (True, 2, True), (True, 3, False)])
def test_samples_leave_where_it_pays(compiled: bool, count: int, is_small: bool) -> None:
    start = torch.zeros(count, loop.FEW)
    run = SimpleNamespace(separable=True, start=start, compiled=compiled)
    crowd = loop._Run._crowd.fget  # pyrefly: ignore
    assert crowd(run) == (0 if is_small else int(loop.CROWD * count))
    assert crowd(SimpleNamespace(separable=False, start=start, compiled=compiled)) == 0
    assert crowd(SimpleNamespace(separable=True, start=start[:, :1], compiled=False)) == 0


def test_a_solver_that_cannot_go_on_with_a_sample_alone_is_named() -> None:
    class Forgetful(Anderson):
        def select(self, memory: Any, samples: Tensor) -> Any:
            return memory

    checked, z = CheckedSolver("mine", Forgetful()), torch.ones(3, 2)
    with pytest.raises(ConfigError, match="solver mine: step"):
        checked.try_out(z, z.clone())
    CheckedSolver("mine", Anderson()).try_out(z, z.clone())


def test_the_room_of_broydens_memory() -> None:
    rule, z = Broyden(memory=3), torch.ones(2, 4)
    memory = rule.init(z)
    assert bool(rule.is_full(memory._replace(slot=0)))
    roomy = rule.reserve(memory)  # nothing is written, and at least two slots are made ready
    assert roomy.extent == 3
    assert not bool(roomy.left.any())
    assert not bool(rule.is_full(roomy._replace(slot=2)))
    assert bool(rule.is_full(roomy._replace(slot=3)))
    assert rule.reserve(roomy._replace(slot=2)).extent == 3
    _, begun = rule.step(z, z, memory)
    full = rule.reserve(begun._replace(slot=3, extent=3))
    assert int(full.slot) == 0
    assert torch.equal(full.image, -begun.field)
    large = Broyden(memory=9).reserve(Broyden(memory=9).init(torch.ones(1, 2**20)))
    assert large.extent == 2


def test_a_joint_rule_is_as_its_own() -> None:
    class Marked(Anderson):
        def reserve(self, memory: Any) -> Any:
            return ("reserved", memory)

    for rule in (Marked(), Broyden(), Broyden(line_search=True), Picard()):
        assert Joint(rule).safeguarded == rule.safeguarded
        assert Joint(rule).kept == rule.kept
    assert Joint(Marked()).reserve(3) == ("reserved", 3)


def test_who_begins_anew_stays_so_when_others_do() -> None:
    z = torch.ones(3, 2)
    first, second = torch.tensor([True, False, False]), torch.tensor([False, True, False])
    for rule in (Anderson(), Broyden()):
        _, memory = rule.step(z, z, rule.init(z))
        for samples in (first, second):
            memory = rule.forget(memory, samples)
        assert memory.fresh is not None
        assert memory.fresh.tolist() == [True, True, False]


@pytest.mark.parametrize("dim", [0, 1])
def test_a_slot_is_written_by_its_number_or_by_a_tensor(dim: int) -> None:
    for slot in (1, torch.tensor([1])):
        kept = torch.zeros(3, 3, 2)
        slots.write(kept, slot, torch.ones(3, 2), dim=dim)
        expected = torch.zeros(3, 3, 2)
        expected.select(dim, 1).fill_(1)
        assert torch.equal(kept, expected)
        slots.write(kept, slot, 2.0, dim=dim)
        assert torch.equal(kept, 2 * expected)


def test_a_difference_and_a_quotient_are_written_in_either_way() -> None:
    a, b, length = torch.ones(3, 2), torch.full((3, 2), 3.0), torch.tensor([[2.0], [1.0], [4.0]])
    for slot in (1, torch.tensor([1])):
        kept = torch.zeros(3, 3, 2)
        step = slots.write_quotient(kept, slot, slots.difference(kept, slot, a, b), length)
        expected = torch.zeros(3, 3, 2)
        expected[1] = torch.tensor([[-1.0], [-2.0], [-0.5]])
        assert torch.equal(kept, expected)
        assert torch.equal(step, expected[1])


def test_more_digits_are_advised_where_rounding_stopped_it() -> None:
    def said(status: Status, dtype: torch.dtype) -> str:
        z = torch.zeros(2, 1, dtype=dtype)
        flags = torch.tensor([status, Status.converged])
        return Solution(z=z, residual=z[:, 0], status=flags, evaluations=flags).describe_failures()

    assert said(Status.stagnated, torch.float32).startswith("1 of 2 stagnated (")
    assert "float64" in said(Status.stagnated, torch.float32)
    assert ", or float64" not in said(Status.stagnated, torch.float64)
    assert ", or float64" not in said(Status.max_steps, torch.float32)
    assert said(Status.converged, torch.float32) == ""


def test_what_a_state_of_any_solver_amounts_to() -> None:
    z = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    beside = torch.tensor([[0.04, 0.0], [0.04, 0.0], [0.0, torch.nan], [torch.inf, 0.0]])
    found = Solution.of_state(z, z + beside, tolerance=0.01, evaluations=7)
    torch.testing.assert_close(found.residual[:2], torch.tensor([0.008, 0.04]))  # relative to a norm above 1
    assert found.status.tolist() == [Status.converged, Status.max_steps, Status.nan, Status.nan]
    assert found.evaluations.tolist() == [7, 7, 7, 7]
    assert found.z is z
    assert not found.residual.requires_grad
    counted = Solution.of_state(z, z, tolerance=0.01, evaluations=torch.arange(4.0))
    assert counted.evaluations.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("fz", "evaluations"),
    [
        (torch.ones(1, 2), 3),  # of which torch makes (3, 2), and each residual that of another sample
        (torch.ones(3, 1), 3),
        (torch.ones(2), 3),
        (torch.ones(2, 3), 3),
        (torch.ones(3, 2), torch.arange(2)),
    ],
)
def test_a_state_beside_values_of_another_shape_is_refused(fz: torch.Tensor, evaluations: Any) -> None:
    with pytest.raises(ConfigError, match=r"a state \(B, \*\) of shape \(3, 2\).*both of one shape"):
        Solution.of_state(torch.ones(3, 2), fz, tolerance=0.1, evaluations=evaluations)
    assert bool(Solution.of_state(torch.ones(3, 2), torch.ones(3, 2), tolerance=0.1, evaluations=3).converged.all())
