"""What training may ask of a model on a batch: right on clean images, on crafted ones, or within proved bounds."""

from typing import Literal

from train.objectives.cross_entropy import CrossEntropy
from train.objectives.ibp import IntervalTraining
from train.objectives.outcome import Objective, Outcome
from train.objectives.pgd_at import PGDTraining
from train.objectives.trades import Trades

__all__ = ["OBJECTIVES", "AnyObjective", "Objective", "ObjectiveName", "Outcome"]

ObjectiveName = Literal["cross-entropy", "trades", "pgd-at", "ibp"]
AnyObjective = CrossEntropy | Trades | PGDTraining | IntervalTraining
OBJECTIVES: dict[ObjectiveName, type[AnyObjective]] = {
    "cross-entropy": CrossEntropy,
    "trades": Trades,
    "pgd-at": PGDTraining,
    "ibp": IntervalTraining,
}
