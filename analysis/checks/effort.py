"""How hard the checks of an audit search for a counterexample."""

from dataclasses import replace

from analysis.evidence.effort import Effort
from analysis.evidence.sampling import SHELLS
from analysis.measure.subject import DENSE, Subject

LOOK = Effort(samples=512, starts=2, steps=10)  # where a proof holds: enough to see that another function runs
LOOKED = 2**24  # numbers in all states that are drawn there, or that one climb evaluates
CLIMB = 2**7  # states that one climb evaluates, about


def searching(subject: Subject, usual: Effort, dim: int) -> Effort:
    """Return the effort for states of ``dim`` numbers: ``usual``, as far as it is affordable, or as many states as were asked for."""
    effort = usual.affordable(dim)
    return effort if subject.states is None else replace(effort, samples=subject.states)


def beside_construction(subject: Subject, usual: Effort, dim: int) -> Effort:
    """Return the effort where V's construction proves the claim for all weights, if it is of this library's family.

    A proof needs no search, so of large states, of which each takes long, only some are looked at.
    """
    return searching(subject, looking(dim) if subject.structured and subject.dim > DENSE else usual, dim)


def looking(dim: int) -> Effort:
    """Return the effort for states of ``dim`` numbers where a proof holds: fewer states as they grow, and at last no climb."""
    most = max(SHELLS, LOOKED // dim)
    starts = min(LOOK.starts, LOOKED // (CLIMB * dim))
    return replace(LOOK, samples=min(LOOK.samples, most), shells=min(LOOK.shells, most), starts=starts)
