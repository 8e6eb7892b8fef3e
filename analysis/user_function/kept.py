"""The claim that the dynamics keep a set {h = 0}: Dh f = 0 on it, or h(z+) = 0 in steps; and what follows for the others."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from flint import arb
from torch import Tensor

from analysis.evidence.claim import Claim
from analysis.evidence.constrained import Constrained
from analysis.findings import Finding, Verdict, short
from analysis.proofs.balls import evaluate, sign_of
from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.kept import prove_kept
from analysis.user_function.at_centre import NOISE_MARGIN
from analysis.user_function.on_a_set import Signed, judge_on_set, on_set, on_true_states
from analysis.user_function.sentences import ALONG_THE_FLOW, KEPT
from analysis.user_function.subject import Subject
from stabdeq.constraint import slopes
from stabdeq.lyapunov.claims import Violation


def kept(subject: Subject) -> Finding:
    """Dh f = 0 where h = 0; in steps, h(z+) = 0."""
    region = subject.whole_region
    assert isinstance(region, Constrained)
    size = region.radius + float(region.centre.norm())
    floor = NOISE_MARGIN * subject.noise(subject.flow) / subject.tolerance

    def violation(states: Tensor) -> Violation:
        moved = subject.flow(states)
        value, jacobian = slopes(region.constraint, moved if subject.in_steps else states)
        length = jacobian.norm(dim=2)
        if subject.in_steps:
            excess, scale = value.abs(), length * size
        else:
            excess, scale = (jacobian @ moved[:, :, None]).squeeze(2).abs(), length * moved.norm(dim=1, keepdim=True)
        scale = scale + floor * length
        worst = (excess / torch.where(scale == 0, 1, scale)).argmax(1, keepdim=True)
        return Violation(excess.gather(1, worst).squeeze(1), scale.gather(1, worst).squeeze(1))

    def describe(state: Tensor) -> dict[str, Any]:
        return {"next" if subject.in_steps else "velocity": subject.flow(state[None]).detach()[0].tolist()}

    claim = Claim(
        check=KEPT,
        name=KEPT,
        sentence=subject.sentence(KEPT),
        violation=violation,
        tolerance=subject.tolerance,
        describe=describe,
        certain=None if subject.certainty is None else lambda state: _certain(subject, region, state),
    )
    return judge_on_set(subject, claim, region)


def _certain(subject: Subject, region: Constrained, state: Tensor) -> Signed:
    """Return 1 where Dh f, or h(z+), is surely not 0 at the true state of the set next to ``state`` (n,), 0 where it is 0."""
    assert subject.certainty is not None
    certainty = on_true_states(subject.certainty, region)
    graph, motion, place = certainty.constraint, certainty.motion, certainty.place
    assert graph is not None
    assert motion is not None

    def changes() -> list[arb]:
        z = place(state)
        moved = evaluate(motion, z).value
        found = evaluate(graph, moved) if subject.in_steps else evaluate(graph, z, moved)
        if subject.in_steps:
            return found.value.reshape(-1).tolist()
        return [arb(0)] * found.value.size if found.slope is None else found.slope.reshape(-1).tolist()

    about = changes()
    signs = [sign_of(lambda part=part: changes()[part]) for part in range(len(about))]
    number = max(abs(float(one.mid())) for one in about)
    sign = 1 if any(signs) else 0 if all(one == 0 for one in signs) else None
    return on_set(certainty, region, 0.0, state, lambda _: (sign, number))


def prove(subject: Subject) -> Proof | Unproved:
    """Return the proof that the set is kept, or why there is none."""
    certainty = subject.certainty
    if certainty is None or certainty.constraint is None or certainty.motion is None:
        return Unproved("h and the dynamics cannot be read as operations.")
    return prove_kept(certainty.constraint, certainty.motion, subject.base, in_steps=subject.in_steps)


def with_leaving(findings: Sequence[Finding], judged: Finding) -> list[Finding]:
    """Return the findings, those along trajectories with what it means for them how the claim "kept" was ``judged``.

    That a set between levels is invariant says that trajectories stay in {h = 0} besides.
    """
    if judged.verdict is Verdict.PROVED:
        return list(findings)
    leaves = judged.verdict is Verdict.REFUTED
    found = []
    for finding in findings:
        if finding.check not in ALONG_THE_FLOW:
            found.append(finding)
            continue
        is_proved = finding.check == "invariant" and finding.verdict is Verdict.PROVED
        evidence = f"{'Not proved: t' if is_proved else 'T'}hat trajectories stay on the set is not proved."
        evidence = f"{evidence} {finding.evidence}" if is_proved else f"{finding.evidence} {evidence}"
        if leaves and judged.witness is not None:
            words = f"The dynamics leave the set, as at {short(judged.witness['state'])}"
            evidence = f"{words}: what holds on it says nothing of where trajectories go. {finding.evidence}"
        verdict = finding.verdict
        if finding.check == "invariant" and verdict in (Verdict.PROVED, Verdict.SUPPORTED):
            verdict = Verdict.INCONCLUSIVE if leaves else Verdict.SUPPORTED
        found.append(replace(finding, evidence=evidence, verdict=verdict))
    return found
