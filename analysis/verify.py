"""A report repeated: its checkpoint is judged again as the report says it was, and what came is compared with it claim by claim."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from analysis.audit import MOST_STATES, audit
from analysis.certify import certify
from analysis.findings import Finding
from analysis.findings.catalogue import CHECKS
from analysis.findings.values import mapping, printable, sequence
from analysis.measure.sample import describe, draw_images, drawn
from analysis.report.likeness import NUMBER, alike, same_sentence
from analysis.report.made_by import command_line, how_again
from analysis.report.page import render_html
from analysis.report.reading import LARGEST, parse, read_plain, schema_at_odds
from analysis.report.report import Report, numbered
from stabdeq import __version__
from stabdeq.checkpoint import Checkpoint, checkpoint_in, read_bytes
from stabdeq.errors import DataError, NotReplayableError, ReportError
from stabdeq.files import strict_json
from stabdeq.reading import read_regular

COVERED = "verify repeats reports of 'stabdeq audit', and of 'stabdeq certify' on a checkpoint"
ABSENT = "not there"
OPTIONS = {  # that a report of the command may name
    "audit": {"checks", "images", "states", "data-dir", "seed"},
    "certify": {"deployed", "images", "data-dir", "seed", "proof"},
}
_DRAWING = re.compile(r"<svg.*?</svg>", re.DOTALL)
_FOREIGN = re.compile(
    r"<(?:script|style|foreignObject|iframe|image|a)\b|\bon\w+\s*=|position\s*:|href\s*=\s*[\"'](?!#)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What a report says of ``what``, a claim or a fact, and what came now; ``decides`` where it is more than another number."""

    what: str
    reported: str
    now: str
    decides: bool = True


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How a report was repeated: it, what came now, and their ``differences``."""

    report: Report
    again: Report
    differences: tuple[Difference, ...]

    @property
    def holds(self) -> bool:
        """Whether each claim ends again as the report says, and nothing else in the report speaks against it."""
        return not any(one.decides for one in self.differences)

    @property
    def exit_code(self) -> int:
        """0 where it holds, else 1."""
        return 0 if self.holds else 1


def verify(
    checkpoint: str | Path,
    report: str | Path,
    *,
    data_dir: str | Path | None = None,
    trusted: bool = False,
    on_step: Callable[[str], None] = lambda words: None,
) -> Verification:
    """Judge ``checkpoint`` again as the report.json at ``report`` says that it was, and compare claim by claim.

    The checkpoint's SHA-256 must be the report's. Seed, images, checks and effort are the report's too; ``data_dir`` says where the data
    set lies, where it is not embedded; ``trusted`` is that of ``stabdeq.load``. A report.html beside it must be its page, but for
    the drawings. Versions and paths are compared with those of now; a checkpoint may lie elsewhere by now, and another version may find
    the same: that they differ is told and decides nothing. ``on_step`` is told what begins.

    Raises NotReplayableError where the report cannot be repeated: of another checkpoint, of another version, on images that are not
    to be had, or not made by ``audit`` or ``certify`` from a checkpoint. ReportError where the file is no report, or its page cannot
    be read, CheckpointError where the other is no checkpoint.
    """
    path = Path(report)
    plain = read_plain(path)
    told = parse(plain)
    _require_our_version(plain, told)
    name, options = _asked(told)  # before there need be a checkpoint: a report about code has none
    content = read_bytes(Path(checkpoint))
    digest, expected = sha256(content).hexdigest(), printable(told.checkpoint.get("sha256"))
    if digest != expected:
        raise NotReplayableError(
            f"{checkpoint}: another checkpoint: its SHA-256 is {digest}, and that in the report {expected[:64] or 'is missing'}"
        )
    loaded = checkpoint_in(content, Path(checkpoint), trusted=trusted)
    images, labels, indices = _images(told, loaded, data_dir, options["images"], options["seed"])
    seed = options["seed"]
    if name == "audit":
        asked = {"checks": options["checks"], "states": options["states"]}
        again = audit(loaded, images, labels, indices=indices, seed=seed, **asked, on_check=on_step)
    else:
        deployed = options["deployed"]
        again = certify(loaded, images, labels, indices=indices, deployed=deployed, seed=seed, on_stage=on_step)
    again = parse(json.loads(again.to_json()))
    differences = (*_differences(told, again, loaded, path), *_circumstances(told, again, Path(checkpoint)))
    return Verification(report=told, again=again, differences=differences)


def _require_our_version(plain: Mapping[str, Any], report: Report) -> None:
    version = printable(report.environment.get("stabdeq"))
    if odds := schema_at_odds(plain):
        raise NotReplayableError(f"{odds}: verify it with the version of stabdeq that made it, or audit anew")
    if version != __version__:
        raise NotReplayableError(
            f"the report was made by stabdeq {version[:40] or 'of no version'}, and this is {__version__}: install that one, or audit anew"
        )


def _asked(report: Report) -> tuple[str, dict[str, Any]]:
    """Return the command that made ``report`` and its options; raise NotReplayableError where it is none that can be repeated."""
    name, options = printable(report.command.get("name")), mapping(report.command.get("options"))
    if not name:
        raise NotReplayableError("the report does not say which command made it (is it older?): audit anew")
    line = command_line(report.command)
    if name not in ("audit", "certify") or not report.checkpoint:
        raise NotReplayableError(
            f"{COVERED}; this is one of '{name[:40]}', on code that is not run for a report: {how_again(report.command)}, "
            "then stabdeq compare --fail-on-difference"
        )
    if not line:
        raise NotReplayableError(
            f"{COVERED}; this one was made in Python, on a model or images that no command draws: make it again there, then stabdeq "
            "compare --fail-on-difference"
        )
    if isinstance(options.get("images"), str):
        raise NotReplayableError(
            f"{COVERED}; this one is on images of your own: run '{line[:400]}' again, then stabdeq compare --fail-on-difference"
        )
    if strange := sorted(map(printable, options.keys() - OPTIONS[name])):
        raise NotReplayableError(f"the report names options that '{name}' does not have: {', '.join(strange)[:200]}")
    seed, images, checks = (options.get(key) for key in ("seed", "images", "checks"))
    if type(seed) is not int or not 0 <= seed < 2**63 or type(images) is not int or images < 1:
        raise NotReplayableError(f"the command in the report has no seed, or no number of images: {line[:200]}")
    asked = {"seed": seed, "images": images, "deployed": options.get("deployed") is True}
    if name == "certify":
        return name, asked
    unknown = [printable(one) for one in sequence(checks) if not isinstance(one, str) or one not in CHECKS]
    if unknown or not sequence(checks):
        raise NotReplayableError(f"the report's checks are none of this version: {', '.join(unknown)[:200] or 'none'}")
    states = options.get("states")
    if states is not None and not (type(states) is int and 1 <= states <= MOST_STATES):
        raise NotReplayableError(f"the command in the report names no number of states: {line[:200]}")
    return name, asked | {"checks": sequence(checks), "states": states}


def _images(report: Report, loaded: Checkpoint, data_dir: str | Path | None, count: int, seed: int) -> tuple[Any, ...]:
    """Return the images, labels and places that were judged; raise NotReplayableError where they are not to be had."""
    try:
        images, labels, indices = draw_images(loaded, data_dir, count, seed)
    except DataError as error:
        raise NotReplayableError(f"the images are not to be had: {error}") from None
    now = drawn(seed, indices, images, labels)
    if not all(_to_the_letter(report.sample.get(key), value) for key, value in now.items()):
        raise NotReplayableError(
            f"the images drawn from {loaded.data.name} are not those of the report: other data, or another version of PyTorch drew "
            "them: give the data with --data-dir"
        )
    return images, labels, indices


def _differences(told: Report, again: Report, loaded: Checkpoint, path: Path) -> Iterator[Difference]:
    for gap in told.gaps:
        yield Difference(what="the file", reported=gap, now="")
    facts = json.loads(strict_json(describe(loaded))) | {"path": told.checkpoint.get("path")}
    yield from _facts("checkpoint", told.checkpoint, facts)
    if "right" in told.sample:
        yield from _facts(
            "images classified as labelled:", *({"right": one.sample.get("right")} for one in (told, again))
        )
    yield from _facts("report", {"subject": told.subject}, {"subject": again.subject})
    yield from _facts(
        "the checks that were", *({"skipped": [asdict(item) for item in one.skipped]} for one in (told, again))
    )
    for name in dict.fromkeys([*again.named, *told.named]):
        yield from _of_claim(name, told.named.get(name), again.named.get(name))
    yield from _numbers("measured", *map(_measured, (told, again)))
    yield from _numbers("numbers of the figures:", told.series, again.series)
    yield from _numbers("certificate", _without_proof(told), _without_proof(again))
    yield from _numbers("image", told.images, again.images)
    page = path.with_suffix(".html")
    if page.is_file() and page != path and _words(_read(page)) != _words(render_html(told)):
        now = f"stabdeq report {path.name} draws another"
        yield Difference(what=page.name, reported="not the page of this report", now=now)


def _read(page: Path) -> str:
    try:
        return read_regular(page, LARGEST).decode("utf-8", "replace")
    except OSError as error:
        raise ReportError(
            f"{page}: {error.strerror}: make it readable, or move it away to verify the report alone"
        ) from None


def _circumstances(told: Report, again: Report, checkpoint: Path) -> Iterator[Difference]:
    """Yield where and with which versions the report was made, as far as that is not where and with which it was repeated."""
    now = {key: value for key, value in again.environment.items() if key != "date"}
    then = {key: value for key, value in told.environment.items() if key != "date"}
    yield from _facts("environment", then, now, decides=False)
    for what, place in (
        ("checkpoint path", told.checkpoint.get("path")),
        ("command's checkpoint", told.command.get("subject")),
    ):
        if not isinstance(place, str):
            yield Difference(what=what, reported="no text", now=str(checkpoint))
        elif os.path.abspath(place) != os.path.abspath(checkpoint):  # no file is asked for a path of a stranger's
            yield Difference(what=what, reported=place, now=str(checkpoint), decides=False)


def evidence_of(name: str) -> str:
    """Return what a difference in the evidence of the claim ``name`` is called."""
    return f"{name} evidence"


def _of_claim(name: str, told: Finding | None, again: Finding | None) -> Iterator[Difference]:
    if told is None or again is None or told.verdict != again.verdict:
        words = [ABSENT if one is None else str(one.verdict) for one in (told, again)]
        yield Difference(what=name, reported=words[0], now=words[1])
    elif not same_sentence(told.claim, again.claim):
        yield Difference(what=name, reported=told.claim, now=again.claim)
    else:
        if not same_sentence(told.evidence, again.evidence):
            # Another machine finds another worst state, or one more that rounding decides: words and counts change honestly.
            yield Difference(what=evidence_of(name), reported=told.evidence, now=again.evidence, decides=False)
        # Time is not repeated, and what was compared need not be again.
        done = {"seconds", "evidence"}
        parts = [{key: value for key, value in asdict(one).items() if key not in done} for one in (told, again)]
        other = [key for key in parts[0] if not alike(parts[0][key], parts[1][key])]
        if other:
            yield Difference(
                what=name, reported=f"{told.verdict}", now=f"same, other {', '.join(other)}", decides=False
            )


def _facts(
    what: str, told: Mapping[str, Any], again: Mapping[str, Any], *, decides: bool = True
) -> Iterator[Difference]:
    """Yield the facts that are not the same to the letter."""
    for key in dict.fromkeys([*again, *told]):
        if not _to_the_letter(told.get(key), again.get(key)):
            words = [printable(one[key])[:200] if key in one else ABSENT for one in (told, again)]
            yield Difference(what=f"{what} {printable(key)}", reported=words[0], now=words[1], decides=decides)


def _to_the_letter(told: Any, again: Any) -> bool:
    """Return whether two values of JSON are written alike: to Python, True is 1, and 1 is 1.0."""
    return json.dumps(told, sort_keys=True) == json.dumps(again, sort_keys=True)


def _numbers(what: str, told: Mapping[str, Any], again: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the parts in which a number differs, which decides nothing: another machine rounds otherwise."""
    for key in dict.fromkeys([*again, *told]):
        if not alike(told.get(key), again.get(key)):
            words = [_short(one[key]) if key in one else ABSENT for one in (told, again)]
            yield Difference(what=f"{what} {printable(key)}", reported=words[0], now=words[1], decides=False)


def _measured(report: Report) -> dict[str, Any]:
    names = numbered(f"{printable(item.check)}.{printable(item.name)}" for item in report.measurements)
    return {
        name: {"value": item.value, "words": NUMBER.sub("0", item.text)}
        for name, item in zip(names, report.measurements, strict=True)
    }


def _without_proof(report: Report) -> dict[str, Any]:
    return {key: value for key, value in report.certificates.items() if key != "proof"}  # no file is written again


def _short(value: Any) -> str:
    return "other numbers" if isinstance(value, dict | list) else printable(value)[:80]


def _words(page: str) -> str:
    """Return a page with the tags and attributes of its drawings in their place: another version of matplotlib draws otherwise.

    A drawing of a page of ours has no script, no style sheet, no foreign element, and nothing that lays it over the page.
    """
    return _DRAWING.sub(lambda drawing: "<svg>" + " ".join(sorted(set(_FOREIGN.findall(drawing[0])))), page)
