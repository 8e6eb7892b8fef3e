"""What a certification has found so far."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from analysis.findings import Finding, Measurement, Verdict


@dataclass
class Gathered:
    """What has been found so far, and how the reader is told of what is being done."""

    seed: int
    on_stage: Callable[[str], None]
    findings: list[Finding] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    certificates: dict[str, Any] = field(default_factory=dict)
    series: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    def stage(self, words: str) -> None:
        self.on_stage(words)
        self.began = time.perf_counter()

    def find(
        self,
        name: str,
        claim: str,
        verdict: Verdict,
        evidence: str,
        margin: float | None = None,
        samples: int | None = 0,
    ) -> None:
        seconds = time.perf_counter() - self.began
        common = {"check": name, "tolerance": 0.0, "dtype": "float64", "seed": self.seed, "seconds": seconds}
        self.findings.append(
            Finding(
                name=name, claim=claim, verdict=verdict, evidence=evidence, margin=margin, samples=samples, **common
            )  # pyrefly: ignore
        )

    def measure(self, check: str, name: str, value: float | None, text: str) -> None:
        """Put down a number that belongs to the claim ``check``."""
        self.measurements.append(Measurement(check=check, name=name, value=value, text=text))
