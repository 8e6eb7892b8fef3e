"""Is the equilibrium the only one? Two are two where balls that hold one each lie far apart, or the question stays open."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from analysis.checks.witness import Replay, at_equilibrium, state_of, violation_of
from analysis.evidence.sampling import clopper_pearson_upper
from analysis.findings import Finding, Measurement, Verdict
from analysis.measure.contraction import proved_contraction
from analysis.measure.equilibria import are_two, located
from analysis.measure.newton import Located
from analysis.measure.rows import in_parts
from analysis.measure.subject import DENSE, Subject, solve_accurately
from stabdeq.cells import CertifiedCell, IntervalCell, MonotoneCell, is_as_made
from stabdeq.percent import percent
from stabdeq.solvers import norm

RESTARTS = 8
COMPARED = 0.9  # of all restarts: fewer that converge leave open whether the start matters
EXAMINED = 32  # pairs of states that may be two equilibria, the farthest apart first
DISTINCT = 1e-6  # relative distance beyond which two converged equilibria differ


class _Ended(NamedTuple):
    """A restart of the image ``position`` from ``start`` (n,) that ended at ``state`` (n,), ``distance`` away from the first."""

    distance: float
    position: int
    start: Tensor
    state: Tensor


@dataclass(frozen=True)
class _Restarts:
    """Equilibria reached from random starts: whether each converged, and how far from the first it is, both (M, R).

    ``elsewhere`` are the restarts that ended at another state, the farthest first: the states of no others are kept.
    """

    converged: Tensor
    distance: Tensor
    elsewhere: list[_Ended]

    @property
    def differs(self) -> Tensor:
        """(M, R) which restarts ended elsewhere."""
        return self.converged & (self.distance > DISTINCT)

    @property
    def measurement(self) -> Measurement:
        """The share of images of which a restart ended elsewhere; whether at an equilibrium, the finding says."""
        share = float(self.differs.any(1).double().mean())
        text = (
            f"{percent(share, 1)} of {len(self.converged)} images ended at a second state of the unprojected cell from {RESTARTS} random "
            f"starts each; {percent(float(self.converged.double().mean()), 1)} of the restarts converged"
        )
        return Measurement(check="equilibrium", name="second equilibria", value=share, text=text)


def _restart(subject: Subject) -> _Restarts:
    generator = subject.generator()
    parts = in_parts(len(subject.found), RESTARTS * subject.dim)
    found = [_restart_some(subject, torch.arange(part.start, part.stop), generator) for part in parts]
    elsewhere = [ended for part in found for ended in part.elsewhere]
    return _Restarts(
        torch.cat([part.converged for part in found]),
        torch.cat([part.distance for part in found]),
        sorted(elsewhere, key=lambda ended: -ended.distance)[:EXAMINED],
    )


def _restart_some(subject: Subject, images: Tensor, generator: torch.Generator) -> _Restarts:
    """Return the restarts of the found ``images`` (M,), by position."""
    shape = (len(images), RESTARTS, subject.dim)
    scale = torch.logspace(-1, 1, RESTARTS, dtype=torch.float64)[:, None] * subject.radius / subject.dim**0.5
    starts = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    h = subject.h[subject.found[images.repeat_interleave(RESTARTS)]]
    solution = solve_accurately(subject.cell, starts.flatten(0, 1).view(-1, *subject.solution.z.shape[1:]), h)
    states, converged = solution.z.reshape(shape), solution.converged.view(shape[:2])
    first = subject.equilibria[images][:, None]
    restarts = _Restarts(converged, (states - first).norm(dim=2) / first.norm(dim=2).clamp(min=1), [])
    farthest = torch.where(restarts.differs, restarts.distance, -1).flatten().argsort(descending=True)
    for place in farthest[: min(EXAMINED, int(restarts.differs.sum()))].tolist():
        row, restart = divmod(place, RESTARTS)
        ended = _Ended(
            float(restarts.distance[row, restart]),
            int(images[row]),
            starts[row, restart].clone(),
            states[row, restart].clone(),
        )
        restarts.elsewhere.append(ended)
    return restarts


def judge_unique(subject: Subject, around: list[Located]) -> tuple[Finding, Measurement]:
    """Return the finding on uniqueness, and how often a restart ended elsewhere; ``around`` are the balls of the equilibria found."""
    restarts = _restart(subject)
    claim = "Where the cell has an equilibrium, that is its only one, wherever the solver starts."
    anchored = subject.lyapunov is not None and subject.lyapunov.centre == "equilibrium"
    contraction = proved_contraction(subject)
    judged: dict[str, object]
    if anchored and subject.structured:
        claim = "Where the cell has an equilibrium z*, that is the only one of the stabilised field."
        evidence = (
            "By construction: away from z* the stabilised field satisfies grad V · F^ <= -alpha V < 0, so it cannot vanish, and V's "
            f"weights give V > 0 there for all states. Of the unprojected cell: {restarts.measurement.text}."
        )
        judged = {"verdict": Verdict.PROVED, "margin": None, "evidence": evidence}
    elif contraction is not None:
        evidence = f"By construction: {contraction.words}. Evaluated besides: {restarts.measurement.text}."
        judged = {"verdict": Verdict.PROVED, "margin": 1 - contraction.rate, "evidence": evidence}
    elif bool(restarts.differs.any()):
        judged = _second_equilibrium(subject, restarts, around)
    else:
        judged = _agreement(subject, restarts, around)
    finding = Finding(
        check="equilibrium",
        name="unique",
        claim=claim,
        samples=restarts.converged.numel(),
        tolerance=DISTINCT,
        dtype="float64",
        seed=subject.seed,
        **judged,  # pyrefly: ignore
    )
    return finding, restarts.measurement


def replay_unique(other: Subject, finding: Finding) -> Replay:
    """Judge anew whether the equilibrium of ``other``, of one image, and the witness's first are two."""
    first = at_equilibrium(other, state_of(finding, "first", other.dim))
    if isinstance(first, Replay):
        return first
    z, state = first.equilibria[0], other.equilibria[0]
    apart = float((state - z).norm())
    distance = apart / max(1.0, float(z.norm()))
    is_shown = are_two(located(first, z, 0), located(other, state, 0), apart)
    return Replay(
        quantity="distance of the two equilibria, relative to the first",
        reported=violation_of(finding),
        now=distance,
        refutes=distance > DISTINCT and is_shown and not _has_one_by_make(other),
    )


def _agreement(subject: Subject, restarts: _Restarts, around: list[Located]) -> dict[str, object]:
    """Say what it is worth that all restarts which converged agree: of images and starts that were not compared it says nothing."""
    images, found = len(subject.images), len(restarts.converged)
    is_known = torch.tensor([ball.is_shown or subject.dim > DENSE for ball in around])
    converged = restarts.converged & is_known[:, None]
    compared, made, each = int(converged.sum()), images * RESTARTS, int(converged.any(1).sum())
    largest = float(restarts.distance[converged].max()) if compared else 0.0
    if each < images or compared < COMPARED * made:
        evidence = (
            f"Only {each} of {images} images and {compared} of {made} restarts could be compared, and those agree to {largest:.1e}; "
            "of the others no equilibrium was found for sure, so nothing is known of them. Mend the cell so that solvers converge from "
            "every start (a spectral norm below 1 is enough), or audit images whose equilibria are found."
        )
        return {"verdict": Verdict.INCONCLUSIVE, "margin": None, "evidence": evidence}
    bound = clopper_pearson_upper(0, found)
    evidence = (
        f"{compared} of {made} restarts, {RESTARTS} random ones for each of {images} images, converged and agree to {largest:.1e}. Fewer "
        f"than {100 * bound:.2g} % of images have a second one that these starts reach, with 95 % confidence; this is not a proof."
    )
    return {"verdict": Verdict.SUPPORTED, "margin": 1 - largest / DISTINCT, "evidence": evidence}


def _has_one_by_make(subject: Subject) -> bool:
    """Whether the cell is of a family with one equilibrium for all weights: what seems to be a second is rounding's."""
    cell = subject.model.cell
    return is_as_made(cell) and isinstance(cell, CertifiedCell | MonotoneCell | IntervalCell)


def doubt_of_two(subject: Subject, state: Tensor, position: int) -> str:
    """Say why ``state`` (n,) need not be an equilibrium beside that of the found image ``position``; empty where it is one."""
    if _has_one_by_make(subject):
        return "the cell has one equilibrium by its make"
    z = subject.equilibria[position]
    first, other = located(subject, z, position), located(subject, state, position)
    if are_two(first, other, float((state - z).norm())):
        return ""
    return first.reason or other.reason or "their balls are too near each other"


def _second_equilibrium(subject: Subject, restarts: _Restarts, around: list[Located]) -> dict[str, object]:
    """Say whether the restarts that ended elsewhere show two equilibria of one image, looking at the farthest first."""
    if _has_one_by_make(subject):
        evidence = (
            "The cell has one equilibrium by its make, but its weights are such that rounding does not let a contraction be proved, nor "
            f"tell the states where the solver stops from equilibria: {restarts.measurement.text}."
        )
        return {"verdict": Verdict.INCONCLUSIVE, "margin": None, "evidence": evidence}
    reasons = []
    for ended in restarts.elsewhere:
        position = ended.position
        first, other = around[position], located(subject, ended.state, position)
        if are_two(first, other, float((ended.state - subject.equilibria[position]).norm())):
            return _two(subject, restarts, ended, first, other)
        image = int(subject.indices[subject.found[position]])
        reasons.append(f"at test image {image} {first.reason or other.reason or 'their balls are too near each other'}")
    evidence = (
        f"Restarts end apart, all with a small residual, but whether at two equilibria, at one, or at none is not known: {reasons[0]}. "
        f"Of {len(reasons)} such pairs looked at, none holds two for sure. {restarts.measurement.text}."
    )
    return {"verdict": Verdict.INCONCLUSIVE, "margin": None, "evidence": evidence}


def _two(subject: Subject, restarts: _Restarts, ended: _Ended, first: Located, other: Located) -> dict[str, object]:
    distance, position, start, state = ended
    residual = float(norm(subject.field(state[None], torch.tensor([position]))))
    image = int(subject.indices[subject.found[position]])
    evidence = (
        f"Test image {image} has two equilibria {distance:.3g} apart relative to the first's norm: Newton's map carries a ball of radius "
        f"{first.radius:.1e} around the first, and one of {other.radius:.1e} around the second, into itself, as values and Jacobians "
        f"sampled there show; at the second, evaluated anew, ||f(z) - z|| = {residual:.1e}. {restarts.measurement.text}."
    )
    witness = {
        "image": image,
        "state": state.tolist(),
        "first": subject.equilibria[position].tolist(),
        "start": start.tolist(),
        "replayed_residual": residual,
    }
    return {"verdict": Verdict.REFUTED, "margin": -distance, "evidence": evidence, "witness": witness}
