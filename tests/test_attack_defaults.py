"""What the attacks' names stand for, how APGD's steps shrink, and what results of several runs say together."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attack_problems import generator, random_batch, random_split
from torch import Tensor

from stabdeq.attacks import APGD, PGD, Intermediate, Outcome, Square, build_attack, evaluate, honest
from stabdeq.attacks.apgd import _Ascent, _Point
from stabdeq.attacks.result import AttackResult
from stabdeq.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "norm", "steps"),
    [
        ("ifgsm", "linf", None),
        ("pgd", "linf", None),
        ("pgd", "l2", 50),
        ("apgd-ce", "linf", 100),
        ("apgd-t", "l2", 100),
        ("square", "linf", 1000),
        ("intermediate", "linf", 20),
    ],
)
def test_the_steps_of_each_name(name: str, norm: Any, steps: int | None) -> None:
    asked, own = (build_attack(name, eps=0.1, norm=norm, steps=count) for count in (7, None))
    assert (asked.steps, own.steps) == (7, steps)  # pyrefly: ignore


def test_the_standard_set() -> None:
    own, few = (build_attack("honest", eps=0.1, norm="linf", steps=count) for count in (None, 4))
    steps = {name: [one.attacks[name].steps for one in (own, few)] for name in own.attacks}  # pyrefly: ignore
    expected = {"pgd": [100, 4], "apgd-ce": [100, 4], "apgd-t": [100, 4], "square": [1000, 40], "intermediate": [20, 1]}
    assert steps == expected
    assert "intermediate" not in honest(eps=0.1, equilibrium=False).attacks
    losses = {name: one.loss for name, one in own.attacks.items() if isinstance(one, APGD)}  # pyrefly: ignore
    assert losses == {"apgd-ce": "ce", "apgd-t": "targeted"}
    restarted = honest(eps=0.1, restarts=3).attacks
    assert [restarted[name].restarts for name in ("pgd", "apgd-ce", "apgd-t", "square")] == [3, 3, 1, 1]  # pyrefly: ignore


@pytest.mark.parametrize("kind", [PGD, APGD, Square, Intermediate])
def test_a_ball_that_is_none_is_refused_when_the_attack_is_made(kind: Any) -> None:
    with pytest.raises(ConfigError, match="eps"):
        kind(eps=-0.1)
    with pytest.raises(ConfigError, match="l3"):
        kind(eps=0.1, norm="l3")


def wide(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_apgd_halves_its_step_where_it_no_longer_helps_and_goes_back_to_its_best() -> None:
    """Samples: rising often; rising too seldom; best as before; best as before, but halved last time already."""
    point = _Point(wide(1, 2, 3, 4), torch.tensor([1.0, 2, 3, 4]), wide(1, 2, 3, 4))
    best = _Point(wide(5, 6, 7, 8), torch.tensor([5.0, 6, 7, 8]), wide(5, 6, 7, 8))
    ascent = _Ascent.start(wide(0, 0, 0, 0), (), point, 0.4)._replace(
        best=best,
        rises=torch.tensor([3, 2, 4, 4]),
        halved=torch.tensor([False, False, False, True]),
        value_at_checkpoint=torch.tensor([0.0, 0, 7, 8]),
    )
    found = ascent.look_back(4)
    assert found.halved.tolist() == [False, True, True, False]
    assert found.size.tolist() == pytest.approx([0.4, 0.2, 0.2, 0.4])
    assert found.point.images.flatten().tolist() == [1, 6, 7, 4]
    assert found.point.value.tolist() == [1, 6, 7, 4]
    assert found.point.gradient.flatten().tolist() == [1, 6, 7, 4]
    assert found.previous.flatten().tolist() == [1, 6, 7, 4]
    assert found.rises.tolist() == [0] * 4
    assert found.value_at_checkpoint.tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("blind", ["nonfinite", "zero"])
def test_a_gradient_that_misled_one_restart_is_told_of_all(blind: str) -> None:
    images, labels = random_batch()
    calls = []

    def model(x: Tensor) -> Tensor:
        calls.append(len(x))
        slope = {"nonfinite": torch.nan, "zero": 0.0}[blind] if len(calls) <= 3 else 1.0
        return torch.stack([(_Sloped.apply(x, slope)).sum((1, 2, 3)), torch.ones(len(x)), *torch.zeros(3, len(x))], 1)

    found = PGD(eps=0.05, steps=1, restarts=3)(model, images, labels.clamp(max=1), generator=generator())
    assert bool(getattr(found, blind).all())


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.slope = slope
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * ctx.slope, None


def test_who_stands_after_each_part() -> None:
    by = torch.tensor([-1, 0, 1, 2, 2, 3, -1, -1])
    stands, none = by < 0, torch.zeros(8, dtype=torch.bool)
    outcome = Outcome(by != 0, stands, none, none, None, None, by)
    found = AttackResult(
        subject={"checkpoint": None, "sha256": None, "kind": "x", "data": None},
        settings={"attack": "honest", "norm": "linf", "clamp_normalised": False},
        radius="0.1",
        parts=("a", "b", "c"),
        indices=torch.arange(8),
        drawn={},
        control=outcome,
        outcome=outcome,
    )
    assert found.standing == {"a": 6 / 8, "b": 4 / 8, "c": 3 / 8}
    assert found.plain()["samples"]["broken_by"] == [None, "clean", "a", "b", "b", "c", None, None]


def test_equilibria_are_told_where_the_model_predicts_with_a_solution() -> None:
    split = random_split(6)

    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.predict(x).logits

        def predict(self, x: Tensor) -> Any:
            logits = x.flatten(1)[:, :5]
            return SimpleNamespace(logits=logits, solution=SimpleNamespace(converged=logits[:, 0] > 0.5))

    found = evaluate(PGD(eps=0.0, steps=1), Model().eval(), split, seed=0, batch_size=4)
    expected = split.images[:, 0, 0, 0] / 255 > 0.5
    assert found.clean_converged is not None
    assert found.robust_converged is not None
    assert found.clean_converged.tolist() == found.robust_converged.tolist() == expected.tolist()
    assert found.clean_unconverged == pytest.approx(1 - float(expected.double().mean()))
