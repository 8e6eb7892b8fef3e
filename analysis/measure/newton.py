"""Whether an equilibrium lies next to a state: Newton's map must carry a ball around the state into itself.

With F(z) = f(z) - z, J = df/dz and A = (I - J(z))^{-1}, the map G(w) = w + A F(w) has the equilibria as its fixed points. Where
its Lipschitz constant on a ball of radius r is at most q < 1 and ||G(z) - z|| <= (1 - q) r, the ball holds exactly one
(Newton and Kantorovich; Krawczyk). A cell is a black box here, so q is taken from the Jacobian at sampled states of the ball, and what
rounding does to G from its values there: the argument is numerical, and no proof.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from analysis.evidence.sampling import directions
from stabdeq.linear_algebra import spectral_norm

PAIRS = 8  # of opposite states at which G is taken: a kink through the centre shows on one of two
JACOBIANS = 2  # of these pairs, at which the Jacobian is taken too
NEAR = 1e-3  # largest radius, relative to the state, of a ball that counts as next to it
STEP = 0.25  # of the radius: what Newton's step may take
LIPSCHITZ = 0.7  # of the radius: by how much kinks, curvature and rounding together may move Newton's map
NOT_SETTLED = "Newton's second step, from where the first leads, is no shorter: between the two lies a kink or a jump"
ROUNDING = 1e-2  # what the rounding of I - J may do to its inverse, relatively


class Located(NamedTuple):
    """The ``radius`` of a ball around a state that holds exactly one equilibrium; infinite, with the ``reason``, where none is shown."""

    radius: float
    reason: str = ""

    @property
    def is_shown(self) -> bool:
        """Whether there is such a ball."""
        return self.radius < float("inf")


@torch.no_grad()
def locate(
    field: Callable[[Tensor], Tensor], jacobian: Callable[[Tensor], Tensor], z: Tensor, generator: torch.Generator
) -> Located:
    """Return the ball around ``z`` (n,), float64, that holds an equilibrium of f.

    ``field`` is F, (B, n) -> (B, n), and ``jacobian`` J, (n,) -> (n, n).
    """
    slope = jacobian(z)
    matrix = torch.eye(len(z), dtype=z.dtype) - slope
    step_field = field(z[None]).squeeze(0)
    if not bool(matrix.isfinite().all() & step_field.isfinite().all()):
        return _none("the cell or its Jacobian is not finite there")
    inverse, failed = torch.linalg.inv_ex(matrix)
    magnified = float(inverse.norm()) * (float(slope.norm()) + len(z) ** 0.5)
    if bool(failed) or not magnified * torch.finfo(z.dtype).eps <= ROUNDING:
        return _none("I - J is singular there to rounding, so that Newton's step says nothing")
    rounding = (
        4 * torch.finfo(z.dtype).eps * (inverse.abs() @ (2 * z.abs() + step_field.abs())).norm()
    )  # of f(z) - z itself
    step = float((inverse @ step_field).norm() + rounding)
    largest = NEAR * max(1.0, float(z.norm()))
    radius = max(2 * step / STEP, torch.finfo(z.dtype).eps * max(1.0, float(z.norm())))
    rays = directions(PAIRS, len(z), generator)
    rays = torch.stack([rays, -rays], 1).flatten(0, 1)
    while radius <= largest:
        offsets = radius * rays
        offsets = (z + offsets) - z  # what rounding left of them
        bent = field(z + offsets) - step_field + offsets @ matrix.T
        if step <= STEP * radius and float((bent @ inverse.T).norm(dim=1).max()) <= LIPSCHITZ * radius:
            ball = _checked(jacobian, z, slope, inverse, offsets, radius)
            moved = z + inverse @ step_field
            again, failed = torch.linalg.solve_ex(
                torch.eye(len(z), dtype=z.dtype) - jacobian(moved), field(moved[None])[0]
            )
            if not ball.is_shown or (not bool(failed) and is_settled(inverse @ step_field, again, float(rounding), z)):
                return ball
            return _none(NOT_SETTLED)
        radius *= 10
    if step > STEP * largest / 2:
        return _none(f"Newton's step there is {step:.1e} long, which is not small beside the state")
    return _none("rounding or a kink moves Newton's map as much as the states next to it differ")


def is_settled(first: Tensor, second: Tensor, rounding: float, z: Tensor) -> bool:
    """Whether Newton's ``second`` step, evaluated where the ``first`` leads from ``z``, is small beside that, or is of rounding.

    What values at a distance of the ball's radius do not show, a jump or a kink between the state and where the step leads, shows here.
    """
    allowed = STEP * first.norm() + 2 / STEP * rounding + torch.finfo(z.dtype).eps * z.norm().clamp(min=1)
    return bool(second.norm() <= allowed)


def _checked(
    jacobian: Callable[[Tensor], Tensor], z: Tensor, slope: Tensor, inverse: Tensor, offsets: Tensor, radius: float
) -> Located:
    """Return the ball where the Jacobian of Newton's map, A (J(w) - J(z)), is small at some of ``offsets`` (B, n) too."""
    for offset in offsets[: 2 * JACOBIANS]:
        change = inverse @ (jacobian(z + offset) - slope)
        if not bool(change.isfinite().all()):
            return _none("the Jacobian is not finite next to it")
        if float(change.norm()) > LIPSCHITZ and float(spectral_norm(change)) > LIPSCHITZ:
            return _none("the Jacobian jumps there, so that Newton's map need not contract")
    return Located(radius)


def _none(reason: str) -> Located:
    return Located(float("inf"), reason)
