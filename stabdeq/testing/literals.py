"""Tensors and functions as source text that evaluates to them again."""

from types import FunctionType

from torch import Tensor


def literal(tensor: Tensor) -> str:
    """Return an expression for ``tensor``, exact to the last bit."""
    device = "" if tensor.device.type == "cpu" else f", device={str(tensor.device)!r}"
    entries = repr(tensor.tolist()).replace("nan", "float('nan')").replace("inf", "float('inf')")
    return f"torch.tensor({entries}, dtype={tensor.dtype}{device})"


def name(function: object, role: str) -> str:
    """Return the name of ``function``, its repr where that is an expression, or ``role`` where it has neither."""
    if isinstance(function, FunctionType) and function.__name__.isidentifier():
        return function.__name__
    # What the strategies of this package draw is printed as an expression; any other object goes by its role.
    is_ours = type(function).__module__ == "stabdeq.testing.dynamics"
    return repr(function) if is_ours else role


def short(state: Tensor) -> str:
    """Return a state (n,) or number () for people to read."""
    if state.dim() == 0:
        return f"{float(state):.6g}"
    shown = ", ".join(f"{entry:.6g}" for entry in state.tolist()[:8])
    return f"[{shown}{', ...' if len(state) > 8 else ''}]"
