"""What SARIF 2.1.0 asks of the parts that a report is made of, written after its standard (OASIS, 2020) as a JSON schema.

The official schema is in no package that this project uses. This one is stricter: it knows the properties that are written here alone.
"""

from typing import Any

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def record(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties, "additionalProperties": False}


def listed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


TEXT = {"type": "string", "minLength": 1}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
MESSAGE = record("text", text=TEXT)
RULE = record("id", id=TEXT, shortDescription=MESSAGE)
PLACE = record(
    logicalLocations=listed(record(fullyQualifiedName=TEXT)),
    physicalLocation=record(
        "artifactLocation",
        artifactLocation=record(uri={"type": "string", "minLength": 1, "ascii": True}),
        region=record(startLine={"type": "integer", "minimum": 1}),
    ),
)
RESULT = record(
    "message",
    ruleId=TEXT,
    kind={"enum": ["notApplicable", "pass", "fail", "review", "open", "informational"]},
    level=LEVEL,
    message=MESSAGE,
    locations=listed(PLACE),
    partialFingerprints={"type": "object", "additionalProperties": TEXT},
    properties={"type": "object"},
)
INVOCATION = record(
    "executionSuccessful",
    commandLine=TEXT,
    executionSuccessful={"type": "boolean"},
    exitCode={"type": "integer"},
    exitCodeDescription=TEXT,
    toolExecutionNotifications=listed(record("message", level=LEVEL, message=MESSAGE)),
)
RUN = record(
    "tool",
    tool=record("driver", driver=record("name", name=TEXT, version=TEXT, rules=listed(RULE))),
    automationDetails=record(id=TEXT),
    invocations=listed(INVOCATION),
    results=listed(RESULT),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
)
LOG = record("version runs", **{"$schema": TEXT}, version={"enum": ["2.1.0"]}, runs=listed(RUN))


def faults(value: Any, schema: dict[str, Any] = LOG, path: str = "$") -> list[str]:
    """Return where ``value`` is not as ``schema`` asks."""
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{path}: {value!r} is none of {schema['enum']}"]
    kind = TYPES[schema["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{path}: {value!r} is no {schema['type']}"]
    if isinstance(value, list):
        return [fault for at, item in enumerate(value) for fault in faults(item, schema["items"], f"{path}[{at}]")]
    if isinstance(value, dict):
        found = [f"{path}: no {key}" for key in schema.get("required", ()) if key not in value]
        for key, item in value.items():
            rest = schema.get("additionalProperties", True)
            inner = schema.get("properties", {}).get(key, rest)
            if inner is False:
                found.append(f"{path}: unknown {key}")
            elif inner is not True:
                found += faults(item, inner, f"{path}.{key}")
        return found
    if isinstance(value, str):
        is_good = len(value) >= schema.get("minLength", 0) and (value.isascii() or not schema.get("ascii"))
        return [] if is_good else [f"{path}: {value!r}"]
    return [] if value >= schema.get("minimum", value) else [f"{path}: {value} is too small"]
