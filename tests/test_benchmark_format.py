"""The format of the benchmark's results: its schema, the results kept, and that reading them needs no contestant."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.__main__ import RESULTS
from benchmarks.results_format import SCHEMA, Results, schema

ROOT = Path(__file__).parents[1]


def test_the_schema_is_what_the_format_says() -> None:
    assert SCHEMA.read_text() == schema(), "benchmarks/schema.json is old: run `python -m benchmarks.results_format`"


def test_the_results_kept_are_of_the_format() -> None:
    written = json.loads(RESULTS.read_text())
    assert Results.model_validate(written).as_written() == written


@pytest.mark.parametrize("wrong", [{"version": 2}, {"more": 1}, {"records": [{"problem": "p", "batch": 1}]}])
def test_other_results_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Results.model_validate(json.loads(RESULTS.read_text()) | wrong)


def test_results_are_read_where_no_contestant_is_installed() -> None:
    program = (
        "import sys\n"
        "for name in ('torchdeq', 'scipy'): sys.modules[name] = None\n"
        "from benchmarks.__main__ import RESULTS, main\n"
        "main(['--markdown', str(RESULTS)])\n"
        "assert 'torch' not in sys.modules\n"
    )
    read = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    assert "| linear, radius 0.99 | 128 | anderson | 0.001 | forward |" in read.stdout
