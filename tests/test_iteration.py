"""Does the iteration do anything? A cell that ignores its state, one that rests in two classes, and a solver that stops early."""

from typing import Any

import pytest
import torch
from torch import Tensor

import stabdeq
from analysis.checks import iteration
from analysis.findings import Finding, Measurement
from analysis.findings.catalogue import CHECKS
from analysis.measure.subject import prepare
from analysis.report.figures import draw
from stabdeq.adapters import FunctionModel, from_functions
from stabdeq.errors import NotReplayableError

SEEDS = (0, 1, 2)


def images(seed: int, count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 2, 2, generator=generator, dtype=torch.float64), torch.arange(count) % 2


def inject(x: Tensor) -> Tensor:
    return 2 * x.flatten(1)[:, :3] - 1


def readout(z: Tensor) -> Tensor:
    return z[:, :2]


def matrix(seed: int) -> Tensor:
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.8 * weights / torch.linalg.matrix_norm(weights, 2)


def honest(seed: int, **settings: Any) -> FunctionModel:
    weights = matrix(seed)
    return from_functions(inject, lambda z, h: torch.tanh(z @ weights.T + h), readout, **settings)


def cheating(seed: int) -> FunctionModel:
    weights = matrix(seed)
    return from_functions(inject, lambda z, h: torch.tanh(h @ weights.T) + 0 * z, readout)


def bistable(seed: int) -> FunctionModel:
    """Rests near 1 and near -1 in each coordinate, and reads the first against 0."""
    return from_functions(
        inject,
        lambda z, h: torch.tanh(4 * z) + 0.01 * h,
        lambda z: torch.stack([z[:, 0], -z[:, 0]], 1),
        tolerance=1e-6,
        max_evaluations=200,
    )


def judged(model: FunctionModel, seed: int) -> dict[str, Finding]:
    return stabdeq.audit(model, *images(seed), checks=["iteration"], seed=seed).named


def replayed(model: FunctionModel, finding: Finding, seed: int) -> Any:
    assert finding.witness is not None
    pixels, labels = images(seed)
    place = finding.witness["image"]
    subject = prepare(model, pixels[place : place + 1], labels[place : place + 1], indices=torch.tensor([place]))
    return iteration.replay(subject, finding)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_honest_cell_is_told_from_one_that_ignores_its_state(seed: int) -> None:
    good = judged(honest(seed, tolerance=1e-8, max_evaluations=100), seed)
    assert {str(finding.verdict) for finding in good.values()} == {"SUPPORTED"}
    bad = judged(cheating(seed), seed)
    assert {name: str(finding.verdict) for name, finding in bad.items()} == {
        "iteration.state": "REFUTED",
        "iteration.longer": "SUPPORTED",
        "iteration.start": "SUPPORTED",
    }
    again = replayed(cheating(seed), bad["iteration.state"], seed)
    assert again.refutes
    assert again.is_same_amount
    assert not replayed(honest(seed), bad["iteration.state"], seed).refutes


def test_bypasses_of_a_cell_that_ignores_its_state_change_nothing() -> None:
    report = stabdeq.audit(cheating(0), *images(0), checks=["iteration"])
    value = {item.name: item.value for item in report.measurements}
    assert value["one evaluation from 0"] == value["the equilibrium"]
    series = report.series["iteration"]
    assert series["agreement"] == [1.0] * len(iteration.STEPS)
    assert series["accuracy"] == [value["the equilibrium"]] * len(iteration.STEPS)


def test_an_answer_that_depends_on_the_start() -> None:
    finding = judged(bistable(0), 0)["iteration.start"]
    assert str(finding.verdict) == "REFUTED"
    assert "read as two classes" in finding.evidence
    assert replayed(bistable(0), finding, 0).refutes
    assert finding.witness is not None
    moved = {**finding.witness, "state": [0.5, 0.5, 0.5]}
    elsewhere = Finding(**{**vars(finding), "witness": moved})
    assert not replayed(bistable(0), elsewhere, 0).refutes  # no equilibrium
    lacking = Finding(**{**vars(finding), "witness": {"image": finding.witness["image"]}})
    with pytest.raises(NotReplayableError, match="no 'state'"):
        replayed(bistable(0), lacking, 0)


def test_a_solver_that_stops_before_the_answer_is_fixed() -> None:
    weights = torch.tensor([[0.0, 0.9, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)

    def cell(z: Tensor, h: Tensor) -> Tensor:  # the first coordinate follows the second, one evaluation later
        return z @ weights.T + torch.stack([torch.zeros_like(h[:, 0]), torch.full_like(h[:, 0], -1.0), h[:, 2]], 1)

    def sign(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0] + 0.5, -z[:, 0] - 0.5], 1)

    early = from_functions(inject, cell, sign, tolerance=10.0, max_evaluations=1)
    finding = judged(early, 0)["iteration.longer"]
    assert str(finding.verdict) == "REFUTED"
    assert "At 12 of 12 images" in finding.evidence
    assert replayed(early, finding, 0).refutes
    late = from_functions(inject, cell, sign, tolerance=1e-8, max_evaluations=50)
    assert str(judged(late, 0)["iteration.longer"].verdict) == "SUPPORTED"
    assert not replayed(late, finding, 0).refutes


def test_states_that_move_on_after_their_answer_is_fixed() -> None:
    def moving(sign: float) -> Measurement:
        rates = torch.tensor([0.9, 0.5, -0.4], dtype=torch.float64)

        def read(z: Tensor) -> Tensor:  # z[:, 0] is 1 after one step, and rests at 10
            return torch.stack([z[:, 0] + sign * 0.5, 0 * z[:, 0]], 1)

        model = from_functions(inject, lambda z, h: rates * z + torch.ones_like(h) + 0 * h, read)
        report = stabdeq.audit(model, *images(0), checks=["iteration"])
        return next(item for item in report.measurements if item.name == "movement")

    at_once, late = moving(1), moving(-3)
    assert "stays so, within 64 steps of Anderson's method, at 100.0% of 12 images, after 1 (median)" in at_once.text
    assert at_once.value == pytest.approx((0.9**2 + 0.5**2 + 0.4**2) ** 0.5 / 3**0.5)  # of the state (1, 1, 1)
    assert late.value is not None
    assert late.value < at_once.value
    assert "after 2 (median)" in late.text or "after 4 (median)" in late.text


def test_states_whose_answer_is_not_fixed_are_no_part_of_the_median() -> None:
    fixed = torch.tensor([8.0, torch.inf, 2.0, torch.inf, 4.0], dtype=torch.float64)
    item = iteration._still_moving(fixed, torch.tensor([0.1, 7.0, 0.3, 9.0, 0.2], dtype=torch.float64))
    assert item.value == pytest.approx(0.2)
    assert "at 60.0% of 5 images, after 4 (median), when the state still moves by 0.2 of its size" in item.text


def test_an_answer_that_never_is_that_of_the_equilibrium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        iteration, "_answers_after", lambda *_: (torch.full((12,), 5), torch.ones(12, dtype=torch.float64))
    )
    item = next(
        item
        for item in stabdeq.audit(honest(0), *images(0), checks=["iteration"]).measurements
        if item.name == "movement"
    )
    assert item.value is None
    assert item.text.endswith("at 0.0% of 12 images")


def test_a_cell_that_reads_its_state_far_out_alone() -> None:
    def cell(z: Tensor, h: Tensor) -> Tensor:
        return h + 10 + 0.5 * torch.relu(z - 8)

    finding = judged(from_functions(inject, cell, readout, tolerance=1e-8, max_evaluations=100), 0)["iteration.state"]
    assert str(finding.verdict) == "SUPPORTED"


def test_a_tie_at_one_equilibrium_is_no_second_one() -> None:
    def cell(z: Tensor, h: Tensor) -> Tensor:  # contracts; its first coordinate rests at 0
        return 0.5 * z + 0.2 * torch.sin(z) + torch.cat([torch.zeros_like(h[:, :1]), h[:, 1:]], 1)

    model = from_functions(
        inject, cell, lambda z: torch.stack([z[:, 0], -z[:, 0]], 1), tolerance=1e-8, max_evaluations=200
    )
    assert str(judged(model, 0)["iteration.start"].verdict) == "SUPPORTED"


def test_a_model_of_one_class() -> None:
    weights = matrix(0)
    model = from_functions(inject, lambda z, h: torch.tanh(z @ weights.T + h), lambda z: z[:, :1])
    pixels, labels = images(0)
    report = stabdeq.audit(model, pixels, torch.zeros_like(labels), checks=["iteration"])
    assert {item.name: item.value for item in report.measurements}["difficulty"] is None


def test_it_runs_on_request_alone_and_is_drawn() -> None:
    assert CHECKS["iteration"].on_request
    report = stabdeq.audit(honest(0), *images(0), checks=["iteration"])
    (drawing,), missing = draw("iteration", report.series["iteration"])
    assert missing == []
    assert "after 64" in drawing.alternative
    assert draw("iteration", {"accuracy": [1]})[0] == []
