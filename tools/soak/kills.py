"""``python -m tools.soak.kills [--count N] [--seed N]``: commands killed at random moments; each time what stands must be whole.

After each kill every checkpoint loads, every report and result is whole JSON, and no page stands beside the report of another audit.
At the end each command runs once more in its folder, to its end, and must leave no half-written file.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from analysis.report.page import render_html
from analysis.report.reading import read_report
from stabdeq.checkpoint import load_checkpoint

TINY = ("--set=model.state_dim=8", "--set=model.lyapunov.hidden=8")
FUNCTIONS = "def V(z):\n    return z.square().sum(1)\n\n\ndef f(z):\n    return -z\n"
# Each writes into its own folder, the current one; exit codes that an untrained model may end with are listed.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "train": (("train", "digits", "--kind", "lyadeq", *TINY, "--epochs", "2", "--out", "run", "--resume", "--quiet"), (0,)),
    "audit": (("audit", "model.safetensors", "--checks", "equilibrium", "--images", "8", "--quiet"), (0, 1, 3)),
    "certify": (("certify", "model.safetensors", "--images", "4", "--json", "report.json"), (0, 1, 3)),
    "check": (("check", "own:V", "--dynamics", "own:f", "--dim", "2", "--json", "report.json", "--proof", "proof.json"), (0,)),
    "reproduce": (
        ("reproduce", "table1", "--data", "digits", "--kinds", "deq", "--seeds", "0", "--epochs", "1", "--images", "8",
         "--honest-images", "1", "--out", "table", "--quiet"),
        (0,),
    ),
}  # fmt: skip


def kill_all(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill the commands in turn, ``count`` times together, each within the time that it takes whole; return what came of it."""
    rng, start = random.Random(seed), time.monotonic()
    found: dict[str, Any] = {"kills": dict.fromkeys(COMMANDS, 0), "ended before": 0, "faults": []}
    _run("train", folder / "first", 0)
    usual = {}
    for number in range(count):
        name = list(COMMANDS)[number % len(COMMANDS)]
        place = folder / name
        if name not in usual:
            began = time.monotonic()
            found["faults"] += _whole_run(name, place, folder / "first")
            usual[name] = time.monotonic() - began
            _begin_anew(name, place, folder / "first")
        if _run(name, place, rng.uniform(0, usual[name])) is None:
            found["kills"][name] += 1
        else:
            found["ended before"] += 1
            _begin_anew(name, place, folder / "first")
        found["faults"] += [f"{name}, kill {number}: {fault}" for fault in faults_in(place)]
    for name in usual:
        found["faults"] += _whole_run(name, folder / name, folder / "first")
        found["faults"] += [
            f"{name} left {path}" for path in (folder / name).rglob("*") if path.suffix in (".tmp", ".partial")
        ]
    return found | {"seed": seed, "seconds": round(time.monotonic() - start)}


def faults_in(place: Path) -> list[str]:
    """Return, in words, which files in ``place`` are not whole, or do not belong together."""
    faults = []
    for path in sorted(place.rglob("*")):
        try:
            if path.suffix == ".safetensors":
                load_checkpoint(path)
            elif path.suffix == ".json":
                json.loads(path.read_bytes())
            elif path.name == "report.html" and path.with_suffix(".json").is_file():
                drawn = render_html(read_report(path.with_suffix(".json")))
                if path.read_text(encoding="utf-8") != drawn:
                    faults.append(f"{path.name} is not the page of its report")
        except Exception as error:
            faults.append(f"{path.name}: {type(error).__name__}: {error}"[:300])
    return faults


def _begin_anew(name: str, place: Path, first: Path) -> None:
    """Empty ``place``, where a training that is done would only say so, and put what the command needs there."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "own.py").write_text(FUNCTIONS)
    trained = first / "run" / "checkpoint.safetensors"
    if name in ("audit", "certify"):
        (place / "model.safetensors").write_bytes(trained.read_bytes())


def _whole_run(name: str, place: Path, first: Path) -> list[str]:
    if not place.exists():
        _begin_anew(name, place, first)
    code = _run(name, place, None)
    return [] if code in COMMANDS[name][1] else [f"{name} ended with {code}"]


def _run(name: str, place: Path, seconds: float | None) -> int | None:
    """Run the command in ``place``; return its exit code, or None where it was killed after ``seconds``. 0 seconds are a whole run, too."""
    place.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-P", "-m", "stabdeq", *COMMANDS[name][0]]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=place, stdout=log, stderr=log, start_new_session=True)
        try:
            return process.wait(seconds or None)
        except subprocess.TimeoutExpired:
            return None
        finally:  # at its time, and where this script is interrupted
            process.kill()
            process.wait()


def main() -> None:
    """Print what was tried and what failed as JSON; exit code 1 for a fault."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak.kills")
    parser.add_argument("--count", type=int, default=200, help="kills, of all commands together")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    found = kill_all(folder, given.count, given.seed)
    print(json.dumps(found, indent=1))
    if found["faults"]:
        sys.exit(f"faults: the files are kept in {folder}")


if __name__ == "__main__":
    main()
