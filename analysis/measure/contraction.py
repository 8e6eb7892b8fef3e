"""What the make of a cell proves of it for every input: that it contracts, in one norm."""

from typing import NamedTuple

from analysis.findings.four_digits import at_least, at_most
from analysis.measure.subject import Subject
from analysis.proofs.cells.linf_margins import contraction_bound
from analysis.proofs.matrices.enclosure import Enclosure, spectral_norm_bound
from stabdeq.cells import CertifiedCell, IntervalCell, MonotoneCell, is_as_made


class Contraction(NamedTuple):
    """A cell with ||f(a, h) - f(b, h)|| <= ``rate`` ||a - b|| for every input h, ``rate`` < 1, in the norm called ``norm``.

    By Banach's theorem it has one equilibrium z* for every input, with ||z - z*|| <= ||f(z) - z|| / (1 - rate), and trajectories of
    z' = f(z, h) - z approach one another at the rate 1 - rate: e^t ||dz(t)|| grows no faster than by that share of itself.
    """

    rate: float
    norm: str

    @property
    def words(self) -> str:
        """What was proved, as one sentence without its full stop."""
        rate = at_most(self.rate)
        rate = rate if float(rate) < 1 else f"1 - {at_least(1 - self.rate)}"
        return f"the cell contracts by {rate} in the {self.norm} norm for every input, proved from its weights"


def proved_contraction(subject: Subject) -> Contraction | None:
    """Return the contraction of a cell that is certified by construction, None where the weights prove none."""
    cell = subject.model.cell
    if not is_as_made(cell):
        return None
    if isinstance(cell, IntervalCell):
        found = Contraction(contraction_bound(cell), "maximum")
    elif isinstance(cell, CertifiedCell | MonotoneCell):
        transition = cell.fold().transition
        if not bool(transition.isfinite().all()):
            return None
        found = Contraction(spectral_norm_bound(Enclosure.exact(transition)), "Euclidean")
    else:
        return None
    return found if found.rate < 1 else None
