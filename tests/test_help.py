"""What helps at the command line: an example in each help, what was meant by an unknown option, silence, completion."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command_runs import run, save_untrained
from reproduce_jobs import FakeEngine, call, jobs_of

from analysis.reproduce import run as engines
from stabdeq.__main__ import COMMANDS, build_app
from stabdeq.help_texts import ENDINGS

pytestmark = pytest.mark.usefixtures("folder")
NAMES = [name for name, _, _ in COMMANDS]


# The end of each help.


def test_the_help_of_every_command_has_an_example_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(ENDINGS) == sorted(NAMES)
    for name in NAMES:
        assert run(name, "--help") == 0
        text = " ".join(capsys.readouterr().out.split())
        assert f"Example: stabdeq {name}" in text
        assert "Exit codes: 0, " in text
        assert "2, what you can mend; 70, a fault of ours; 130, interrupted." in text


@pytest.mark.parametrize("name", NAMES)
def test_every_example_parses(name: str) -> None:
    example, _ = ENDINGS[name]
    build_app().parse_args(shlex.split(example), exit_on_error=False, print_error=False)


def test_the_help_of_all_says_what_exit_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "Exit codes: 0, done; 1, a claim is refuted; 3, one is inconclusive;" in " ".join(
        capsys.readouterr().out.split()
    )


# Unknown options.


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("train digits --lr 0.1", "--set learning_rate=VALUE"),
        ("train digits --lr=0.1", "--set learning_rate=VALUE"),
        ("train digits --batch-size 3", "--set batch_size=VALUE"),
        ("show digits --alpha 2", "--set model.lyapunov.alpha=VALUE"),
        ("train digits --model.solver.name=picard", "--set model.solver.name=VALUE"),
        ("train digits --epocs 3", "--epochs"),
        ("train digits --no-resume", "--resume"),
        ("audit x --chekcs decay", "--checks"),
        ("audit x --quite", "--quiet"),
    ],
)
def test_what_was_meant(command: str, meant: str, refusal: Callable[..., str]) -> None:
    line = refusal(*command.split())
    assert f"Unknown option: {command.split()[2].partition('=')[0]}. Did you mean {meant}? stabdeq " in line


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("report x --quiet", "Unknown option: --quiet. stabdeq report takes --report"),
        ("doctor --json", "Unknown option: --json. stabdeq doctor takes no options"),
        (
            "verify x y --lr 1",
            "Unknown option: --lr. stabdeq verify takes --checkpoint, --report, --data-dir, --trusted",
        ),
        ("audit x --epochs 3", "Unknown option: --epochs. stabdeq audit takes --"),
        ("replay x -z", "Unknown option: -z. stabdeq replay takes --report"),
    ],
)
def test_nothing_is_suggested_that_is_far_away(command: str, line: str, refusal: Callable[..., str]) -> None:
    assert line in refusal(*command.split())


# Silence.

PROGRESS = {
    "train digits --kind deq --epochs 1 --out run": "epoch ",
    "audit model.safetensors --images 4 --checks spectrum": "auditing",
    "attack model.safetensors --images 4 --attack pgd --steps 1": "right",
    "solvers model.safetensors --images 2 --evaluations 5": "left",
    "check functions_for_help:V --dim 1 --samples 8 --starts 1": "judging",
    "robust-data model.safetensors --out robust --images 2 --steps 1": "2 images ",
    "certify model.safetensors --images 2": "certifying",
    "verify model.safetensors report.json": "judging again",
    "replay report.json": "replaying",
}


@pytest.mark.parametrize("quiet", [False, True], ids=["shown", "quiet"])
@pytest.mark.parametrize("command", PROGRESS, ids=[command.split()[0] for command in PROGRESS])
def test_progress_is_shown_unless_it_is_not_wanted(
    command: str, quiet: bool, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.syspath_prepend(str(folder))
    save_untrained(folder / "model.safetensors", "lyadeq" if "report.json" in command else "deq")
    if "report.json" in command:
        assert run("audit", "model.safetensors", "--images", "2", "--checks", "equilibrium", "--quiet") == 1
        capsys.readouterr()
    (folder / "functions_for_help.py").write_text("def V(z): return (z * z).sum(1)\n")
    assert run(*command.split(), *["--quiet"] * quiet) in (0, 1, 3)
    shown = capsys.readouterr()
    # Results go to stdout, progress to stderr, but for two commands' own.
    progress = shown.out if command.startswith(("train", "audit")) else shown.err
    assert (PROGRESS[command] in progress) is not quiet
    assert shown.out
    assert not quiet or shown.err == ""


@pytest.mark.parametrize("quiet", [False, True], ids=["shown", "quiet"])
@pytest.mark.usefixtures("repository_on_path")
def test_reproduce_is_quiet_too(
    quiet: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, jobs = jobs_of("table1")
    monkeypatch.setattr(engines, "LocalEngine", lambda lanes: FakeEngine(jobs))
    call("table1", quiet=quiet)
    shown = capsys.readouterr()
    assert "deq" in shown.out
    assert (shown.err == "") is quiet


# Completion.


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("completion", shell) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in NAMES)
    assert "quiet" in script


def test_bash_completes_with_it(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run("completion", "bash") == 0
    (folder / "completion.sh").write_text(capsys.readouterr().out)
    asked = "source ./completion.sh; COMP_WORDS=(stabdeq audit --ch); COMP_CWORD=2; _stabdeq; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split()[:1] == ["--checkpoint"]
    assert "--checks" in done.stdout.split()
