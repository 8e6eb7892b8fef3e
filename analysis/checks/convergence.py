"""Do the solvers converge? The model's own with its own settings, and three solvers at equal evaluations of the cell."""

import torch
from torch import Tensor

from analysis.checks.witness import Replay, require_one_image, unknown_claim
from analysis.evidence.sampling import clopper_pearson_upper
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.findings.values import number
from analysis.measure.solvers import SOLVERS, residual_curve, trace_solver
from analysis.measure.subject import Subject
from stabdeq.percent import percent
from stabdeq.solvers import Solution, Status, norm, relative_residual

TOLERANCE = 1e-9
EVALUATIONS = 60
COMPARED = ("anderson", "broyden", "picard")


@torch.no_grad()
def check(subject: Subject) -> CheckResult:
    """Judge the model's own solver; compare Anderson, Broyden and Picard from z = 0 at equal evaluations."""
    result = CheckResult(findings=[_own_solver(subject)], series={"tolerance": TOLERANCE, "solvers": {}})
    for name in COMPARED:
        solution = trace_solver(subject, SOLVERS[name], TOLERANCE, EVALUATIONS)
        converged = float(solution.converged.double().mean())
        result.series["solvers"][name] = residual_curve(solution) | {"converged": converged}
        result.measurements.append(_measurement(name, solution))
    return result


def _solve(subject: Subject) -> tuple[Solution, Tensor, Tensor]:
    """Return the model's own solution, its residuals measured anew (a solver's word is no evidence), and where it lied."""
    solution = subject.model.solve(subject.h)
    measured = relative_residual(solution.z.flatten(1), subject.model.cell(solution.z, subject.h).flatten(1))
    return solution, measured, solution.converged & ~(measured <= 2 * solution.residual + TOLERANCE)


def _own_solver(subject: Subject) -> Finding:
    solution, measured, untrue = _solve(subject)
    failed = (~solution.converged | untrue).nonzero().squeeze(1)
    count = len(solution.converged)
    witness = None
    if len(failed):
        position = int(failed[measured[failed].nan_to_num(nan=torch.inf).argmax()])
        residual = float(measured[position])
        image = int(subject.indices[position])
        lied = f"{int(untrue.sum())} are called converged and are not" if bool(untrue.any()) else ""
        reason = "; ".join(part for part in (solution.describe_failures(), lied) if part)
        evidence = f"{reason}. Test image {image} stops at residual {residual:.1e}, measured anew."
        witness = {
            "image": image,
            "residual": residual,
            "status": Status(int(solution.status[position])).name,
        }
    else:
        bound = clopper_pearson_upper(0, count)
        evidence = (
            f"All {count} images converge, after {int(solution.evaluations.max())} evaluations of the cell at most and a residual of "
            f"{float(measured.max()):.1e} at most, measured anew. {_cost(subject, solution)} Fewer than "
            f"{100 * bound:.2g} % of images fail, with 95 % confidence."
        )
    return Finding(
        check="convergence",
        name="own solver",
        claim="The model's own solver, with its own settings, reaches its tolerance on every audited image.",
        verdict=Verdict.REFUTED if len(failed) else Verdict.SUPPORTED,
        margin=None,
        evidence=evidence,
        samples=count,
        tolerance=TOLERANCE,
        dtype="float64",
        seed=subject.seed,
        witness=witness,
    )


def _cost(subject: Subject, solution: Solution) -> str:
    """Say how far the states that the model predicts from lie from the accurate equilibria, and what that changes."""
    found = subject.found
    near, accurate = solution.z[found], subject.solution.z[found]
    if not len(found):
        return ""
    distance = float(norm(near - accurate).max())
    there = f"They lie within {distance:.1e} of the audit's own equilibria"
    if subject.answers == "numbers":
        change = float((subject.model.readout(near) - subject.model.readout(accurate)).abs().max())
        return f"{there}; what is read from them differs by at most {change:.1e}."
    flips = int((subject.read(near.flatten(1)) != subject.read(accurate.flatten(1))).sum())
    return f"{there}; {flips} predictions differ."


def _measurement(name: str, solution: Solution) -> Measurement:
    converged = float(solution.converged.double().mean())
    evaluations = solution.evaluations[solution.converged].double()
    typical = f", in {float(evaluations.median()):.0f} evaluations (median)" if len(evaluations) else ""
    failures = solution.describe_failures()
    text = (
        f"{name} reaches {TOLERANCE:g} within {EVALUATIONS} evaluations on {percent(converged, 1)} of images{typical}"
    )
    return Measurement(
        check="convergence", name=name, value=converged, text=f"{text}; {failures}" if failures else text
    )


@torch.no_grad()
def replay(subject: Subject, finding: Finding) -> Replay:
    """Solve anew, alone, for the image that the witness of ``finding`` names."""
    if finding.name != "own solver":
        raise unknown_claim(finding)
    require_one_image(subject)
    solution, measured, untrue = _solve(subject)
    return Replay(
        quantity="residual where the solver stops",
        reported=number((finding.witness or {}).get("residual")),
        now=float(measured),
        refutes=bool(~solution.converged | untrue),
    )
