"""Is there an equilibrium, is it the only one, and does the stabilised field keep it?"""

from math import inf, isfinite

import torch
from torch import Tensor

from analysis.checks.uniqueness import judge_unique, replay_unique
from analysis.checks.witness import (
    Replay,
    at_equilibrium,
    lyapunov_of,
    state_of,
    unknown_claim,
    violation_of,
)
from analysis.evidence.sampling import clopper_pearson_upper
from analysis.findings import CheckResult, Finding, Verdict
from analysis.findings.four_digits import at_most
from analysis.measure.contraction import proved_contraction
from analysis.measure.equilibria import TOO_LARGE, located
from analysis.measure.newton import Located
from analysis.measure.subject import DENSE, TOLERANCE, Subject
from stabdeq.errors import NotReplayableError
from stabdeq.solvers import Status, norm, relative_residual


@torch.no_grad()
def check(subject: Subject) -> CheckResult:
    """Judge existence, uniqueness and preservation of the equilibria."""
    around: list[Located] = []
    for part in subject.parts(len(subject.found)):
        around += [located(subject, subject.equilibria[place], place) for place in range(part.start, part.stop)]
    result = CheckResult(findings=[_exists(subject, around)])
    if not len(subject.found):
        return result
    unique, elsewhere = judge_unique(subject, around)
    result.findings.append(unique)
    result.measurements.append(elsewhere)
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


def _exists(subject: Subject, around: list[Located]) -> Finding:
    claim = "For every audited image the cell has an equilibrium f(z, h) = z, and a solver finds it from z = 0."
    count, found = len(subject.images), len(subject.found)
    # One image at a time: the residual must not depend on its neighbours in the batch.
    replayed = [
        _replayed_residual(subject, position)
        for part in subject.parts(found)
        for position in subject.found[part].tolist()
    ]
    replayed = [residual if isfinite(residual) else inf for residual in replayed]  # NaN, which is never the largest
    worst = max(replayed, default=inf)
    common = {"samples": count, "tolerance": TOLERANCE}
    contraction = proved_contraction(subject)
    if found == count and worst <= 10 * TOLERANCE and contraction is not None:
        speeds = [
            subject.field(subject.equilibria[part], torch.arange(part.start, part.stop)).norm(dim=1).max()
            for part in subject.parts(count)
        ]
        furthest = float(torch.stack(speeds).max()) / (1 - contraction.rate)
        evidence = (
            f"By construction: {contraction.words}, so it has an equilibrium, and no other. The state that the solver finds is within "
            f"{at_most(furthest)} of it in that norm, to rounding, at all {count} images: the residual is at most {worst:.1e} relative to "
            "max(1, ||z||), evaluated anew one image at a time."
        )
        return _finding(
            subject, "exists", claim, verdict=Verdict.PROVED, margin=1 - worst / TOLERANCE, evidence=evidence, **common
        )
    vague = [] if subject.dim > DENSE else [place for place, ball in enumerate(around) if not ball.is_shown]
    if found == count and worst <= 10 * TOLERANCE and not vague:
        bound = clopper_pearson_upper(0, count)
        evidence = (
            f"All {count} images: residual at most {worst:.1e} relative to max(1, ||z||), evaluated anew one image at a time. "
            f"{_how_shown(subject, around)} Of all test images fewer than {100 * bound:.2g} % fail, with 95 % confidence."
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
            f"At {len(vague)} of {count} images the residual is small, but no equilibrium need be near: at test image "
            f"{int(subject.indices[position])} {around[vague[0]].reason}."
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


def _how_shown(subject: Subject, around: list[Located]) -> str:
    if subject.dim > DENSE:
        return f"That alone was looked at, for these are {TOO_LARGE}: a small residual need not mean that an equilibrium is near."
    radius = max(ball.radius for ball in around)
    return (
        f"Each is within {radius:.1e} of an equilibrium: Newton's map carries that ball into itself, as values and Jacobians sampled "
        "there show (numerically, no proof)."
    )


def _replayed_residual(subject: Subject, position: int) -> float:
    z = subject.solution.z[position : position + 1]
    return float(relative_residual(z, subject.model.cell(z, subject.h[position : position + 1])))


def _preserved(subject: Subject) -> Finding:
    claim = "The stabilised field has the equilibrium that the model reads its prediction from."
    lyapunov = subject.lyapunov
    assert lyapunov is not None
    norms = [_norms(subject, torch.arange(part.start, part.stop)) for part in subject.parts(len(subject.found))]
    after, moved = (torch.cat(parts) for parts in zip(*norms, strict=True))
    common = {"samples": len(after), "tolerance": TOLERANCE}
    if float(moved.max()) <= TOLERANCE:
        proved = lyapunov.centre == "equilibrium" and subject.structured
        reason = (
            "By construction: V is centred at z* and its gradient vanishes there, so the projection leaves F(z*) as it is. "
            if proved
            else ""
        )
        evidence = (
            f"{reason}Evaluated at all {len(after)} equilibria, ||F^(z*)|| = ||F(z*)|| <= {float(after.max()):.1e}."
        )
        verdict = Verdict.PROVED if proved else Verdict.SUPPORTED
        return _finding(subject, "preserved", claim, verdict=verdict, margin=None, evidence=evidence, **common)
    return _finding(subject, "preserved", claim, **_destroyed(subject, after, moved), **common)


def _norms(subject: Subject, which: Tensor) -> tuple[Tensor, Tensor]:
    """Return ||F^(z*)|| (B,) of the found images ``which`` (B,), and by how much it exceeds ||F(z*)||, relative to the state."""
    z = subject.equilibria[which]
    before, after = subject.field(z, which).norm(dim=1), subject.stabilised(z, which).norm(dim=1)
    return after, (after - before) / z.norm(dim=1).clamp(min=1)


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
        at_origin = [
            subject.field(torch.zeros_like(subject.equilibria[part]), torch.arange(part.start, part.stop)).norm(dim=1)
            for part in subject.parts(len(subject.found))
        ]
        nearest = float(torch.cat(at_origin).min())
        words += (
            f" V is centred at the origin: wherever z is not 0, V must fall at rate alpha, so the stabilised field cannot vanish; at "
            f"z = 0 it equals f(0, h), whose norm is at least {nearest:.3g} over all {len(after)} images."
        )
        if nearest > 0:
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
    return _again_moved(settled, finding) if finding.name == "preserved" else replay_unique(settled, finding)


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
