"""What ``import stabdeq`` offers, by name: where each function is found, imported when it is first asked for."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stabdeq.errors import ImportShadowedError
from stabdeq.registry import located

DOORS = {
    "Report": "analysis.report.report:Report",
    "attack": "stabdeq.attacks.run:attack",
    "audit": "analysis.audit:audit",
    "certify": "analysis.certify:certify",
    "check": "analysis.check:check",
    "compare_solvers": "analysis.solver_comparison:compare_solvers",
    "fixed_point": "stabdeq.solvers:fixed_point",
    "load": "stabdeq.checkpoint:load",
    "load_onnx": "analysis.user_function.onnx_files:load_onnx",
    "register_attack": "stabdeq.registry:register_attack",
    "register_backbone": "stabdeq.registry:register_backbone",
    "register_cell": "stabdeq.registry:register_cell",
    "register_check": "analysis.findings.catalogue:register_check",
    "register_data_set": "stabdeq.registry:register_data_set",
    "register_solver": "stabdeq.registry:register_solver",
    "replay": "analysis.replay:replay",
    "train": "train.training:train",
    "verify": "analysis.verify:verify",
}


def door(name: str) -> Any:
    """Return the function called ``name``; raise KeyError where there is none, ImportShadowedError where another file hides it."""
    location = DOORS[name]
    require_own_packages(location.partition(".")[0])
    return located(location)


def require_own_packages(*packages: str) -> None:
    """Raise ImportShadowedError where one of ``packages``, "analysis" or "train", stands elsewhere on the import path before ours.

    Both are common names: a train.py in the current folder, or in one on PYTHONPATH, would be imported instead.
    """
    home = Path(__file__).resolve().parents[1]
    for package in packages:
        loaded = sys.modules.get(package)
        origin = getattr(loaded, "__file__", None) if loaded else getattr(find_spec(package), "origin", None)
        if origin is None or Path(origin).resolve().parent != home / package:
            raise ImportShadowedError(
                f"'import {package}' finds {origin or 'nothing'}, not stabdeq's own {home / package}: "
                "rename that file, run from another folder, or take its folder off PYTHONPATH"
            )
