"""What a person sees while ``stabdeq check`` runs: the claim, and of a proof on boxes how far it has come."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from stabdeq.percent import percent

if TYPE_CHECKING:
    from analysis.proofs.intervals.watching import Boxes


class CheckProgress:
    """Says to ``show`` in a line what is being judged; not how long it takes: most of a proof is spent on little of the volume."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self.show, self.name = show, ""

    def on_claim(self, name: str) -> None:
        """Say that the claim ``name`` is being judged."""
        self.name = name
        self.show(f"judging: {name}")

    def on_boxes(self, boxes: "Boxes") -> None:
        """Say how far the proof of that claim has come."""
        self.show(
            f"judging: {self.name}, {boxes.examined} boxes examined, {percent(boxes.share)} of the volume closed, "
            f"{boxes.open} boxes open"
        )
