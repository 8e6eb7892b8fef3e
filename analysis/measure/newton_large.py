"""Whether an equilibrium lies next to a large state: Newton's map, its linear systems solved by GMRES on Jacobian products.

The same argument as for states whose Jacobian is inverted, with A = (I - J(z))^{-1} known by what it makes of single vectors: the
step A F(z), and A of what the field bends by at sampled states of the ball (Saad and Schultz, GMRES, 1986). That A (J(w) - J(z))
is small is seen along these offsets alone. The argument is numerical, and no proof.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from analysis.evidence.sampling import directions
from analysis.measure.newton import LIPSCHITZ, NEAR, NOT_SETTLED, STEP, Located, is_settled

OFFSETS = 2  # pairs of opposite states at which Newton's map is taken, besides those along the step
ACCURACY = 1e-6  # of a linear system, relative: a step needs few digits
BASIS, CYCLES = 40, 10  # vectors of GMRES before it starts anew, and how often it does
Product = Callable[[Tensor], Tensor]


@torch.no_grad()
def locate_by_products(
    field: Product, forward_at: Callable[[Tensor], Product], z: Tensor, generator: torch.Generator
) -> Located:
    """Return the ball around ``z`` (n,), float64, that holds an equilibrium of f.

    ``field`` is F, (B, n) -> (B, n), and ``forward_at`` gives, for a state w (n,), v -> J(w) v on vectors (n,).
    """
    here, forward = field(z[None])[0], forward_at(z)
    rounding = 4 * torch.finfo(z.dtype).eps * (2 * z.abs() + here.abs())
    signs = torch.randint(2, z.shape, generator=generator) * 2 - 1
    steps = [solved(forward, right) for right in (here, rounding * signs)]
    if steps[0] is None or steps[1] is None:
        return _none("the linear system of Newton's step was not solved by GMRES: I - J may be near to singular")
    step = float(steps[0].norm() + steps[1].norm())
    largest = NEAR * max(1.0, float(z.norm()))
    radius = max(2 * step / STEP, torch.finfo(z.dtype).eps * max(1.0, float(z.norm())))
    # A kink that few directions of a large space meet lies most likely where the step leads.
    along = steps[0] / (steps[0].norm() if bool(steps[0].any()) else 1)
    rays = torch.cat([along[None], directions(OFFSETS, len(z), generator)])
    rays = torch.cat([rays, -rays])
    while radius <= largest:
        if all(_stays(field, forward, z, here, radius * ray, radius) for ray in rays):
            moved = z + steps[0]
            again = solved(forward_at(moved), field(moved[None])[0])
            if again is not None and is_settled(steps[0], again, float(steps[1].norm()), z):
                return Located(radius)
            return _none(NOT_SETTLED)
        radius *= 10
    if step > STEP * largest / 2:
        return _none(f"Newton's step there is {step:.1e} long, which is not small beside the state")
    return _none("rounding or a kink moves Newton's map as much as the states next to it differ")


def _stays(field: Product, forward: Product, z: Tensor, here: Tensor, offset: Tensor, radius: float) -> bool:
    """Whether Newton's map moves by little of ``radius`` more at z + ``offset`` (n,) than at z."""
    offset = (z + offset) - z  # what rounding left of it
    bent = field((z + offset)[None])[0] - here + offset - forward(offset)
    moved = solved(forward, bent)
    return moved is not None and float(moved.norm()) <= LIPSCHITZ * radius


def solved(forward: Product, right: Tensor) -> Tensor | None:
    """Return the solution (n,) of (I - J) x = ``right`` (n,), or None where GMRES does not find it."""
    from scipy.sparse.linalg import LinearOperator, gmres

    if not bool(right.isfinite().all()):
        return None
    if not bool(right.any()):
        return right

    def product(vector: np.ndarray) -> np.ndarray:
        direction = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).flatten()
        return (direction - forward(direction)).numpy()

    size = len(right)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)  # pyrefly: ignore
    scale = float(right.norm())  # far below 1 it would meet GMRES's own absolute limits
    found, failed = gmres(operator, (right / scale).numpy(), rtol=ACCURACY, restart=BASIS, maxiter=CYCLES)
    return None if failed or not np.isfinite(found).all() else scale * torch.from_numpy(found)


def _none(reason: str) -> Located:
    return Located(float("inf"), reason)
