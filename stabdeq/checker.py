"""``python -m stabdeq.checker proof.json [checkpoint.safetensors]``: a proof checked by exact and ball arithmetic alone.

It imports nothing of this library, and stands alone when copied: Python and python-flint are all that is trusted.
"""

import json
import math
import sys
from collections.abc import Callable
from typing import Any

from flint import arb, ctx, fmpq

VERSION = 1
ctx.prec = 128  # bits: every arb is a ball that holds the real number meant, whatever its precision


class Failure(Exception):
    """What the proof does not prove: where, what was expected, and what stands there."""


class Unreadable(Exception):
    """What is no proof, or no checkpoint, at all."""


def require(holds: bool, why: str) -> None:
    """Raise Failure(``why``) unless ``holds``; comparisons of balls hold only if they do for every real number in them."""
    if holds is not True:
        raise Failure(why)


def number(text: Any, where: str) -> float:
    """Return the double that ``text`` names, as Python's float.hex writes it; arb(...) and exact(...) of it are exact."""
    try:
        value = float.fromhex(text)
    except (TypeError, ValueError, OverflowError):
        raise Failure(f"{where}: expected a number as float.hex writes it, got {text!r:.80}") from None
    require(math.isfinite(value) and value.hex() == text, f"{where}: expected a finite number as float.hex writes it")
    return value


def numbers(values: Any, count: int, where: str) -> list[float]:
    """Return a list of ``count`` numbers."""
    require(type(values) is list and len(values) == count, f"{where}: expected a list of {count} numbers")
    return [number(value, f"{where}[{i}]") for i, value in enumerate(values)]


def exact(value: float) -> fmpq:
    """Return a double as a fraction."""
    return fmpq(*value.as_integer_ratio())


def fields(group: Any, where: str, *names: str) -> list[Any]:
    """Return the values of an object that has these keys and no others, in their order."""
    require(type(group) is dict, f"{where}: expected an object with the keys {', '.join(names)}")
    for name in [*names, *group]:
        require(name in group, f"{where}: lacks {name!r}")
        require(name in names, f"{where}: has the unknown key {name!r}")
    return [group[name] for name in names]


def check_model(proof: dict[str, Any], checkpoint: bytes | None) -> list[str]:
    """Return the claims about a checkpoint that ``proof`` proves, in words; raise Failure at the first that it does not."""
    raise Failure("not written yet")


# What a proof may be about; each takes the whole object and the checkpoint's bytes, and returns the verified claims in words.
KINDS: dict[str, Callable[[dict[str, Any], bytes | None], list[str]]] = {"model": check_model}


def check(proof: bytes, checkpoint: bytes | None = None) -> list[str]:
    """Return the claims, in words, that the file ``proof`` proves; raise Failure, or Unreadable where it is no proof."""
    try:
        group = json.loads(proof, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the proof is not JSON, or truncated: {error}") from None
    require(type(group) is dict, "expected an object")
    require(group.get("version") == VERSION, f"version: expected {VERSION}, got {group.get('version')!r:.80}")
    kind = group.get("kind")
    require(type(kind) is str and kind in KINDS, f"kind: expected one of {', '.join(KINDS)}, got {kind!r:.80}")
    return KINDS[kind](group, checkpoint)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    group = dict(pairs)
    require(len(group) == len(pairs), f"a key stands twice in one object, among {', '.join(group)}")
    return group


def _no_constant(text: str) -> None:
    raise Failure(f"{text} is no number of a proof")


def main(arguments: list[str]) -> int:
    """Print VALID and what is proved, and return 0; or the first line that fails, and 1; or what cannot be read, and 2."""
    if len(arguments) not in (1, 2):
        print("usage: python -m stabdeq.checker proof.json [checkpoint.safetensors]", file=sys.stderr)
        return 2
    try:
        contents = [open(path, "rb").read() for path in arguments]
        claims = check(*contents)
    except Failure as failure:
        print(f"INVALID: {failure}")
        return 1
    except (Unreadable, OSError) as error:
        print(f"UNREADABLE: {error}", file=sys.stderr)
        return 2
    print("\n".join(["VALID", *claims]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
