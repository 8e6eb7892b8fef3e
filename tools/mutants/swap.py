"""A fault put into functions that are imported already, so that it need not be imported again for each."""

import ast
import gc
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType

from tools.mutants.edits import edits


def compiled(path: Path, number: int) -> CodeType:
    """Return the code of ``path`` with its edit ``number``."""
    tree = ast.parse(path.read_text())
    edits(tree)[number].make()
    return compile(tree, str(path), "exec")


@cache
def functions(path: Path) -> list[FunctionType]:
    """Return the functions of ``path`` that this process has."""
    found = (thing for thing in gc.get_objects() if type(thing) is FunctionType)
    return [function for function in found if function.__code__.co_filename == str(path)]


def swap(path: Path, number: int) -> bool:
    """Give the ``functions`` of ``path`` the code that they have with edit ``number``; False where that can't be."""
    new = defaultdict(list)
    for code in _within(compiled(path, number)):
        new[_place(code)].append(code)
    changed = False
    for function in functions(path):
        others = new[_place(function.__code__)]
        if function.__code__ in others:
            continue
        if len(others) != 1 or others[0].co_freevars != function.__code__.co_freevars:  # two lambdas of one line, say
            return False
        function.__code__ = others[0]
        changed = True
    return changed


def _within(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _within(constant)


def _place(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno
