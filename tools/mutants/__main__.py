"""``python -m tools.mutants``: plant faults drawn at random, and write which of them the tests notice."""

import argparse
import ast
import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from tools.mutants.edits import Edit, edits
from tools.mutants.lines import Lines
from tools.mutants.subjects import ROOT, SUBJECTS, Subject
from tools.mutants.trial import forked, import_foreign, plant, run_tests

AT_LEAST, TIMES = (
    20.0,
    5.0,
)  # a mutant has so many seconds, or so many times what its tests took with their lines followed


class Mutant(NamedTuple):
    """Edit ``number`` of a file, planted for the tests of a subject."""

    subject: str
    path: Path
    number: int
    edit: Edit

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.edit}"


class Selected:
    """A plugin of pytest: the named tests alone, in that order, and which of them failed first."""

    def __init__(self, names: list[str]) -> None:
        self._place = {name: place for place, name in enumerate(names)}
        self.failed: str | None = None

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place), key=lambda item: self._place[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid


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
    options = parser.parse_args(arguments)
    drawn = _drawn(options.count, options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    known = _known(options.out)
    import_foreign()
    for name in SUBJECTS:
        mutants = [mutant for mutant in drawn if mutant.subject == name]
        with options.out.open("a") as file:
            for result in _tried(SUBJECTS[name], mutants, known, options.out.with_suffix(f".{name.split()[0]}.lines")):
                known[result["key"]] = result
                print(json.dumps(result), file=file, flush=True)
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


def _tried(
    subject: Subject, mutants: list[Mutant], known: dict[str, Any], lines_file: Path
) -> Iterator[dict[str, Any]]:
    """Give the result of each mutant that has none, or that survived other tests than these."""
    tests = _digest(subject.test_files())
    todo = [
        mutant
        for mutant in mutants
        if (old := known.get(_key(mutant))) is None or not (old["killed_by"] or old["tests"] == tests)
    ]
    if not todo:
        return
    names, seconds, running = _lines(subject, tests, lines_file)
    for mutant in todo:
        numbers = sorted({number for line in mutant.edit.lines for number in running.get(f"{mutant.path}:{line}", ())})
        wanted = [names[number] for number in numbers]
        began = time.perf_counter()
        killed_by = _killed_by(mutant, wanted, max(AT_LEAST, TIMES * sum(seconds[name] for name in wanted)))
        yield {
            "key": _key(mutant),
            "mutant": str(mutant),
            "subject": mutant.subject,
            "file": str(mutant.path.relative_to(ROOT)),
            "line": mutant.edit.old.lineno,
            "killed_by": killed_by,
            "shown_to": len(wanted),
            "seconds": round(time.perf_counter() - began, 2),
            "tests": tests,
        }


def _lines(subject: Subject, tests: str, cached: Path) -> tuple[list[str], dict[str, float], dict[str, list[int]]]:
    """Return the tests, the quickest first, how long each took, and which of them run each line."""
    digest = _digest([*subject.sources()]) + tests
    if cached.exists() and (found := json.loads(cached.read_text()))[0] == digest:
        return tuple(found[1:])

    def follow() -> Any:
        lines = Lines(map(str, subject.sources()))
        status = run_tests(subject.test_files(), lines, stop=False)
        return [status, lines.failed, lines.quickest_first(), lines.seconds, lines.running()]

    answer = forked(follow, 3600)
    if isinstance(answer, str) or answer[0]:
        raise SystemExit(
            f"the tests fail without any mutant, so none can be told: {answer if isinstance(answer, str) else answer[:2]}"
        )
    cached.write_text(json.dumps([digest, *answer[2:]]))
    return tuple(answer[2:])


def _killed_by(mutant: Mutant, tests: list[str], seconds: float) -> str | None:
    if not tests:
        return None

    def attempt() -> Any:
        plant(mutant.path, mutant.number)
        selected = Selected(tests)
        status = run_tests(
            [ROOT / name for name in dict.fromkeys(test.split("::")[0] for test in tests)], selected, stop=True
        )
        return [status, selected.failed]

    answer = forked(attempt, seconds)
    if isinstance(answer, str):
        return answer
    status, failed = answer
    return (failed or "import") if status else None


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
