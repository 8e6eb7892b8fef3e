"""Hunting counterexamples: states drawn from a region, and a falsifier that climbs from the worst of them."""
