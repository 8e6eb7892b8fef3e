"""Matrices enclosed with their rounding errors, and proofs that they are definite."""
