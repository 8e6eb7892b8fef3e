"""``train.training.train``: training by a recipe's name, as the command does it."""

from pathlib import Path

import pytest
import torch

from stabdeq.checkpoint import load_checkpoint
from stabdeq.errors import ConfigError, LostProcessError
from train import trainer
from train.trainer import BEST_NAME, CHECKPOINT_NAME, METRICS_NAME
from train.training import train

SMALL = ("model.state_dim=4", "decay.weight=0", "model.solver.tolerance=0.1")


def test_a_recipe_is_trained_and_its_model_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = train("digits", kind="deq", epochs=1, seed=3, out=tmp_path / "run", settings=SMALL, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert found.checkpoint == tmp_path / "run" / CHECKPOINT_NAME
    assert {path.name for path in (tmp_path / "run").iterdir()} == {CHECKPOINT_NAME, BEST_NAME, METRICS_NAME}
    loaded = load_checkpoint(found.checkpoint)
    assert (loaded.kind, loaded.seed, loaded.epoch) == ("deq", 3, 1)
    assert 0 <= found.scores.accuracy <= 1
    model = found.model
    assert not model.training
    assert all(torch.equal(value, loaded.model.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_folder_is_named_after_the_recipe_and_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('kind = "deq"\nepochs = 1\n[data]\nname = "digits"\n')
    found = train(tmp_path / "mine.toml", settings=SMALL)
    assert found.checkpoint == Path("runs/mine-deq-seed0") / CHECKPOINT_NAME
    assert "deq on digits (1365 train, 72 validation, 360 test images), 1 epochs, seed 0 -> runs/mine-deq-seed0" in (
        capsys.readouterr().out
    )
    with pytest.raises(ConfigError, match="already holds"):
        train(tmp_path / "mine.toml", settings=SMALL, quiet=True)
    assert train(tmp_path / "mine.toml", settings=SMALL, resume=True, quiet=True).scores == found.scores


def test_an_interrupted_run_says_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer._Run, "train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train("digits", kind="deq", epochs=1, out=tmp_path, settings=SMALL)
    assert f"stopped; {tmp_path / CHECKPOINT_NAME} holds the last whole epoch" in capsys.readouterr().out


@pytest.mark.parametrize(("resume", "says"), [(True, "lost; .* add --resume to go on"), (False, "^lost$")])
def test_of_another_run_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool, says: str
) -> None:
    """A process that lost the first, which refused a folder with another run in it."""

    def lose(*_: object, **__: object) -> None:
        raise LostProcessError("lost")

    monkeypatch.setattr(trainer, "train", lose)
    (tmp_path / CHECKPOINT_NAME).touch()
    with pytest.raises(LostProcessError, match=says):
        train("digits", kind="deq", epochs=1, out=tmp_path, settings=SMALL, resume=resume, quiet=True)
