"""``stabdeq attack``: its table and its JSON, what it refuses, and every attack it knows."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.commands.attack import attack as attack_command
from stabdeq.attacks import PGD, Adversarial, Outcome
from stabdeq.attacks.run import parse_eps
from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import DataConfig, ModelConfig
from stabdeq.data import Split, load_data
from stabdeq.errors import ConfigError, StabdeqError
from stabdeq.model import StabilisedDEQ
from stabdeq.registry import ATTACKS

# --- the command ---


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of the digits."""
    data = load_data(DataConfig())
    torch.manual_seed(0)
    config = ModelConfig(
        image_shape=data.image_shape,
        classes=10,
        mean=data.mean,
        std=data.std,
        state_dim=16,
        stability="anchored",
        head="orthogonal",
    )
    path = tmp_path_factory.mktemp("attack") / "checkpoint.safetensors"
    model = StabilisedDEQ(config).eval()
    save_checkpoint(path, Checkpoint(model=model, data=DataConfig(), class_names=data.classes, seed=0, epoch=0))
    return path


def test_the_command_prints_a_table_and_writes_json(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "attack.json"
    attack_command(str(checkpoint), eps="4/255", restarts=2, limit=(30,), json_file=file, batch_size=20, seed=3)
    printed = capsys.readouterr()
    for text in ("lyadeq-anchored on digits, pgd (linf), 30 test images", "clean", "eps = 0", "eps = 4/255"):
        assert text in printed.out
    assert "30/30" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["attack.json"]
    result = json.loads(file.read_text())
    assert (result["attack"], result["eps"], result["steps"], result["restarts"]) == ("pgd", 4 / 255, 5, 2)
    assert (result["n"], result["seed"], result["kind"]) == (30, 3, "lyadeq-anchored")
    assert set(result["versions"]) == {"python", "torch", "stabdeq"}
    assert set(result["unconverged"]) == {"clean", "eps_0", "robust"}
    samples = result["samples"]
    assert all(len(values) == 30 for values in samples.values())
    assert samples["eps_0_correct"] == samples["clean_correct"]
    assert result["accuracy"]["clean"] == result["accuracy"]["eps_0"] == sum(samples["clean_correct"]) / 30
    assert result["accuracy"]["robust"] == sum(samples["robust_correct"]) / 30
    assert result["accuracy"]["worst"] <= result["accuracy"]["robust"]
    assert len(set(samples["index"])) == 30
    assert samples["index"] != list(range(30))  # drawn, since splits may be sorted by class


@pytest.mark.parametrize("attack", ["pgd", "honest"])
def test_the_command_makes_the_fault_on_request_and_says_so(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], attack: str
) -> None:
    """The clean row stays as it was; at eps = 0 the accuracy falls, which no sound attack's does."""
    results = {}
    for clamp in (False, True):
        file = tmp_path / f"{clamp}.json"
        attack_command(str(checkpoint), attack=attack, limit=(40,), steps=2, json_file=file, clamp_normalised=clamp)  # type: ignore[arg-type]
        results[clamp] = json.loads(file.read_text())
        assert ("FAULTY ON PURPOSE" in capsys.readouterr().out) is clamp
        assert results[clamp]["clamp_normalised"] is clamp
    sound, faulty = results[False], results[True]
    assert faulty["samples"]["clean_correct"] == sound["samples"]["clean_correct"] == sound["samples"]["eps_0_correct"]
    assert faulty["samples"]["eps_0_correct"] != faulty["samples"]["clean_correct"]
    assert "NOT A ROBUST ACCURACY" in faulty["warnings"][0]
    assert "predictions at eps = 0 differ" in faulty["warnings"][1]
    assert faulty["standing"] == {}
    assert sound.keys() == faulty.keys()
    assert [faulty[name] for name in ("eps", "n", "seed")] == [sound[name] for name in ("eps", "n", "seed")]


def test_the_command_repeats_itself_and_takes_all_images_at_most(checkpoint: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("first.json", "second.json")]
    for file in files:
        attack_command(str(checkpoint), attack="ifgsm", eps="2/255", limit=(10**6,), json_file=file)
    assert files[0].read_text() == files[1].read_text()
    assert json.loads(files[0].read_text())["samples"]["index"] == list(range(360))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": "8"}, "8/255"),
        ({"eps": "8/0"}, "not a number"),
        ({"eps": "eight"}, "not a number"),
        ({"eps": "nan"}, "from 0 to 1"),
        ({"limit": (0,)}, "samples = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"steps": 0}, "steps = 0"),
        ({"restarts": 0}, "restarts = 0"),
        ({"batch_size": 0}, "batch size 0"),
        ({"attack": "ifgsm", "restarts": 2}, "ifgsm has none, only pgd"),
        ({"checkpoint": "no/such.safetensors"}, "no/such.safetensors"),
    ],
)
def test_the_command_refuses_bad_input_and_leaves_the_json_alone(
    checkpoint: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    file = tmp_path / "attack.json"
    file.write_text("precious")
    settings: dict[str, Any] = {"checkpoint": str(checkpoint), "json_file": file, "limit": (2,), **arguments}
    with pytest.raises(StabdeqError, match=message) as caught:
        attack_command(**settings)
    assert caught.value.exit_code == 2
    assert file.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["attack.json"]


def test_the_command_refuses_json_paths_that_it_could_not_write(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    for file, message in (
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "attack.json", "there is no directory"),
        (checkpoint, "is the checkpoint itself"),
    ):
        with pytest.raises(ConfigError, match=message):
            attack_command(str(checkpoint), json_file=file)
    assert checkpoint.read_bytes() == content


def test_doubtful_figures_come_with_a_warning(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def doubtful(attack: SimpleNamespace, model: nn.Module, split: Split, **_: object) -> Outcome:
        yes, no = torch.ones(len(split), dtype=torch.bool), torch.zeros(len(split), dtype=torch.bool)
        return Outcome(yes, no, yes, no if attack.eps == 0 else yes, None, None)

    monkeypatch.setattr("stabdeq.attacks.run.evaluate", doubtful)
    attack_command(str(checkpoint), limit=(5,))
    printed = " ".join(capsys.readouterr().out.split())
    assert "5 predictions at eps = 0 differ from the clean ones" in printed
    assert "gradient of 5 of 5 images was NaN or infinite" in printed
    assert "gradient of 5 of 5 images was zero" in printed


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.03", 0.03), ("0", 0.0), (" 2 / 255 ", 2 / 255)])
def test_eps_is_read_as_a_quotient_or_a_number(text: str, value: float) -> None:
    assert parse_eps(text) == value


def test_the_commands_module_imports_nothing_heavy() -> None:
    code = "import sys, analysis.commands.attack; print({'torch', 'rich', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "torch" not in done.stdout
    assert "numpy" not in done.stdout


# --- the command ---


def test_the_command_reports_every_attack_of_the_honest_set(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "attack.json"
    attack_command(str(checkpoint), attack="honest", eps="16/255", steps=5, restarts=2, limit=(30,), json_file=file)
    printed = capsys.readouterr().out
    for text in ("honest (linf)", "eps = 0", "eps = 16/255", "after pgd", "after apgd-ce", "after intermediate"):
        assert text in printed
    result = json.loads(file.read_text())
    names = ["pgd", "apgd-ce", "apgd-t", "square", "intermediate"]
    assert list(result["attacks"]) == names
    assert result["attacks"]["square"]["steps"] == 50
    assert result["attacks"]["pgd"]["restarts"] == 2
    standing = [result["standing"][name] for name in names]
    assert standing == sorted(standing, reverse=True)
    assert standing[-1] == result["accuracy"]["worst"]
    samples = result["samples"]
    assert samples["eps_0_correct"] == samples["clean_correct"]
    assert [cause is None for cause in samples["broken_by"]] == samples["robust_correct"]
    assert [cause != "clean" for cause in samples["broken_by"]] == samples["clean_correct"]
    assert set(samples["broken_by"]) - {None} <= {"clean", *names}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_command_knows_every_attack(checkpoint: Path, tmp_path: Path, name: Any, norm: Any) -> None:
    file = tmp_path / "attack.json"
    if norm == "l2" and name == "ifgsm":
        with pytest.raises(ConfigError, match="l-infinity"):
            attack_command(str(checkpoint), attack=name, norm=norm)
        return
    attack_command(str(checkpoint), attack=name, norm=norm, eps="0.1", steps=2, limit=(5,), json_file=file)
    result = json.loads(file.read_text())
    assert (result["attack"], result["norm"], result["eps"]) == (name, norm, 0.1)
    assert result["samples"]["eps_0_correct"] == result["samples"]["clean_correct"]
    assert ("broken_by" in result["samples"]) == (name == "honest")


class Theirs:
    """An attack of a user's, one of whose settings is no value of JSON."""

    def __init__(self, *, eps: float, norm: str, steps: int | None, restarts: int) -> None:
        self.eps, self.inner = eps, PGD(eps=eps, steps=steps or 3)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        return self.inner(model, images, labels, generator=generator)


def test_the_command_knows_an_attack_that_is_registered(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "attack.json"
    monkeypatch.setitem(ATTACKS._registered, "theirs", Theirs)
    attack_command(str(checkpoint), attack="theirs", eps="0.1", limit=(5,), json_file=file)
    result = json.loads(file.read_text())
    assert (result["attack"], result["eps"], result["inner"]) == ("theirs", 0.1, repr(PGD(eps=0.1, steps=3)))
    with pytest.raises(ConfigError, match="unknown attack 'their': did you mean 'theirs'"):
        attack_command(str(checkpoint), attack="their")
