"""The report: all that an audit, a certification or a check of a function found, as one value that shows itself."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from analysis.findings import Finding, Measurement, Skipped, Verdict
from analysis.findings.finding import NOT_JUDGED
from analysis.findings.values import mapping, printable, sequence
from analysis.findings.verdict import WORST_FIRST
from stabdeq.errors import ConfigError, closest
from stabdeq.files import strict_json

SCHEMA = 1
# What is plain data in a report, and in its file.
PARTS = ("command", "checkpoint", "environment", "sample", "images", "certificates", "series")

Named = TypeVar("Named", Finding, Measurement, Skipped)


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """Findings, and what they rest on; made by an audit, a certification, a check of a function, or read from a file.

    ``title`` says what was judged. ``series`` holds, by check, the numbers that figures are drawn from; ``certificates`` the
    matrices and multipliers of proofs. ``command`` is what makes the report again; ``checkpoint`` and ``environment`` say what was
    judged, where and when; ``sample`` which images were drawn, in which order and with which seed, and their hash; ``images`` the
    pixels and labels of those that witnesses name.
    ``gaps`` are sentences on what could not be read where the report comes from a file.
    """

    findings: tuple[Finding, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    series: dict[str, Any] = field(default_factory=dict)
    certificates: dict[str, Any] = field(default_factory=dict)
    command: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    sample: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    subject: str = ""
    gaps: tuple[str, ...] = ()

    @classmethod
    def parse(cls, plain: Any) -> "Report":
        """Return the report that ``plain``, decoded JSON, holds, whatever it is: what cannot be read becomes a gap that is said."""
        from analysis.report.reading import parse

        return parse(plain)

    def to_json(self) -> str:
        """Return the text of ``report.json``, which ``parse`` reads: a float that is not finite is "nan", "inf" or "-inf".

        Raises TypeError where a series or a witness holds what JSON cannot (a tensor, a path).
        """
        listed = {key: [asdict(item) for item in getattr(self, key)] for key in ("findings", "measurements", "skipped")}
        plain = {key: getattr(self, key) for key in ("subject", *PARTS)}
        return strict_json({"schema": SCHEMA, "exit_code": self.exit_code, **listed, **plain})

    @property
    def title(self) -> str:
        """What was judged: ``subject``, or which kind of model on which data set."""
        kind = printable(self.checkpoint.get("kind")) or "unnamed model"
        data = printable(mapping(self.checkpoint.get("data")).get("name"))
        return printable(self.subject) or (f"{kind} on {data}" if data else kind)

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many findings end in each of the four verdicts, and in an unknown one where some do."""
        found = Counter(finding.verdict for finding in self.findings)
        return {word: found[word] for word in Verdict if found[word] or word is not Verdict.UNKNOWN}

    @property
    def verdict(self) -> Verdict:
        """The verdict that decides the exit code."""
        worst = min((finding.verdict for finding in self.findings), key=WORST_FIRST.index, default=Verdict.UNKNOWN)
        return Verdict.INCONCLUSIVE if worst is Verdict.UNKNOWN else worst

    @property
    def exit_code(self) -> int:
        """1 where a claim is refuted, else 3 where one is inconclusive or none was judged, else 0."""
        return {Verdict.REFUTED: 1, Verdict.INCONCLUSIVE: 3}.get(self.verdict, 0)

    @property
    def holds(self) -> bool:
        """Whether something was judged, and all of it is proved or supported."""
        return self.exit_code == 0

    @property
    def sentence(self) -> str:
        """What the exit code means."""
        counts = self.counts
        refuted, unsettled = counts[Verdict.REFUTED], counts[Verdict.INCONCLUSIVE] + counts.get(Verdict.UNKNOWN, 0)
        if refuted:
            held = "One claim is refuted" if refuted == 1 else f"{refuted} claims are refuted"
            return f"{held}{f', and {unsettled} could not be settled' if unsettled else ''}."
        if unsettled:
            return f"No claim is refuted, but {unsettled} could not be settled."
        return "No claim is refuted and none is inconclusive." if self.findings else NOTHING_JUDGED

    @property
    def partial(self) -> str:
        """What was left out of a report that was asked for a part of what is judged by default; empty where nothing was."""
        left = [printable(item.check) for item in self.skipped if not item.asked_for]
        if not left:
            return ""
        ran = {item.check for item in self.findings if item.name != NOT_JUDGED} | {
            item.check for item in self.measurements
        }
        every = ran | {item.check for item in self.skipped}
        things, verb = ("claims", "judged") if self.command.get("name") == "check" else ("checks", "run")
        were = "was" if len(ran) == 1 else "were"
        return f"Partial: {len(ran)} of {len(every)} {things} {were} {verb}. Not asked for: {', '.join(left)}."

    @cached_property
    def named(self) -> dict[str, Finding]:
        """The findings by name, "check.name", with "#2" and so on behind one that stood before."""
        names = numbered(f"{printable(finding.check)}.{printable(finding.name)}" for finding in self.findings)
        return dict(zip(names, self.findings, strict=True))

    @property
    def worst_first(self) -> list[Finding]:
        """The findings, refuted ones first and proved ones last, in their own order within a verdict."""
        return sorted(self.findings, key=lambda finding: WORST_FIRST.index(finding.verdict))

    @property
    def class_names(self) -> list[str]:
        """The names of the data's classes; empty where the report names none."""
        return [printable(name) for name in sequence(mapping(self.checkpoint.get("data")).get("classes"))]

    def require(self, word: str) -> "Report":
        """Return the report with what is supported counted as inconclusive, so that only what is proved holds; ``word`` is "proved".

        Raises ConfigError for another word.
        """
        if word != "proved":
            raise ConfigError(f"a report can be required to be 'proved', not {word!r}")
        less = {Verdict.SUPPORTED: Verdict.INCONCLUSIVE}
        return replace(
            self, findings=tuple(replace(one, verdict=less.get(one.verdict, one.verdict)) for one in self.findings)
        )

    def told(self, name: str) -> str:
        """Return the finding called ``name`` in words, as a failing test shows it: verdict, claim, evidence and witness, a line each."""
        from analysis.report.junit import witness_lines

        finding = self.named[name]
        lines = [f"{finding.verdict}: {printable(finding.claim)}", printable(finding.evidence)]
        return "\n    ".join([*lines, *(f"witness: {line}" for line in witness_lines(finding))])

    def __getitem__(self, name: str) -> "Report":
        """Return the part of the report on a check, or on the finding "check.name"; raise KeyError where it holds none."""
        findings = tuple(item for key, item in self.named.items() if name in (key, item.check))
        measurements = tuple(item for item in self.measurements if item.check == name)
        skipped = tuple(item for item in self.skipped if item.check == name)
        if not findings and not measurements and not skipped:
            known = {*self.named, *(item.check for item in (*self.findings, *self.measurements, *self.skipped))}
            raise KeyError(f"{name!r}: {closest(name, known) if known else 'the report is empty'}")
        series = {check: series for check, series in self.series.items() if check == name}
        return replace(self, findings=findings, measurements=measurements, skipped=skipped, series=series)

    def __str__(self) -> str:
        """Return the table of verdicts as a terminal without colours shows it."""
        from analysis.report.terminal import as_text

        return as_text(self)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {word}" for word, count in self.counts.items() if count)
        partial = ", partial" if self.partial else ""
        return f"<Report on {self.title}: {counts or 'nothing judged'}{partial}>"

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, so that its style does not reach the notebook's."""
        from analysis.report.page import framed

        return framed(self)

    def save(
        self,
        folder: str | Path,
        *,
        junit: str | Path | None = None,
        markdown: str | Path | None = None,
        sarif: str | Path | None = None,
    ) -> tuple[Path, ...]:
        """Write ``report.json`` and ``report.html``, drawn from it, into ``folder``, made where missing; return the paths.

        ``junit``, ``markdown`` and ``sarif`` are files for CI systems to write, too. Each file appears whole or not at all, and never
        beside one of an earlier report. Raises FileError where a folder or a file cannot be made or written.
        """
        from analysis.report.page import write_report

        return write_report(
            self,
            Path(folder),
            junit=None if junit is None else Path(junit),
            markdown=None if markdown is None else Path(markdown),
            sarif=None if sarif is None else Path(sarif),
        )


NOTHING_JUDGED = "No claim was judged: the report holds no findings."


def numbered(names: Iterable[str]) -> list[str]:
    """Return ``names`` with "#2" and so on behind one that stood before, so that no two are the same.

    >>> numbered(["decay.flow", "decay.flow"])
    ['decay.flow', 'decay.flow#2']
    """
    seen: dict[str, int] = {}  # each name, and the number that was last put behind it
    for name in names:
        unique = name
        while unique in seen:
            seen[name] += 1
            unique = f"{name}#{seen[name]}"
        seen[unique] = 1
    return list(seen)


def by_check(items: Iterable[Named]) -> dict[str, list[Named]]:
    """Return ``items`` by the check that each names, in their own order."""
    groups: dict[str, list[Named]] = {}
    for item in items:
        groups.setdefault(printable(item.check), []).append(item)
    return groups


def images_named(witness: Mapping[str, Any] | None) -> list[int]:
    """Return the places in the test split of the images that a witness names.

    >>> images_named({"image": 3, "images": [5, 3, "x"], "other_image": 7})
    [3, 5, 7]
    """
    fields = witness or {}
    places = [fields.get("image"), *sequence(fields.get("images")), fields.get("other_image")]
    return list(dict.fromkeys(place for place in places if type(place) is int and place >= 0))
