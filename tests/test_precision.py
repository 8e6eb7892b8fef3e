"""Training with the extractor in bfloat16: it alone is, in training steps alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_runs import metrics_of, tiny_data, tiny_recipe

from stabdeq.checkpoint import load_checkpoint
from stabdeq.data import to_unit
from stabdeq.errors import ConfigError
from train.precision import backbone_in
from train.recipe import load_recipe
from train.trainer import CHECKPOINT_NAME, train

CPU = torch.device("cpu")


class Spy(torch.nn.Module):
    """Notes whether autocast is on when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(torch.is_autocast_enabled("cpu"))
        return self.linear(x)


def test_autocast_is_on_within_the_network_alone() -> None:
    spy, x = Spy(), torch.ones(2, 3)
    with backbone_in("bfloat16", spy, CPU):
        assert spy(x).dtype == torch.bfloat16
        assert not torch.is_autocast_enabled("cpu")
    assert spy(x).dtype == torch.float32
    with backbone_in("float32", spy, CPU):
        spy(x)
    assert spy.seen == [True, False, False]


def test_the_network_is_as_before_where_the_step_fails() -> None:
    spy = Spy()
    with pytest.raises(RuntimeError, match="a step"), backbone_in("bfloat16", spy, CPU):
        raise RuntimeError("a step")
    assert spy(torch.ones(1, 3)).dtype == torch.float32


@pytest.mark.parametrize("objective", ["cross-entropy", "trades", "pgd-at"])
def test_it_learns_and_scores_the_model_in_float32(objective: str, tmp_path: Path) -> None:
    recipe = load_recipe("digits", {"epochs": 2}, [f"objective.name={objective}", "precision=bfloat16"])
    plain = tiny_recipe(epochs=2, objective=recipe.objective)
    data = tiny_data()
    train(plain, data, tmp_path / "plain")
    scores = train(tiny_recipe(epochs=2, objective=recipe.objective, precision="bfloat16"), data, tmp_path / "out")
    lower, full = (metrics_of(tmp_path / name)[1]["loss"] for name in ("out", "plain"))
    assert lower != full
    assert lower == pytest.approx(full, rel=0.1)
    model = load_checkpoint(tmp_path / "out" / CHECKPOINT_NAME).model.eval()
    with torch.no_grad():
        predicted = model.predict(to_unit(data.test.images)).logits.argmax(1)
    assert scores.accuracy == (predicted == data.test.labels).double().mean().item()


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        load_recipe("digits", settings=["precision=float16"])
