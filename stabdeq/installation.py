"""What stabdeq finds on this machine: packages, compiler, devices, CPU features, and what each is for."""

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from stabdeq import __version__
from stabdeq.cpu_features import cpu_features, multiplies_bfloat16

Standing = Literal["ok", "missing", "optional"]

# Packages that are imported under another name than that they are installed by.
IMPORTED = {"pillow": "PIL", "python-flint": "flint", "scikit-learn": "sklearn"}
OPTIONAL = {
    "ray": "stabdeq reproduce --ray, on several machines (pip install ray)",
    "tensorboard": "stabdeq train --tensorboard, curves in TensorBoard (pip install tensorboard)",
    "torchdeq": "models of TorchDEQ, and the benchmarks against it (pip install torchdeq)",
}
COMPILED = "model.solver.compiled=true"


@dataclass(frozen=True)
class Found:
    """One thing that was looked for: "ok", "missing" where stabdeq needs it, or "optional" where it does without; and in words."""

    name: str
    standing: Standing
    words: str


def examine() -> Iterator[Found]:
    """Yield what is found, in the order in which a reader wants it; torch is imported, but not where something is missing."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Found("stabdeq", "ok", f"{__version__}, in {Path(__file__).parents[1]}")
    yield Found("python", "ok" if sys.version_info >= (3, 11) else "missing", f"{version}, 3.11 or newer is needed")
    required = list(_required())
    yield from required
    yield from _optional()
    if all(found.standing == "ok" for found in required):  # else importing torch might run a file that hides a package
        yield from _devices()
    yield _cpu()
    yield _compiler()
    yield _browser()


def _required() -> Iterator[Found]:
    try:
        requirements = distribution("stabdeq").requires or []
    except PackageNotFoundError:
        yield Found("packages", "missing", "stabdeq is not installed, so what it needs is unknown: pip install it")
        return
    for requirement in requirements:
        match = re.match(r"([\w.-]+)\s*(?:>=\s*([\d.]+))?", requirement)
        if match and "extra ==" not in requirement:
            yield package(match[1], match[2] or "0")


def package(name: str, least: str) -> Found:
    """Return whether the package ``name`` is installed, ``least`` or newer, and what ``import`` finds is its own."""
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return Found(name, "missing", f"not installed: pip install '{name}>={least}'")
    if _numbers(installed.version) < _numbers(least):
        return Found(name, "missing", f"{installed.version} is too old: pip install '{name}>={least}'")
    hidden = _shadow(IMPORTED.get(name, name), installed)
    if hidden:
        return Found(name, "missing", f"hidden by {hidden}: rename that, run elsewhere, or take it off PYTHONPATH")
    return Found(name, "ok", installed.version)


def _shadow(module: str, installed: Distribution) -> str | None:
    """Return the file, or folder, that ``import module`` finds in the current folder or on PYTHONPATH in place of what is installed."""
    spec = find_spec(module)
    origin = spec.origin if spec and spec.origin else next(iter((spec and spec.submodule_search_locations) or ()), None)
    if origin is None:
        return "nothing to import, a broken installation"
    place = Path(origin).resolve()
    folder = place.parents[1] if place.name == "__init__.py" else place.parent
    before = {Path(part or ".").resolve() for part in [".", *os.environ.get("PYTHONPATH", "").split(os.pathsep)]}
    is_own = folder == Path(str(installed.locate_file(""))).resolve()
    return str(place) if folder in before and not is_own else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _optional() -> Iterator[Found]:
    for name, purpose in OPTIONAL.items():
        try:
            yield Found(name, "ok", f"{distribution(name).version}, for {purpose.partition(' (')[0]}")
        except PackageNotFoundError:
            yield Found(name, "optional", f"not installed; it is for {purpose}")


def _devices() -> Iterator[Found]:
    try:
        import torch

        threads = torch.get_num_threads()
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = [torch.cuda.get_device_name(index) for index in range(count)]
    except Exception as error:  # a broken installation may raise anything
        yield Found("torch works", "missing", f"no: {type(error).__name__}: {error}: install torch anew")
        return
    yield Found("threads", "ok", f"{threads} for torch, of {os.cpu_count()} cores; OMP_NUM_THREADS sets it")
    if names:
        yield Found("GPU", "ok", f"{', '.join(names)}; CUDA {torch.version.cuda}")
    else:
        yield Found("GPU", "optional", "none that torch can use: training and audits run on the CPU")


def _cpu() -> Found:
    features = cpu_features()
    if features is None:
        return Found("CPU features", "optional", "cannot be told on this system")
    there = ", ".join(features) or "none of those that matter"
    pays = (
        "trains faster"
        if multiplies_bfloat16()
        else "is slower than float32 on this CPU, which has no instructions for it"
    )
    return Found("CPU features", "ok", f"{there}; precision=bfloat16 {pays}")


def _compiler() -> Found:
    names = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    compiler = next(filter(None, map(shutil.which, names)), None)
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    lacking = [] if compiler else ["no g++ or clang++ on PATH, and CXX names none"]
    lacking += [] if headers.is_file() else [f"no {headers}, Python's headers"]
    if lacking:
        return Found("C++ compiler", "optional", f"{'; '.join(lacking)}; it is for {COMPILED}")
    return Found("C++ compiler", "ok", f"{compiler}, for {COMPILED}")


def _browser() -> Found:
    import webbrowser

    try:
        return Found("browser", "ok", f"{getattr(webbrowser.get(), 'name', 'found')}, for report.html")
    except webbrowser.Error:
        return Found("browser", "optional", "none; it is for report.html, which can be read on another machine")
