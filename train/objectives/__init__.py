"""What training may ask of a model on a batch: right on clean images, on crafted ones, or within proved bounds.

Their settings are read without torch, which each imports when it is first called.
"""

from typing import Annotated

from pydantic import Tag

from stabdeq.config.by_name import REGISTERED, by_name
from train.objectives.cross_entropy import CrossEntropy
from train.objectives.ibp import IntervalTraining
from train.objectives.outcome import Objective, Outcome
from train.objectives.pgd_at import PGDTraining
from train.objectives.registered import OBJECTIVES, RegisteredObjective, register_objective
from train.objectives.trades import Trades

__all__ = [
    "OBJECTIVES",
    "AnyObjective",
    "CrossEntropy",
    "IntervalTraining",
    "Objective",
    "Outcome",
    "PGDTraining",
    "RegisteredObjective",
    "Trades",
    "register_objective",
]

AnyObjective = Annotated[
    Annotated[CrossEntropy, Tag("cross-entropy")]
    | Annotated[Trades, Tag("trades")]
    | Annotated[PGDTraining, Tag("pgd-at")]
    | Annotated[IntervalTraining, Tag("ibp")]
    | Annotated[RegisteredObjective, Tag(REGISTERED)],
    by_name("cross-entropy", ("cross-entropy", "trades", "pgd-at", "ibp")),
]
