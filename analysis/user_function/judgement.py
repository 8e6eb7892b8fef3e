"""The claims that ``stabdeq check`` judges of a user's V and dynamics, by name, and the findings on them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.regions import Ball, Box
from analysis.findings import Finding, Verdict, short
from analysis.user_function.at_centre import equilibrium, zero
from analysis.user_function.attraction import attraction, rest_of
from analysis.user_function.barrier import barrier, initial, unsafe, with_consequence
from analysis.user_function.function import ForeignFunction
from analysis.user_function.growth import proper
from analysis.user_function.in_region import convex, decay, decrease, invariant, positive
from analysis.user_function.jumps import Jump
from analysis.user_function.kept import kept, with_leaving
from analysis.user_function.levels import LevelSearch, at_level, largest_level, search_levels
from analysis.user_function.proofs import implied, proved
from analysis.user_function.sentences import ALONG_THE_FLOW, GLOBAL, KEPT
from analysis.user_function.subject import Subject
from analysis.user_function.whole_space import whole_space
from stabdeq.errors import EvaluationError

CLAIMS: dict[str, Callable[[Subject], Finding]] = {
    "zero": zero,
    "positive": positive,
    "proper": proper,
    "convex": convex,
    "equilibrium": equilibrium,
    "decrease": decrease,
    "decay": decay,
    "invariant": invariant,
    "attraction": attraction,
    GLOBAL: whole_space,
    KEPT: kept,
    "initial": initial,
    "unsafe": unsafe,
    "barrier": barrier,
}
REPEATED, PIECE = 4096, 100
# Other batch sizes may sum in another order; what differs by more is no rounding.
SAME = 1e-5
MEANT_AS_STEP = (
    "The dynamics differ little from z itself: if they are the next state and no velocity, give them as step (--step)."
)
Told = Callable[[str], object]


def judge_claims(subject: Subject, names: Sequence[str], *, on_claim: Told = lambda name: None) -> list[Finding]:
    """Return one finding for each name of ``CLAIMS``, in the order given; ``on_claim`` is told each name as it begins."""
    memory = _Memory(subject)
    findings = []
    for name in names:
        on_claim(name)
        findings.append(_judged(subject, name))
    findings = with_consequence(subject, implied(subject, findings))
    if subject.constraint is not None and set(names) & set(ALONG_THE_FLOW):
        of_set = next((one for one in findings if one.check == KEPT), None) or _judged(subject, KEPT)
        findings = with_leaving(findings, of_set)
    return memory.unless_changed(findings)


def judge_largest_levels(
    subject: Subject, names: Sequence[str], bases: Sequence[Ball | Box], *, on_claim: Told = lambda name: None
) -> list[Finding]:
    """Return the findings, claims along the flow on the largest sublevel set found for each, the others on a ball or a box.

    It is the one in which levels were sought: the first of ``bases`` where each such claim fails at some level that is closed
    within it, else the last.
    """
    memory = _Memory(subject)
    along = [name for name in names if name in ALONG_THE_FLOW]
    searches: dict[str, LevelSearch] = {}
    for base in bases:
        on_claim("levels")
        try:
            searches = {name: search_levels(subject, base, lambda on, name=name: _tried(on, name)) for name in along}
        except EvaluationError:
            # V is not defined so far out; within the radius before it was.
            if searches:
                break
            raise
        if all(search.refuted is not None for search in searches.values()):
            break
    findings = []
    for name in names:
        on_claim(name)
        if name in searches:
            findings.append(largest_level(searches[name], name, lambda on, name=name: _judged(on, name)))
        else:
            findings.append(_judged(at_level(subject, next(iter(searches.values())).base, math.inf), name))
    return memory.unless_changed(findings)


def _judged(subject: Subject, name: str) -> Finding:
    """Return the finding on one claim: a violation is looked for, then jumps, then a proof."""
    began = time.perf_counter()
    finding = _tried(subject, name)
    if name == "equilibrium" and finding.verdict is Verdict.REFUTED and (rest := rest_of(subject)) is not None:
        finding = replace(finding, evidence=f"{finding.evidence} One rests within {rest.nearness} of it.")
    if name in ("decrease", "decay") and finding.verdict is Verdict.REFUTED and subject.is_near_identity:
        finding = replace(finding, evidence=f"{finding.evidence} {MEANT_AS_STEP}")
    if finding.verdict is not Verdict.REFUTED:
        try:
            if subject.jump is not None:
                finding = _with_jump(finding, subject.jump)
            elif finding.verdict is Verdict.SUPPORTED:
                finding = proved(subject, finding)
        except EvaluationError as error:
            finding = _failed(subject, name, error) if finding.verdict is Verdict.SUPPORTED else finding
    return replace(finding, seconds=time.perf_counter() - began)


def _tried(subject: Subject, name: str) -> Finding:
    """Return the finding on one claim as samples and the falsifier give it."""
    try:
        return CLAIMS[name](subject)
    except EvaluationError as error:
        return _failed(subject, name, error)


def _failed(subject: Subject, name: str, error: EvaluationError) -> Finding:
    reason = f"{error}; mend the function there, or judge it on a region without that state."
    return subject.finding(name, Verdict.INCONCLUSIVE, reason, witness={"state": error.state})


def _with_jump(finding: Finding, jump: Jump) -> Finding:
    """Return the finding with what a jump of V or of the dynamics means for it."""
    if finding.check not in (*ALONG_THE_FLOW, GLOBAL, "barrier"):
        return replace(finding, evidence=f"{finding.evidence} {jump.words}.")
    reason = (
        f"{jump.words}, where V-dot does not exist, so that its sign elsewhere does not tell whether V falls along every "
        f"trajectory; judge a region without that state, or smooth the jump. Besides: {finding.evidence}"
    )
    witness = {"state": jump.state.tolist(), "before": jump.before.tolist(), "after": jump.after.tolist()}
    return replace(finding, verdict=Verdict.INCONCLUSIVE, margin=None, evidence=reason, witness=witness)


class _Memory:
    """What the functions gave before anything was judged, to see whether they still do when all is."""

    def __init__(self, subject: Subject) -> None:
        self.functions = [*subject.functions, *subject.sets.values()]
        try:
            self.states = subject.region.sample(REPEATED, torch.Generator().manual_seed(subject.seed))
            self.before = [function(self.states).detach() for function in self.functions]
        except EvaluationError:
            self.before = []  # every finding says so

    def unless_changed(self, findings: list[Finding]) -> list[Finding]:
        """Return the findings, all inconclusive where a function is none of the state alone."""
        for function, before in zip(self.functions, self.before, strict=False):
            if change := self._change(function, before):
                reason, witness = change
                return [
                    replace(finding, verdict=Verdict.INCONCLUSIVE, margin=None, evidence=reason, witness=witness)
                    for finding in findings
                ]
        return findings

    def _change(self, function: ForeignFunction, before: Tensor) -> tuple[str, dict[str, Any]] | None:
        """Return the reason and the witness where ``function`` gives other results now, or in another batch."""
        again = function(self.states).detach()
        shuffled = torch.cat([function(part).detach() for part in self.states.flip(0).split(PIECE)]).flip(0)
        for after, how in ((again, "later"), (shuffled, "among other states")):
            size = before.abs().nan_to_num(nan=0.0, posinf=0.0)
            same = torch.isclose(before, after, rtol=SAME, atol=SAME * float(size.median()), equal_nan=True)
            different = (~same).reshape(len(before), -1).any(1).nonzero()
            if len(different):
                row = int(different[0])
                state, first, second = (tensor[row].tolist() for tensor in (self.states, before, after))
                reason = (
                    f"{function.name} is no function of the state alone: at {short(state)} it gave {short(first)}, and {how} "
                    f"{short(second)}. It is random, keeps a state, or couples the states of a batch, and nothing can be said of "
                    "it: make it give the same result at every call."
                )
                return reason, {"state": state, "first": first, "second": second}
        return None
