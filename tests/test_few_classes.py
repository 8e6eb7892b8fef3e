"""Attacks on models with few classes, and labels that name none of a model's: said before anything is solved or attacked."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attack_problems import TwoClassLinear, broken_by, generator, network, random_batch
from small_models import images, model
from torch import Tensor, nn

from analysis.audit import audit
from analysis.certify import certify
from analysis.solver_comparison import compare_solvers
from stabdeq.attacks import APGD, honest
from stabdeq.attacks.evaluate import evaluate
from stabdeq.attacks.run import attack
from stabdeq.data import Split
from stabdeq.errors import DataError


@pytest.mark.parametrize("classes", [2, 3])
def test_the_honest_set_attacks_models_of_few_classes(classes: int) -> None:
    pictures, _ = random_batch(24, classes=classes)
    victim = network(classes)
    split = Split(pictures, victim(pictures).argmax(1))
    outcome = evaluate(honest(eps=0.1, steps=4, equilibrium=False), victim, split, seed=0)
    assert outcome.clean_correct.all()
    assert 0 < int(outcome.robust_correct.sum()) < 24


def test_apgd_towards_the_other_of_two_classes_breaks_whatever_can_be_broken() -> None:
    victim = TwoClassLinear()
    pictures, _ = random_batch(40, dtype=torch.float64)
    labels = victim(pictures).argmax(1)
    expected = victim(victim.optimal_attack(pictures, labels, 0.1)).argmax(1) != labels
    assert 0 < int(expected.sum()) < 40
    found = APGD(eps=0.1, steps=30, loss="targeted")(victim, pictures, labels, generator=generator())
    assert (broken_by(found) > 0).tolist() == expected.tolist()


BAD_LABELS: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (lambda labels: labels + 3, r"labels from 3 to 5 for a model of 3 classes: expected 0 to 2"),
    (lambda labels: labels - 1, r"labels from -1 to 1 for a model of 3 classes: expected 0 to 2"),
    (lambda labels: labels.double(), r"float64.*expected whole numbers, 0 to 2"),
    (lambda labels: labels > 0, r"bool.*expected whole numbers, 0 to 2"),
]


class Counting(nn.Module):
    """A model that counts the images whose equilibrium it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.model = model()
        self.solved = 0
        self.lyapunov = None

    def inject(self, x: Tensor) -> Tensor:
        return self.model.inject(x)

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        return self.model.cell(z, h)

    def readout(self, z: Tensor) -> Tensor:
        return self.model.readout(z)

    def solve(self, h: Tensor) -> Any:
        self.solved += len(h)
        return self.model.solve(h)


@pytest.mark.parametrize(("spoil", "message"), BAD_LABELS)
@pytest.mark.parametrize("door", [audit, compare_solvers])
def test_labels_that_name_no_class_are_refused_before_any_work(
    door: Callable[..., Any], spoil: Callable[[Tensor], Tensor], message: str
) -> None:
    counting = Counting()
    pictures, labels = images(), torch.arange(8) % 3
    with pytest.raises(DataError, match=message):
        door(counting, images=pictures, labels=spoil(labels))
    assert counting.solved <= 1


@pytest.mark.parametrize(("spoil", "message"), BAD_LABELS)
def test_certify_refuses_labels_that_name_no_class(spoil: Callable[[Tensor], Tensor], message: str) -> None:
    pictures, labels = images(), torch.arange(8) % 3
    with pytest.raises(DataError, match=message):
        certify(model(), pictures, spoil(labels))


def test_labels_of_any_whole_number_dtype_are_taken() -> None:
    pictures, labels = images(), torch.arange(8) % 3
    assert audit(model(), pictures, labels.to(torch.uint8), checks=["convergence"]).findings


def test_an_attack_refuses_a_bad_label_or_pixel_of_its_last_batch_before_it_attacks_the_first() -> None:
    def victim(x: Tensor) -> Tensor:
        assert len(x) <= 4
        return network()(x)

    def never(*given: Any, **settings: Any) -> Any:
        raise AssertionError("attacked")

    never.eps = 0.1  # pyrefly: ignore
    pictures, labels = random_batch(12)
    for place, value, message in ((-1, 5, "labels from 0 to 5"), (-1, -1, "labels from -1")):
        spoiled = labels.clone()
        spoiled[place] = value
        with pytest.raises(DataError, match=message):
            evaluate(never, victim, Split(pictures, spoiled), seed=0, batch_size=4)  # pyrefly: ignore
    bright = pictures.clone()
    bright[-1, 0, 0, 0] = 2.0
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        evaluate(never, victim, Split(bright, labels), seed=0, batch_size=4)  # pyrefly: ignore
    with pytest.raises(DataError, match="float32"):
        attack(network(), pictures, labels.float())


def test_a_readout_that_gives_no_logits_is_refused() -> None:
    class Headless(Counting):
        def readout(self, z: Tensor) -> Tensor:
            return self.model.readout(z).argmax(1)

    with pytest.raises(DataError, match=r"\(1,\) for one input.*: expected logits"):
        audit(Headless(), images(), torch.arange(8) % 3, checks=["convergence"])
