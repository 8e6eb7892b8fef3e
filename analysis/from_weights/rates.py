"""The verdict on a rate: of a flow's decay, or of a map's contraction."""

import math

import torch

from analysis.findings import Verdict
from analysis.findings.four_digits import at_least, at_most
from analysis.from_weights.gathered import Gathered
from analysis.proofs.cells.decay import Decay, Shortfall
from stabdeq.linear_algebra import symmetric_eigenvalues


def report_decay(gathered: Gathered, name: str, claim: str, found: Decay | Shortfall, note: str = "") -> None:
    """Put down the verdict on the rate a of a flow, or, under the name contraction, r of a map."""
    is_map = name == "contraction"
    rate, needed = ("r", "below 1") if is_map else ("a", "above 0")
    if isinstance(found, Decay):
        values = symmetric_eigenvalues(found.norm)
        proved = at_most(found.rate) if is_map else at_least(found.rate)
        evidence = (
            f"Rate {rate} = {proved} in the norm of a matrix P of condition {float(values[-1] / values[0]):.3g}; "
            f"matrices proved definite.{note}"
        )
        gathered.find(name, claim, Verdict.PROVED, evidence, 1 - found.rate if is_map else found.rate)
        gathered.certificates[name] = {
            "rate": found.rate,
            "norm": found.norm.tolist(),
            "multiplier": found.multiplier.tolist(),
        }
        return
    bound = f"with some pattern of ReLU slopes no rate is better than {rate} = {found.limit:.3g}"
    if math.isnan(found.limit):
        evidence = "Not proved: weights are not finite, or too large for eigenvalues to be computed."
    elif found.is_hopeless:
        evidence = f"Not proved, and no multipliers can: {bound}, and it must be {needed}."
    elif abs(found.best) == torch.inf:
        evidence = f"Not proved: the solver found no multipliers, though {bound}."
    else:
        evidence = (
            f"Not proved: the best rate that the solver found is {rate} = {found.best:.3g}, and it must be {needed}."
        )
    gathered.find(name, claim, Verdict.INCONCLUSIVE, evidence)
