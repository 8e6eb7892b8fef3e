"""Deep equilibrium models stabilised by learned Lyapunov functions, and evidence on what is claimed of them.

==================================  ====================================================================
``train``, ``load``                 train a model from a recipe; read a checkpoint
``audit``, ``replay``               judge a model's claims; evaluate a refuted claim's witness anew
``verify``                          judge a report's checkpoint again, and compare claim by claim
``certify``                         prove what weights allow
``check``                           test a Lyapunov function of your own
``load_onnx``                       a function from an ONNX file, as a module: a controller, say
``attack``                          what a model gets right within a ball of pixels
``compare_solvers``                 fixed-point solvers on one model, at equal evaluations
``fixed_point``                     a fixed point with its gradient, as a layer
``register_...``                    make a backbone, cell, solver, attack, data set or check of your own known by name
``Report``                          what ``audit``, ``certify`` and ``check`` return
==================================  ====================================================================

Each is imported when it is first used.
"""

from typing import Any

__version__ = "0.1.0"
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'stabdeq' has no attribute {name!r}")
    from stabdeq.doors import door

    return door(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
