"""V, the stabilised field and its trajectories on two planes through V's centre, for the first audited image."""

import math
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.sampling import directions
from analysis.measure.rounding import rounded
from analysis.measure.rows import in_parts
from analysis.measure.subject import Subject
from analysis.measure.trajectories import follow
from stabdeq.lyapunov import LyapunovFunction

GRID = 41  # points on each axis at which V is taken
ARROWS = 17  # and the field
PATHS = 8  # trajectories from a circle around the centre, besides those from marked states
DIRECTIONS = 512
NUMBERS = 2**22  # in them
ITERATIONS = 50
LARGEST = 2**17  # numbers in a state, beyond which the thousands of evaluations that a plane takes are not made
APART = 1e-6  # of the radius: an equilibrium nearer to V's centre names no direction
SMALL = 1e-9  # of a direction that only rounding left
IMAGE = 0  # its position among the images whose equilibrium was found


@torch.no_grad()
def planes(subject: Subject, horizon: float) -> dict[str, Any]:
    """Return both planes as a plain series, with trajectories up to the time ``horizon``; lengths are Euclidean distances.

    "growth" is spanned by the direction in which V grows fastest, and of those at right angles to it the slowest.
    "classes" goes through the nearest equilibria of two other classes, or, where V is centred at the origin, through this
    image's own equilibrium and the nearest of another class.
    """
    if subject.dim < 2:
        return {"not_drawn": "a state of one component spans no plane"}
    if subject.dim > LARGEST:
        return {"not_drawn": f"planes are drawn of states of up to {LARGEST} numbers, and these have {subject.dim}"}
    lyapunov, centre = subject.lyapunov, subject.centres()[IMAGE]
    assert lyapunov is not None
    targets = _targets(subject)
    reach = max([float((subject.equilibria[target] - centre).norm()) for target in targets], default=0.0)
    half_width = 1.25 * reach or subject.radius / 2
    growth = _orthonormal(torch.stack(_extreme_directions(lyapunov, half_width, subject)))
    classes = _orthonormal(torch.cat([subject.equilibria[targets] - centre, growth]))
    own = [IMAGE] if lyapunov.centre == "origin" else []
    which = torch.tensor([IMAGE])
    return {
        "image": int(subject.indices[subject.found[IMAGE]]),
        "class": int(subject.labels[subject.found[IMAGE]]),
        "dim": subject.dim,
        "centre": lyapunov.centre,
        "speed_at_equilibrium": float(subject.stabilised(subject.equilibria[IMAGE][None], which).norm()),
        "growth": _plane(subject, growth, own, half_width, horizon),
        "classes": _plane(subject, classes, targets, half_width, horizon),
    }


def _targets(subject: Subject) -> list[int]:
    """Return the positions of the two equilibria that the second plane goes through, fewer where there are not so many."""
    z, labels = subject.equilibria, subject.labels[subject.found]
    parts = [
        ((z[part] - subject.centres()[IMAGE]).norm(dim=1), (z[part] - z[IMAGE]).norm(dim=1))
        for part in subject.parts(len(z))
    ]
    from_centre, from_image = (torch.cat(distances) for distances in zip(*parts, strict=True))
    apart = from_centre > APART * subject.radius
    nearest: dict[int, int] = {}
    for position in from_image.argsort().tolist():
        # This image's own is among them where it is not V's centre, and then it comes first.
        if bool(apart[position]) and (position == IMAGE or labels[position] != labels[IMAGE]):
            nearest.setdefault(int(labels[position]), position)
        if len(nearest) == 2:
            break
    return list(nearest.values())


def _extreme_directions(lyapunov: LyapunovFunction, distance: float, subject: Subject) -> tuple[Tensor, Tensor]:
    """Return the unit vectors (n,) along which V is largest at ``distance``, and at right angles to it smallest, as found.

    Both are power iterations with grad V, from the best of ``DIRECTIONS`` random vectors.
    """

    def grow(u: Tensor) -> Tensor:
        return lyapunov(distance * u[None])[1][0].detach()

    tried = min(DIRECTIONS, max(16, NUMBERS // subject.dim))
    sample = directions(tried, subject.dim, subject.generator())
    values = _values(lyapunov, distance * sample)
    fast = sample[values.nan_to_num(nan=-torch.inf).argmax()]
    for _ in range(ITERATIONS):
        fast = _unit(grow(fast), fast)
    across = sample - (sample @ fast)[:, None] * fast
    across = across[across.norm(dim=1) > SMALL]  # one of them may be the fastest itself
    across = across / across.norm(dim=1, keepdim=True)
    values = _values(lyapunov, distance * across)
    slow, shift = across[values.nan_to_num(nan=torch.inf).argmin()], grow(fast).norm()
    for _ in range(ITERATIONS):
        step = shift * slow - grow(slow)
        slow = _unit(step - (step @ fast) * fast, slow, least=SMALL * float(shift))
    return fast, slow


def _values(lyapunov: LyapunovFunction, offsets: Tensor) -> Tensor:
    """Return V (B,) at ``offsets`` (B, n) from its centre."""
    return torch.cat([lyapunov(offsets[part])[0].detach() for part in in_parts(*offsets.shape)])


def _unit(vector: Tensor, otherwise: Tensor, least: float = 0.0) -> Tensor:
    """Return ``vector`` (n,) at length 1, or ``otherwise`` where it is no longer than ``least`` and has no direction."""
    length = float(vector.norm())
    return vector / length if least < length < torch.inf else otherwise


def _orthonormal(vectors: Tensor) -> Tensor:
    """Return the plane (2, n), as orthonormal rows, of the first two independent ones among ``vectors`` (k, n)."""
    basis: list[Tensor] = []
    for vector in vectors:
        rest = vector
        for _ in range(2):  # once more, for what rounding left
            for axis in basis:
                rest = rest - (rest @ axis) * axis
        if len(basis) < 2 and float(rest.norm()) > SMALL * float(vector.norm()):
            basis.append(rest / rest.norm())
    return torch.stack(basis)


def _plane(subject: Subject, basis: Tensor, marked: list[int], half_width: float, horizon: float) -> dict[str, Any]:
    """Return V, the field and trajectories on the plane of ``basis`` (2, n), with the equilibria ``marked`` by position."""
    lyapunov, centre = subject.lyapunov, subject.centres()[IMAGE]
    assert lyapunov is not None
    axis, arrow_axis = (half_width * torch.linspace(-1, 1, count, dtype=torch.float64) for count in (GRID, ARROWS))
    points, feet = _grid(axis), _grid(arrow_axis)
    value = torch.cat([lyapunov(points[part] @ basis)[0] for part in in_parts(len(points), subject.dim)])
    velocity = torch.cat([_velocity(subject, feet[part], basis) for part in in_parts(len(feet), subject.dim)])
    angles = torch.arange(0.5, PATHS, dtype=torch.float64) * (2 * torch.pi / PATHS)
    circle = 0.95 * half_width * torch.stack([angles.cos(), angles.sin()], 1) @ basis
    marks = subject.equilibria[marked] - centre
    off = (marks - marks @ basis.T @ basis).norm(dim=1)
    inside = marks[off <= 1e-6 * half_width]
    start = centre + torch.cat([circle, inside])
    drawn, last, time, stopped = follow(subject, IMAGE, start, horizon, lambda states: (states - centre) @ basis.T)
    ends = (last - centre).norm(dim=1)
    return {
        "axis": rounded(axis.tolist()),
        "value": rounded(value.view(GRID, GRID).tolist()),
        "arrow_axis": rounded(arrow_axis.tolist()),
        "arrows": rounded(velocity.view(ARROWS, ARROWS, 2).tolist()),
        "paths": [rounded(_thinned(path.tolist(), half_width / 80)) for path in drawn.unbind(1)],
        "ends": rounded(ends.tolist()),
        "until": time,
        "stopped": stopped,
        "horizon": horizon,
        "marks": [
            {
                "class": int(subject.labels[subject.found[position]]),
                "own": position == IMAGE,
                "position": rounded((basis @ mark).tolist()),
                "off": float(distance),
            }
            for position, mark, distance in zip(marked, marks, off, strict=True)
        ],
    }


def _velocity(subject: Subject, points: Tensor, basis: Tensor) -> Tensor:
    """Return the part of the stabilised field in the plane of ``basis`` (2, n) at its ``points`` (k, 2), (k, 2)."""
    z = subject.centres()[IMAGE] + points @ basis
    return subject.stabilised(z, torch.full((len(z),), IMAGE)) @ basis.T


def _grid(axis: Tensor) -> Tensor:
    """Return the points (k * k, 2) of a square grid, its rows along the first coordinate."""
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def _thinned(path: list[list[float]], apart: float) -> list[list[float]]:
    """Return the points of ``path`` that lie ``apart`` from the one kept before, the first and the last among them."""
    kept = [path[0]]
    for point in path:
        if math.dist(point, kept[-1]) >= apart:
            kept.append(point)
    return [*kept, path[-1]]
