"""Is there an equilibrium, is it the only one, and does the stabilised field keep it?"""

import torch
from torch import Tensor

from analysis.checks.witness import (
    Replay,
    at_equilibrium,
    lyapunov_of,
    state_of,
    unknown_claim,
    violation_of,
)
from analysis.evidence.sampling import clopper_pearson_upper
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.measure.subject import DENSE, TOLERANCE, Subject, solve_accurately
from analysis.proofs.cells.linf_margins import contraction_bound
from analysis.proofs.matrices.enclosure import Enclosure, spectral_norm_bound
from stabdeq.cells import CertifiedCell, IntervalCell, MonotoneCell, is_as_made
from stabdeq.errors import NotReplayableError
from stabdeq.solvers import Status, norm, relative_residual

RESTARTS = 8
KNOWN = 1e-3  # relative error, by Newton's step, up to which a state counts as known
DISTINCT = 1e-6  # relative distance beyond which two converged equilibria differ


@torch.no_grad()
def check(subject: Subject) -> CheckResult:
    """Judge existence, uniqueness and preservation of the equilibria."""
    result = CheckResult(findings=[_exists(subject)])
    if not len(subject.found):
        return result
    restarts = _restart(subject)
    result.findings.append(_unique(subject, restarts))
    result.measurements.append(restarts.measurement)
    if "equilibrium.preserved" in subject.claims:
        result.findings.append(_preserved(subject))
    return result


def _finding(subject: Subject, name: str, claim: str, **values: object) -> Finding:
    settings = {
        "check": "equilibrium",
        "name": name,
        "claim": claim,
        "dtype": "float64",
        "seed": subject.seed,
    }
    return Finding(**settings, **values)  # pyrefly: ignore


def _exists(subject: Subject) -> Finding:
    claim = "For every audited image the cell has an equilibrium f(z, h) = z, and a solver finds it from z = 0."
    count, found = len(subject.images), len(subject.found)
    # One image at a time: the residual must not depend on its neighbours in the batch.
    replayed = [_replayed_residual(subject, position) for position in subject.found.tolist()]
    worst = max(replayed, default=float("inf"))
    common = {"samples": count, "tolerance": TOLERANCE}
    vague = [position for position in range(found) if _is_vague(subject, position)]
    if found == count and worst <= 10 * TOLERANCE and not vague:
        bound = clopper_pearson_upper(0, count)
        evidence = (
            f"All {count} images: residual at most {worst:.1e} relative to the state, evaluated anew one image at a time. "
            f"Of all test images fewer than {100 * bound:.2g} % fail, with 95 % confidence."
        )
        return _finding(
            subject,
            "exists",
            claim,
            verdict=Verdict.SUPPORTED,
            margin=1 - worst / TOLERANCE,
            evidence=evidence,
            **common,
        )
    if found < count:
        position = int((~subject.solution.converged).nonzero()[0])
        reason = f"No equilibrium was found for some images: {subject.solution.describe_failures()}."
    elif worst > 10 * TOLERANCE:
        position = int(subject.found[replayed.index(worst)])
        reason = f"Evaluated one image at a time the residual is {worst:.1e}, not that of the batch: the cell couples samples."
    else:
        position = int(subject.found[vague[0]])
        reason = (
            f"For {len(vague)} images Newton's step is large where the residual is small: no equilibrium need be near."
        )
    witness = {
        "image": int(subject.indices[position]),
        "residual": float(subject.solution.residual[position]),
        "status": Status(int(subject.solution.status[position])).name,
    }
    evidence = f"{reason} Not finding one is no proof that there is none."
    return _finding(
        subject,
        "exists",
        claim,
        verdict=Verdict.INCONCLUSIVE,
        margin=None,
        evidence=evidence,
        witness=witness,
        **common,
    )


def _is_vague(subject: Subject, position: int) -> bool:
    z = subject.equilibria[position]
    return subject.dim <= DENSE and not _state_error(subject, z, position) <= KNOWN * max(1.0, float(z.norm()))


def _replayed_residual(subject: Subject, position: int) -> float:
    z = subject.solution.z[position : position + 1]
    return float(relative_residual(z, subject.model.cell(z, subject.h[position : position + 1])))


class _Restarts:
    """Equilibria reached from random starts: states (M, R, n), whether each converged, and how far from the first."""

    def __init__(self, subject: Subject, starts: Tensor, states: Tensor, converged: Tensor) -> None:
        first = subject.equilibria[:, None]
        self.starts, self.states, self.converged = starts, states, converged
        self.distance = (states - first).norm(dim=2) / first.norm(dim=2).clamp(min=1)
        self.differs = converged & (self.distance > DISTINCT)

    @property
    def measurement(self) -> Measurement:
        """The share of images whose unprojected cell has more than one equilibrium, as far as seen."""
        share = float(self.differs.any(1).double().mean())
        text = (
            f"{share:.1%} of {len(self.states)} images showed a second equilibrium of the unprojected cell from {RESTARTS} random "
            f"starts each; {float(self.converged.double().mean()):.1%} of the restarts converged"
        )
        return Measurement(check="equilibrium", name="second equilibria", value=share, text=text)


def _restart(subject: Subject) -> _Restarts:
    count, dim = subject.equilibria.shape
    shape = (count, RESTARTS, dim)
    scale = torch.logspace(-1, 1, RESTARTS, dtype=torch.float64)[:, None] * subject.radius / dim**0.5
    starts = torch.randn(shape, generator=subject.generator(), dtype=torch.float64) * scale
    which = torch.arange(count).repeat_interleave(RESTARTS)
    h = subject.h[subject.found[which]]
    solution = solve_accurately(
        lambda z: subject.model.cell(z, h), starts.flatten(0, 1).view(-1, *subject.solution.z.shape[1:])
    )
    return _Restarts(subject, starts, solution.z.reshape(shape), solution.converged.view(count, RESTARTS))


def _unique(subject: Subject, restarts: _Restarts) -> Finding:
    anchored = subject.lyapunov is not None and subject.lyapunov.centre == "equilibrium"
    common = {"samples": restarts.converged.numel(), "tolerance": DISTINCT}
    if anchored and subject.structured:
        evidence = (
            "By construction: away from z* the stabilised field satisfies grad V · F^ <= -alpha V < 0, so it cannot vanish, and V's "
            f"weights give V > 0 there for all states. Of the unprojected cell: {restarts.measurement.text}."
        )
        claim = "z* is the only equilibrium of the stabilised field."
        return _finding(subject, "unique", claim, verdict=Verdict.PROVED, margin=None, evidence=evidence, **common)
    claim = "The equilibrium is the only one: it does not depend on where the solver starts."
    rate, norm_name = _proved_contraction(subject)
    if rate < 1 and not bool(restarts.differs.any()):
        evidence = (
            f"The cell is certified by construction: it contracts by {rate:.4g} in the {norm_name} norm, proved from its weights. "
            f"{restarts.measurement.text}."
        )
        return _finding(subject, "unique", claim, verdict=Verdict.PROVED, margin=1 - rate, evidence=evidence, **common)
    if bool(restarts.differs.any()):
        return _finding(subject, "unique", claim, **_second_equilibrium(subject, restarts), **common)
    largest = float(restarts.distance[restarts.converged].max()) if bool(restarts.converged.any()) else 0.0
    if not bool(restarts.converged.any(1).all()):
        evidence = f"For some images no restart converged, so nothing was compared. {restarts.measurement.text}."
        return _finding(
            subject, "unique", claim, verdict=Verdict.INCONCLUSIVE, margin=None, evidence=evidence, **common
        )
    bound = clopper_pearson_upper(0, len(restarts.states))
    evidence = (
        f"{restarts.measurement.text}; those that did agree to {largest:.1e}. Fewer than {100 * bound:.2g} % of images have a second "
        "one that these starts reach, with 95 % confidence; this is not a proof."
    )
    return _finding(
        subject,
        "unique",
        claim,
        verdict=Verdict.SUPPORTED,
        margin=1 - largest / DISTINCT,
        evidence=evidence,
        **common,
    )


def _proved_contraction(subject: Subject) -> tuple[float, str]:
    """Return a proved Lipschitz constant of a cell that is certified by construction, infinite of others, and in which norm."""
    cell = subject.model.cell
    if is_as_made(cell):
        if isinstance(cell, IntervalCell):
            return contraction_bound(cell), "maximum"
        if isinstance(cell, CertifiedCell | MonotoneCell):
            return spectral_norm_bound(Enclosure.exact(cell.fold().transition)), "Euclidean"
    return float("inf"), "Euclidean"


def _second_equilibrium(subject: Subject, restarts: _Restarts) -> dict[str, object]:
    position, restart = divmod(int(torch.where(restarts.differs, restarts.distance, -1).argmax()), RESTARTS)
    other = restarts.states[position, restart]
    residual = float(norm(subject.field(other[None], torch.tensor([position]))))
    distance = float(restarts.distance[position, restart])
    apart = float((other - subject.equilibria[position]).norm())
    error = _state_error(subject, subject.equilibria[position], position) + _state_error(subject, other, position)
    image = int(subject.indices[subject.found[position]])
    if not _are_two(apart, error, subject.equilibria[position]):
        evidence = (
            f"At test image {image} two restarts end {apart:.3g} apart, both with a small residual, but the residual there says "
            f"little about the state (its error may be {error:.1e}): one flat equilibrium, two, or none."
        )
        return {"verdict": Verdict.INCONCLUSIVE, "margin": None, "evidence": evidence}
    evidence = (
        f"Test image {image} has two equilibria {distance:.3g} apart relative to the first's norm; at the second, evaluated anew, "
        f"||f(z) - z|| = {residual:.1e}, so it is known to {error:.1e}. {restarts.measurement.text}."
    )
    witness = {
        "image": image,
        "state": other.tolist(),
        "first": subject.equilibria[position].tolist(),
        "start": restarts.starts[position, restart].tolist(),
        "replayed_residual": residual,
    }
    return {"verdict": Verdict.REFUTED, "margin": -distance, "evidence": evidence, "witness": witness}


def _are_two(apart: float, error: float, first: Tensor) -> bool:
    """Whether states ``apart``, known together to ``error``, are two equilibria for sure."""
    return error <= min(apart / 100, KNOWN * max(1.0, float(first.norm())))


def _state_error(subject: Subject, z: Tensor, position: int) -> float:
    """Return how far ``z`` (n,) may be from an equilibrium: the length of Newton's step, infinite where it is not computed."""
    if subject.dim > DENSE or not bool(torch.isfinite(z).all()):
        return float("inf")
    matrix = torch.eye(subject.dim, dtype=torch.float64) - subject.jacobian(z, position)
    field = subject.field(z[None], torch.tensor([position])).squeeze(0)
    return float(torch.linalg.lstsq(matrix, field[:, None], driver="gelsd").solution.norm())


def _preserved(subject: Subject) -> Finding:
    claim = "The stabilised field has the equilibrium that the model reads its prediction from."
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    which = torch.arange(len(subject.equilibria))
    z = subject.equilibria
    before, after = subject.field(z, which).norm(dim=1), subject.stabilised(z, which).norm(dim=1)
    common = {"samples": len(z), "tolerance": TOLERANCE}
    moved = (after - before) / z.norm(dim=1).clamp(min=1)
    if float(moved.max()) <= TOLERANCE:
        proved = lyapunov.centre == "equilibrium" and subject.structured
        reason = (
            "By construction: V is centred at z* and its gradient vanishes there, so the projection leaves F(z*) as it is. "
            if proved
            else ""
        )
        evidence = f"{reason}Evaluated at all {len(z)} equilibria, ||F^(z*)|| = ||F(z*)|| <= {float(after.max()):.1e}."
        verdict = Verdict.PROVED if proved else Verdict.SUPPORTED
        return _finding(subject, "preserved", claim, verdict=verdict, margin=None, evidence=evidence, **common)
    return _finding(subject, "preserved", claim, **_destroyed(subject, after, moved), **common)


def _destroyed(subject: Subject, after: Tensor, moved: Tensor) -> dict[str, object]:
    """Say that the stabilised field does not vanish at the equilibrium, and whether it vanishes anywhere."""
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    position = int(moved.argmax())
    image = int(subject.indices[subject.found[position]])
    which = torch.tensor([position])
    z = subject.equilibria[position][None]
    replayed, rate = _replay_stabilised(subject, z, which)
    words = (
        f"Test image {image}: at its equilibrium the unprojected field is 0, but the stabilised field has norm {replayed:.3g} "
        f"(V and its gradient taken anew, by automatic differentiation), so the state is pushed away from it."
    )
    if lyapunov.centre == "origin":
        everyone = torch.arange(len(subject.equilibria))
        at_origin = subject.field(torch.zeros_like(subject.equilibria), everyone).norm(dim=1)
        words += (
            f" V is centred at the origin: wherever z is not 0, V must fall at rate alpha, so the stabilised field cannot vanish; at "
            f"z = 0 it equals f(0, h), whose norm is at least {float(at_origin.min()):.3g} over all {len(after)} images."
        )
        if float(at_origin.min()) > 0:
            words += " The stabilised field therefore has no equilibrium at all."
        else:
            words += " Where that is 0, the origin is the equilibrium for every such image, whatever its class."
    witness = {
        "image": image,
        "state": z.squeeze(0).tolist(),
        "stabilised_norm": float(after[position]),
        "replayed_norm": replayed,
        "least_norm_proved": rate,
    }
    verdict = Verdict.REFUTED if replayed > TOLERANCE else Verdict.INCONCLUSIVE
    return {"verdict": verdict, "margin": -float(moved.max()), "evidence": words, "witness": witness}


def _replay_stabilised(subject: Subject, z: Tensor, which: Tensor) -> tuple[float, float]:
    """Return ||F^(z)|| by the projection's formula with an automatic gradient, and the bound alpha V / ||grad V|| below it."""
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    with torch.enable_grad():
        offset = (z - subject.centres()[which]).requires_grad_()
        value = lyapunov(offset)[0]
        (gradient,) = torch.autograd.grad(value.sum(), offset)
    field = subject.field(z, which)
    squared = gradient.square().sum()
    excess = ((gradient * field).sum() + lyapunov.alpha * value.detach()).clamp(min=0)
    return float(norm(field - gradient * excess / squared)), float(lyapunov.alpha * value.detach() / squared.sqrt())


@torch.no_grad()
def replay(subject: Subject, finding: Finding) -> Replay:
    """Evaluate anew the cell, or the stabilised field, at the equilibria that the witness of ``finding`` names."""
    if finding.name not in ("unique", "preserved"):
        raise unknown_claim(finding)
    if finding.name == "unique" and subject.structured and lyapunov_of(subject).centre == "equilibrium":
        raise NotReplayableError(
            "of this model the claim is about the stabilised field, which by construction has no other equilibrium"
        )
    state = state_of(finding, "state", subject.dim)
    settled = at_equilibrium(subject, state)
    if isinstance(settled, Replay):
        return settled
    return _again_moved(settled, finding) if finding.name == "preserved" else _again_two(settled, finding)


def _again_two(other: Subject, finding: Finding) -> Replay:
    first = at_equilibrium(other, state_of(finding, "first", other.dim))
    if isinstance(first, Replay):
        return first
    z, state = first.equilibria[0], other.equilibria[0]
    apart, error = float((state - z).norm()), _state_error(first, z, 0) + _state_error(other, state, 0)
    distance = apart / max(1.0, float(z.norm()))
    return Replay(
        quantity="distance of the two equilibria, relative to the first",
        reported=violation_of(finding),
        now=distance,
        refutes=distance > DISTINCT and _are_two(apart, error, z),
    )


def _again_moved(subject: Subject, finding: Finding) -> Replay:
    lyapunov_of(subject)
    z, which = subject.equilibria, torch.tensor([0])
    moved = (subject.stabilised(z, which).norm() - subject.field(z, which).norm()) / z.norm().clamp(min=1)
    replayed, _ = _replay_stabilised(subject, z, which)
    return Replay(
        quantity="norm of the stabilised field, relative to the state",
        reported=violation_of(finding),
        now=float(moved),
        refutes=float(moved) > TOLERANCE and replayed > TOLERANCE,
    )
