"""Does the iteration do anything? Answers without it, from other starts, and after more of it than the model makes."""

from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from analysis.checks.uniqueness import DISTINCT, EXAMINED, doubt_of_two
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
from analysis.measure.rows import in_parts
from analysis.measure.subject import TOLERANCE, Subject, solve_accurately
from stabdeq.percent import percent
from stabdeq.solvers import Anderson, norm, solve

STEPS = (1, 2, 4, 8, 16, 32, 64)  # of Anderson's method; one evaluation more measures where they led
RESTARTS = 4
UNMOVED = 1e-9  # relative change below which a second evaluation of the cell left the state where it was
SAME_ANSWER = "The answer at an image is the class of the largest logit, of each token where it has several"


@torch.no_grad()
def check(subject: Subject) -> CheckResult:
    """Judge whether the cell reads its state, and whether longer solves and other starts change answers; measure bypasses."""
    labels = subject.labels[subject.found]
    answers = torch.cat([subject.read(subject.equilibria[part]) for part in subject.parts(len(labels))])
    stopped = _stopped(subject, answers)
    bypassed = {"where the model stops": stopped.answers, **_bypasses(subject)}
    accuracies = {name: _share(given == labels) for name, given in bypassed.items()}
    accuracies = {"the equilibrium": _share(answers == labels), **accuracies}
    findings = [_reads_state(subject), _longer(subject, answers, stopped), _start(subject, answers)]
    curve, moving = _after_steps(subject, answers)
    result = CheckResult(findings=findings, series={"accuracies": accuracies, "steps": list(STEPS), **curve})
    for name, accuracy in accuracies.items():
        agrees = 1.0 if name == "the equilibrium" else _share(bypassed[name] == answers)
        text = f"read from {name}, {percent(accuracy, 1)} of {labels.numel()} answers are right, and "
        text += f"{percent(agrees, 1)} are the equilibrium's"
        result.measurements.append(Measurement(check="iteration", name=name, value=accuracy, text=text))
    result.measurements.extend([_difficulty(subject, stopped.evaluations[subject.found]), moving])
    return result


@dataclass(frozen=True)
class _Stopped:
    """Where the model's own solver stops at the M found images: what is read there, and of N images its evaluations.

    ``farthest`` is the position of the image, of those whose answer is another than the equilibrium's, that stops farthest from it,
    ``distance`` how far, and ``state`` (n,) where; None where there is no such image.
    """

    answers: Tensor
    evaluations: Tensor
    farthest: int | None
    distance: float
    state: Tensor | None


def _stopped(subject: Subject, answers: Tensor) -> _Stopped:
    read, evaluations = [], []
    farthest, distance, state, begin = None, -1.0, None, 0
    for part in subject.parts(len(subject.images)):
        own = subject.model.solve(subject.h[part])
        evaluations.append(own.evaluations)
        z = own.z[subject.solution.converged[part]].flatten(1)
        if not len(z):
            continue
        here = slice(begin, begin + len(z))
        begin += len(z)
        read.append(subject.read(z))
        changed = _differ(read[-1], answers[here]).nonzero().squeeze(1)
        away = norm(z - subject.equilibria[here])
        if len(changed) and float(away[changed].max()) > distance:
            place = int(changed[away[changed].argmax()])
            farthest, distance, state = here.start + place, float(away[place]), z[place].clone()
    return _Stopped(torch.cat(read), torch.cat(evaluations), farthest, distance, state)


def _differ(answers: Tensor, others: Tensor) -> Tensor:
    """Return where answers (M,) differ, or, of answers for tokens (M, T), one at least, (M,) bool."""
    return (answers != others).view(len(answers), -1).any(1)


def _share(outcomes: Tensor) -> float:
    return float(outcomes.double().mean())


def _bypasses(subject: Subject) -> dict[str, Tensor]:
    """Return what is read from the states that stand in for the equilibrium, by what they are: answers (M,) or (M, T)."""
    found, noise, read = subject.found, _Noise(subject), {}
    mean = torch.stack([subject.equilibria[part].sum(0) for part in subject.parts(len(found))]).sum(0) / len(found)
    for part in subject.parts(len(found)):
        zero = torch.zeros_like(subject.equilibria[part])
        states = {
            "one evaluation from 0": _next(subject, zero, torch.arange(part.start, part.stop)),
            "a random state": noise.draw(len(zero), 1)[:, 0],
            "the mean equilibrium": mean.expand_as(zero),
        }
        h = subject.h[found[part]].flatten(1)
        if h.shape == zero.shape:
            states["the features"] = h
        for name, z in states.items():
            read.setdefault(name, []).append(subject.read(z))
    return {name: torch.cat(answers) for name, answers in read.items()}


def _next(subject: Subject, z: Tensor, which: Tensor) -> Tensor:
    return subject.field(z, which) + z


class _Noise:
    """Random states, as large as the equilibria are, one image after the other."""

    def __init__(self, subject: Subject) -> None:
        self.dim, self.generator = subject.dim, subject.generator()
        norms = torch.cat([subject.equilibria[part].norm(dim=1) for part in subject.parts(len(subject.found))])
        self.scale = float(norms.mean().clamp(min=1)) / self.dim**0.5

    def draw(self, images: int, starts: int) -> Tensor:
        """Return states (images, starts, n)."""
        return self.scale * torch.randn((images, starts, self.dim), generator=self.generator, dtype=torch.float64)


def _after_steps(subject: Subject, answers: Tensor) -> tuple[dict[str, list[float]], Measurement]:
    """Return, after so many steps of Anderson's method from 0, accuracy and agreement with the equilibria's answers.

    And how far the states still move where the answer is that of the equilibrium and stays so.
    """
    found: dict[str, list[float]] = {"accuracy": [], "agreement": []}
    fixed = torch.full((len(answers),), torch.inf, dtype=torch.float64)  # after so many steps
    moving = torch.zeros_like(fixed)  # the residual there
    for steps in STEPS:
        parts = [_answers_after(subject, steps, part) for part in subject.parts(len(subject.found))]
        now, residual = (torch.cat(both) for both in zip(*parts, strict=True))
        found["accuracy"].append(_share(now == subject.labels[subject.found]))
        found["agreement"].append(_share(now == answers))
        other, first = _differ(now, answers), fixed.isinf()
        fixed[first], moving[first] = float(steps), residual[first]
        fixed[other] = torch.inf
    return found, _still_moving(fixed, moving)


def _still_moving(fixed: Tensor, moving: Tensor) -> Measurement:
    """Return the median residual ``moving`` (M,) from where the answer stays, after ``fixed`` (M,) steps, infinite where it does not."""
    stays = fixed.isfinite()
    value = float(moving[stays].median()) if bool(stays.any()) else None
    text = f"the answer is that of the equilibrium and stays so, within {STEPS[-1]} steps of Anderson's method, at "
    text += f"{percent(float(stays.double().mean()), 1)} of {len(fixed)} images"
    if value is not None:
        text += f", after {float(fixed[stays].median()):.0f} (median), when the state still moves by {value:.2g} of its size (median)"
    return Measurement(check="iteration", name="movement", value=value, text=text)


def _answers_after(subject: Subject, steps: int, which: slice) -> tuple[Tensor, Tensor]:
    """Return the answers after so many steps, and the residuals (B,) of the states that they are read from."""
    h = subject.h[subject.found[which]]
    start = torch.zeros_like(subject.solution.z[subject.found[which]])
    solution = solve(lambda z: subject.cell(z, h), start, Anderson(), tolerance=TOLERANCE, max_evaluations=steps + 1)
    return subject.read(solution.z.flatten(1).nan_to_num()), solution.residual


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
    """Return how far the cell's values at ``states`` (B, n) and at the equilibria lie from that at 0, relative to the largest, (B,)."""
    at_zero = _next(subject, torch.zeros_like(states), which)
    there = torch.stack([at_zero, *(_next(subject, z, which) for z in (states, subject.equilibria[which]))])
    size = there.norm(dim=2).amax(0)
    return (there - at_zero).norm(dim=2).amax(0) / torch.where(size == 0, 1, size)


def _reads_state(subject: Subject) -> Finding:
    claim = "The cell reads its state: f(z, h) depends on z, so that an equilibrium is more than one evaluation."
    noise, parts, state = _Noise(subject), [], None
    for part in subject.parts(len(subject.found)):
        states = noise.draw(part.stop - part.start, 1)[:, 0]
        parts.append(_moves(subject, states, torch.arange(part.start, part.stop)))
        unmoved = (parts[-1] <= UNMOVED).nonzero().squeeze(1)
        if state is None and len(unmoved):
            state = states[int(unmoved[0])].tolist()
    moved = torch.cat(parts)
    least, count = float(moved.min()), len(moved)
    still = (moved <= UNMOVED).nonzero().squeeze(1)
    if len(still):
        position = int(still[0])
        evidence = (
            f"At {len(still)} of {count} images f is the same at 0, at a random state and at the equilibrium, to "
            f"{float(moved[position]):.1e} of its size: one evaluation reaches the equilibrium, and no solver is needed."
        )
        witness = {"image": int(subject.indices[subject.found[position]]), "state": state}
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


def _longer(subject: Subject, answers: Tensor, stopped: _Stopped) -> Finding:
    claim = "More iterations do not change the answer: it is the same where the model's own solver stops and at the equilibrium."
    changed, count = int(_differ(stopped.answers, answers).sum()), len(answers)
    after = f"after {int(stopped.evaluations[subject.found].double().median())} evaluations (median)"
    if stopped.farthest is None or stopped.state is None:
        bound = clopper_pearson_upper(0, count)
        evidence = (
            f"At all {count} {subject.judged} the answer where the own solver stops, {after}, is that of the equilibrium at a residual of "
            f"{TOLERANCE:g}. Fewer than {100 * bound:.2g} % of {subject.judged} differ, with 95 % confidence."
        )
        return _finding(
            subject, "longer", claim, verdict=Verdict.SUPPORTED, margin=None, samples=count, evidence=evidence
        )
    witness = {"image": int(subject.indices[subject.found[stopped.farthest]]), "state": stopped.state.tolist()}
    evidence = (
        f"At {changed} of {count} images the answer where the own solver stops, {after}, is not that of the equilibrium which lies "
        f"{stopped.distance:.1e} away. {SAME_ANSWER}."
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
    count, noise = len(subject.found), _Noise(subject)
    differing, samples, witness, doubts = 0, 0, {}, []
    for part in in_parts(count, RESTARTS * subject.dim):
        which = torch.arange(part.start, part.stop).repeat_interleave(RESTARTS)
        states, converged = _restarted(subject, noise.draw(part.stop - part.start, RESTARTS), which)
        first = subject.equilibria[which]
        # Two answers at one equilibrium are a tie, which rounding decides.
        apart = (states - first).norm(dim=1) > DISTINCT * first.norm(dim=1).clamp(min=1)
        other = _differ(subject.read(states.nan_to_num()), answers[which])
        differs = (converged & apart & other).nonzero().squeeze(1)
        samples, differing = samples + int(converged.sum()), differing + len(differs)
        for row in differs.tolist():
            if witness or len(doubts) == EXAMINED:
                break
            image = int(subject.indices[subject.found[which[row]]])
            if doubt := doubt_of_two(subject, states[row], int(which[row])):
                doubts.append(f"at test image {image} {doubt}")
            else:
                witness = {"image": image, "state": states[row].tolist(), "first": first[row].tolist()}
    if witness:
        evidence = (
            f"At {differing} of {samples} restarts that converged the answer is another: two equilibria of one image are read as two "
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
    common: dict[str, Any] = {"tolerance": DISTINCT, "samples": samples}
    if differing:
        evidence = (
            f"At {differing} of {samples} restarts that converged the answer is another, but whether at two equilibria is not known: "
            f"{doubts[0]}. {SAME_ANSWER}."
        )
        return _finding(subject, "start", claim, verdict=Verdict.INCONCLUSIVE, margin=None, evidence=evidence, **common)
    enough = samples >= 0.9 * RESTARTS * count
    evidence = (
        f"{samples} of {RESTARTS * count} restarts, {RESTARTS} for each of {count} {subject.judged}, converged, and all of these "
        "answer alike."
        + (
            ""
            if enough
            else " Of the others nothing is known: mend the cell so that solvers converge from every start."
        )
    )
    verdict = Verdict.SUPPORTED if enough else Verdict.INCONCLUSIVE
    return _finding(subject, "start", claim, verdict=verdict, margin=None, evidence=evidence, **common)


def _restarted(subject: Subject, starts: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states (B, n) reached from ``starts`` (M, R, n) for the found images ``which`` (B,), and where they converged, (B,)."""
    start, h = starts.view(-1, *subject.solution.z.shape[1:]), subject.h[subject.found[which]]
    solution = solve_accurately(subject.cell, start, h)
    return solution.z.flatten(1), solution.converged


def _difficulty(subject: Subject, evaluations: Tensor) -> Measurement:
    """Return the rank correlation of the own solver's evaluations and the margin of the answer."""
    margin = torch.cat([_margin(subject, part) for part in subject.parts(len(subject.found))])
    evaluations = evaluations.double()
    constant = len(set(evaluations.tolist())) < 2 or len(set(margin.tolist())) < 2
    value = None if constant else float(spearmanr(evaluations, margin).statistic)
    said = "all are alike, so nothing correlates" if value is None else f"{value:.2f}"
    text = f"rank correlation of the own solver's evaluations with the margin of the answer (below 0: hard images take longer): {said}"
    return Measurement(check="iteration", name="difficulty", value=value, text=text)


def _margin(subject: Subject, which: slice) -> Tensor:
    """Return by how much the largest logit exceeds the second, (B,), of the token that is least sure."""
    logits = subject.model.readout(subject.solution.z[subject.found[which]])
    top = logits.topk(min(2, logits.shape[-1]), dim=-1).values
    return (top[..., 0] - top[..., -1]).view(len(logits), -1).amin(1)


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
        assert not isinstance(first_state, Replay)
        near = float((state - other).norm()) <= DISTINCT * max(1.0, float(other.norm()))
        if near or doubt_of_two(first_state, state, 0):
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
