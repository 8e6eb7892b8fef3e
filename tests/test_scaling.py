"""The exponents of ``benchmarks.scaling``."""

import pytest

from benchmarks.scaling import Measured, exponent


def test_the_exponent_of_a_power_is_found_and_steady_cost_lowers_it() -> None:
    assert exponent([Measured("", size, 3.0 * size**1.5) for size in (10, 40, 160)]) == pytest.approx(1.5)
    assert 0 < exponent([Measured("", size, 100.0 + size) for size in (10, 40, 160)]) < 1
