"""Claims in shards, shards as processes of one machine, and as the tasks of a Slurm array."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_runs import REPOSITORY, run, save_untrained
from test_shards import COUNTS, shards, through_files, timeless
from tiny_checkpoints import tiny_model

from analysis.certify import certify, units
from analysis.check import check
from analysis.report.report import Report
from analysis.reproduce.run import LocalEngine
from analysis.shards import jobs
from analysis.shards.reports import joined_report, report_part
from analysis.shards.work import Work
from analysis.user_function.function import source_of
from stabdeq.attacks.run import attack
from stabdeq.shard import Shard

pytestmark = pytest.mark.usefixtures("short_hunts")

FUNCTIONS = """
def V(z):
    return z.square().sum(1)

def f(z):
    return 0.1 * z.flip(1) - z

def net(x):
    return x.flatten(1)[:, :3]
"""
LITTLE = ("--samples", "64", "--starts", "2", "--boxes", "100", "--quiet")


@pytest.mark.parametrize(("kind", "deployed", "counts"), [("lyadeq-certified", True, (4,)), ("deq", False, COUNTS)])
def test_a_certification_in_shards_is_that_of_one_process(
    kind: str, deployed: bool, counts: tuple[int, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, images, labels = tiny_model(kind, state_dim=2), torch.rand(4, 1, 3, 3), torch.tensor([0, 1, 0, 1])

    def proved(shard: Shard) -> Report:
        return certify(model, images, labels, deployed=deployed, shard=shard)

    whole = json.loads(proved(Shard(1, 1)).to_json())
    told = {finding["check"] for finding in whole["findings"]}
    assert told >= {"gain", "radius", "linf"}
    assert ({"deployed", "iss_gain"} <= told) is deployed
    names = units(deployed=deployed)
    for count in counts:
        parts = [report_part(Work("certify", "torch", {}), shard, names, proved(shard)) for shard in shards(count)]
        joined = json.loads(joined_report(through_files(tmp_path, parts)).to_json())
        assert timeless(joined) == timeless(whole)
        assert [item["check"] for item in joined["findings"]] == [item["check"] for item in whole["findings"]]


@pytest.fixture
def functions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``shared_functions`` in the current folder."""
    (folder / "shared_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "shared_functions", raising=False)


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("options", "counts"),
    [
        (("--claims", "decrease,zero,equilibrium,positive"), COUNTS),  # not in the usual order
        (("--sublevel", "0.5", "--claims", "zero,invariant,decrease"), (2,)),
    ],
)
def test_a_check_in_shards_is_that_of_one_process(options: tuple[str, ...], counts: tuple[int, ...]) -> None:
    motion = ("--dim", "2", "--dynamics", "shared_functions:f")
    arguments = ("check", "shared_functions:V", *motion, *options, *LITTLE)
    code = run(*arguments, "--json", "whole.json")
    whole = json.loads(Path("whole.json").read_text())
    assert len(whole["findings"]) > 1
    for count in counts:
        folder = Path(f"parts-{count}")
        for shard in shards(count):
            assert run(*arguments, "--shard", str(shard), "--out", folder) == 0
        assert run("merge", folder, "--out", "merged") == code
        assert timeless(json.loads(Path("merged/report.json").read_text())) == timeless(whole)


@pytest.mark.usefixtures("functions")
def test_a_shard_of_other_code_is_refused(refusal: Callable[..., str]) -> None:
    arguments = ("check", "shared_functions:V", "--dim", "2", "--claims", "zero,positive", *LITTLE)
    assert run(*arguments, "--shard", "1/2", "--out", "parts") == 0
    Path("shared_functions.py").write_text(f"{FUNCTIONS}\n# edited\n")
    assert run(*arguments, "--shard", "2/2", "--out", "parts") == 0
    assert "files.subject is" in refusal("merge", "parts", "--out", "merged")


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("command", ["check", "attack"])
def test_code_that_is_changed_while_a_shard_runs_is_refused(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its part would say that the code of after was judged, and be joined with one of which that is true."""
    arguments = ("check", "shared_functions:V", "--dim", "2", "--claims", "zero,positive", *LITTLE)
    place, judge = "analysis.check.check", check
    if command == "attack":
        np.savez("own.npz", images=np.zeros((2, 1, 2, 2), np.float32), labels=np.zeros(2, int))
        arguments = ("attack", "shared_functions:net", "--images", "own.npz", "--steps", "1", "--quiet")
        place, judge = "stabdeq.attacks.run.attack", attack

    def edit_and_judge(*given: Any, **options: Any) -> Any:
        found = judge(*given, **options)
        Path("shared_functions.py").write_text(f"{FUNCTIONS}\n# edited\n")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(place, edit_and_judge)
        assert run(*arguments, "--shard", "1/2", "--out", "parts") == 2
    assert "shared_functions:" in (line := capsys.readouterr().err)
    assert "was changed while this shard ran: run it again" in line
    assert not list(Path().rglob("*.part.json"))
    assert run(*arguments, "--shard", "1/2", "--out", "parts") == 0


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("name", ["shared_functions", "shared_functions.py"])
def test_the_file_of_a_module_is_found_before_it_is_imported(name: str) -> None:
    before = source_of(f"{name}:V")
    assert before is not None
    assert before.read_text() == FUNCTIONS
    assert "shared_functions" not in sys.modules
    importlib.import_module("shared_functions")
    assert source_of(f"{name}:V") == before
    for none in ("no_such_module:V", "no.such:V", "", ".:V", "json"):
        assert (source_of(none) is None) is (none != "json")


def test_what_one_process_alone_does_is_refused_of_several(folder: Path, refusal: Callable[..., str]) -> None:
    for more in (("--jobs", "2"), ("--ray",), ("--shard", "1/2", "--out", "parts")):
        for option in ("--proof", "--figure", "--budget"):
            value = "1" if option == "--budget" else "file.svg"
            assert f"{option} is for one process" in refusal("check", "m:V", "--dim", "2", option, value, *more)
        assert "--proof is for one process" in refusal("certify", "x", "--proof", "file", *more)
        assert "--dim is for one process" in refusal("certify", "m:f", "--dim", "2", *more)
    for command in (("attack", "x"), ("certify", "x"), ("check", "m:V", "--dim", "2")):
        assert "--out is the folder for the part of a --shard" in refusal(*command, "--out", "parts")


# --- as processes of one machine ---


class HereEngine(LocalEngine):
    """Runs each command line in this process, its errors to its log; one with ``fail`` in it is killed."""

    fail = ""

    def submit(self, arguments: list[str], log: Path) -> "Future[tuple[int, float]]":
        end: Future[tuple[int, float]] = Future()
        if any(self.fail and self.fail in word for word in arguments):
            log.write_text("stabdeq: no memory left\n")
            end.set_result((-9, 0.0))
        else:
            with log.open("w") as file, redirect_stderr(file):
                end.set_result((run(*arguments), 0.0))
        return end


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let jobs run in this process, and leave their parts, where they do, below the folder that is given."""
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(jobs, "LocalEngine", HereEngine)
    monkeypatch.setattr(HereEngine, "fail", "")

    def make(prefix: str, **_: Path | None) -> str:
        (kept / prefix).mkdir()
        return str(kept / prefix)

    monkeypatch.setattr(jobs, "mkdtemp", make)
    return kept


def test_jobs_find_what_one_process_finds(here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_untrained(folder / "model.safetensors", "lyadeq")
    attacked = ("attack", model, "--images", "10", "--batch-size", "4", "--steps", "2")
    audited = ("audit", model, "--checks", "equilibrium,spectrum", "--images", "4")
    monkeypatch.setattr(jobs, "RayEngine", HereEngine)  # with as many lanes as retries
    for name, more in (("whole", ()), ("jobs", ("--jobs", "3")), ("ray", ("--ray",))):
        assert run(*attacked, "--json", f"{name}.json", *more) == 0
        assert run(*audited, "--out", name, *more) == 1
        assert list(here.iterdir()) == []
    one = timeless(json.loads(Path("whole/report.json").read_text()))
    for name in ("jobs", "ray"):
        assert Path(f"{name}.json").read_text() == Path("whole.json").read_text()
        assert timeless(json.loads(Path(name, "report.json").read_text())) == one


@pytest.mark.parametrize("command", ["audit", "attack", "certify", "check"])
def test_without_ray_nothing_is_left_behind(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    what = ("missing:V", "--dim", "2") if command == "check" else (save_untrained(folder / "model.safetensors", "deq"),)
    assert "pip install ray" in refusal(command, *what, "--ray")


def test_the_parts_of_the_others_are_kept_where_a_job_fails(
    here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_untrained(folder / "model.safetensors", "deq")
    monkeypatch.setattr(HereEngine, "fail", "--shard=2/3")
    arguments = ("attack", model, "--images", "10", "--batch-size", "4", "--steps", "2", "--json", "all.json")
    assert run(*arguments, "--jobs", "3") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "shard 2/3 failed, exit code -9: stabdeq: no memory left: the parts of 1/3, 3/3 are in" in line
    assert not Path("all.json").exists()
    again, merge = re.findall(r"stabdeq (attack .*?|merge \S+)(?:'|$)", line)
    assert run(*again.split()) == 0
    assert run(*merge.split(), "--out", "merged") == 0
    assert run(*arguments) == 0
    assert Path("merged/attack.json").read_text() == Path("all.json").read_text()


def test_nothing_is_left_behind_where_all_jobs_fail(here: Path, folder: Path, refusal: Callable[..., str]) -> None:
    save_untrained(folder / "model.safetensors", "deq")
    line = refusal("attack", "model.safetensors", "--eps", "7", "--jobs", "2")
    assert "shard 1/2 failed, exit code 2: stabdeq: eps = 7 is above 1" in line
    assert list(here.iterdir()) == []


# --- as the tasks of a Slurm array ---


def test_the_slurm_script_of_the_page_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body is run as Slurm runs it, with a stabdeq that notes what it is called with; that is then run here."""
    page = (REPOSITORY / "docs/how-to/many-gpus.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```sh\n(#!/bin/bash\n.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (count,) = re.findall(r"^#SBATCH --array=1-(\d+)$", script, re.MULTILINE)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    model = Path("runs/digits-lyadeq-seed0/checkpoint.safetensors")
    model.parent.mkdir(parents=True)
    save_untrained(model, "lyadeq")
    Path("bin").mkdir()
    Path("bin/stabdeq").write_text('#!/bin/bash\nprintf "%s\\n" "$@" > called\n')
    Path("bin/stabdeq").chmod(0o755)
    small = ["--images", "6", "--steps", "1", "--quiet"]
    for task in range(1, int(count) + 1):
        environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        environment |= {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": count}
        subprocess.run(["bash"], input=script, text=True, check=True, env=environment)
        called = Path("called").read_text().splitlines()
        assert run(*called, *small) == 0
    places = list(Path("runs").rglob("*.part.json"))
    assert len(places) == int(count)
    merges = [line.split() for line in re.findall(r"^stabdeq (merge .*)$", page, re.MULTILINE)]
    (merge,) = [words for words in merges if Path(words[1]) == places[0].parent]
    assert run(*merge) == 0
