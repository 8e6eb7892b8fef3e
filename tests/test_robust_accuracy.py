"""Accuracy under attack: the known one of a linear model, NaN logits, batches, unconverged equilibria."""

from typing import Any

import pytest
import torch
from attack_problems import TwoClassLinear, equilibrium_model, network, random_split
from torch import Tensor

from stabdeq.attacks import IFGSM, PGD, evaluate
from stabdeq.attacks.threat_model import Adversarial
from stabdeq.data import Split
from stabdeq.errors import ConfigError, DataError


def test_robust_accuracy_of_a_linear_model_is_the_known_one() -> None:
    model = TwoClassLinear(torch.float32)
    split = random_split(200)
    with torch.no_grad():
        images = split.images / 255
        split = Split(split.images, (model(images)[:, 1] > 0).long())
        expected = model(model.optimal_attack(images, split.labels, 8 / 255)).argmax(1) == split.labels
    outcome = evaluate(IFGSM(eps=8 / 255), model, split, seed=0, batch_size=64)
    assert outcome.clean_correct.all()
    assert torch.equal(outcome.robust_correct, expected)
    assert 0.1 < expected.double().mean() < 0.9


def test_nan_logits_count_as_wrong_and_nothing_but_nan_is_refused() -> None:
    split = random_split()
    nan_class = int(split.labels[0])

    def model(x: Tensor) -> Tensor:
        logits = network()(x)
        logits[0, nan_class] = torch.nan  # argmax would take NaN for the largest
        return logits

    outcome = evaluate(PGD(eps=0.1, restarts=2), model, split, seed=0)
    assert not outcome.clean_correct[0]
    assert not outcome.robust_correct[0]
    assert outcome.nonfinite.nonzero().flatten().tolist() == [0]
    with pytest.raises(DataError, match="nothing but NaN"):
        evaluate(IFGSM(eps=0.1), lambda x: network()(x) * torch.nan, split, seed=0)


def test_evaluation_in_batches_and_its_progress() -> None:
    model = TwoClassLinear(torch.float32)
    split = random_split(50, classes=2)
    whole = evaluate(IFGSM(eps=8 / 255), model, split, seed=0, batch_size=50)
    seen = []
    parts = evaluate(IFGSM(eps=8 / 255), model, split, seed=0, batch_size=16, progress=lambda *args: seen.append(args))
    assert torch.equal(whole.clean_correct, parts.clean_correct)
    assert torch.equal(whole.robust_correct, parts.robust_correct)
    assert [done for done, _ in seen] == [16, 32, 48, 50]
    assert seen[-1][1] == int(parts.robust_correct.sum())
    assert parts.clean_correct.shape == parts.robust_correct.shape == (50,)
    assert parts.clean_correct.dtype == parts.robust_correct.dtype == torch.bool
    assert torch.equal(parts.worst_correct, parts.clean_correct & parts.robust_correct)
    assert parts.robust_converged is None
    assert parts.robust_unconverged is None


def test_evaluation_refuses_empty_splits_and_batches() -> None:
    split = random_split()
    with pytest.raises(DataError, match="no samples"):
        evaluate(IFGSM(eps=0.1), network(), Split(split.images[:0], split.labels[:0]), seed=0)
    with pytest.raises(ConfigError, match="batch size 0"):
        evaluate(IFGSM(eps=0.1), network(), split, seed=0, batch_size=0)


@pytest.mark.filterwarnings("ignore::stabdeq.solvers.implicit.InexactGradientWarning")  # of the small budget
def test_unconverged_equilibria_are_counted() -> None:
    split = random_split()
    found = evaluate(PGD(eps=8 / 255), equilibrium_model(), split, seed=0, batch_size=10)
    assert found.clean_unconverged == found.robust_unconverged == 0.0
    lost = evaluate(PGD(eps=8 / 255), equilibrium_model(max_evaluations=2), split, seed=0, batch_size=10)
    assert lost.clean_unconverged == lost.robust_unconverged == 1.0


def test_a_predict_without_a_solution_is_not_used() -> None:
    class Model:
        def __call__(self, x: Tensor) -> Tensor:
            return network()(x)

        def predict(self, x: Tensor) -> Tensor:
            return self(x).argmax(1)

    split = random_split()
    expected = evaluate(IFGSM(eps=0.1), network(), split, seed=0)
    found = evaluate(IFGSM(eps=0.1), Model(), split, seed=0)
    assert torch.equal(found.robust_correct, expected.robust_correct)
    assert found.clean_unconverged is None


def test_right_at_worst_asks_for_the_clean_image_too() -> None:
    """An attack that helps the model: it moves every image to where class 1 is right."""
    split = Split(torch.tensor([50, 200], dtype=torch.uint8).view(2, 1, 1, 1), torch.tensor([1, 1]))

    def model(x: Tensor) -> Tensor:
        return torch.stack([0 * x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], 1)

    class Helps:
        eps = 1.0

        def __call__(self, model: Any, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
            no = torch.zeros_like(labels, dtype=torch.bool)
            return Adversarial(torch.ones_like(images), no, no)

    outcome = evaluate(Helps(), model, split, seed=0)
    assert outcome.robust_correct.tolist() == [True, True]
    assert outcome.worst_correct.tolist() == outcome.clean_correct.tolist() == [False, True]
