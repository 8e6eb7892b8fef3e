"""The tables of docs/reliability.md about planted faults, from docs/mutants.json."""

from typing import Any


def by_subject(found: dict[str, Any]) -> str:
    """Return the Markdown table of how many faults were noticed, by subject."""
    lines = ["| planted in | faults | noticed | share |", "| --- | --- | --- | --- |"]
    counts = found["subjects"]
    whole = {name: sum(one[name] for one in counts.values()) for name in ("tried", "killed")}
    for subject, one in (counts | {"all": whole}).items():
        lines.append(f"| {subject} | {one['tried']} | {one['killed']} | {100 * one['killed'] // one['tried']}% |")
    return "\n".join(lines) + "\n"


def by_reason(found: dict[str, Any]) -> str:
    """Return the Markdown table of what those that were not noticed are, by reason, with the shortest of each."""
    lines = ["| not noticed, by what it is | faults | such as |", "| --- | --- | --- |"]
    lines += [
        f"| {reason} | {len(faults)} | `{min(faults, key=len)}` |" for reason, faults in found["survivors"].items()
    ]
    return "\n".join(lines) + "\n"
