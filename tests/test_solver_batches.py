"""Batches: samples leave as they are done, large batches are solved in tiles, and each goes with its own context."""

import pytest
import torch
from solver_problems import DIM, MORE, SOLVERS, Crowd, every_solver, every_variant, normal, speeds, statuses
from torch import Tensor, nn

from stabdeq.errors import ConfigError
from stabdeq.solvers import Picard, Solver, loop, relative_residual, solve


@every_variant
@pytest.mark.parametrize("faulty", [False, True])
def test_a_batch_in_parts_is_solved_like_a_whole_one(solver: Solver, faulty: bool, splitting: str) -> None:
    faults = {2: "nan", 5: "late nan", 9: "growth", 14: "jump", 22: "nan"} if faulty else {}
    crowd = Crowd(speeds(slowest=0.9), faults)
    limits = {"tolerance": 1e-9, "max_evaluations": 300}
    expected, found = crowd.whole(solver, **limits), crowd.shrinking(solver, **limits)
    tame = torch.tensor([sample not in faults for sample in range(23)])
    assert expected.converged[tame].all()
    assert statuses(found) == statuses(expected)
    # Where there is no root the path is chaotic, and roundoff decides when it ends.
    assert torch.equal(found.evaluations[tame], expected.evaluations[tame])
    # A batch of another size takes its matrix products in another order, and Anderson's many steps amplify the roundoff, on each
    # processor in its own way: a hundredth of the tolerance to which both are solved.
    alike = {"rtol": 0, "atol": limits["tolerance"] / 100}
    torch.testing.assert_close(found.z[tame], expected.z[tame], **alike)
    torch.testing.assert_close(found.residual[tame], expected.residual[tame], **alike)
    # And what is said of each is true of it.
    for sample in range(23):
        alone = [rows[sample : sample + 1] for rows in crowd.context]
        z = found.z[sample : sample + 1]
        if found.residual[sample].isfinite():
            torch.testing.assert_close(found.residual[[sample]], relative_residual(z, crowd(z, *alone)))


@every_solver
def test_rows_evaluated_fall_as_samples_leave(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the first have left no evaluation has less than three samples in four still at work, and they leave once a row was
    evaluated in vain for each of the batch; at the default thresholds too small a batch stays."""
    crowd = Crowd(speeds(200))
    limits = {"tolerance": 1e-9, "max_evaluations": 2000}
    whole = crowd.shrinking(solver, **limits)
    assert {len(names) for names in crowd.calls} == {200}
    monkeypatch.setattr(loop, "TILE", 200 * DIM)
    monkeypatch.setattr(loop, "FEW", 25 * DIM)
    monkeypatch.setattr(loop, "CROWD", 0.75)
    solution = crowd.shrinking(solver, **limits)
    assert solution.converged.all()
    assert torch.equal(solution.evaluations, whole.evaluations)
    *sizes, together = [len(names) for names in crowd.calls]
    assert together == 200  # all once more, to see that none of them depends on the others
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == solution.evaluations.max()
    idle = 0
    for count, size in enumerate(sizes, 1):
        at_work = int((solution.evaluations >= count).sum())
        assert at_work >= loop.CROWD * size or size * DIM < loop.FEW or (size == 200 and idle < 200)
        idle += size - at_work
    assert (crowd.times() >= solution.evaluations).all()
    assert sum(sizes) < 0.9 * 200 * len(sizes)


def test_tiles_fit_the_cache_and_miss_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TILE", 5 * DIM + 1)
    monkeypatch.setattr(loop, "FEW", 1)
    crowd = Crowd(torch.full((23,), 0.5, dtype=torch.float64))
    solution = crowd.shrinking(Picard(), tolerance=1e-9, max_evaluations=100)
    *sizes, together = [len(names) for names in crowd.calls]
    assert max(sizes) == 5
    assert together == 23
    assert solution.converged.all()
    assert torch.equal(crowd.times() > 0, torch.ones(23, dtype=torch.bool))


@every_solver
def test_lost_samples_leave_too(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the batch is NaN at the first evaluation; the others, all equally slow, need not carry it to the end."""
    crowd = Crowd(torch.full((40,), 0.9, dtype=torch.float64), dict.fromkeys(range(20), "nan"))
    monkeypatch.setattr(loop, "TILE", 40 * DIM)
    monkeypatch.setattr(loop, "FEW", 1)
    solution = crowd.shrinking(solver, tolerance=1e-9, max_evaluations=500)
    assert statuses(solution) == ["nan"] * 20 + ["converged"] * 20
    assert [len(names) for names in crowd.calls[:3]] == [40, 40, 20]


@every_solver
def test_of_a_batch_in_tiles_the_lost_leave_at_once(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are evaluated together at the end in any case, so that leaving costs nothing."""
    crowd = Crowd(torch.full((40,), 0.9, dtype=torch.float64), dict.fromkeys(range(0, 40, 2), "nan"))
    monkeypatch.setattr(loop, "TILE", 20 * DIM)
    monkeypatch.setattr(loop, "FEW", 1)
    crowd.shrinking(solver, tolerance=1e-9, max_evaluations=500)
    assert [len(names) for names in crowd.calls[:3]] == [20, 10, 10]


def test_a_batch_of_which_the_rest_arrive_soon_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """To leave for the last evaluation would cost one of all."""
    monkeypatch.setattr(loop, "FEW", 1)
    rates, sizes = torch.full((40, 1), 0.5), []
    rates[0] = 0.52

    def f(z: Tensor, rate: Tensor) -> Tensor:
        sizes.append(len(z))
        return rate * z

    solution = solve(f, torch.ones(40, 1), Picard(), context=(rates,), tolerance=1e-3, max_evaluations=20)
    assert solution.evaluations.tolist() == [11, *[10] * 39]
    assert sizes == [40] * 11


@every_solver
@pytest.mark.parametrize("option", ["trace", "coupled"])
def test_a_traced_or_coupled_batch_stays_whole(solver: Solver, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TILE", 4 * DIM)
    monkeypatch.setattr(loop, "CROWD", 1.0)
    monkeypatch.setattr(loop, "FEW", 1)
    crowd = Crowd(speeds())
    limits = {"tolerance": 1e-9, "max_evaluations": 700, option: True}
    solution = crowd.shrinking(solver, **limits)
    assert {len(names) for names in crowd.calls} == {23}
    expected = crowd.whole(solver, **limits)
    for name in ("z", "residual", "status", "evaluations"):
        assert torch.equal(getattr(solution, name), getattr(expected, name)), name
    if option == "trace":
        assert torch.equal(solution.trace.residual, expected.trace.residual)
        assert solution.trace.residual.shape == (solution.evaluations.max(), 23)


@pytest.mark.parametrize("rows", [torch.zeros(3), torch.zeros(5, 2), torch.tensor(1.0), torch.zeros(0)], ids=str)
@pytest.mark.parametrize("coupled", [False, True])
def test_context_of_another_length_is_refused(rows: Tensor, coupled: bool) -> None:
    with pytest.raises(ConfigError, match="a row of context for each of 4 samples"):
        solve(
            lambda z, rows: z / 2,
            torch.zeros(4, 2),
            Picard(),
            context=(torch.zeros(4), rows),
            coupled=coupled,
            tolerance=1e-4,
            max_evaluations=9,
        )


def test_context_of_images_and_an_empty_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TILE", 3 * 24)
    monkeypatch.setattr(loop, "CROWD", 1.0)
    monkeypatch.setattr(loop, "FEW", 1)
    kernel, offset = normal(2, 2, 3, 3) / 12, normal(10, 2, 3, 4, seed=1)

    def f(z: Tensor, offset: Tensor) -> Tensor:
        return torch.tanh(nn.functional.conv2d(z, kernel, padding=1) + offset)

    limits = {"tolerance": 1e-10, "max_evaluations": 300}
    for solver in SOLVERS:
        found = solve(f, torch.zeros_like(offset), solver, context=(offset,), **limits)
        expected = solve(lambda z: f(z, offset), torch.zeros_like(offset), solver, **limits)
        assert found.z.shape == offset.shape
        torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-11)
        assert torch.equal(found.evaluations, expected.evaluations)
        nobody = solve(f, offset[:0], solver, context=(offset[:0],), **limits)
        assert nobody.z.shape == (0, 2, 3, 4)
        assert nobody.status.shape == (0,)


def test_neither_the_start_nor_the_context_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TILE", 4 * DIM)
    monkeypatch.setattr(loop, "FEW", 1)
    for solver in MORE:
        crowd = Crowd(speeds(), {3: "nan"})
        before = [crowd.start.clone(), *(rows.clone() for rows in crowd.context)]
        crowd.shrinking(solver, tolerance=1e-9, max_evaluations=700)
        for old, new in zip(before, (crowd.start, *crowd.context), strict=True):
            assert torch.equal(old, new)
