"""Plain data as YAML, for the head of a Markdown file."""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from analysis.findings.values import printable
from analysis.report.quantities import quantity


def yaml_lines(value: Any, indent: str = "") -> list[str]:
    """Return dictionaries, lists, texts and numbers as lines of YAML that say one thing to every reader.

    Keys are words of ours. Each text is printable and stands in double quotes, as in JSON, which is YAML too: it can end nothing.

    >>> yaml_lines({"a": ["- b: c", 2], "d": [{"e": 0.5, "f": []}]})
    ['a:', '  - "- b: c"', '  - 2', 'd:', '  - e: 0.5', '    f: []']
    """
    if isinstance(value, Mapping):
        return [line for key, item in value.items() for line in _entry(f"{indent}{key}:", item, f"{indent}  ")]
    return [line for item in value for line in _item(item, indent)]


def _entry(start: str, item: Any, indent: str) -> list[str]:
    if isinstance(item, Mapping | list) and item:
        return [start, *yaml_lines(item, indent)]
    return [f"{start} {_scalar(item)}"]


def _item(item: Any, indent: str) -> list[str]:
    if not isinstance(item, Mapping):
        return [f"{indent}- {_scalar(item)}"]
    first, *others = yaml_lines(item, f"{indent}  ")
    return [f"{indent}- {first.strip()}", *others]


def _scalar(value: Any) -> str:
    if isinstance(value, float):  # not 1e-05, which YAML 1.1 takes for a text
        return f"{Decimal(f'{value:.12g}'):f}" if math.isfinite(value) else json.dumps(quantity(value))
    return json.dumps(value if isinstance(value, bool | int | list) else printable(value), ensure_ascii=False)
