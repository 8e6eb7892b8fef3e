"""The tolerance that ``certify --deployed`` names: with it, as many images are certified as it says."""

import re

import pytest
from test_deployed import deployed, pixels, small_model

from analysis.certify import certify
from analysis.from_weights import deployed as judgement
from stabdeq.config import AndersonConfig


@pytest.mark.parametrize(("radius", "named"), [(0.3, 1e-3), (0.425, 3e-4)])
def test_with_the_named_tolerance_as_many_are_certified_as_is_said(
    radius: float, named: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement, "LEDGER", radius)

    def evidence(tolerance: float) -> str:
        model = small_model(solver=AndersonConfig(tolerance=tolerance, max_evaluations=300))
        return deployed(certify(model, images, model(images).argmax(1), deployed=True))[1]

    images = pixels()
    said = re.search(r" (\d+) of 20 are certified, (\d+) in real arithmetic\. With model\.solver\.tolerance = (\S+), "
                     r"where the solver reaches it, (\d+) would be\.", evidence(1e-2))  # fmt: skip
    assert said, evidence(1e-2)
    certified, exact, promised = (int(said[place]) for place in (1, 2, 4))
    assert (float(said[3]), certified < promised) == (named, True)
    assert promised == exact
    kept = evidence(float(said[3]))
    assert f" {promised} of 20 are certified, {exact} in real arithmetic. Holds" in kept
