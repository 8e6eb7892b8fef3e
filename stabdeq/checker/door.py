"""What is read, in which order, and what is printed."""

import hashlib
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from flint import ctx

from .boxes import check_boxes
from .case import Case
from .claims import ABOUT, CLAIMS
from .parameters import Model
from .reading import Failure, Unreadable, content, fields, items, parsed, require

VERSION = 1
PRECISION = 128  # bits of the middles of balls


def check_model(proof: dict[str, Any], checkpoint: bytes | None) -> list[str]:
    """Return what ``proof`` proves of the model in ``checkpoint``, in words; raise Failure at the first line that it does not."""
    names = ("version", "kind", "about", "sha256", "step", "images", "claims")
    _, _, about, digest, step, images, claims = fields(proof, "the proof", *names)
    require(checkpoint is not None, "the checkpoint is missing: give its file, too")
    require(hashlib.sha256(checkpoint or b"").hexdigest() == digest, "sha256: the proof is about another checkpoint")
    require(about == ABOUT, f"about: expected {ABOUT!r}")
    case, proved = Case(Model(checkpoint or b""), step, images), {}
    for i, claim in enumerate(items(claims, "claims")):
        name = claim.get("claim") if type(claim) is dict else None
        if type(name) is not str or name not in CLAIMS:
            raise Failure(f"claims[{i}]: expected one of {', '.join(CLAIMS)}, got {name!r:.60}")
        require(name not in proved, f"claims[{i}]: a second {name}")
        kind = CLAIMS[name]
        _, *said = fields(claim, f"claims[{i}] ({name})", "claim", "words", "symbols", *kind.keys)[:3]
        proved[name] = kind.words.format(**kind.prove(case, *(claim[key] for key in kind.keys)))
        require(said[0] == proved[name], f"claims[{i}].words: expected {proved[name]!r}")
        require(said[1] == kind.symbols, f"claims[{i}].symbols: expected {kind.symbols!r}")
    require(bool(proved), "claims: there are none")
    return [ABOUT, *proved.values()]


# What a proof may be about; each takes the whole object and the checkpoint's bytes, and returns the verified claims in words.
KINDS: dict[str, Callable[[dict[str, Any], bytes | None], list[str]]] = {"model": check_model, "boxes": check_boxes}


def check(proof: bytes, checkpoint: bytes | None = None) -> list[str]:
    """Return, in words, what the file ``proof`` proves; raise Failure, or Unreadable where it is no proof at all."""
    group = parsed(proof, "the proof")
    require(type(group) is dict, "expected an object")
    version, kind = group.get("version"), group.get("kind")
    require(type(version) is int and version == VERSION, f"version: expected {VERSION}, got {version!r:.60}")
    require(type(kind) is str and kind in KINDS, f"kind: expected one of {', '.join(KINDS)}, got {kind!r:.60}")
    with ctx.workprec(PRECISION):
        return KINDS[kind](group, checkpoint)


def main(arguments: list[str]) -> int:
    """Print VALID and what is proved, and return 0; or the first line that fails, and 1; or what cannot be read, and 2.

    A fault of this program is 70, and no verdict; so is a verdict that cannot be printed.
    """
    stream = sys.stderr
    try:
        if len(arguments) not in (1, 2):
            raise Unreadable("usage: python -P -m stabdeq.checker proof.json [checkpoint.safetensors]")
        code, told, stream = 0, "\n".join(["VALID", *check(*map(content, arguments))]), sys.stdout
    except Failure as failure:
        code, told, stream = 1, f"INVALID: {failure}", sys.stdout
    except (Unreadable, OSError) as error:
        code, told = 2, f"UNREADABLE: {error}"
    except Exception as error:
        code, told = 70, f"NOT CHECKED: internal error ({type(error).__name__}: {error}): please report it"
    return code if _say(told, stream) else 70


def _say(text: str, stream: TextIO | None) -> bool:
    """Print ``text``, of which parts may be the proof's, without what steers a terminal; return whether its reader could have it."""
    shown = "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)
    if stream is None:  # closed from the start
        return False
    encoding = stream.encoding or "utf-8"
    try:
        print(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError as error:
        # What is left in its buffer would fail once more as Python ends, which sets another exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return isinstance(error, BrokenPipeError)  # a reader that has gone, as of "| head", wanted no more
    return True
