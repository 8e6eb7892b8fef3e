"""How V and dynamics are to be written, for a user whose function was not: what was seen of it, and what to wrap it in."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

Output = Literal["value", "velocity"]


def how_to_write(function: Callable[[Any], Any], name: str, dim: int, output: Output, trial: Tensor) -> str:
    """Return what ``function``, called ``name``, must take and return, and how to wrap it where that is seen.

    ``trial`` (B, dim) are states at which it raised, or returned something else than a value or a velocity of each.
    """
    short = name.rpartition(":")[2]
    returned = "values (B,)" if output == "value" else f"velocities (B, {dim})"
    rule = f"{name} must take states (B, {dim}), one a row, and return {returned}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = _wrapped(function, short, dim, output, trial)
    return f"{rule}: {wrapped}" if wrapped else f"{rule}"


def _wrapped(function: Callable[[Any], Any], name: str, dim: int, output: Output, trial: Tensor) -> str:
    """Return what was seen and what to do; empty where nothing known was."""
    required = _required_arguments(function)
    if len(required) == 2:
        first = required[0]
        if first in ("t", "time"):
            return f"it takes the time too: give lambda z: {name}(0, z)"
        return f"it takes two arguments, {' and '.join(required)}: fix one, as in lambda z: {name}(z, 0)"
    shape = () if output == "value" else (dim,)
    for given, make, one_by_one in (
        (trial, "torch.stack", f"torch.vmap({name})"),
        (trial.numpy(), "numpy.stack", f"lambda z: numpy.apply_along_axis({name}, 1, z)"),
    ):
        whole, one = _called(function, given), _called(function, given[0])
        if (
            isinstance(whole, list | tuple)
            and len(whole) == dim
            and all(_shape(part) == trial.shape[:1] for part in whole)
        ):
            return f"it returns a {type(whole).__name__} of coordinates: give lambda z: {make}({name}(z), 1)"
        if _shape(one) == shape:
            return f"it takes one state: give {one_by_one}"
        if isinstance(one, list | tuple) and len(one) == dim and not any(map(_shape, one)) and output == "velocity":
            stacked = f"{make}({name}(z.T), 1)"
            return f"it takes one state and returns a {type(one).__name__}: give lambda z: {stacked}"
    error = _error(function, trial)
    if "dtype" in error and ("float" in error.lower() or "double" in error.lower()):
        return f"states are float64, and it computes with float32: make its constants and weights float64 ({name}.double())"
    if "shapes cannot be multiplied" in error or "size" in error or "index" in error or "mismatch" in error:
        return f"it does not compute with {dim} coordinates: is dim right?"
    return ""


def _required_arguments(function: Callable[[Any], Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in kinds and one.default is inspect.Parameter.empty]


def _called(function: Callable[[Any], Any], given: Any) -> Any:
    try:
        return function(given)
    except Exception:
        return None


def _error(function: Callable[[Any], Any], given: Any) -> str:
    try:
        function(given)
    except Exception as error:
        return str(error)
    return ""


def _shape(result: Any) -> tuple[int, ...] | None:
    """Return the shape of a tensor, an array or a number; None of anything else."""
    if isinstance(result, int | float):
        return ()
    return tuple(result.shape) if hasattr(result, "shape") else None
