"""The property that a map brings states together."""

from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.lyapunov.claims import Violation
from stabdeq.solvers import norm
from stabdeq.testing.functions import Field, require_states, rounding, velocity_of
from stabdeq.testing.judgement import judge
from stabdeq.testing.literals import literal, name
from stabdeq.testing.tensors import require_non_negative

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line


def assert_contraction(f: Field, a: Tensor, b: Tensor, *, factor: float, reference: float = 0.0) -> None:
    """Assert ||f(a) - f(b)|| <= ``factor`` ||a - b|| for the pairs of states ``a``, ``b`` (B, n).

    f is (B, n) -> (B, n): a cell at fixed injected features. ``reference`` is the size of the terms inside f, where they
    are larger than what it takes and returns.
    """
    require_states(a)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ConfigError(f"expected a and b alike, got {tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype}")
    require_non_negative("factor", factor)
    require_non_negative("reference", reference)

    def measure(a: Tensor, b: Tensor) -> tuple[Violation, float]:
        first, second = velocity_of(f, a), velocity_of(f, b)
        scale = norm(first) + norm(second) + factor * (norm(a) + norm(b)) + reference
        return Violation(norm(first - second) - factor * norm(a - b), scale), rounding(a, first)

    def line(a: Tensor, b: Tensor) -> str:
        given = f", reference={float(reference)!r}" if reference else ""
        return f"assert_contraction({name(f, 'f')}, {literal(a)}, {literal(b)}, factor={float(factor)!r}{given})"

    judge(f"||f(a) - f(b)|| <= {factor:g} ||a - b||", (a, b), measure, line)
