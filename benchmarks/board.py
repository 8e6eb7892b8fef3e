"""The board of equilibrium models: a page of entries, each of which a command certifies anew.

``python -m benchmarks.board`` writes ``docs/board.md`` and the schema of entries anew from ``docs/board/*.json``.
``python -m benchmarks.board CHECKPOINT ENTRY [--data-dir DIR]`` certifies a checkpoint with the entry's seed and images and says
what differs; it exits with 1 where something does, and with 2 where there is nothing to certify.
"""

import argparse
import json
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

import stabdeq
from analysis.report.report import Report
from benchmarks.table import table
from stabdeq.attacks.run import parse_eps
from stabdeq.checkpoint import load_checkpoint
from stabdeq.errors import ConfigError, StabdeqError
from stabdeq.files import replace_file
from stabdeq.percent import percent
from stabdeq.reading import of_single_keys, read_regular

DOCS = Path(__file__).parents[1] / "docs"
PAGE, ENTRIES = DOCS / "board.md", DOCS / "board"
SCHEMA = ENTRIES / "schema.json"
BLOCK = re.compile(r"(<!-- board: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
L2 = ("0.1", "0.3", "0.5", "1", "1.58")
LINF = ("2/255", "0.1")
DEPLOYED = "0.3"  # the l2 radius at which predictions of the model as it runs are certified
COLUMNS = (
    "model",
    "clean",
    *(f"l2 {eps}" for eps in L2),
    *(f"l-inf {eps}" for eps in LINF),
    "as it runs",
    "honest attack",
)
NONE = "·"
MOST = 2**20  # bytes of an entry
FOLDER = "folder"  # what a checkpoint calls any folder of images: that name does not say what lies in it

# In %, with as many decimals as were measured: they say to which precision another measurement has to agree.
Percent = Annotated[
    Decimal,
    BeforeValidator(lambda value: Decimal(value) if type(value) is int else value),
    Field(ge=0, le=100),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
]
Count = Annotated[int, Field(gt=0)]


def _plain(text: str) -> str:
    """Others write it, and the page shows it as Markdown: it makes no cell, link, tag or line of its own."""
    if not text.isprintable() or any(mark in text for mark in "|<>[]`\\"):
        raise ValueError("expected one line of plain text, without | < > [ ] ` and \\")
    return text


Line = Annotated[str, AfterValidator(_plain)]
Text = Annotated[Line, Field(min_length=1)]
HASH = "^[0-9a-f]{64}$"


class Part(BaseModel):
    """A part of an entry: no other fields than its own, and none may be left out; null says "not measured"."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Clean(Part):
    """Test accuracy, and on how many images."""

    accuracy: Percent
    images: Count


class Attacked(Part):
    """Images right under the honest attack, the worst of all strong ones, in a ball of ``norm`` and ``eps`` (pixels of [0, 1])."""

    norm: Literal["linf", "l2"]
    eps: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(/255)?$")]
    images: Count
    accuracy: Percent


class Certification(Part):
    """With which images and which seed ``stabdeq certify`` was called, and the shares of images that it proved."""

    images: Count
    seed: Annotated[int, Field(ge=0)]
    images_sha256: Annotated[
        str | None, Field(pattern=HASH, description="of these images and labels: sample.sha256 in the report")
    ]
    l2: dict[Literal["0.1", "0.3", "0.5", "1", "1.58"], Percent | None]
    linf: dict[Literal["2/255", "0.1"], Percent | None]
    deployed: Annotated[Percent | None, Field(description="at l2 radius 0.3, of the model as it runs")]


class Entry(Part):
    """One model on the board: what it is, how it is made, what was measured and proved of it, and who says so."""

    name: Text
    kind: Text
    data: Text
    recipe: Annotated[Text, Field(description="the command that trains it")]
    parameters: Annotated[Count | None, Field(description="how many numbers are trained")]
    clean: Clean | None
    honest: Annotated[list[Attacked] | None, Field(description="one for each norm and eps")]
    certification: Certification | None
    sha256: Annotated[str | None, Field(pattern=HASH, description="of the checkpoint file")]
    date: Text
    machine: Text
    commands: Annotated[list[Text], Field(min_length=1, description="what measured all this")]
    who: Text
    note: Line


def read_entry(path: Path) -> Entry:
    """Return the entry in the file ``path``; raises ConfigError, with each field that does not fit, where it is none."""
    try:
        # Others send entries: one that says two things under one name is none.
        plain = json.loads(read_regular(path, MOST), parse_float=Decimal, object_pairs_hook=of_single_keys)
        entry = Entry.model_validate(plain)
    except (OSError, ValueError, RecursionError) as error:
        reasons = [str(error)]
        if isinstance(error, ValidationError):
            reasons = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ConfigError(f"{path.name} is no entry of the board: {'; '.join(reasons)}") from None
    certification = entry.certification
    if certification and (set(certification.l2), set(certification.linf)) != (set(L2), set(LINF)):
        raise ConfigError(
            f"{path.name}: certification needs l2 at {', '.join(L2)} and linf at {', '.join(LINF)}, or null"
        )
    attacks = [f"{one.norm} {one.eps}" for one in entry.honest or ()]
    if twice := sorted({one for one in attacks if attacks.count(one) > 1}):
        raise ConfigError(
            f"{path.name}: honest needs one accuracy for each norm and eps, got more at {', '.join(twice)}"
        )
    if said := contradictions(entry):
        raise ConfigError(f"{path.name} contradicts itself: {'; '.join(said)}")
    return entry


def contradictions(entry: Entry) -> list[str]:
    """Return, as sentences, which accuracies of ``entry`` cannot both be true of the same images.

    A certified image is right within its ball: unchanged, and under every attack that stays inside the ball.
    """
    proved = entry.certification
    if proved is None:
        return []
    certified = [("l2", eps, share) for eps, share in proved.l2.items()]
    certified += [("linf", eps, share) for eps, share in proved.linf.items()]
    certified.append(("l2", DEPLOYED, proved.deployed))
    found = [
        (f"honest at {one.norm} {one.eps}", one.norm, one.eps, one.accuracy, one.images) for one in entry.honest or ()
    ]
    if entry.clean:
        found.append(("clean", "l2", "0", entry.clean.accuracy, entry.clean.images))
    return [
        f"{what} is {accuracy} % of {images} images, and at {norm} {eps}, where no change turns a certified one, {share} % of "
        f"{proved.images} are certified: measure both on the same (--images {proved.images} --seed {proved.seed})"
        for norm, eps, share in certified
        for what, own, radius, accuracy, images in found
        if share is not None and accuracy < share and _within(own, radius, norm, eps)
    ]


def _within(norm: str, eps: str, whole: str, radius: str) -> bool:
    """Return whether a ball lies in another around the same image: no pixel moves further than the l2 norm of the change."""
    return (norm, whole) != ("linf", "l2") and parse_eps(eps) <= parse_eps(radius)


def entries() -> dict[str, Entry]:
    """Return all entries by the names of their files."""
    return {path.stem: read_entry(path) for path in sorted(ENTRIES.glob("*.json")) if path != SCHEMA}


def schema() -> str:
    """Return the schema of an entry, as JSON."""
    return json.dumps(Entry.model_json_schema(), indent=1) + "\n"


def with_entries(page: str, found: dict[str, Entry]) -> str:
    """Return the Markdown ``page`` with its blocks, a table for each data set and what all entries rest on, as in ``found``."""
    return BLOCK.sub(lambda block: f"{block[1]}{_block(block[2], found)}\n{block[3]}", page)


def _block(name: str, found: dict[str, Entry]) -> str:
    if name == "sources":
        return "\n".join(_source(file, entry) for file, entry in found.items()) + "\n"
    ranked = sorted((entry for entry in found.values() if entry.data == name), key=_rank)
    return table(COLUMNS, map(_row, ranked)) + "\n"


def _rank(entry: Entry) -> tuple[Any, ...]:
    """Return what puts the most robust entry first: certified before attacked, then clean."""
    proved = entry.certification
    l2 = proved.l2["0.3"] if proved else None
    linf = proved.linf["2/255"] if proved else None
    least = min((one.accuracy for one in entry.honest or ()), default=None)
    clean = entry.clean.accuracy if entry.clean else None
    return *(-(Decimal(-1) if value is None else value) for value in (l2, linf, least, clean)), entry.name


def _row(entry: Entry) -> list[str]:
    proved = entry.certification
    l2 = [proved.l2[eps] if proved else None for eps in L2]
    linf = [proved.linf[eps] if proved else None for eps in LINF]
    honest = ", ".join(
        f"{one.accuracy} at {one.norm.replace('linf', 'l-inf')} {one.eps} (n = {one.images})"
        for one in entry.honest or ()
    )
    numbers = [entry.clean.accuracy if entry.clean else None, *l2, *linf, proved.deployed if proved else None]
    return [entry.name, *(NONE if value is None else str(value) for value in numbers), honest or NONE]


def _source(file: str, entry: Entry) -> str:
    """Return the line that says how an entry was measured."""
    images = []
    if entry.clean:
        images.append(f"clean on {entry.clean.images} images")
    if entry.certification:
        proved = entry.certification
        known = "" if proved.images_sha256 is None else f", SHA-256 of the images `{proved.images_sha256}`"
        images.append(f"certified on {proved.images}, seed {proved.seed}{known}")
    parts = [
        f"{entry.kind}, `{entry.recipe}`",
        "parameters not counted" if entry.parameters is None else f"{entry.parameters} parameters",
        ", ".join(images) or "no image",
        "checkpoint not kept" if entry.sha256 is None else f"SHA-256 `{entry.sha256}`",
        ", ".join(f"`{command}`" for command in entry.commands),
        entry.machine,
        entry.date,
        entry.who,
    ]
    return f"- [{entry.name}](board/{file}.json): {'; '.join(parts)}. {entry.note}".rstrip()


def differences(entry: Entry, report: Report, parameters: int) -> list[str]:
    """Return, as sentences, where ``report``, of the entry's images and seed, is at odds with ``entry``; null claims nothing."""
    certification = _certification(entry)
    measured = {(one.check, one.name): one.value for one in report.measurements}
    data, images = report.checkpoint.get("data", {}).get("name"), report.sample.get("sha256")
    said = [
        f"{what}: the entry says {claimed}, the checkpoint {came}"
        for what, claimed, came in (
            ("SHA-256", entry.sha256, report.checkpoint.get("sha256")),
            ("kind", entry.kind, report.checkpoint.get("kind")),
            ("data", None if data == FOLDER else entry.data, data),
            ("parameters", entry.parameters, parameters),
        )
        if claimed not in (None, came)
    ]
    if certification.images_sha256 not in (None, images):
        said.append(
            f"images: the entry says SHA-256 {certification.images_sha256}, the images certified anew have {images}"
        )
    if data == FOLDER and certification.images_sha256 is None:
        said.append(
            f"images: the checkpoint reads a folder, and which images that holds is known by their SHA-256 alone: "
            f"certification.images_sha256 of these is {images}"
        )
    claims = {("radius", f"certified accuracy {eps}"): value for eps, value in certification.l2.items()}
    claims |= {("linf", f"certified accuracy {eps}"): value for eps, value in certification.linf.items()}
    claims["deployed", f"certified accuracy {DEPLOYED}"] = certification.deployed
    if entry.clean and entry.clean.images == certification.images:
        claims["radius", "accuracy"] = entry.clean.accuracy
    for (check, name), claimed in claims.items():
        found = measured.get((check, name))
        if claimed is not None and not (found is not None and _agree(claimed, found)):
            came = "nothing" if found is None else percent(found).replace("%", " %")
            said.append(f"{check}, {name}: the entry says {claimed} %, certified anew it is {came}")
    return said


def _agree(claimed: Decimal, share: float) -> bool:
    """Return whether ``share``, of 1, rounds to ``claimed``, in %."""
    decimals = -int(claimed.as_tuple().exponent)
    return abs(Decimal(100 * share) - claimed) <= Decimal("0.5000001") * Decimal(10) ** -decimals


def main(arguments: list[str]) -> int:
    """Write the page, or certify an entry anew; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.board", description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="checkpoint of the entry's model")
    parser.add_argument("entry", type=Path, nargs="?", help="JSON file of the entry")
    parser.add_argument("--data-dir", type=Path, help="where the data set lies, for sets that are not embedded")
    options = parser.parse_args(arguments)
    if options.checkpoint is None:
        replace_file(SCHEMA, schema().encode())
        replace_file(PAGE, with_entries(PAGE.read_text(encoding="utf-8"), entries()).encode())
        return 0
    if options.entry is None:
        parser.error("give the JSON file of the entry, too")
    try:
        said = _certified_anew(options.checkpoint, read_entry(options.entry), options.data_dir)
    except StabdeqError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(said) if said else "certified anew: all that the entry claims of the checkpoint stands")
    return 1 if said else 0


def _certified_anew(checkpoint: Path, entry: Entry, data_dir: Path | None) -> list[str]:
    certification = _certification(entry)
    asked: dict[str, Any] = {"samples": certification.images, "seed": certification.seed, "data_dir": data_dir}
    if certification.deployed is not None:
        asked["deployed"] = True
    model = load_checkpoint(checkpoint).model
    report = stabdeq.certify(checkpoint, **asked)
    return differences(entry, report, sum(one.numel() for one in model.parameters()))


def _certification(entry: Entry) -> Certification:
    if entry.certification is None:
        raise ConfigError(
            f"{entry.name} has no certification, so nothing of it can be certified anew: measure it first"
        )
    return entry.certification


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
