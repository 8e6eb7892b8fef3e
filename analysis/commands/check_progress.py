"""What a person sees while ``stabdeq check`` runs: the claim, and of a proof on boxes how far it has come."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from analysis.commands.audit_progress import TELLING, spoken
from stabdeq.percent import percent

if TYPE_CHECKING:
    from analysis.proofs.intervals.watching import Boxes


class CheckProgress:
    """Says to ``show`` in a line what is being judged; ``now`` returns a time in seconds."""

    def __init__(self, show: Callable[[str], object], now: Callable[[], float] = time.monotonic) -> None:
        self.show, self.now = show, now
        self.name, self.share, self.began = "", math.inf, 0.0

    def on_claim(self, name: str) -> None:
        """Say that the claim ``name`` is being judged."""
        self.name, self.share = name, math.inf
        self.show(f"judging: {name}")

    def on_boxes(self, boxes: "Boxes") -> None:
        """Say how far the proof of that claim has come, and about how long it takes if all of the region takes as long as what is done."""
        now = self.now()
        if boxes.share < self.share:  # another search
            self.began = now
        self.share = boxes.share
        left = (now - self.began) / boxes.share * (1 - boxes.share) if boxes.share > TELLING else 0
        more = f", perhaps {spoken(left)} more" if left else ""
        self.show(
            f"judging: {self.name}, {boxes.examined} boxes examined, {percent(boxes.share)} of the region closed, "
            f"{boxes.open} boxes open{more}"
        )
