"""Models of others as the ``EquilibriumModel`` that audits, attacks and solvers read."""

from stabdeq.adapters.functions import FunctionModel, from_functions
from stabdeq.adapters.looped import LoopedModel, looped

__all__ = ["FunctionModel", "LoopedModel", "from_functions", "looped"]
