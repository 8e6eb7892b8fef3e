"""The refuted findings of a report on a model, each with its witness evaluated anew by the check that found it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from analysis.audit import CHECKS, CLAIMED_BY_SOME, ON_REQUEST
from analysis.checks.robustness import check as robustness
from analysis.checks.witness import NotReplayableError, Replay
from analysis.findings import CheckResult
from analysis.findings.values import mapping, printable, sequence
from analysis.measure.sample import levels
from analysis.measure.subject import Subject, prepare
from analysis.report.reading import images_named
from stabdeq.model import EquilibriumModel

# Places of M images in the test split -> images (M, C, H, W) in [0, 1] and labels (M,).
Fetch = Callable[[list[int]], tuple[Tensor, Tensor]]

# Claims about V and the orthogonal layer alone hold or fail whatever the image: the first that was audited will do.
NEED_NO_IMAGE = frozenset({"positivity", "convexity", "separation"})


@dataclass(frozen=True, kw_only=True)
class Replayer:
    """Replays findings of ``report`` on ``model``, with the images that ``fetch`` gives by their places in the test split."""

    report: dict[str, Any]
    model: EquilibriumModel
    fetch: Fetch

    def replay(self, finding: dict[Any, Any]) -> Replay:
        """Evaluate the witness of ``finding`` anew; raises NotReplayableError, saying why it cannot be."""
        check = finding.get("check")
        if check not in CHECKS + ON_REQUEST:
            raise NotReplayableError(f"this version has no check {printable(check)!r}")
        module: Any = import_module(f"analysis.checks.{check}")
        if check in ON_REQUEST:  # it judges all images at once, so it is run again, once, on all
            return module.replay(self._whole_sample, finding, self._indicators)
        named = images_named(finding.get("witness"))
        if not named and check not in NEED_NO_IMAGE:
            raise NotReplayableError("the witness names no image")
        subject = self._subject(named or self._drawn[:1], named)
        claim = f"{check}.{finding.get('name')}"
        if claim in CLAIMED_BY_SOME and claim not in subject.claims:
            raise NotReplayableError("the model makes no such claim")
        return module.replay(subject, finding)

    @cached_property
    def _drawn(self) -> list[int]:
        """The places of the audited images, in the order in which they were drawn."""
        places = sequence(mapping(self.report.get("sample")).get("images"))
        is_draw = all(type(place) is int and place >= 0 for place in places) and len(set(places)) == len(places)
        if not places or not is_draw:
            raise NotReplayableError("the report does not say which images were drawn (is it older?): audit anew")
        return places

    @cached_property
    def _whole_sample(self) -> Subject:
        named = [place for place in self._drawn if str(place) in mapping(self.report.get("images"))]
        return self._subject(self._drawn, named)

    @cached_property
    def _indicators(self) -> CheckResult:
        return robustness.check(self._whole_sample)

    def _subject(self, places: list[int], named: list[int]) -> Subject:
        """Prepare the images at ``places``; those that are ``named`` must be the ones that the report holds."""
        seed = mapping(self.report.get("sample")).get("seed")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise NotReplayableError("the report does not hold the seed of its sample (is it older?): audit anew")
        images, labels = self.fetch(places)
        known = mapping(self.report.get("images"))
        for position, place in enumerate(places):
            if place in named and mapping(known.get(str(place))).get("pixels") != levels(images[position]):
                raise NotReplayableError(f"test image {place} is not the one that the report holds: other data?")
        return prepare(self.model, images, labels, indices=torch.tensor(places), seed=seed)
