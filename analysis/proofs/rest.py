"""The equilibrium next to the centre, which need not be a machine number, and from how far around it trajectories tend to it.

With F the velocity, or the way z+ - z of a step, Krawczyk's operator K(X) = c - Y F(c) + (I - Y J(X)) (X - c) maps a box X around the
centre into its interior only if X holds exactly one zero of F. J(X) bounds the Jacobian over X, and Y is about its inverse at c.

On a box N around the zero z*, f(z) = M (z - z*) with M between the bounds of f's Jacobian over N. Where P M + M' P is negative
definite for all these M, or M' P M - P in steps, (z - z*)' P (z - z*) falls along every trajectory in N but at z*.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import torch
from torch import Tensor

from analysis.proofs.box_search import HALVINGS, Search
from analysis.proofs.intervals.graph import FunctionEnclosure
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.matrices.enclosure import Enclosure, identity
from stabdeq.linear_algebra import solved, solved_lyapunov, symmetric_eigenvalues

DOUBLINGS = 40
MARGIN = 0.99  # what a certificate is asked for less than the float estimate of it


@dataclass(frozen=True)
class Rest:
    """An equilibrium, and no other, within ``distance`` of the centre; trajectories from within ``attracts`` of the centre tend to it.

    ``attracts`` is 0 where none is shown to.
    """

    distance: float
    attracts: float

    @property
    def nearness(self) -> str:
        """``distance`` in two digits, rounded upwards."""
        return f"{float(Context(2, ROUND_CEILING).create_decimal_from_float(self.distance)):.2g}"

    @property
    def reach(self) -> str:
        """``attracts`` in three digits, rounded downwards."""
        return f"{float(Context(3, ROUND_FLOOR).create_decimal_from_float(self.attracts)):.3g}"


def find_rest(search: Search, *, in_steps: bool) -> Rest | None:
    """Return the equilibrium next to the centre of the search's region, where one is enclosed."""
    move = search.motion_function
    assert move is not None
    motion = search.motion
    field = search.enclosure(lambda states: move(states) - states) if in_steps else motion
    distance = _distance(field, search.centre, float(search.base.radius))
    if distance is None:
        return None
    return Rest(distance, _attracting_radius(motion, search, distance, in_steps=in_steps))


def _distance(field: FunctionEnclosure, centre: Tensor, radius: float) -> float | None:
    """Return at most how far from the centre the only zero of ``field`` in a box around it lies; None where none is shown."""
    point = Interval.point(centre[None])
    at_centre = field.at(centre)
    jacobian = _jacobian(at_centre.gradient)
    inverse = solved(jacobian.centre, torch.eye(len(centre), dtype=torch.float64)[None])
    if not bool(inverse.isfinite().all()):
        return None
    newton = Enclosure.exact(inverse) @ _enclosure(at_centre.value)[..., None]
    reach = (
        2 * float(newton.magnitude().max()) + 4 * torch.finfo(torch.float64).eps * float(centre.abs().max()) + 1e-300
    )
    for _ in range(DOUBLINGS):
        if not reach < radius:
            return None
        box = Interval(centre[None] - reach, centre[None] + reach)
        offset = _enclosure(box - point)[..., None]
        spread = identity(len(centre)) - Enclosure.exact(inverse) @ _jacobian(field(box, 1).gradient)
        image = (spread @ offset - newton).magnitude()  # of K(X) - c
        # Less than the true distance of the centre from the box's sides, whose rounding is of the centre's size.
        room = torch.minimum(centre - box.low, box.high - centre)[..., None] * (1 - 2**-50)
        if bool((image < room).all()):
            exact = bool((at_centre.value.magnitude == 0).all())
            return 0.0 if exact else float(image.norm()) * (1 + 1e-9)
        reach *= 2
    return None


def _attracting_radius(motion: FunctionEnclosure, search: Search, distance: float, *, in_steps: bool) -> float:
    """Return how far from the centre trajectories begin that one box around it shows to tend to the equilibrium."""
    centre, (low, high) = search.centre, search.corners
    matrix = _jacobian(motion.at(centre).gradient).centre[0]
    solution = _solution(matrix, in_steps=in_steps)
    if solution is None:
        return 0.0
    shares = 2.0 ** -torch.arange(HALVINGS + 1, dtype=torch.float64)[:, None]
    boxes = Interval(centre + shares * (low - centre), centre + shares * (high - centre))
    gaps = torch.minimum(centre - boxes.low, boxes.high - centre).amin(1)
    form, jacobians = Enclosure.exact(solution), _jacobian(motion(boxes, 1).gradient)
    if in_steps:
        falls = (form - jacobians.mT @ form @ jacobians).is_positive_definite()
    else:
        product = form @ jacobians
        falls = (-(product + product.mT)).is_positive_definite()
    enclosing = (falls & (gaps > 2 * distance)).nonzero()
    if not len(enclosing):
        return 0.0
    eigenvalues = symmetric_eigenvalues(solution)
    least, largest = MARGIN * eigenvalues[0], eigenvalues[-1] / MARGIN
    n = len(centre)
    bounded = (form - identity(n) * float(least)).is_positive_definite() & (
        identity(n) * float(largest) - form
    ).is_positive_definite()
    if not bool(bounded):
        return 0.0
    # {(z - z*)' P (z - z*) <= w} lies in the box for w = least (gap - distance)^2, and holds the ball of this radius around z*.
    gap = float(gaps[enclosing[0, 0]]) - distance
    return max(0.0, MARGIN * gap * float((least / largest).sqrt()) - distance)


def _solution(matrix: Tensor, *, in_steps: bool) -> Tensor | None:
    """Return P (n, n) with P A + A' P = -I, or A' P A - P = -I in steps, where A (n, n) is stable; else None."""
    n = len(matrix)
    eye = torch.eye(n, dtype=torch.float64)
    if in_steps:
        system = torch.eye(n * n, dtype=torch.float64) - torch.kron(matrix.mT.contiguous(), matrix.mT.contiguous())
        found = solved(system[None], eye.reshape(1, -1, 1)).reshape(n, n)
    else:
        found = solved_lyapunov(matrix.mT, -eye)
    found = (found + found.mT) / 2
    is_positive = bool(found.isfinite().all()) and bool((symmetric_eigenvalues(found) > 0).all())
    return found if is_positive else None


def _jacobian(gradient: Interval) -> Enclosure:
    """Return the Jacobians (B, n, n) that ``gradient`` (n, B, n), the derivatives along each coordinate, bounds."""
    return _enclosure(gradient.moved(lambda bound: bound.permute(1, 2, 0)))


def _enclosure(bounds: Interval) -> Enclosure:
    middle = bounds.low / 2 + bounds.high / 2
    return Enclosure(middle, (bounds - Interval.point(middle)).magnitude)
