"""Proofs of a cell, or of dynamics made of affine maps and ReLUs, from their weights."""
