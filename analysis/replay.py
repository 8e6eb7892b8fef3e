"""The refuted findings of a report on a model, each with its witness evaluated anew by the check that found it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor

from analysis.checks.witness import Replay
from analysis.findings import CheckResult, Finding, Verdict
from analysis.findings.catalogue import CHECKS, words_of
from analysis.findings.values import mapping, printable, sequence
from analysis.measure.sample import levels
from analysis.measure.subject import Subject, left_as_it_was, prepare
from analysis.report.checkpoint_of import checkpoint_of
from analysis.report.next_steps import are_given
from analysis.report.reading import read_report
from analysis.report.report import Report, images_named
from stabdeq.checkpoint import Checkpoint
from stabdeq.data import Split, to_unit
from stabdeq.errors import ConfigError, NotReplayableError, closest
from stabdeq.model import EquilibriumModel
from stabdeq.trained_on import data_of

# Places of M images in the test split -> images (M, C, H, W) in [0, 1] and labels (M,).
Fetch = Callable[[list[int]], tuple[Tensor, Tensor]]


def replay(
    report: str | Path,
    *,
    finding: str | None = None,
    checkpoint: str | Path | None = None,
    data_dir: str | Path | None = None,
    trusted: bool = False,
    on_finding: Callable[[str], None] = lambda name: None,
) -> dict[str, Replay | NotReplayableError]:
    """Evaluate the witnesses of the report.json at ``report`` anew, on the checkpoint that it names, and say by finding what came.

    ``finding`` is one refuted finding, such as "decay.stabilised"; all of them by default. ``checkpoint`` says where the file
    lies, if not where the report says; its SHA-256 must be the report's. ``data_dir`` says where its data set lies; ``on_finding``
    is told the name of each finding as it begins; a checkpoint that is ``trusted`` may ask for more work (``load_checkpoint``).
    Raises ReportError where the file is no report of ours, ConfigError where nothing is refuted or no such finding is,
    CheckpointError where no checkpoint of that hash is found.
    """
    path = Path(report)
    told = read_report(path, of_this_schema=True)
    chosen = _refuted(path, told, finding)
    loaded = checkpoint_of(told, path, None if checkpoint is None else Path(checkpoint), trusted=trusted)
    fetch = _fetch_from(loaded, data_dir)
    replayer = Replayer(report=told, model=loaded.model, fetch=fetch, gives_its_images=not are_given(told))
    results: dict[str, Replay | NotReplayableError] = {}
    for name, item in chosen.items():
        on_finding(name)
        try:
            results[name] = replayer.replay(item)
        except NotReplayableError as error:
            results[name] = error
    return results


@dataclass(frozen=True, kw_only=True)
class Replayer:
    """Replays findings of ``report`` on ``model``, with the images that ``fetch`` gives by their places.

    ``gives_its_images``: they are the report's, not test images in the place of others that it was given. The model is left as it was.
    """

    report: Report
    model: EquilibriumModel
    fetch: Fetch
    gives_its_images: bool = True

    def replay(self, finding: Finding) -> Replay:
        """Evaluate the witness of ``finding`` anew; raises NotReplayableError, saying why it cannot be."""
        with left_as_it_was(self.model):
            return self._replay(finding)

    def _replay(self, finding: Finding) -> Replay:
        if finding.check not in CHECKS:
            raise NotReplayableError(f"this version has no check {printable(finding.check)!r}")
        check = CHECKS[finding.check]
        if check.all_images_at_once:  # it is run again, once, on all
            return check.part("replay")(self._whole_sample, finding, self._again(check.name))
        named = images_named(finding.witness)
        if named:
            self._require_its_images()
        # A claim about V or the orthogonal layer alone holds or fails whatever the image: the first that was audited will do.
        if not named and "image" in check.needs:
            raise NotReplayableError("the witness names no image")
        subject = self._subject(named or (self._drawn[:1] if self.gives_its_images else [0]), named)
        words = words_of(check.name, finding.name, finding.claim)
        if words is not None and words.by_some and f"{check.name}.{finding.name}" not in subject.claims:
            raise NotReplayableError("the model makes no such claim")
        return check.part("replay")(subject, finding)

    @cached_property
    def _drawn(self) -> list[int]:
        """The places of the audited images, in the order in which they were drawn."""
        places = sequence(self.report.sample.get("images"))
        is_draw = all(type(place) is int and place >= 0 for place in places) and len(set(places)) == len(places)
        if not places or not is_draw:
            raise NotReplayableError("the report does not say which images were drawn (is it older?): audit anew")
        return places

    @cached_property
    def _whole_sample(self) -> Subject:
        self._require_its_images()
        named = [place for place in self._drawn if str(place) in self.report.images]
        return self._subject(self._drawn, named)

    def _require_its_images(self) -> None:
        if not self.gives_its_images:
            raise NotReplayableError(
                "it is about images that were given, not of the test split: audit them again into another folder, then stabdeq compare "
                "--fail-on-difference"
            )

    @cached_property
    def _results(self) -> dict[str, CheckResult]:
        return {}

    def _again(self, check: str) -> CheckResult:
        """Return the result of ``check`` on all images, run once."""
        if check not in self._results:
            self._results[check] = CHECKS[check].part("run")(self._whole_sample)
        return self._results[check]

    def _subject(self, places: list[int], named: list[int]) -> Subject:
        """Prepare the images at ``places``; those that are ``named`` must be the ones that the report holds."""
        seed = self.report.sample.get("seed")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise NotReplayableError("the report does not hold the seed of its sample (is it older?): audit anew")
        images, labels = self.fetch(places)
        for position, place in enumerate(places):
            if place in named and mapping(self.report.images.get(str(place))).get("pixels") != levels(images[position]):
                raise NotReplayableError(f"test image {place} is not the one that the report holds: other data?")
        return prepare(self.model, images, labels, indices=torch.tensor(places), seed=seed)


def _refuted(path: Path, report: Report, name: str | None) -> dict[str, Finding]:
    """Return the refuted findings of ``report`` by their names, or the one of them that is called ``name``."""
    refuted = {key: item for key, item in report.named.items() if item.verdict is Verdict.REFUTED}
    if not refuted:
        raise ConfigError(
            f"{path}: no finding is refuted, so there is no witness to replay; 'stabdeq verify' tells whether that is true"
        )
    if name is None:
        return refuted
    if name not in refuted:
        known = report.named.get(name)
        was = "is no finding of this report" if known is None else f"is {known.verdict}, not refuted"
        raise ConfigError(f"--finding {name}: it {was}: {closest(name, refuted)}")
    return {name: refuted[name]}


def _fetch_from(loaded: Checkpoint, data_dir: str | Path | None) -> Fetch:
    """Return what gives test images of the checkpoint's data set, read where the first ones are asked for."""

    @cache
    def read() -> Split:
        return data_of(loaded, data_dir).test

    def fetch(places: list[int]) -> tuple[Tensor, Tensor]:
        test = read()
        if max(places) >= len(test):
            raise NotReplayableError(f"the report names an image beyond the {len(test)} test images: other data?")
        return to_unit(test.images[places], torch.float64), test.labels[places]

    return fetch
