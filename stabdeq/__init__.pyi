"""The types of what ``import stabdeq`` offers, which it imports when it is first used."""

from analysis.audit import audit
from analysis.certify import certify
from analysis.check import check
from analysis.findings.catalogue import register_check
from analysis.replay import replay
from analysis.report.report import Report
from analysis.solver_comparison import compare_solvers
from analysis.user_function.onnx_files import load_onnx
from analysis.verify import verify
from stabdeq.attacks.run import attack
from stabdeq.checkpoint import load
from stabdeq.registry import (
    register_attack,
    register_backbone,
    register_cell,
    register_data_set,
    register_solver,
)
from stabdeq.solvers import fixed_point
from train.training import train

__version__: str
__all__ = [
    "Report",
    "attack",
    "audit",
    "certify",
    "check",
    "compare_solvers",
    "fixed_point",
    "load",
    "load_onnx",
    "register_attack",
    "register_backbone",
    "register_cell",
    "register_check",
    "register_data_set",
    "register_solver",
    "replay",
    "train",
    "verify",
]
