"""The table of docs/reliability.md, from docs/reliability.json, what ``python -m tools.soak`` printed."""

from typing import Any


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table of what ``soak`` found."""
    lines = ["| files | tries | refused with an error of ours | read | faults |", "| --- | --- | --- | --- | --- |"]
    for kind, counts in found["kinds"].items():
        faults = sum(fault["kind"] == kind for fault in found["faults"])
        read = counts["tries"] - counts["refused"] - faults
        lines.append(f"| {kind} | {counts['tries']} | {counts['refused']} | {read} | {faults} |")
    return "\n".join(lines) + "\n"
