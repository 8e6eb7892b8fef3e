"""An indicator: what must hold for a measured robustness to be believed, and what to do where it does not."""

from dataclasses import dataclass
from typing import Any

from analysis.checks.robustness.statistics import LEVEL, Paired, can_fire, is_material
from analysis.findings import Finding, Verdict


@dataclass(frozen=True, kw_only=True)
class Indicator:
    """``claim`` must hold; where it fails, ``meaning`` says what that means for the measured robustness, ``remedy`` what to do."""

    name: str
    claim: str
    meaning: str
    remedy: str

    def finding(
        self,
        fired: bool,
        seen: str,
        *,
        samples: int,
        seed: int,
        margin: float | None = None,
        tolerance: float = 0.0,
        witness: dict[str, Any] | None = None,
    ) -> Finding:
        """Return the verdict: REFUTED, with the ``witness``, where the indicator ``fired``; SUPPORTED where it is silent."""
        return Finding(
            check="robustness",
            name=self.name,
            claim=self.claim,
            verdict=Verdict.REFUTED if fired else Verdict.SUPPORTED,
            margin=margin,
            evidence=f"{seen} {self.meaning} Remedy: {self.remedy}" if fired else seen,
            samples=samples,
            tolerance=tolerance,
            dtype="float64",
            seed=seed,
            witness=witness if fired else None,
        )

    def open(self, reason: str, *, samples: int, seed: int) -> Finding:
        """Return the verdict INCONCLUSIVE, with the ``reason`` for which the indicator could not be read."""
        return Finding(
            check="robustness",
            name=self.name,
            claim=self.claim,
            verdict=Verdict.INCONCLUSIVE,
            margin=None,
            evidence=reason,
            samples=samples,
            tolerance=0.0,
            dtype="float64",
            seed=seed,
        )

    def compared(
        self,
        paired: Paired,
        seen: str,
        *,
        samples: int,
        seed: int,
        comparisons: int = 1,
        right: int | None = None,
        witness: dict[str, Any] | None = None,
    ) -> Finding:
        """Return the verdict of a paired test, the worst of so many ``comparisons``; its margin is p minus the level.

        Where ``right`` of the samples make the accuracy that the effect distorts, it must leave that accuracy's 95 % interval
        too. Fewer images than could fire leave the indicator open.
        """
        level = LEVEL / comparisons
        if not can_fire(samples):
            reason = f"{seen} With {samples} images to compare, chance explains any outcome: audit more (--images)."
            return self.open(reason, samples=samples, seed=seed)
        seen = f"{seen} Chance does as much with p = {paired.p:.2g}; the indicator fires at {level:.2g}"
        seen += "." if right is None else ", and beyond the 95 % interval of the accuracy."
        return self.finding(
            paired.p <= level and (right is None or is_material(right, paired.first - paired.second, samples)),
            seen,
            samples=samples,
            seed=seed,
            margin=paired.p - level,
            tolerance=level,
            witness=witness,
        )
