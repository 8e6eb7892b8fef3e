"""Files of others: a pipe or a device is never waited for, and JSON and TOML say one thing or are refused."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_runs import REPOSITORY

from analysis.report.reading import read_report
from analysis.user_function.onnx_files import load_onnx
from stabdeq.checker.door import main as check_proof
from stabdeq.data.tensor_file import read_tensor
from stabdeq.errors import StabdeqError
from stabdeq.reading import DEEPEST, of_single_keys, open_regular, parsed_json, parsed_toml, read_regular
from train import recipe
from train.recipe import load_recipe


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    (tmp_path / "link").symlink_to(path)
    assert read_regular(path, 3) == read_regular(tmp_path / "link", 3) == b"abc"
    with open_regular(path) as file:
        assert file.read(2) == b"ab"
    with pytest.raises(OSError, match="larger than 2 bytes"):
        read_regular(path, 2)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "absent", 2)


@pytest.fixture(params=["pipe", "device"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What is no file: a pipe, whose reader waits, or a device, of which some never end (not this one, in case it is read)."""
    path = tmp_path / "x.toml"
    if request.param == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    return path


READERS: dict[str, Callable[[Path], Any]] = {
    "report": read_report,
    "tensor file": read_tensor,
    "recipe": lambda path: load_recipe(str(path)),
    "ONNX": load_onnx,
}


def test_files_are_opened_by_one_function() -> None:
    """Those that are opened in another way are named here, with what makes that harmless."""
    opens = re.compile(r"\.read_bytes\(\)|\.read_text\(|\.open\(\"r|safe_open\(|np\.load\([^i]|load_file\(")
    found = {
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for folder in ("stabdeq", "analysis", "train")
        for path in (REPOSITORY / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if opens.search(line)
    }
    assert found == {
        # The user's code, or a checkpoint that was read before; both asked whether they are regular files.
        "analysis/user_function/function.py: return sha256(Path(file).read_bytes()).hexdigest() "
        'if file and Path(file).is_file() else ""',
        "analysis/shards/work.py: return sha256(path.read_bytes()).hexdigest() "
        'if path is not None and path.is_file() else ""',
        # A log that this process wrote.
        'analysis/reproduce/run.py: with log.open("rb") as file:',
        # A part of our own in a folder of ours, a regular file as was asked before: safetensors maps it into memory.
        'train/robust_data.py: with safe_open(path, "pt") as file:',
        # Of the system, and of the package.
        'stabdeq/cpu_features.py: flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())',
        'train/recipe.py: return files("train").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")',
    }


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_no_reader_waits(read: Callable[[Path], Any], endless: Path, no_hang: None) -> None:
    with pytest.raises(StabdeqError, match=r"no regular file|found none|does not exist"):
        read(endless)


def test_no_open_waits(endless: Path, no_hang: None) -> None:
    with pytest.raises(OSError, match="no regular file"):
        open_regular(endless)


def test_the_checker_waits_for_no_proof_and_no_checkpoint(
    endless: Path, tmp_path: Path, no_hang: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "proof").write_text("{}")
    for arguments in ([str(endless)], [str(tmp_path / "proof"), str(endless)]):
        assert check_proof(arguments) == 2
        assert "a pipe or a device" in capsys.readouterr().err


def test_the_checker_prints_nothing_that_steers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "\x1b[31mred")
    assert check_proof([str(tmp_path / "\x1b[31mred")]) == 2
    assert "\ufffd[31mred" in capsys.readouterr().err


def test_a_set_of_tensors_is_still_read(tmp_path: Path) -> None:
    torch.save(torch.ones(2, 3), tmp_path / "x")
    assert torch.equal(read_tensor(tmp_path / "x"), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 1}', "the key 'a' stands twice"),
        ('[{"b": {"a": 1, "c": 2, "a": 3}}]', "the key 'a' stands twice"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("1e400", "too large"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"nested more than {DEEPEST}"),
        ("[" * 100_000, f"nested more than {DEEPEST}"),
        ("9" * 10_000, "digits"),
        ("{", "Expecting"),
        (b"\xff", "decode"),
    ],
)
def test_json_that_says_no_one_thing(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parsed_json(text)


def test_plain_json() -> None:
    assert parsed_json('{"a": [1, -2.5, "x", null, true]}') == {"a": [1, -2.5, "x", None, True]}
    parsed_json("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = 1\na = 2", "overwrite"),
        (f"a = {2**63}", "more than 64 bits"),
        (f"[b]\na = [[1, 0x{'f' * 100_000}]]", "more than 64 bits"),
        (f"a = -{2**63 + 1}", "more than 64 bits"),
        ("a = " + "[" * 40 + "]" * 40, f"nested more than {DEEPEST}"),
        ("a = " + "[" * 100_000, "nested more than"),
    ],
)
def test_toml_that_is_none(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parsed_toml(text)


def test_plain_toml() -> None:
    assert parsed_toml(f"a = [{2**63 - 1}, {-(2**63)}, 0x10]") == {"a": [2**63 - 1, -(2**63), 16]}


def test_a_recipe_of_a_hundred_thousand_hexadecimal_digits(tmp_path: Path) -> None:
    """Python reads such a number, and does not print it."""
    path = tmp_path / "r.toml"
    path.write_text(f"seed = 0x{'f' * 100_000}\n")
    with pytest.raises(StabdeqError, match="more than 64 bits"):
        load_recipe(str(path))


def test_a_recipe_larger_than_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "LARGEST", 10)
    (tmp_path / "r.toml").write_text("epochs = 1")
    assert load_recipe(str(tmp_path / "r.toml")).epochs == 1
    (tmp_path / "r.toml").write_text("epochs = 10")
    with pytest.raises(StabdeqError, match="larger than 10 bytes"):
        load_recipe(str(tmp_path / "r.toml"))


def test_a_key_that_stands_twice_among_very_many_is_found_in_one_pass() -> None:
    class Counted(str):
        """A key that counts how often it is compared."""

        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return str.__eq__(self, other)

    pairs: list[tuple[str, object]] = [(Counted(number), 0) for number in range(2000)]
    with pytest.raises(ValueError, match="stands twice"):
        of_single_keys([*pairs, (Counted("1999"), 0)])
    assert Counted.compared < 20_000
