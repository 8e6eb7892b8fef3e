"""``python -m tools.newcomers --uv UV``: build the wheel, install it alone into a fresh environment, and go the three paths offline."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from tools.newcomers.paths import PATHS, Command

ROOT = Path(__file__).parents[2]
NO_NETWORK = ("unshare", "--user", "--map-root-user", "--net")


def main(arguments: list[str]) -> int:
    """Return 0 where every command of every path does what it must."""
    parser = argparse.ArgumentParser(prog="python -m tools.newcomers", description=__doc__)
    parser.add_argument("--uv", type=Path, default=shutil.which("uv"), help="the program uv, which builds and installs")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(
        dir=sys.prefix
    ) as folder:  # where uv links the packages of this environment, it links these
        environment = Path(folder, "environment")
        install(options.uv, Path(folder, "wheel"), environment)
        wrong = []
        for name, path in PATHS.items():
            here = Path(folder, name)
            here.mkdir()
            for file, text in path.files.items():
                (here / file).write_text(text, encoding="utf-8")
            print(f"{name}: {path.person}", flush=True)
            wrong += [fault for command in path.commands if (fault := go(command, here, environment))]
    for fault in wrong:
        print(fault, file=sys.stderr)
    return bool(wrong)


def install(uv: Path, wheels: Path, environment: Path) -> None:
    """Build the wheel and install it, with what it requires, into a fresh ``environment``."""
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", wheels, ROOT], check=True)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", environment / "bin" / "python", wheel], check=True)


def go(command: Command, here: Path, environment: Path) -> str:
    """Run one command in the folder ``here`` without a network; return what is wrong, or ""."""
    program, *rest = command.line.split()
    line = [*_offline(), str(environment / "bin" / program), *rest]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    begin = perf_counter()
    done = subprocess.run(line, cwd=here, env=clean, capture_output=True, text=True, check=False)
    print(f"  {perf_counter() - begin:5.1f} s  exit {done.returncode}  {command.line}", flush=True)
    printed = " ".join(done.stdout.split())  # lines are broken at the terminal's width
    missing = [text for text in command.prints if text not in printed]
    if done.returncode == command.code and not missing:
        return ""
    return f"{command.line}: exit {done.returncode}, not {command.code}; not printed: {missing}\n{done.stdout}\n{done.stderr}"


def _offline() -> tuple[str, ...]:
    """Return what a command begins with so that it has no network, where this machine allows it."""
    if shutil.which(NO_NETWORK[0]) is None:
        return ()
    return NO_NETWORK if subprocess.run([*NO_NETWORK, "true"], capture_output=True, check=False).returncode == 0 else ()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
