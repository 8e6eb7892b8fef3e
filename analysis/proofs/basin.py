"""A quadratic function that falls around the equilibrium as far as {V <= C1} reaches, where V itself tells nothing.

W(z) = (z - c)' P (z - c), with P from linear inequalities at sampled states: W-dot < 0, or W(z+) < W(z). That W falls on {W <= w} outside
of a ball from which all tends to the equilibrium, and that {V <= C1} lies in {W <= w}, is then proved on boxes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from analysis.evidence.regions import Box, Outside
from analysis.evidence.sampling import directions
from analysis.evidence.sublevel import Sublevel
from analysis.findings import exactly
from analysis.proofs.box_search import Proof, Search, Unproved
from analysis.proofs.boxes import prove_claim
from analysis.proofs.rest import Rest
from analysis.proofs.steps import prove_of_steps
from stabdeq.linear_algebra import solved

STATES, ROUNDS, ADDED = 4096, 16, 64
MOST_ECCENTRIC = 1e6  # quotient of the eigenvalues of P
BEYOND = 1.05  # how far past {V <= C1}, as it was seen, the states are sampled
SMALLEST = 1e-4  # of the set's size, from which on states are sampled, evenly by logarithm


def prove_basin(
    search: Search, rest: Rest, lower: float, edge: Tensor, *, in_steps: bool, generator: torch.Generator
) -> Proof | Unproved:
    """Return the proof that every trajectory from {V <= ``lower``} tends to the equilibrium; ``edge`` (k, n) are states at its boundary."""
    move, value, centre = search.motion_function, search.value_function, search.centre
    assert move is not None
    if not rest.attracts:
        return Unproved("no box around the equilibrium is shown to draw what begins there to it.")
    form = falling_form(move, centre, edge, in_steps=in_steps, generator=generator)
    if form is None:
        return Unproved(
            "no quadratic function was found that falls around the equilibrium as far as the level reaches."
        )

    def bowl(states: Tensor) -> Tensor:
        return ((states - centre) @ form * (states - centre)).sum(1)

    width = float(bowl(centre + BEYOND * (edge - centre)).max())
    half = BEYOND * (width * solved(form, torch.eye(len(form), dtype=torch.float64)).diagonal()).sqrt()
    set_of_bowl = Sublevel(Box(centre, centre - half, centre + half), bowl, width)
    falls = _proof_of_decrease(bowl, move, Outside(set_of_bowl, rest.attracts), search, in_steps=in_steps)
    if isinstance(falls, Unproved):
        return Unproved(f"the quadratic function that was tried is not shown to fall: {falls.reason}")
    limits = {"max_boxes": search.max_boxes, "deadline": search.deadline}
    stays = prove_claim("closed", bowl, None, set_of_bowl, None, **limits)
    if isinstance(stays, Unproved):
        return stays

    def holds_or_is_above(states: Tensor) -> Tensor:  # > 0 where W < w, or V > C1
        return torch.maximum(width - bowl(states), value(states) - lower)

    holds = prove_claim("positive", holds_or_is_above, None, search.base, None, **limits)
    if isinstance(holds, Unproved):
        return Unproved(
            f"{{V <= {exactly(lower)}}} is not shown to lie where a quadratic function falls: {holds.reason}"
        )
    words = f"a quadratic function falls on a set around {{V <= {exactly(lower)}}}, on {falls.boxes} boxes"
    return Proof(words, falls.boxes + stays.boxes + holds.boxes)


def falling_form(
    move: Callable[[Tensor], Tensor], centre: Tensor, edge: Tensor, *, in_steps: bool, generator: torch.Generator
) -> Tensor | None:
    """Return P (n, n), I <= P, of least condition with W falling at sampled states within ``edge`` (k, n), or None.

    The states fill the least set of W that holds the edge, and are drawn anew for the W that was found.
    """
    rays = edge - centre
    states = centre + BEYOND * rays * SMALLEST ** torch.rand(len(rays), 1, generator=generator, dtype=torch.float64)
    form = None
    for _ in range(ROUNDS):
        form = _solution(_changes(move, centre, states, in_steps=in_steps))
        if form is None:
            return None
        inside = _inside(form, centre, rays, generator)
        change = _changes(move, centre, inside, in_steps=in_steps) @ form.flatten()
        worst = change.argsort(descending=True)[:ADDED]
        if float(change[worst[0]]) < 0:
            return form
        states = torch.cat([states, inside[worst]])
    return form


def _solution(changes: Tensor) -> Tensor | None:
    """Return P (n, n), the roundest with ``changes`` (B, n n) . P < 0 for all, or None."""
    import cvxpy

    n = round(changes.shape[1] ** 0.5)
    form, largest, margin = cvxpy.Variable((n, n), PSD=True), cvxpy.Variable(), cvxpy.Variable()
    eye = torch.eye(n).numpy()
    rules = [changes.numpy() @ cvxpy.vec(form, order="C") <= -margin, form >> eye, largest * eye >> form]
    problem = cvxpy.Problem(cvxpy.Maximize(margin), [*rules, largest <= MOST_ECCENTRIC, margin <= 1])
    try:
        problem.solve(solver=cvxpy.CLARABEL)
    except cvxpy.SolverError:
        return None
    if form.value is None or margin.value is None or not margin.value > 0:
        return None
    found = torch.as_tensor(form.value, dtype=torch.float64)
    return (found + found.mT) / 2


def _changes(move: Callable[[Tensor], Tensor], centre: Tensor, states: Tensor, *, in_steps: bool) -> Tensor:
    """Return (B, n n), whose product with P is W-dot / 2, or W(z+) - W(z), by |z - c|^2."""
    offset = states - centre
    with torch.no_grad():
        moved = move(states)
    if in_steps:
        after = moved - centre
        products = after[:, :, None] * after[:, None, :] - offset[:, :, None] * offset[:, None, :]
    else:
        products = offset[:, :, None] * moved[:, None, :]
    return (products / offset.square().sum(1)[:, None, None]).flatten(1)


def _inside(form: Tensor, centre: Tensor, rays: Tensor, generator: torch.Generator) -> Tensor:
    """Return states (4096, n) of the least set of the form's function that holds all ``rays`` from the centre, at all scales."""
    width = BEYOND**2 * ((rays @ form) * rays).sum(1).max().sqrt()
    around = directions(STATES, len(centre), generator)
    around = around / ((around @ form) * around).sum(1, keepdim=True).sqrt()
    share = torch.rand(STATES, 1, generator=generator, dtype=torch.float64)
    evenly = torch.arange(STATES)[:, None] % 2 == 0
    return centre + width * around * torch.where(evenly, share, SMALLEST**share)


def _proof_of_decrease(
    value: Callable[[Tensor], Tensor],
    move: Callable[[Tensor], Tensor],
    region: Outside,
    search: Search,
    *,
    in_steps: bool,
) -> Proof | Unproved:
    limits = {"max_boxes": search.max_boxes, "deadline": search.deadline}
    if in_steps:
        return prove_of_steps("decrease", value, move, region, 0.0, **limits)
    return prove_claim("decrease", value, move, region, None, **limits)
