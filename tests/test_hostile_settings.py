"""A checkpoint's metadata decide what is computed, not how long a reader works, nor that a compiler runs, and say one thing alone."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from command_runs import run, save_untrained
from tiny_checkpoints import header_size, parts_of, write_parts

import stabdeq
from stabdeq import load
from stabdeq.attacks.run import attack
from stabdeq.checkpoint import LARGEST_HEADER, load_checkpoint
from stabdeq.checkpoint_metadata import METADATA_KEY, MOST
from stabdeq.config import AndersonConfig, BroydenConfig
from stabdeq.config.kinds import KINDS
from stabdeq.errors import CheckpointError, ConfigError
from stabdeq.reading import DEEPEST
from train.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("short_hunts")


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < 1000
    return message


def with_metadata(content: bytes, path: Path, **changes: Any) -> Path:
    tensors, metadata = parts_of(content)
    for dotted, value in changes.items():
        *groups, last = dotted.split("__")
        owner = metadata
        for group in groups:
            owner = owner[group]
        owner[last] = value
    write_parts(path, tensors, metadata)
    return path


# What a file may not ask for.


@pytest.mark.parametrize(
    ("solver", "name"),
    [
        ({"max_evaluations": 10**12}, "max_evaluations"),
        ({"max_evaluations": MOST["max_evaluations"] + 1}, "max_evaluations"),
        ({"gradient": "unrolled", "gradient_steps": 10**12}, "gradient_steps"),
        ({"window": 10**9}, "window"),
        ({"name": "broyden", "memory": 10**9}, "memory"),
        ({"compiled": True}, "compiled"),
    ],
)
def test_more_work_than_a_file_may_ask_for(
    solver: dict[str, Any], name: str, valid_bytes: bytes, tmp_path: Path
) -> None:
    path = with_metadata(valid_bytes, tmp_path / "x", model__solver=solver)
    message = refusal(path)
    assert f"model.solver.{name}" in message
    assert "--trusted" in message
    assert getattr(load_checkpoint(path, trusted=True).model.config.solver, name) == solver[name]
    assert getattr(load(path, trusted=True).config.solver, name) == solver[name]


def test_the_most_that_a_file_may_ask_for(valid_bytes: bytes, tmp_path: Path) -> None:
    for cls, own in ((AndersonConfig, "window"), (BroydenConfig, "memory")):
        solver = {key: MOST[key] for key in ("max_evaluations", "gradient_steps", own)}
        path = with_metadata(valid_bytes, tmp_path / "x", model__solver={"name": cls.name} | solver)
        assert load_checkpoint(path).model.config.solver == cls(**solver)


COMMANDS = [
    ("attack", "x", "--images", "1", "--steps", "1"),
    ("audit", "x", "--images", "1", "--checks", "positivity"),
    ("certify", "x", "--images", "1"),
    ("robust-data", "x", "--images", "1", "--steps", "1", "--out", "robust"),
    ("solvers", "x", "--images", "1", "--evaluations", "2"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_each_command_refuses_it_and_takes_the_users_word(
    command: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_untrained(folder / "x")
    with_metadata(path.read_bytes(), path, model__solver__max_evaluations=10_001)
    assert run(*command) == 2
    assert "asks for model.solver.max_evaluations = 10001, and a file may ask for 10000" in capsys.readouterr().err
    assert run(*command, "--trusted") in (0, 3)


def test_attack_in_python_takes_the_users_word(folder: Path) -> None:
    path = save_untrained(folder / "x")
    with_metadata(path.read_bytes(), path, model__solver__max_evaluations=10_001)
    with pytest.raises(CheckpointError, match="trusted=True in Python"):
        attack(path, samples=1, steps=1)
    assert attack(path, samples=1, steps=1, trusted=True).outcome.clean_correct.numel() == 1


@pytest.mark.parametrize(
    ("judge", "options"),
    [
        (stabdeq.audit, {"samples": 1, "checks": ["equilibrium"]}),
        (stabdeq.certify, {"samples": 1}),
        (stabdeq.compare_solvers, {"samples": 1, "evaluations": 2}),
    ],
    ids=["audit", "certify", "compare_solvers"],
)
def test_each_door_in_python_takes_the_users_word(judge: Any, options: dict[str, Any], folder: Path) -> None:
    path = save_untrained(folder / "x")
    with_metadata(path.read_bytes(), path, model__solver__max_evaluations=10_001)
    with pytest.raises(CheckpointError, match="trusted=True in Python"):
        judge(path, **options)
    assert judge(path, **options, trusted=True) is not None


def test_no_recipe_turns_the_compiler_on_but_the_command_line_does(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[model.solver]\ncompiled = true\n")
    with pytest.raises(ConfigError, match=r"--set model\.solver\.compiled=true"):
        load_recipe(str(path))
    path.write_text("[model.solver]\ncompiled = false\n")
    assert not load_recipe(str(path)).model.solver.compiled
    assert load_recipe(str(path), settings=["model.solver.compiled=true"]).model.solver.compiled


# What can be read in two ways, or is nested too deeply.


def test_a_recipe_nested_too_deeply(valid_bytes: bytes, tmp_path: Path) -> None:
    tensors, metadata = parts_of(valid_bytes)
    text = json.dumps(metadata)
    for depth, is_read in (
        (DEEPEST - 2, True),
        (DEEPEST - 1, False),
        (200, False),
        (980, False),
    ):  # in the recipe, in it
        nested = '{"a": ' * depth + "1" + "}" * depth
        write_parts(tmp_path / "x", tensors, text.replace('"recipe": {', f'"recipe": {{"a": {nested}, '))
        if is_read:
            assert load_checkpoint(tmp_path / "x").recipe["a"]
        else:
            assert f"nested more than {DEEPEST} levels deep" in refusal(tmp_path / "x")


def test_a_key_that_stands_twice(valid_bytes: bytes, tmp_path: Path) -> None:
    tensors, metadata = parts_of(valid_bytes)
    text = json.dumps(metadata)
    for once, twice in (
        ('{"schema": 2', '{"schema": 1, "schema": 2'),
        ('"seed": 3', '"seed": 3, "seed": 3'),
        ('"state_dim": 4', '"state_dim": 9, "state_dim": 4'),
    ):
        write_parts(tmp_path / "x", tensors, text.replace(once, twice))
        assert "stands twice" in refusal(tmp_path / "x")


@pytest.mark.parametrize("key", ["__metadata__", "model.mean", METADATA_KEY])
def test_a_key_of_the_header_that_stands_twice(key: str, valid_bytes: bytes, tmp_path: Path) -> None:
    size = header_size(valid_bytes)
    header = valid_bytes[8:size].rstrip()
    start = header.index(f'"{key}"'.encode())
    first = json.dumps(json.loads(header) if key != METADATA_KEY else json.loads(header)["__metadata__"])
    value = json.dumps(json.loads(first)[key])
    doubled = header[:start] + f'"{key}":{value},'.encode() + header[start:]
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(doubled)) + doubled + valid_bytes[size:])
    assert f"the key '{key}' stands twice" in refusal(tmp_path / "x")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_has_not(number: str, valid_bytes: bytes, tmp_path: Path) -> None:
    tensors, metadata = parts_of(valid_bytes)
    text = json.dumps(metadata).replace('"recipe": {', f'"recipe": {{"a": {number}, ')
    write_parts(tmp_path / "x", tensors, text)
    assert "metadata is damaged" in refusal(tmp_path / "x")


def test_a_header_larger_than_any(valid_bytes: bytes, tmp_path: Path) -> None:
    """A sparse file costs nothing; what its header says is not read."""
    with (tmp_path / "x").open("wb") as file:
        file.write(struct.pack("<Q", LARGEST_HEADER + 1) + b"{")
        file.truncate(LARGEST_HEADER + 100)
    assert "larger than any checkpoint's" in refusal(tmp_path / "x")


# What contradicts itself.


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        ({"kind": "deq"}, "its recipe is of kind 'deq', and its model is not"),
        ({"kind": "lyadeq-certified"}, "its recipe is of kind 'lyadeq-certified'"),
        ({"kind": "resnet20"}, "its recipe is of kind 'resnet20'"),
        ({"kind": "no-such"}, "its recipe is of kind 'no-such'"),
        ({"kind": ["deq"]}, "its recipe is of kind ['deq']"),
        ({"seed": 77}, "seed = 77, and the file 3"),
        ({"epochs": 1}, "1 epochs, and it is of epoch 2"),
        ({"epochs": "many"}, "'many' epochs"),
        ({"data": {"name": "mnist"}}, "data.name = 'mnist', and the file 'digits'"),
        ({"model": {"state_dim": 5}}, "model.state_dim = 5, and the file 4"),
        ({"model": {"cell": "monotone"}}, "model.cell = 'monotone'"),
        ({"model": {"solver": {"max_evaluations": 49}}}, "model.solver.max_evaluations = 49, and the file 50"),
        ({"model": {"lyapunov": {"eta": 0.2}}}, "model.lyapunov.eta = 0.2, and the file 0.1"),
    ],
)
def test_a_recipe_that_contradicts_the_model(
    recipe: dict[str, Any], what: str, valid_bytes: bytes, tmp_path: Path
) -> None:
    message = refusal(with_metadata(valid_bytes, tmp_path / "x", recipe=recipe))
    assert "contradicts itself" in message
    assert what in message
    assert "contradicts itself" in refusal(tmp_path / "x", trusted=True)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("vgg16", "wrn-28-10", "resnet56")])
def test_the_recipe_of_each_kind_contradicts_nothing(kind: str, tmp_path: Path) -> None:
    path = save_untrained(tmp_path / "x", kind)
    recipe = {
        "kind": kind,
        "seed": 0,
        "epochs": 4,
        "model": {"cell": None, "stability": None, "lyapunov": {"alpha": None}},
    }
    with_metadata(path.read_bytes(), path, recipe=recipe)
    assert load_checkpoint(path).kind == kind


@pytest.mark.parametrize("std", [0.0, -1.0, 1e-60, 1e-46])
def test_deviations_that_are_no_positive_number_in_float32(std: float, valid_bytes: bytes, tmp_path: Path) -> None:
    tensors, metadata = parts_of(valid_bytes)
    metadata["model"]["std"] = [std]
    write_parts(tmp_path / "x", tensors | {"model.std": torch.tensor(std).view(1, 1, 1, 1)}, metadata)
    assert "model.std" in refusal(tmp_path / "x")


def test_a_checkpoint_in_a_pipe_is_not_waited_for(tmp_path: Path, no_hang: None) -> None:
    os.mkfifo(tmp_path / "x")
    assert "no such file" in refusal(tmp_path / "x")
