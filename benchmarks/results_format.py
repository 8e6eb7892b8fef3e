"""The format of ``results.json``, by which other programs read what was measured: none of the contestants is needed for it.

``python -m benchmarks.results_format`` writes its JSON schema, ``benchmarks/schema.json``, anew.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stabdeq.files import replace_file

SCHEMA = Path(__file__).with_name("schema.json")
VERSION = 1

Quartiles = Annotated[
    list[float], Field(min_length=3, max_length=3, description="lower quartile, median, upper quartile")
]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A part of the results: no other fields than its own."""

    model_config = ConfigDict(extra="forbid")


class Setting(Part):
    """What a contestant was told: the loosest tolerance with which the returned state's residual meets the case's."""

    tolerance: float
    steps: Count
    options: dict[str, Any]


class Found(Part):
    """What a contestant did: its setting, calls of the cell, the residual measured anew, and the seconds of its runs."""

    setting: Setting
    evaluations: Count
    adjoint_evaluations: Count | None = None
    true_residual: float | None = None
    gradient_error: float | None = None
    robust_accuracy: float | None = None
    seconds: Quartiles
    runs: Count


class Case(Part):
    """What was solved."""

    problem: str
    batch: Annotated[int, Field(gt=0)]
    solver: str


class Race(Case):
    """Contestants at the same measured residual, in turns; None stands for one that does not reach it.

    ``ratios`` are the first's time over the second's, round by round.
    """

    tolerance: float
    direction: Literal["forward", "forward and backward", "training step", "PGD"]
    contestants: dict[str, Found | None]
    ratios: dict[str, Quartiles]


class Folded(Case):
    """TorchDEQ given the cell that ours solves, with both BatchNorms folded."""

    kind: Literal["folded"]
    tolerance: float
    ratios: dict[str, Quartiles]
    true_residuals: dict[str, float]


class Overhead(Case):
    """The cost of one iteration beyond the cell's own evaluation."""

    kind: Literal["overhead"]
    evaluations: dict[str, Count]
    overhead: dict[str, Quartiles]
    seconds: dict[str, Quartiles]


class Memory(Case):
    """The most bytes that one solve holds at a time, beyond its input."""

    kind: Literal["memory"]
    tolerance: float
    bytes: dict[str, Count]


class Results(Part):
    """A run of the benchmark: when, where, by which command, and all that was measured."""

    version: Literal[1]
    date: str
    machine: dict[str, str]
    command: str
    skipped: list[str]
    records: list[Race | Folded | Overhead | Memory]

    def as_written(self) -> dict[str, Any]:
        """Return the results as the file holds them."""
        return self.model_dump(exclude_unset=True)


def schema() -> str:
    """Return the JSON schema of the results."""
    return json.dumps(Results.model_json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    replace_file(SCHEMA, schema().encode())
