"""``benchmarks.scaling``: exponents with their spread, and a quick run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scaling_page import fit, record

SIZES = (10, 40, 160)


def test_the_exponent_of_a_power_is_found_and_steady_cost_lowers_it() -> None:
    found = fit(SIZES, [3.0 * size**1.5 for size in SIZES])
    assert found == pytest.approx((1.5, 0.0), abs=1e-7)
    steady = fit(SIZES, [100.0 + size for size in SIZES])
    assert 0 < steady.exponent < 1
    assert steady.error > 0


def test_the_error_is_that_of_a_least_squares_slope() -> None:
    import numpy as np

    costs = np.array([1.0, 5.0, 14.0, 70.0])
    sizes = np.array([1.0, 4.0, 16.0, 64.0])
    coefficients, covariance = np.polyfit(np.log(sizes), np.log(costs), 1, cov=True)
    assert fit(sizes, costs) == pytest.approx((coefficients[0], covariance[0, 0] ** 0.5))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each size is measured in a process made by fork")
def test_a_quick_run_writes_what_the_page_shows(tmp_path: Path) -> None:
    out = tmp_path / "scaling.json"
    words = [sys.executable, "-m", "benchmarks.scaling", "--quick", "--out", str(out)]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    for group in results["groups"].values():
        assert len(group["sizes"]) == len(group["seconds"]) == len(group["mebibytes"]) == 3
        assert min(group["seconds"]) > 0
    rows = record(results)["rows"]
    assert [row[0] for row in rows] == list(results["groups"])
    assert all(name in done.stdout for name in results["groups"])
