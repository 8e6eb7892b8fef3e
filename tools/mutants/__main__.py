"""``python -m tools.mutants``: plant faults drawn at random, and write which of them the tests notice."""

import argparse
import ast
import hashlib
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from tools.mutants.edits import Edit, edits
from tools.mutants.lines import SLOW, Followed, Lines
from tools.mutants.session import Collected
from tools.mutants.subjects import ROOT, SUBJECTS, Subject
from tools.mutants.swap import functions, swap
from tools.mutants.trial import forked, import_foreign, plant, run_tests

CANNOT = "cannot"  # a fault that the functions imported already cannot take


class Mutant(NamedTuple):
    """Edit ``number`` of a file, planted for the tests of a subject."""

    subject: str
    path: Path
    number: int
    edit: Edit

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.edit}"


def main(arguments: list[str]) -> None:
    """Draw mutants, try those that are not yet known, and print how many were noticed."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="how many mutants to draw, of all subjects together")
    parser.add_argument(
        "--seed", type=int, default=0, help="the seed of the draw; more mutants of one seed hold the fewer"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/mutants.jsonl"), help="where results are added, and taken up again"
    )
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="the subjects to try")
    words = "of tests that a mutant is shown, the quickest first; survivors of fewer are tried again"
    parser.add_argument("--seconds", type=float, default=10.0, help=words)
    options = parser.parse_args(arguments)
    drawn = [mutant for mutant in _drawn(options.count, options.seed) if mutant.subject in options.only]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    import_foreign()
    for name in options.only:
        todo = _unknown([mutant for mutant in drawn if mutant.subject == name], _known(options.out), options.seconds)
        if todo:
            _try(SUBJECTS[name], todo, options.out, options.seconds)
    known = _known(options.out)
    print(summary(known[_key(mutant)] for mutant in drawn))


def _drawn(count: int, seed: int) -> list[Mutant]:
    """Return ``count`` mutants, as many of each subject as of another, or all of a subject that has fewer."""
    decks = []
    for name, subject in SUBJECTS.items():
        sources = [(path, edits(ast.parse(path.read_text()))) for path in subject.sources()]
        deck = [Mutant(name, path, number, edit) for path, found in sources for number, edit in enumerate(found)]
        random.Random(seed).shuffle(deck)
        decks.append(deck)
    in_turn = (mutant for row in zip_longest(*decks) for mutant in row if mutant is not None)
    return list(islice(in_turn, count))


def _known(out: Path) -> dict[str, dict[str, Any]]:
    lines = out.read_text().splitlines() if out.exists() else []
    return {result["key"]: result for result in map(json.loads, lines)}


def _key(mutant: Mutant) -> str:
    """Return a name under which the result of a mutant holds for as long as its file is unchanged."""
    return f"{mutant.path.relative_to(ROOT)}#{mutant.number}@{_digest([mutant.path])}"


def _versions(subject: Subject) -> dict[str, str]:
    """Return the test files, each with a name for what is written in it now."""
    return {str(path.relative_to(ROOT)): f"{path.stem}@{_digest([path])[:6]}" for path in subject.test_files()}


def _unknown(mutants: list[Mutant], known: dict[str, Any], enough: float) -> list[Mutant]:
    """Return the mutants that have no result, or that survived other tests than these."""
    return [mutant for mutant in mutants if (old := known.get(_key(mutant))) is None or _unseen(mutant, old, enough)]


def _unseen(mutant: Mutant, old: dict[str, Any] | None, enough: float) -> set[str]:
    """Return the test files that a mutant was not shown to, as they are now; none for one that was killed."""
    if old and old["killed_by"]:
        return set()
    seen = old["survived"] if old and old["enough"] >= enough else ()
    return {name for name, version in _versions(SUBJECTS[mutant.subject]).items() if version not in seen}


def _try(subject: Subject, mutants: list[Mutant], out: Path, enough: float) -> None:
    """Add the results of ``mutants`` to ``out``: first of those that can be put into a process that has imported all, then the rest."""
    followed = _followed(
        subject, out.with_suffix(f".{mutants[0].subject.split()[0]}.lines.json"), min(SLOW, enough / 2)
    )
    known = _known(out)
    versions = sorted(_versions(subject).values())
    killers: Counter[tuple[Path, str]] = Counter()  # what noticed other faults of a file is tried first

    def wanted(mutant: Mutant) -> list[str]:
        unseen = followed.among(_unseen(mutant, known.get(_key(mutant)), enough))
        tests = unseen.wanted(mutant.path, mutant.edit.lines, enough)
        return sorted(tests, key=lambda test: -killers[mutant.path, test])

    def swapped(session: Collected) -> None:
        for mutant in mutants:
            if not followed.at_import(mutant.path, mutant.edit.lines):
                functions(mutant.path)  # sought here once, as all that is forked from here has the same
                attempt(mutant, partial(_swapped, mutant, wanted(mutant), session))

    def attempt(mutant: Mutant, work: Callable[[Callable[[], None]], Any]) -> None:
        tests = wanted(mutant)
        began = time.perf_counter()
        answer = forked(work, 3 * SLOW) if tests else [None]
        if answer == CANNOT:
            return
        killed_by = answer if isinstance(answer, str) else answer[0]
        killers[mutant.path, killed_by or ""] += 1
        result = {"key": _key(mutant), "mutant": str(mutant), "subject": mutant.subject, "killed_by": killed_by}
        before = known.get(_key(mutant), {"shown_to": 0})["shown_to"]
        result |= {"shown_to": before + len(tests), "seconds": round(time.perf_counter() - began, 2)}
        with out.open("a") as file:
            print(json.dumps(result if killed_by else {**result, "survived": versions, "enough": enough}), file=file)

    forked(lambda _: run_tests(subject.test_files(), Collected(swapped)))
    for mutant in _unknown(mutants, _known(out), enough):
        attempt(mutant, partial(_imported, mutant, wanted(mutant)))


def _swapped(mutant: Mutant, tests: list[str], session: Collected, alive: Callable[[], None]) -> Any:
    return [session.first_failure(tests, alive)] if swap(mutant.path, mutant.number) else CANNOT


def _imported(mutant: Mutant, tests: list[str], alive: Callable[[], None]) -> Any:
    plant(mutant.path, mutant.number)
    found = []
    files = [ROOT / name for name in dict.fromkeys(test.split("::")[0] for test in tests)]
    run_tests(files, Collected(lambda session: found.append(session.first_failure(tests, alive))))
    return found or ["import"]


def _followed(subject: Subject, cached: Path, longest: float) -> Followed:
    """Return which tests of ``longest`` seconds run which lines; files that were followed before, as they are, are not again."""
    now, sources = _versions(subject), _digest(subject.sources())
    files = {f"{sources}/{version}": ROOT / name for name, version in now.items()}
    old = json.loads(cached.read_text()) if cached.exists() else {}
    new = {key: path for key, path in files.items() if old.get(key, {}).get("longest", 0) < longest}

    def follow(_: Callable[[], None]) -> Any:
        lines = Lines(subject.sources(), longest)
        run_tests(list(new.values()), lines)
        return {"failed": lines.failed, **lines.found()}

    if new:
        answer = forked(follow)
        if isinstance(answer, str):
            raise SystemExit(f"the tests could not be followed: {answer}")
        print("\n".join(f"left out, as it fails or is slow: {test}" for test in answer["failed"]), file=sys.stderr)
        for key, path in new.items():
            tests = answer["files"].get(str(path.relative_to(ROOT)), {})
            old[key] = {"longest": longest, "imported": answer["imported"], "tests": tests}
        cached.write_text(json.dumps(old))
    tests = {test: ran for key in files for test, ran in old[key]["tests"].items()}
    imported: dict[str, list[int]] = defaultdict(list)
    for key in files:
        for name, lines in old[key]["imported"].items():
            imported[name] += lines
    return Followed(imported, tests)


def _digest(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


def _percent(part: int, whole: int, decimals: int) -> str:
    """Return a share in percent, rounded down, so that 100 is said of all alone; nothing of the product is imported here."""
    return f"{100 * 10**decimals * part // whole / 10**decimals:.{decimals}f}%"


def summary(results: Iterable[dict[str, Any]]) -> str:
    """Return how many of the mutants were killed, by subject, and the survivors."""
    results = list(results)
    tried, killed = (
        Counter(one["subject"] for one in results),
        Counter(one["subject"] for one in results if one["killed_by"]),
    )
    lines = [
        f"{killed[name]} of {tried[name]} killed ({_percent(killed[name], tried[name], 0)}): {name}" for name in tried
    ]
    lines.append(f"{killed.total()} of {tried.total()} killed ({_percent(killed.total(), tried.total(), 1)})")
    lines += [
        f"survived{'' if one['shown_to'] else ', no test runs it'}: {one['mutant']}"
        for one in results
        if not one["killed_by"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
