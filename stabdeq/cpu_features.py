"""What this machine's CPU has instructions for."""

from functools import cache
from pathlib import Path

FEATURES = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
BFLOAT16 = {"amx_bf16", "avx512_bf16"}  # those with products of bfloat16


@cache
def cpu_features() -> tuple[str, ...] | None:
    """Return which of ``FEATURES`` the CPU has; None where the system does not tell."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return None
    return tuple(name for name in FEATURES if name in flags)


def multiplies_bfloat16() -> bool:
    """Return whether the CPU is known to have instructions for products of bfloat16."""
    return not BFLOAT16.isdisjoint(cpu_features() or ())
