"""From a claim to a finding: samples, the falsifier, shrinking, and a replay by an independent path."""

import math
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.falsifier import approach, falsify, polish
from analysis.evidence.landmarks import LARGEST_HESSIAN, landmarks
from analysis.evidence.membership import surely_contains
from analysis.evidence.promising import HELD, Promising, best_by_distance
from analysis.evidence.regions import Outside, Region
from analysis.evidence.sampling import clopper_pearson_upper, directions
from analysis.evidence.shrink import rounded, shrink
from analysis.findings import Finding, Verdict, short
from stabdeq.errors import EvaluationError
from stabdeq.lyapunov.claims import Floored

# Nearer to the centre than this part of the radius, V and V-dot may vanish by rounding: a strict claim is not judged there.
CLEAR_OF_CENTRE = 1e-3
CHUNK = 2**20  # numbers in one batch of states that are drawn: 8 MiB
EVALUATED = 2**16  # and in one that is evaluated: what a function makes of them on the way stays in a CPU's cache
POLISHED = 4
BY_BALLS = "ball arithmetic, in which the sign is certain,"
# Many, for the worst states of a function that jumps lie on the edge of the jump, where no witness is taken.
CANDIDATES = 32
NEIGHBOURS = 16
MOST_SHOWN = 8  # coordinates of a state that a sentence can hold


def judge(claim: Claim, region: Region, *, seed: int, effort: Effort) -> Finding:
    """Return the finding on ``claim`` over ``region``; never PROVED.

    Two runs with one seed agree, unless ``effort.seconds`` cuts them at different rounds. The margin is minus the largest
    relative violation seen clear of the centre; of a refuted claim, minus that of the witness.
    """
    search = _Search(claim, region, torch.Generator(device=region.centre.device).manual_seed(seed))
    began = time.perf_counter()
    try:
        while True:
            search.run_round(effort)
            if search.witness is not None or time.perf_counter() - began >= (effort.seconds or 0):
                break
        finding = search.finding(seed)
    except EvaluationError as error:
        finding = _inconclusive(claim, str(error), {"state": error.state}, search.samples, seed)
    return replace(finding, seconds=time.perf_counter() - began)


class _Search:
    """What one judgement has seen so far."""

    def __init__(self, claim: Claim, region: Region, generator: torch.Generator) -> None:
        self.claim, self.region, self.generator = claim, region, generator
        self.inner = CLEAR_OF_CENTRE * region.radius
        self.chunk = max(1, CHUNK // len(region.centre))
        self.rows = max(1, EVALUATED // len(region.centre))
        self.drawn = self.drawn_violating = self.evaluated = 0
        self.worst = -math.inf
        self.not_finite: Tensor | None = None
        self.witness: dict[str, Any] | None = None
        self.unconfirmed: dict[str, Any] | None = None
        self.suspects: list[tuple[Tensor, Tensor]] = []
        self.disproved = self.open = 0  # suspects at which the claim surely holds, or cannot be told

    @property
    def samples(self) -> int:
        return self.drawn + self.evaluated

    def run_round(self, effort: Effort) -> None:
        """Look at random states and at landmarks, climb from the most promising, and settle on a witness."""
        is_first, self.suspects = not self.drawn, []
        promising = Promising(self.region.centre, effort.starts)
        for count in self._chunks(effort.samples):
            states = self.region.sample(count, self.generator)
            relative, suspicious = self._look(states)
            self.drawn += len(states)
            self.drawn_violating += int(suspicious.sum())
            promising.add(states, relative)
        for count in self._chunks(max(effort.samples // 4, effort.shells)):
            states = self.region.shells(count, self.generator)
            promising.add(states, self._look(states)[0])
            self.evaluated += count
        if effort.starts:
            known = [self._landmarks(effort)] if is_first else []
            self._hunt(torch.cat([promising.worst(), *known]), effort)
        self._settle()

    def _landmarks(self, effort: Effort) -> Tensor:
        """Look at the landmarks and return the worst, half as many as there are starts."""
        known = landmarks(self.claim.violation, self.region, self.generator)
        self.evaluated += len(known)
        singled_out = Promising(self.region.centre, max(1, effort.starts // 2))
        singled_out.add(known, self._look(known)[0])
        return singled_out.worst()

    def _chunks(self, count: int) -> list[int]:
        """Return the sizes of the batches that ``count`` states are drawn in."""
        return [self.chunk] * (count // self.chunk) + [count % self.chunk] * (count % self.chunk > 0)

    def _hunt(self, starts: Tensor, effort: Effort) -> None:
        """Climb from ``starts``, each at its own distance from the centre, by the smoothed violation and by the true one."""
        # A strict claim tends to equality at the centre, which would draw every climb there.
        region = Outside(self.region, self.inner) if self.claim.strict else self.region
        violation, project = self.claim.violation, region.project
        first_step = 0.25 * self._distance(starts).clamp(min=self.inner)
        near = approach(
            violation, starts, project, centre=region.centre, first_step=first_step, generator=self.generator
        )
        result = falsify(
            violation,
            torch.cat([starts, near]),
            project,
            first_step=torch.cat([first_step, first_step]),
            generator=self.generator,
            steps=effort.steps,
        )
        self.not_finite = result.not_finite if self.not_finite is None else self.not_finite
        best = result.states[result.relatives.argsort(descending=True)[:POLISHED]]
        if len(region.centre) <= LARGEST_HESSIAN:
            best = polish(violation, best, project, reach=self._distance(best).clamp(min=self.inner))
        # Equality often holds on a hyperplane, which a climb approaches and a rounded coordinate meets.
        rounder = rounded(result.states, self.region.centre) if self.claim.strict else best[:0]
        self._look(torch.cat([result.states, best, project(rounder)]))
        self.evaluated += result.evaluations

    def _look(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the relative violation (B,) at ``states``, and where the claim seems to fail, (B,) bool.

        The least margin and the states to settle on are remembered.
        """
        relative, bare = self._relative(states)
        self.worst = max(self.worst, _max(relative[self._distance(states) >= self.inner]))
        suspicious = self._violates(states, relative) | self._may_violate(bare)
        violating = suspicious.nonzero().squeeze(1)
        violating = violating[self.region.contains(states[violating])] if len(violating) else violating
        preference = self._preference(states[violating], relative[violating])
        best = violating[preference.argsort(descending=True)[:CANDIDATES]]
        if self.claim.certain is not None and len(violating) > CANDIDATES:
            # Rounding next to the centre must not hide, by its number, a true violation further out.
            spread = best_by_distance(self._distance(states[violating]), bare[violating], CANDIDATES)
            best = torch.cat([best, violating[spread]]).unique()
        self.suspects.append((states[best], relative[best]))
        # Where a sign must be certain, any of them may be the one that surely fails, and all are tried.
        if self.claim.certain is None and sum(held.numel() for held, _ in self.suspects) > HELD:
            self.suspects = [self._suspects(CANDIDATES)]
        return relative, suspicious

    def _may_violate(self, bare: Tensor) -> Tensor:
        """Return where only a certain sign can tell: the excess stands out of the terms' own rounding, noise or not."""
        if self.claim.certain is None:
            return torch.zeros_like(bare, dtype=torch.bool)
        return bare >= -self.claim.tolerance if self.claim.strict else bare > self.claim.tolerance

    def _preference(self, states: Tensor, relative: Tensor) -> Tensor:
        """Return by what to choose among witnesses: one next to the centre is harder to look at."""
        return torch.where(self._distance(states) >= self.inner, relative, relative / 2)

    def _suspects(self, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the states that are remembered to settle on, at ``most`` so many, the preferred first, and their relative violation."""
        states, relative = (torch.cat(parts) for parts in zip(*self.suspects, strict=True))
        order = self._preference(states, relative).argsort(descending=True)[:most]
        return states[order], relative[order]

    def _settle(self) -> None:
        """Make the worst violating state that replays the witness."""
        states, relative = self._suspects()
        if self.claim.certain is not None:
            self._settle_for_certain(states)
            return
        for index in range(min(CANDIDATES, len(states))):
            if not self._stands(states[index]):
                self.unconfirmed = self._replay(states[index])[0] | {"isolated": True}
                continue
            shrunk = self._shrink(states[index], float(relative[index]))
            for state in (shrunk, states[index]):
                described, confirmed = self._replay(state)
                if confirmed:
                    self.witness = described
                    return
                self.unconfirmed = described

    def _settle_for_certain(self, states: Tensor) -> None:
        """Make the first of ``states`` (B, n) at which the inequality surely fails the witness, nearer to the centre if it may be."""
        at_centre = (states == self.region.centre).all(1) & self.claim.strict
        for state in states[~at_centre]:
            if not surely_contains(self.region, state):
                continue
            fails = self.claim.surely_fails(state)
            self.disproved += fails is False
            self.open += fails is None
            if fails:
                self.witness = self._certain_witness(state)
                return

    def _certain_witness(self, state: Tensor) -> dict[str, Any]:
        assert self.claim.certain is not None
        relative = float(self._relative(state[None])[0][0])
        shrunk = self._shrink(state, relative) if relative > self.claim.tolerance else state
        for one in (shrunk, state):
            if self.claim.surely_fails(one) and surely_contains(self.region, one):
                _, excess = self.claim.certain(one)
                described, _ = self._replay(one)
                bare = float(self._relative(one[None])[1][0])
                return described | {"relative": bare, "replayed_excess": excess, "replayed_by": BY_BALLS}
        raise AssertionError("the state that was found is one of those tried")  # it fails, and lies in the region

    def _stands(self, state: Tensor) -> bool:
        """Whether the neighbours violate too: at a kink or within rounding, one state alone can seem to."""
        size = (state - self.region.centre).norm() * 2.0**-30
        around = directions(NEIGHBOURS, len(state), self.generator)
        neighbours = self.region.project(state + size * around)
        least = -1e-6 if self._is_equality(state) else self.claim.tolerance
        return bool((self._relative(neighbours)[0] >= least).all())

    def _is_equality(self, state: Tensor) -> bool:
        return bool(self._relative(state[None])[0][0] <= self.claim.tolerance)

    def _shrink(self, state: Tensor, relative: float) -> Tensor:
        least = max(relative / 2, 4 * self.claim.tolerance) if relative > self.claim.tolerance else None

        def violates(states: Tensor) -> Tensor:
            values, _ = self._relative(states)
            clear = self._violates(states, values) if least is None else values >= min(least, relative)
            return clear & self.region.contains(states)

        nearest = min(self.inner, float(self._distance(state[None])[0]))
        shrunk = shrink(state, self.region.centre, violates, nearest=nearest)
        return shrunk if self._stands(shrunk) else state

    def _replay(self, state: Tensor) -> tuple[dict[str, Any], bool]:
        claim = self.claim
        with torch.no_grad():
            seen = claim.violation(state[None])
        again = (claim.replay or claim.violation)(state[None])
        described: dict[str, Any] = {
            "state": state.tolist(),
            "distance": float(self._distance(state[None])[0]),
            "excess": float(seen.excess[0]),
            "relative": float(seen.relative[0]),
            "replayed_excess": float(again.excess.detach()[0]),
            "replayed_relative": float(again.relative.detach()[0]),
            "replayed_by": claim.replayed_by,
        }
        described |= claim.describe(state) if claim.describe else {}
        if described["excess"] < 0 and described["replayed_excess"] < 0:
            return described | {"holds": True}, False
        return described, bool(self._violates(state[None], again.relative.detach())[0])

    def _relative(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the relative violation (B,), -inf where it is not finite, and that without any allowance for noise.

        The first state where it is not finite is remembered.
        """
        if not len(states):
            return states.new_zeros(0), states.new_zeros(0)
        with torch.no_grad():
            found = [self.claim.violation(part) for part in states.split(self.rows)]
        relative = torch.cat([one.relative for one in found])
        bare = torch.cat([one.bare_relative if isinstance(one, Floored) else one.relative for one in found])
        bad = (~relative.isfinite()).nonzero()
        if len(bad) and self.not_finite is None:
            self.not_finite = states[int(bad[0])]
        return _where_finite(relative), _where_finite(bare)

    def _violates(self, states: Tensor, relative: Tensor) -> Tensor:
        violates = relative > self.claim.tolerance
        if self.claim.strict:
            violates |= (relative >= -self.claim.tolerance) & (self._distance(states) >= self.inner * (1 - 1e-9))
        return violates

    def _distance(self, states: Tensor) -> Tensor:
        return (states - self.region.centre).norm(dim=1)

    def finding(self, seed: int) -> Finding:
        claim = self.claim
        if self.witness is not None:
            return self._refuted(seed)
        if self.not_finite is not None:
            state = self.not_finite.tolist()
            reason = f"The functions are not finite {_at(state)} in {self.region.words}, so nothing can be said there"
            return _inconclusive(claim, reason, {"state": state}, self.samples, seed)
        if self.unconfirmed is not None:
            doubt = f"{claim.replayed_by} gives {self.unconfirmed['replayed_relative']:.3g}: the paths disagree"
            if "isolated" in self.unconfirmed:
                doubt = "states next to it do not: a kink, a jump or rounding"
            reason = f"A state violates by {self.unconfirmed['relative']:.3g} of the terms' size, but {doubt}"
            if "holds" in self.unconfirmed:
                least = -self.unconfirmed["relative"]
                reason = f"At a state it holds by {least:.3g} of the terms' size alone, which rounding cannot tell from equality"
            return _inconclusive(claim, reason, self.unconfirmed, self.samples, seed)
        return self._supported(seed)

    def _refuted(self, seed: int) -> Finding:
        claim, witness = self.claim, self.witness
        assert witness is not None
        place = f"{_at(witness['state'])} ({witness['distance']:.3g} from the centre)"
        to_rounding = "" if claim.certain is not None else ", to rounding,"
        violated = f"Violated{to_rounding} {place} by {witness['excess']:.3g}"
        if claim.certain is not None and witness["replayed_excess"] == 0:
            violated = f"Equality {place}: {witness['excess']:.3g}"
        elif claim.certain is None and witness["relative"] <= claim.tolerance:
            violated = f"Equality, to rounding, {place}: {witness['excess']:.3g}"
        evidence = (
            f"{violated}, {witness['relative']:.3g} of its terms' size; {witness['replayed_by']} gives "
            f"{witness['replayed_excess']:.3g}. Of {self.drawn} states drawn {self.region.drawn} from {self.region.words}, "
            f"{self.drawn_violating} violate."
        )
        return Finding(
            check=claim.check,
            name=claim.name,
            claim=claim.sentence,
            verdict=Verdict.REFUTED,
            margin=0.0 - witness["relative"],
            evidence=f"{evidence} {claim.note}".strip(),
            samples=self.samples,
            tolerance=claim.tolerance,
            dtype="float64",
            seed=seed,
            witness=witness,
        )

    def _supported(self, seed: int) -> Finding:
        claim = self.claim
        # What seems to violate by rounding alone counts as if it did.
        bound = clopper_pearson_upper(self.drawn_violating, self.drawn)
        none = "none violates"
        if self.drawn_violating:
            none = f"{self.drawn_violating} seem to violate, by rounding alone where ball arithmetic was asked ({self.disproved} states)"
        evidence = (
            f"No violation found in {self.samples} states; this is not a proof. "
            f"Of {self.drawn} drawn {self.region.drawn} from {self.region.words} {none}, so the "
            f"rate of violations is below {100 * bound:.2g} % with 95 % confidence; {self.evaluated} more on shells towards "
            f"the centre and by a gradient falsifier with restarts. Least margin, clear of the centre: {0.0 - self.worst:.3g} of "
            "the terms' size."
        )
        return Finding(
            check=claim.check,
            name=claim.name,
            claim=claim.sentence,
            verdict=Verdict.SUPPORTED,
            margin=0.0 - self.worst if math.isfinite(self.worst) else None,
            evidence=f"{evidence} {claim.note}".strip(),
            samples=self.samples,
            tolerance=claim.tolerance,
            dtype="float64",
            seed=seed,
        )


def _at(state: list[float]) -> str:
    return f"at {short(state)}" if len(state) <= MOST_SHOWN else "at a state"


def _max(values: Tensor) -> float:
    return float(values.max()) if len(values) else -math.inf


def _inconclusive(claim: Claim, reason: str, witness: dict[str, Any], samples: int, seed: int) -> Finding:
    return Finding(
        check=claim.check,
        name=claim.name,
        claim=claim.sentence,
        verdict=Verdict.INCONCLUSIVE,
        margin=None,
        evidence=f"{reason}. {claim.note}".strip(),
        samples=samples,
        tolerance=claim.tolerance,
        dtype="float64",
        seed=seed,
        witness=witness,
    )


def _where_finite(relative: Tensor) -> Tensor:
    return relative.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
