"""How V and dynamics are to be written, for a user whose function was not: what was seen of it, and what to wrap it in."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Output = Literal["value", "velocity", "constraint"]


def how_to_write(function: Callable[[Any], Any], name: str, dim: int, output: Output, trial: Tensor) -> tuple[str, str]:
    """Return what ``function``, called ``name``, must take and return, and how to wrap it; "" where nothing known was seen.

    ``trial`` (B, dim) are states at which it raised, or returned something else than a value or a velocity of each.
    """
    returned = {
        "value": "values (B,)",
        "velocity": f"velocities (B, {dim})",
        "constraint": "numbers (B,) or (B, k), all 0 on the set",
    }[output]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = _wrapped(function, name.rpartition(":")[2], dim, output, trial)
    return f"{name} must take states (B, {dim}), float64, one a row, and return {returned}", wrapped


def _wrapped(function: Callable[[Any], Any], name: str, dim: int, output: Output, trial: Tensor) -> str:
    required = _required_arguments(function)
    if len(required) == 2:
        first = required[0]
        if first in ("t", "time"):
            return f"it takes the time too: give lambda z: {name}(0, z)"
        return f"it takes two arguments, {' and '.join(required)}: fix one, as in lambda z: {name}(z, 0)"
    expected = trial.shape if output == "velocity" else trial.shape[:1]
    array = trial.numpy()
    # Each is tried before it is advised.
    for seen, advice, wrapped in (
        ("takes one state", f"torch.vmap({name})", lambda: torch.vmap(function)(trial)),
        (
            "takes one state and returns a list",
            f"lambda z: torch.stack({name}(z.T), 1)",
            lambda: torch.stack(function(trial.T), 1),
        ),
        (
            "takes one state",
            f"lambda z: numpy.apply_along_axis({name}, 1, z)",
            lambda: np.apply_along_axis(function, 1, array),
        ),
        ("returns a list", f"lambda z: torch.stack({name}(z), 1)", lambda: torch.stack(function(trial), 1)),
        ("returns a list", f"lambda z: numpy.stack({name}(z), 1)", lambda: _stacked(function(array), 1)),
    ):
        if _shape(wrapped) == expected:
            return f"it {seen}: give {advice}"
    error = _error(function, trial)
    if "dtype" in error and "float" in error:
        return f"it computes with float32: make its constants and weights float64, as in {name}.double()"
    if any(word in error for word in ("shapes cannot be multiplied", "size", "index", "mismatch")):
        return f"it does not compute with {dim} coordinates: is dim right?"
    return ""


def _required_arguments(function: Callable[[Any], Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in kinds and one.default is inspect.Parameter.empty]


def _stacked(parts: Any, axis: int) -> np.ndarray:
    if not isinstance(parts, list | tuple):
        raise TypeError("expected a list of coordinates")
    return np.stack(parts, axis)


def _shape(call: Callable[[], Any]) -> tuple[int, ...] | None:
    try:
        return tuple(call().shape)
    except Exception:
        return None


def _error(function: Callable[[Any], Any], given: Any) -> str:
    try:
        function(given)
    except Exception as error:
        return str(error)
    return ""
