"""What plausible input once broke at a door."""

from pathlib import Path

from proof_mutations import prove

from stabdeq.checker.door import check


def test_radii_through_as_many_features_as_there_are_pixels_are_checked(tmp_path: Path) -> None:
    # The orthonormal layer is square then, and its other part a tensor of no columns.
    proved = prove(tmp_path, cell="certified", backbone="lipschitz-fcn", image_shape=(1, 2, 2), state_dim=4)
    assert "radius" in proved.report["claims"], proved.report["omitted"]
    assert any("radi" in said for said in check(proved.text.encode(), proved.checkpoint))
