"""Does the iteration do anything? Answers without it, from other starts, and after more of it than the model makes."""

from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from analysis.checks.witness import (
    Replay,
    at_equilibrium,
    require_equilibria,
    require_one_image,
    state_of,
    unknown_claim,
)
from analysis.evidence.sampling import clopper_pearson_upper
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.findings.values import number
from analysis.measure.subject import TOLERANCE, Subject, solve_accurately
from stabdeq.percent import percent
from stabdeq.solvers import Anderson, norm, solve

STEPS = (1, 2, 4, 8, 16, 32, 64)  # of Anderson's method; one evaluation more measures where they led
RESTARTS = 4
DISTINCT = 1e-6  # relative distance beyond which two converged states are two, as in the check of equilibria
UNMOVED = 1e-9  # relative change below which a second evaluation of the cell left the state where it was
SAME_ANSWER = "The answer at an image is the class of the largest logit, of each token where it has several"


@torch.no_grad()
def check(subject: Subject) -> CheckResult:
    """Judge whether the cell reads its state, and whether longer solves and other starts change answers; measure bypasses."""
    answers = subject.read(subject.equilibria)
    own = subject.model.solve(subject.h)
    stopped = own.z[subject.found].flatten(1)
    bypassed = {"where the model stops": stopped, **_bypasses(subject)}
    curve = {"steps": list(STEPS), **_after_steps(subject, answers)}
    labels = subject.labels[subject.found]
    accuracies = {name: _share(subject.read(z) == labels) for name, z in bypassed.items()}
    accuracies = {"the equilibrium": _share(answers == labels), **accuracies}
    findings = [_reads_state(subject), _longer(subject, answers, stopped, own.evaluations), _start(subject, answers)]
    result = CheckResult(findings=findings, series={"accuracies": accuracies, **curve})
    for name, accuracy in accuracies.items():
        agrees = 1.0 if name == "the equilibrium" else _share(subject.read(bypassed[name]) == answers)
        text = f"read from {name}, {percent(accuracy, 1)} of {labels.numel()} answers are right, and "
        text += f"{percent(agrees, 1)} are the equilibrium's"
        result.measurements.append(Measurement(check="iteration", name=name, value=accuracy, text=text))
    result.measurements.append(_difficulty(subject, own.evaluations[subject.found]))
    return result


def _differ(answers: Tensor, others: Tensor) -> Tensor:
    """Return where answers (M,) differ, or, of answers for tokens (M, T), one at least, (M,) bool."""
    return (answers != others).view(len(answers), -1).any(1)


def _share(outcomes: Tensor) -> float:
    return float(outcomes.double().mean())


def _bypasses(subject: Subject) -> dict[str, Tensor]:
    """Return the states (M, n) that stand in for the equilibrium, by what they are."""
    count, dim = subject.equilibria.shape
    which = torch.arange(count)
    states = {
        "one evaluation from 0": _next(subject, subject.equilibria.new_zeros(count, dim), which),
        "a random state": _noise(subject, 1)[:, 0],
        "the mean equilibrium": subject.equilibria.mean(0).expand(count, dim),
    }
    h = subject.h[subject.found].flatten(1)
    if h.shape == (count, dim):
        states["the features"] = h
    return states


def _next(subject: Subject, z: Tensor, which: Tensor) -> Tensor:
    return subject.field(z, which) + z


def _noise(subject: Subject, starts: int) -> Tensor:
    """Return random states (M, starts, n) as large as the equilibria are."""
    shape = (len(subject.equilibria), starts, subject.dim)
    scale = float(subject.equilibria.norm(dim=1).mean().clamp(min=1)) / subject.dim**0.5
    return scale * torch.randn(shape, generator=subject.generator(), dtype=torch.float64)


def _after_steps(subject: Subject, answers: Tensor) -> dict[str, list[float]]:
    """Return, after so many steps of Anderson's method from 0, accuracy and agreement with the equilibria's answers."""
    h, labels = subject.h[subject.found], subject.labels[subject.found]
    found: dict[str, list[float]] = {"accuracy": [], "agreement": []}
    for steps in STEPS:
        start = torch.zeros_like(subject.solution.z[subject.found])
        z = solve(
            lambda z: subject.model.cell(z, h), start, Anderson(), tolerance=TOLERANCE, max_evaluations=steps + 1
        ).z
        now = subject.read(z.flatten(1).nan_to_num())
        found["accuracy"].append(_share(now == labels))
        found["agreement"].append(_share(now == answers))
    return found


def _finding(subject: Subject, name: str, claim: str, **values: Any) -> Finding:
    settings: dict[str, Any] = {
        "check": "iteration",
        "name": name,
        "claim": claim,
        "dtype": "float64",
        "seed": subject.seed,
    }
    return Finding(**settings | {"tolerance": UNMOVED} | values)


def _moves(subject: Subject, states: Tensor, which: Tensor) -> Tensor:
    """Return how far the cell's values at ``states`` (B, n) and at the equilibria lie from that at 0, relative to its size, (B,)."""
    at_zero = _next(subject, torch.zeros_like(states), which)
    there = torch.stack([_next(subject, z, which) for z in (states, subject.equilibria[which])])
    return (there - at_zero).norm(dim=2).amax(0) / at_zero.norm(dim=1).clamp(min=1)


def _reads_state(subject: Subject) -> Finding:
    claim = "The cell reads its state: f(z, h) depends on z, so that an equilibrium is more than one evaluation."
    states = _noise(subject, 1)[:, 0]
    moved = _moves(subject, states, torch.arange(len(states)))
    least, count = float(moved.min()), len(moved)
    still = (moved <= UNMOVED).nonzero().squeeze(1)
    if len(still):
        position = int(still[0])
        evidence = (
            f"At {len(still)} of {count} images f is the same at 0, at a random state and at the equilibrium, to "
            f"{float(moved[position]):.1e} of its size: one evaluation reaches the equilibrium, and no solver is needed."
        )
        witness = {"image": int(subject.indices[subject.found[position]]), "state": states[position].tolist()}
        return _finding(
            subject,
            "state",
            claim,
            verdict=Verdict.REFUTED,
            margin=float(moved[position]) - UNMOVED,
            samples=count,
            evidence=evidence,
            witness=witness,
        )
    evidence = f"Between 0 and a random state, or the equilibrium, f changes by at least {least:.2g} of its size, at all {count} images."
    return _finding(
        subject, "state", claim, verdict=Verdict.SUPPORTED, margin=least - UNMOVED, samples=count, evidence=evidence
    )


def _longer(subject: Subject, answers: Tensor, stopped: Tensor, evaluations: Tensor) -> Finding:
    claim = "More iterations do not change the answer: it is the same where the model's own solver stops and at the equilibrium."
    changed = _differ(subject.read(stopped), answers).nonzero().squeeze(1)
    count = len(answers)
    after = f"after {int(evaluations.double().median())} evaluations (median)"
    if not len(changed):
        bound = clopper_pearson_upper(0, count)
        evidence = (
            f"At all {count} images the answer where the own solver stops, {after}, is that of the equilibrium at a residual of "
            f"{TOLERANCE:g}. Fewer than {100 * bound:.2g} % of images differ, with 95 % confidence."
        )
        return _finding(
            subject, "longer", claim, verdict=Verdict.SUPPORTED, margin=None, samples=count, evidence=evidence
        )
    position = int(changed[norm(stopped - subject.equilibria)[changed].argmax()])
    witness = {"image": int(subject.indices[subject.found[position]]), "state": stopped[position].tolist()}
    evidence = (
        f"At {len(changed)} of {count} images the answer where the own solver stops, {after}, is not that of the equilibrium which lies "
        f"{float((stopped[position] - subject.equilibria[position]).norm()):.1e} away. {SAME_ANSWER}."
    )
    return _finding(
        subject,
        "longer",
        claim,
        verdict=Verdict.REFUTED,
        margin=None,
        samples=count,
        evidence=evidence,
        witness=witness,
    )


def _start(subject: Subject, answers: Tensor) -> Finding:
    claim = "The answer does not depend on the start: solved from random states the model answers as from 0."
    count = len(subject.equilibria)
    starts = _noise(subject, RESTARTS)
    which = torch.arange(count).repeat_interleave(RESTARTS)
    h = subject.h[subject.found[which]]
    shape = subject.solution.z.shape[1:]
    solution = solve_accurately(lambda z, h: subject.model.cell(z, h), starts.view(-1, *shape), h)
    states, converged = solution.z.flatten(1), solution.converged
    first = subject.equilibria[which]
    # Two answers at one equilibrium are a tie, which rounding decides.
    apart = (states - first).norm(dim=1) > DISTINCT * first.norm(dim=1).clamp(min=1)
    other = _differ(subject.read(states.nan_to_num()), answers[which])
    differs = (converged & apart & other).nonzero().squeeze(1)
    samples = int(converged.sum())
    if len(differs):
        row = int(differs[0])
        position = int(which[row])
        witness = {
            "image": int(subject.indices[subject.found[position]]),
            "state": states[row].tolist(),
            "first": subject.equilibria[position].tolist(),
        }
        evidence = (
            f"At {len(differs)} of {samples} restarts that converged the answer is another: two equilibria of one image are read as two "
            f"classes. {SAME_ANSWER}."
        )
        return _finding(
            subject,
            "start",
            claim,
            verdict=Verdict.REFUTED,
            margin=None,
            tolerance=DISTINCT,
            samples=samples,
            evidence=evidence,
            witness=witness,
        )
    enough = samples >= 0.9 * len(which)
    evidence = (
        f"{samples} of {len(which)} restarts, {RESTARTS} for each of {count} images, converged, and all of these answer alike."
        + (
            ""
            if enough
            else " Of the others nothing is known: mend the cell so that solvers converge from every start."
        )
    )
    verdict = Verdict.SUPPORTED if enough else Verdict.INCONCLUSIVE
    common: dict[str, Any] = {"tolerance": DISTINCT, "samples": samples}
    return _finding(subject, "start", claim, verdict=verdict, margin=None, evidence=evidence, **common)


def _difficulty(subject: Subject, evaluations: Tensor) -> Measurement:
    """Return the rank correlation of the own solver's evaluations and the margin of the answer."""
    logits = subject.model.readout(subject.solution.z[subject.found])
    top = logits.topk(min(2, logits.shape[-1]), dim=-1).values
    margin = (top[..., 0] - top[..., -1]).view(len(logits), -1).amin(1)  # of the token that is least sure
    evaluations = evaluations.double()
    constant = len(set(evaluations.tolist())) < 2 or len(set(margin.tolist())) < 2
    value = None if constant else float(spearmanr(evaluations, margin).statistic)
    said = "all are alike, so nothing correlates" if value is None else f"{value:.2f}"
    text = f"rank correlation of the own solver's evaluations with the margin of the answer (below 0: hard images take longer): {said}"
    return Measurement(check="iteration", name="difficulty", value=value, text=text)


@torch.no_grad()
def replay(subject: Subject, finding: Finding) -> Replay:
    """Evaluate anew, at the one image of the witness, what refutes the claim ``finding``."""
    require_one_image(subject)
    require_equilibria(subject)
    state = state_of(finding, "state", subject.dim)
    if finding.name == "state":
        moved = float(_moves(subject, state[None], torch.zeros(1, dtype=torch.long)))
        reported = None if finding.margin is None else number(finding.margin) + UNMOVED
        return Replay(quantity="change of f, relative", reported=reported, now=moved, refutes=moved <= UNMOVED)
    if finding.name == "start":
        first_state = at_equilibrium(subject, state_of(finding, "first", subject.dim))
        second = at_equilibrium(subject, state)
        for one in (first_state, second):
            if isinstance(one, Replay):
                return one
        other = state_of(finding, "first", subject.dim)
        if float((state - other).norm()) <= DISTINCT * max(1.0, float(other.norm())):
            return Replay(
                quantity="distance of the two states", reported=None, now=float((state - other).norm()), refutes=False
            )
    elif finding.name == "longer":
        own = subject.model.solve(subject.h).z.flatten(1)[0]
        state, other = own, subject.equilibria[0]
    else:
        raise unknown_claim(finding)
    differ = bool(_differ(subject.read(state[None]), subject.read(other[None])))
    return Replay(quantity="answers that differ", reported=1.0, now=float(differ), refutes=differ)
