"""Proofs: of functions over whole boxes of states by interval arithmetic, of cells by matrices, of this library's V by its make."""

MOST_DIMENSIONS = 6  # of a state, that boxes can cover in any reasonable time
