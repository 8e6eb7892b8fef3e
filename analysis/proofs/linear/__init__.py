"""Bounds by linear functions of the state, over boxes."""

from analysis.proofs.linear.bounds import LinearBounds, Planes
from analysis.proofs.linear.contraction import contracted
from analysis.proofs.linear.frames import Frames

__all__ = ["Frames", "LinearBounds", "Planes", "contracted"]
