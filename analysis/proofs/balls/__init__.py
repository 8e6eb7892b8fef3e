"""Ball arithmetic: a function at one state, to any precision, so that a sign is certain."""

from analysis.proofs.balls.ball import Balls, exact, sign_of
from analysis.proofs.balls.graph import evaluate
from analysis.proofs.balls.operations import JUMPING, UnreadableError

__all__ = ["JUMPING", "Balls", "UnreadableError", "evaluate", "exact", "sign_of"]
