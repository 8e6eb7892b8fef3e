"""Is the Jacobian that automatic differentiation gives of the cell its derivative? Difference quotients tell."""

import torch

from analysis.measure.arnoldi import products_at
from analysis.measure.subject import DENSE, Subject

# So short a step that a kink nearer than it is rare, and long enough for rounding to leave six digits of a quotient.
STEP = 1e-9
DEPARTURE = 1e-4  # what rounding and curvature may make of a quotient, relative to J v and to v


@torch.no_grad()
def departure(subject: Subject, position: int) -> str:
    """Say why the Jacobian at the equilibrium ``position`` is not f's derivative there; empty where it is, as far as can be seen.

    One random unit vector v is tried: f(z + t v) and f(z - t v) must both depart from f(z) by t J v.
    """
    z, f = subject.equilibria[position], subject.cell_at(position)
    v = torch.randn(subject.dim, generator=subject.generator(), dtype=torch.float64)
    v /= v.norm()
    if subject.dim <= DENSE:
        slope = subject.jacobian(z, position) @ v
    else:
        slope = torch.from_numpy(products_at(subject, z, position).forward(v.numpy()))
    step = STEP * max(1.0, float(z.norm()))
    here, ahead, behind = (f((z + t * v)[None])[0] for t in (0.0, step, -step))
    quotients = torch.stack([(ahead - here) / step, (here - behind) / step])
    apart = float((quotients - slope).norm(dim=1).max())
    if apart <= DEPARTURE * (1 + float(slope.norm())):
        return ""
    return (
        f"in a random direction the Jacobian of automatic differentiation departs by {apart:.2g} from what difference quotients of f "
        "give: f has a kink there, or computes what automatic differentiation does not see (NumPy, detach, no_grad)"
    )
