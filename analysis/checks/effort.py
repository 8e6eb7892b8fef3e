"""How hard the checks of an audit search for a counterexample."""

from dataclasses import replace

from analysis.evidence.judge import Effort
from analysis.measure.subject import DENSE, Subject

LOOK = Effort(samples=512, starts=2, steps=10)  # where a proof holds: enough to see that another function runs


def searching(subject: Subject, usual: Effort, dim: int) -> Effort:
    """Return the effort for states of ``dim`` numbers: ``usual``, as far as it is affordable, or as many states as were asked for."""
    effort = usual.affordable(dim)
    return effort if subject.states is None else replace(effort, samples=subject.states)


def beside_construction(subject: Subject, usual: Effort, dim: int) -> Effort:
    """Return the effort where V's construction proves the claim for all weights, if it is of this library's family.

    A proof needs no search, so of large states, of which each takes long, only some are looked at.
    """
    return searching(subject, LOOK if subject.structured and subject.dim > DENSE else usual, dim)
