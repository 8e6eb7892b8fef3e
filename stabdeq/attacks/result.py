"""What an attack found, beside its control at eps = 0: accuracies, what makes them doubtful, as a table and as JSON."""

import io
import json
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from torch import Tensor

from stabdeq.attacks.evaluate import Outcome, fraction
from stabdeq.checkpoint import library_versions
from stabdeq.percent import percent
from stabdeq.terminal import Console

SCHEMA = 1
CLAMPED = (
    "NOT A ROBUST ACCURACY: --clamp-normalised clamped every attacked image to [0, 1] after normalisation, a known fault. It "
    "changes images at eps = 0 and leaves the ball"
)

LEFT_OUT = (
    "the model has no inject, cell, readout and solve: the attack through the states of an equilibrium was left out; where there is "
    "an equilibrium inside, the accuracy under attack may be too high: give its model itself"
)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class AttackResult:
    """What a model gets right of N images; ``print``, and a notebook, show the table and the warnings.

    ``subject`` names the "checkpoint" with its "sha256", the model's "kind" and the "data", None where there is none;
    ``settings`` are those of the attack, and ``radius`` is its eps as it was written. ``indices`` (N,) int64 are the places of
    the attacked images, of a shard its own; ``drawn`` is how many "images" were drawn for all shards, and the "sha256" of these and
    their labels. ``control`` is the outcome at eps = 0, ``outcome`` the attack's own. Of an attack that is several runs,
    ``parts`` are their names, in the order of ``outcome.broken_by``.
    """

    subject: dict[str, str | None]
    settings: dict[str, Any]
    radius: str
    parts: tuple[str, ...]
    indices: Tensor
    drawn: dict[str, Any]
    control: Outcome
    outcome: Outcome

    @property
    def accuracies(self) -> dict[str, float]:
        """The fraction right on "clean" images, at "eps_0", under attack ("robust"), and on clean and attacked both ("worst")."""
        return {
            "clean": fraction(self.outcome.clean_correct),
            "eps_0": fraction(self.control.robust_correct),
            "robust": fraction(self.outcome.robust_correct),
            "worst": fraction(self.outcome.worst_correct),
        }

    @property
    def standing(self) -> dict[str, float]:
        """The fraction of samples that neither the clean image nor the attacks up to each of ``parts`` broke."""
        by = self.outcome.broken_by
        if by is None:
            return {}
        return {name: fraction((by < 0) | (by > index)) for index, name in enumerate(self.parts, start=1)}

    @property
    def warnings(self) -> list[str]:
        """What makes the figures doubtful, each with what it means and what to do."""
        found = [CLAMPED] if self.settings["clamp_normalised"] else []
        if self.settings["attack"] == "honest" and "intermediate" not in self.settings.get("attacks", ["intermediate"]):
            found.append(LEFT_OUT)
        differing = int((self.control.robust_correct != self.control.clean_correct).sum())
        if differing:
            found.append(
                f"{differing} predictions at eps = 0 differ from the clean ones: the attack changes images that "
                "it must not change, or the model is not deterministic; do not trust the other rows"
            )
        count = len(self.outcome.clean_correct)
        for flags, what in ((self.outcome.nonfinite, "NaN or infinite"), (self.outcome.zero, "zero in every pixel")):
            blind = int(flags.sum())
            if blind:
                found.append(
                    f"the gradient of {blind} of {count} images was {what} at some step: the attack was "
                    "blind there, and the accuracy under attack may be too high; look for saturation, or use an "
                    "attack without gradients"
                )
        return found

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain values, with the per-sample outcomes and the versions of the libraries."""
        samples = {
            "index": self.indices,
            "clean_correct": self.outcome.clean_correct,
            "eps_0_correct": self.control.robust_correct,
            "robust_correct": self.outcome.robust_correct,
            "nonfinite_gradient": self.outcome.nonfinite,
            "zero_gradient": self.outcome.zero,
        }
        return {
            "schema": SCHEMA,
            **self.subject,
            **self.settings,
            "n": len(self.indices),
            "accuracy": self.accuracies,
            "unconverged": {
                "clean": self.outcome.clean_unconverged,
                "eps_0": self.control.robust_unconverged,
                "robust": self.outcome.robust_unconverged,
            },
            "standing": self.standing,
            "samples": {name: values.tolist() for name, values in samples.items()} | self._broken_by(),
            "warnings": self.warnings,
            "versions": library_versions(),
        }

    def to_json(self) -> str:
        """Return ``plain`` as one line of strict JSON."""
        return json.dumps(self.plain(), allow_nan=False) + "\n"

    def show(self, console: Console) -> None:
        """Print the table and the warnings on ``console``."""
        console.print(self._table())
        for warning in self.warnings:
            console.print(warning, style="yellow")

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=100, highlight=False)
        with console.capture() as captured:
            self.show(console)
        return captured.get().rstrip("\n")

    def __repr__(self) -> str:
        return str(self)

    def _table(self) -> Table:
        data = f" on {self.subject['data']}" if self.subject["data"] else ""
        name = f"{self.settings['attack']} ({self.settings['norm']})"
        name += ", FAULTY ON PURPOSE" * self.settings["clamp_normalised"]
        images = "test images" if data else "images"
        title = f"{self.subject['kind']}{data}, {name}, {len(self.indices)} {images}"
        table = Table(title=title, title_justify="left")
        for heading in ("images", "accuracy", "right on clean too", "no equilibrium"):
            table.add_column(heading, justify="left" if heading == "images" else "right")
        clean = self.outcome.clean_correct
        table.add_row("clean", percent(fraction(clean)), "", _share(self.outcome.clean_unconverged))
        for label, row in (("eps = 0", self.control), (f"eps = {self.radius}", self.outcome)):
            table.add_row(
                f"attacked, {label}",
                percent(fraction(row.robust_correct)),
                percent(fraction(row.worst_correct)),
                _share(row.robust_unconverged),
            )
        for attack, share in self.standing.items():
            table.add_row(f"  after {attack}", "", percent(share), "")
        return table

    def _broken_by(self) -> dict[str, list[str | None]]:
        """Which of ``parts`` broke each sample first, "clean" where none was needed; None where it stands."""
        if self.outcome.broken_by is None or not self.parts:
            return {}
        causes = ("clean", *self.parts)
        return {"broken_by": [None if index < 0 else causes[index] for index in self.outcome.broken_by.tolist()]}


def _share(value: float | None) -> str:
    return "" if value is None else percent(value)
