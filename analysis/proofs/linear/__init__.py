"""Bounds by linear functions of the state, over boxes."""

from analysis.proofs.linear.bounds import LinearBounds, Planes
from analysis.proofs.linear.contraction import contracted

__all__ = ["LinearBounds", "Planes", "contracted"]
