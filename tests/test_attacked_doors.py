"""What plausible input once broke at a door."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from proof_mutations import prove

from analysis import verify as verify_module
from analysis.report.report import Report
from stabdeq.checker.door import check
from stabdeq.errors import ReportError


def test_radii_through_as_many_features_as_there_are_pixels_are_checked(tmp_path: Path) -> None:
    # The orthonormal layer is square then, and its other part a tensor of no columns.
    proved = prove(tmp_path, cell="certified", backbone="lipschitz-fcn", image_shape=(1, 2, 2), state_dim=4)
    assert "radius" in proved.report["claims"], proved.report["omitted"]
    assert any("radi" in said for said in check(proved.text.encode(), proved.checkpoint))


@pytest.mark.parametrize(("told", "now"), [([1.0], {"a": 1.0}), ([], {}), (True, 1.0), ({"a": [[]]}, {"a": [{}]})])
def test_a_number_of_another_type_is_told(told: Any, now: Any) -> None:
    (found,) = verify_module._numbers("numbers", {"it": told}, {"it": now})
    assert found.what == "numbers it"


def test_a_page_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "describe", lambda loaded: {})
    with (tmp_path / "report.html").open("wb") as page:
        page.truncate(2**31)  # takes no room
    with pytest.raises(ReportError, match=r"report\.html: larger than .* move it away"):
        list(verify_module._differences(Report(), Report(), SimpleNamespace(), tmp_path / "report.json"))
