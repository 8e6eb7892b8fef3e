"""``python -m tools.bom``: a bill of materials, CycloneDX 1.6 as JSON, of stabdeq as it is installed and of all that it requires.

A component is a distribution that is there, with its version and the licence that it states; what a marker or an extra leaves out is not
asked for. Nothing is fetched.
"""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

NAME = "stabdeq"


def bill(name: str = NAME) -> dict[str, Any]:
    """Return the bill of ``name``; PackageNotFoundError where it, or something that it requires, is not installed."""
    found: dict[str, Distribution] = {}
    needs: dict[str, set[str]] = {}
    left, seen = [(canonicalize_name(name), frozenset[str]())], set()
    while left:
        each = left.pop()
        if each in seen:
            continue
        seen.add(each)
        found[each[0]] = distribution(each[0])
        wanted = list(required(found[each[0]], each[1]))
        needs.setdefault(each[0], set()).update(other for other, _ in wanted)
        left += wanted
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(found[canonicalize_name(name)], "application")},
        "components": [component(found[key], "library") for key in sorted(found) if key != canonicalize_name(name)],
        "dependencies": [{"ref": key, "dependsOn": sorted(needs[key])} for key in sorted(needs)],
    }


def required(of: Distribution, extras: frozenset[str]) -> Iterator[tuple[NormalizedName, frozenset[str]]]:
    """Yield the names, with their extras, that ``of`` requires here, itself and for its own ``extras``."""
    for line in of.requires or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield canonicalize_name(need.name), frozenset(need.extras)


def component(of: Distribution, kind: str) -> dict[str, Any]:
    """Return a distribution as a component: name, version, package URL and licence, as far as it states one."""
    key = canonicalize_name(of.metadata["Name"])
    made = {"type": kind, "bom-ref": key, "name": of.metadata["Name"], "version": of.version}
    made |= {"purl": f"pkg:pypi/{key}@{of.version}"}
    expression, words = of.metadata.get("License-Expression"), of.metadata.get("License")
    if expression:
        return made | {"licenses": [{"expression": expression}]}
    return made | ({"licenses": [{"license": {"name": words.splitlines()[0][:200]}}]} if words else {})


if __name__ == "__main__":
    try:
        print(json.dumps(bill(), indent=1))
    except PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed: install stabdeq with what it requires, and try again")
