"""The modules that a function reaches: what its closure, its defaults, its owner and the globals that it names hold."""

from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn


def modules_of(function: Any) -> list[nn.Module]:
    """Return the modules that ``function`` reaches, each once, also through functions, lists, tuples and dicts that it names.

    Attributes of other objects are looked at where the function is a method of theirs, or such an object itself.
    """
    found: dict[int, nn.Module] = {}
    seen: dict[int, Any] = {}  # the values, too: an id is another's once its value is gone
    left = [function, *getattr(function, "__dict__", {}).values()]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, nn.Module):
            found[id(value)] = value
        else:
            left += _held(value)
    return list(found.values())


def _held(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__, *getattr(value.__self__, "__dict__", {}).values()]
    if isinstance(value, FunctionType) and not str(value.__module__).startswith("torch."):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        named = [value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__]
        return [*cells, *named, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return []


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018, of a variable that is not yet assigned it raises
    except ValueError:
        return False
    return True


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that ``code`` and the functions within look up: of globals, and of attributes."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
