"""Proofs by sums of squares, of claims that are inequalities between polynomials."""

from analysis.proofs.polynomials.claims import prove_polynomial

__all__ = ["prove_polynomial"]
