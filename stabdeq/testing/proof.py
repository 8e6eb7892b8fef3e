"""A proof as an assertion: all that is claimed of V and its dynamics is proved, or the test fails with what is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stabdeq import gathered
from stabdeq.doors import door
from stabdeq.testing.descent import assert_decay, assert_decrease, assert_equilibrium, assert_invariant
from stabdeq.testing.functions import Field, Value
from stabdeq.testing.judgement import PASTE
from stabdeq.testing.literals import name
from stabdeq.testing.shape import assert_positive_definite, assert_zero_at_centre
from stabdeq.testing.steps import assert_step_decrease, assert_step_rests

_OF_A_BARRIER = ("initial", "unsafe", "barrier")
_ALONG_THE_FLOW = ("decrease", "decay", "invariant", "attraction")

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line


def assert_proved(V: Value | str, f: Field | str | None = None, *, dim: int, **options: Any) -> None:
    """Assert that ``stabdeq.check`` proves what is claimed of V, (B, dim) -> (B,), along z' = f(z), (B, dim) -> (B, dim).

    ``options`` are those of ``stabdeq.check``: ``radius=2`` or a ``box``, ``step=`` in place of f, ``claims``, ``boxes`` and so on. The
    failure shows, of each claim that is not proved, verdict, evidence and witness, and a line to paste: the property at the witness
    where it fails there too, else the proof of that claim alone. Raises ConfigError as ``stabdeq.check`` does.
    """
    report = door("check")(V, f, dim=dim, **options)
    gathered.tell(report)
    short = {key: item for key, item in report.named.items() if item.verdict != "PROVED"}
    if not short:
        return
    told = [
        f"{report.told(key)}\n{PASTE}{_line_at_witness(V, f, options, item) or _line(V, f, dim, options, item.check)}"
        for key, item in short.items()
    ]
    claims = f"{len(short)} of {len(report.named)} claims {'is' if len(short) == 1 else 'are'} not proved"
    raise AssertionError("\n".join([f"{claims}.", *told]))


def _line_at_witness(V: Any, f: Any, options: dict[str, Any], finding: Any) -> str:
    """Return the call of a property that fails at the witness of ``finding``; empty where none does."""
    state = (finding.witness or {}).get("state")
    if finding.verdict != "REFUTED" or not isinstance(state, list):
        return ""
    holds = _property(V, f, finding.check, torch.tensor([state], dtype=torch.float64), options)
    if holds is None:
        return ""
    try:
        holds()
    except AssertionError as error:
        return str(error).partition(PASTE)[2]
    except Exception:  # V is one of arrays, or of another dtype, which no property takes: a proof does
        return ""
    return ""


def _property(V: Any, f: Any, claim: str, states: Tensor, options: dict[str, Any]) -> Callable[[], None] | None:
    """Return what asserts ``claim`` at ``states`` (1, n); None where no property does."""
    step = options.get("step")
    # States of "invariant" are sought along rays, which leave the set.
    if options.get("on") is not None and claim == "invariant":
        return None
    centre = torch.as_tensor(options.get("centre", 0.0), dtype=torch.float64).expand(states.shape[1])
    at = {"centre": centre if centre.any() else None}
    hole: dict[str, Any] = at | {
        "inner_radius": options.get("inner_radius") or 0.0,
        "from_level": options.get("from_level"),
    }
    if step is not None:
        return {
            "zero": lambda: assert_zero_at_centre(V, centre),
            "positive": lambda: assert_positive_definite(V, states, **at),
            "equilibrium": lambda: assert_step_rests(step, centre),
            "decrease": lambda: assert_step_decrease(V, step, states, kappa=options.get("kappa") or 0.0, **hole),
        }.get(claim)
    return {
        "zero": lambda: assert_zero_at_centre(V, centre),
        "positive": lambda: assert_positive_definite(V, states, **at),
        "equilibrium": lambda: assert_equilibrium(f, centre),
        "decrease": lambda: assert_decrease(V, f, states, **hole),
        "decay": lambda: assert_decay(V, f, states, alpha=options["alpha"]),
        "invariant": lambda: assert_invariant(V, f, states, level=options["sublevel"], **at),
    }.get(claim)


def _line(V: Any, f: Any, dim: int, options: dict[str, Any], claim: str) -> str:
    """Return the call that asks for the proof of ``claim`` alone."""
    words = [_word(V, "V"), *([] if f is None else [_word(f, "f")]), f"dim={dim}"]
    # A check refuses what no claim of it is about.
    read_by = {
        "initial": claim == "initial",
        "unsafe": claim == "unsafe",
        "alpha": claim == "decay",
        "kappa": claim == "decrease",
        "inner_radius": claim not in _OF_A_BARRIER,
        "sublevel": claim in _ALONG_THE_FLOW or options.get("sublevel") != "max",
    }
    kept = {key: value for key, value in options.items() if read_by.get(key, True)}
    words += [f"{key}={_word(value, key)}" for key, value in (kept | {"claims": [claim]}).items()]
    return f"assert_proved({', '.join(words)})"


def _word(value: Any, role: str) -> str:
    if isinstance(value, Path):
        return repr(str(value))
    return name(value, role) if callable(value) else repr(value)
