"""``make gpu-bundle``: one file to carry to a machine with a GPU and without a network.

It holds the committed tree, the wheels that such a machine lacks, the images where an archive of them is given, and a script
that runs ``benchmarks.gpu`` from them.
"""

import argparse
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
AT_MOST = 60 * 2**20  # bytes
# What an image for numerical work on GPUs has, with all that these need in turn.
PRESENT = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "hypothesis",
    "pytest",
    "jinja2",
    "safetensors",
)
# Needed by proofs alone, none of which runs there; its solvers are larger than all the rest.
NOT_NEEDED = ("cvxpy",)
# The rival, and what pytest's settings in pyproject.toml name.
BESIDE = ("torchdeq", "pytest-timeout")
# Newest first: pip takes a wheel only for a platform that is named.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 16, -1)] + ["manylinux2014_x86_64", "linux_x86_64"]
RUN = """#!/bin/sh
# sh run.sh [--minutes 9] [--data-dir FOLDER]: results go to out/gpu.json beside this script, of a second run to out2
set -e
home="$(cd "$(dirname "$0")" && pwd)"
PYTHON="${PYTHON:-python3}"
test -d "$home/site" || "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$home/site" "$home"/wheels/*.whl
test -d "$home/images" || test ! -f "$home/images.tar" || { mkdir "$home/images" && tar -xf "$home/images.tar" -C "$home/images"; }
out="$home/out" run=1
while [ -e "$out" ]; do run=$((run + 1)); out="$home/out$run"; done
export PYTHONPATH="$home/tree:$home/site"
exec "$PYTHON" -P -m benchmarks.gpu --data-dir "$home/images" --out "$out" "$@"
"""


def main(arguments: list[str]) -> int:
    """Write the bundle; return 1 where it is larger than it may be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.bundle", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-bundle.tar"))
    parser.add_argument("--python", default="3.12", help="version of Python on that machine")
    parser.add_argument(
        "--images", type=Path, help="tar archive with train/CLASS/* and test/CLASS/*; none if not given"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        wheels = download(missing(), Path(folder), options.python)
        write(options.out, wheels, options.images)
    size = options.out.stat().st_size
    print(
        f"{options.out}: {size / 2**20:.1f} MiB, {len(wheels)} wheels for Python {options.python}; there: tar -xf, sh run.sh"
    )
    if size > AT_MOST:
        print(f"larger than {AT_MOST / 2**20:.0f} MiB: give a smaller archive of images", file=sys.stderr)
        return 1
    return 0


def missing() -> list[str]:
    """Return "name==version" of all that this package needs in turn, as installed here, but what is ``PRESENT`` or ``NOT_NEEDED``."""
    there = _closure(PRESENT, set()) | set(NOT_NEEDED)
    return sorted(f"{name}=={version(name)}" for name in _closure(("stabdeq", *BESIDE), there) if name != "stabdeq")


def _closure(names: tuple[str, ...], without: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = [_normal(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        try:
            needs = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # needed on another system only
            continue
        found.add(name)
        waiting += [_normal(need.name) for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def download(packages: list[str], folder: Path, python: str) -> list[Path]:
    """Return the wheels of ``packages`` for Linux on x86-64, fetched by pip into ``folder``."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    chosen = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            *chosen,
            "-d",
            str(folder),
            *packages,
        ],
        check=True,
    )
    return sorted(folder.glob("*.whl"))


def write(out: Path, wheels: list[Path], images: Path | None) -> None:
    """Write the tar file ``out``: run.sh, tree/, wheels/, and images.tar where an archive is given."""
    tree = subprocess.run(
        ["git", "archive", "--prefix=tree/", "HEAD"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    with tarfile.open(out, "w") as bundle:
        script = tarfile.TarInfo("run.sh")
        script.size, script.mode = len(RUN.encode()), 0o755
        bundle.addfile(script, io.BytesIO(RUN.encode()))
        with tarfile.open(fileobj=io.BytesIO(tree)) as source:
            for member in source:
                bundle.addfile(member, source.extractfile(member) if member.isfile() else None)
        for wheel in wheels:
            bundle.add(wheel, f"wheels/{wheel.name}")
        if images is not None:
            bundle.add(images, "images.tar")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
