"""Proofs of a cell, or of piecewise affine dynamics, from their weights."""
