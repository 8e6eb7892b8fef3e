"""Do the solvers converge? The model's own with its own settings, and three solvers at equal evaluations of the cell."""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.checks.witness import Replay, require_one_image, unknown_claim
from analysis.evidence.sampling import clopper_pearson_upper
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.findings.values import number
from analysis.measure.solutions import joined, stateless
from analysis.measure.solvers import SOLVERS, curve_of, trace_solver
from analysis.measure.subject import Subject
from stabdeq.percent import percent
from stabdeq.solvers import Solution, Status, norm, relative_residual

TOLERANCE = 1e-9
EVALUATIONS = 60
COMPARED = ("anderson", "broyden", "picard")
DRAWN = 1024  # images, the first ones and no fewer, whose residuals are drawn: of all others it is kept how they ended


@torch.no_grad()
def check(subject: Subject) -> CheckResult:
    """Judge the model's own solver; compare Anderson, Broyden and Picard from z = 0 at equal evaluations."""
    result = CheckResult(findings=[_own_solver(subject)], series={"tolerance": TOLERANCE, "solvers": {}})
    for name in COMPARED:
        ended, residuals = [], []
        for part in subject.parts(len(subject.images)):
            solution = trace_solver(subject, SOLVERS[name], TOLERANCE, EVALUATIONS, part)
            if part.start < DRAWN:
                assert solution.trace is not None
                residuals.append(solution.trace.residual)
            ended.append(stateless(solution))
        whole, drawn = joined(ended, ended[0].z), sum(part.shape[1] for part in residuals)
        converged = float(whole.converged.double().mean())
        result.series["solvers"][name] = curve_of(residuals) | {"converged": converged}
        if drawn < len(subject.images):
            result.series["drawn"] = drawn
        result.measurements.append(_measurement(name, whole))
    return result


@dataclass(frozen=True)
class _Solved:
    """How the model's own solver ended on N images, without its states.

    ``measured`` (N,) are its residuals measured anew (a solver's word is no evidence), and ``untrue`` (N,) bool says where it lied.
    Where an equilibrium is known and the solver did not fail, ``distance`` is the largest to it, and ``change`` what that changes in
    what is read: how many classes, or the largest difference of a number.
    """

    solution: Solution
    measured: Tensor
    untrue: Tensor
    distance: float
    change: float

    @property
    def failed(self) -> Tensor:
        """(F,) the positions of the images where it did not converge, or lied."""
        return (~self.solution.converged | self.untrue).nonzero().squeeze(1)


def _solve(subject: Subject) -> _Solved:
    parts = [_solve_some(subject, part) for part in subject.parts(len(subject.images))]
    distances, changes = [part.distance for part in parts], [part.change for part in parts]
    ended = [part.solution for part in parts]
    return _Solved(
        joined(ended, ended[0].z),
        torch.cat([part.measured for part in parts]),
        torch.cat([part.untrue for part in parts]),
        max(distances),
        max(changes) if subject.answers == "numbers" else sum(changes),
    )


def _solve_some(subject: Subject, which: slice) -> _Solved:
    """Solve for the images ``which``."""
    h = subject.h[which]
    solution = subject.model.solve(h)
    measured = relative_residual(solution.z.flatten(1), subject.model.cell(solution.z, h).flatten(1))
    untrue = solution.converged & ~(measured <= 2 * solution.residual + TOLERANCE)
    compared = subject.solution.converged[which] & solution.converged & ~untrue
    near, accurate = solution.z[compared], subject.solution.z[which][compared]
    distance, change = 0.0, 0.0
    if len(near):
        distance = float(norm(near - accurate).max())
        if subject.answers == "numbers":
            change = float((subject.model.readout(near) - subject.model.readout(accurate)).abs().max())
        else:
            change = float((subject.read(near.flatten(1)) != subject.read(accurate.flatten(1))).sum())
    return _Solved(stateless(solution), measured, untrue, distance, change)


def _own_solver(subject: Subject) -> Finding:
    solved = _solve(subject)
    solution, measured, untrue, failed = solved.solution, solved.measured, solved.untrue, solved.failed
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
            f"{float(measured.max()):.1e} at most, measured anew. {_cost(subject, solved)} Fewer than "
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


def _cost(subject: Subject, solved: _Solved) -> str:
    """Say how far the states that the model predicts from lie from the accurate equilibria, and what that changes."""
    if not len(subject.found):
        return ""
    there = f"They lie within {solved.distance:.1e} of the audit's own equilibria"
    if subject.answers == "numbers":
        return f"{there}; what is read from them differs by at most {solved.change:.1e}."
    return f"{there}; {int(solved.change)} predictions differ."


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
    solved = _solve(subject)
    return Replay(
        quantity="residual where the solver stops",
        reported=number((finding.witness or {}).get("residual")),
        now=float(solved.measured),
        refutes=len(solved.failed) > 0,
    )
