"""Models of others as the ``EquilibriumModel`` that audits, attacks and solvers read."""

from stabdeq.adapters.functions import FunctionModel, from_functions

__all__ = ["FunctionModel", "from_functions"]
