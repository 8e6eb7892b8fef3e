"""Interval arithmetic, rounded outwards, on functions with their derivatives; it knows no claim."""
