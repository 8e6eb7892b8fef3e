"""The profile of a training step: every part of every contestant is there, and the rows follow from them."""

import math

import pytest

pytest.importorskip("torchdeq")
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")

from benchmarks import step_profile  # noqa: E402


def test_a_step_of_each_contestant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_profile, "WARMING", 1)
    seconds = step_profile.profile("digits", None, 2)
    assert list(seconds) == [*step_profile.KINDS, step_profile.RIVAL, step_profile.PLAIN]
    for name, steps in seconds.items():
        without = {"equilibrium"} if name == step_profile.PLAIN else set()
        assert [set(parts) for parts in steps] == 2 * [set(step_profile.PARTS) - without]
        assert all(math.isfinite(second) and second > 0 for parts in steps for second in parts.values())


def test_rows_compare_steps_of_the_same_turn() -> None:
    """The middle of the ratios, not the ratio of the middles; a share is of the whole step."""
    part = step_profile.PARTS[0]
    plain = [{part: second} for second in (1.0, 2.0, 4.0)]
    ours = [{part: 3.0, "backward": 1.0}, {part: 1.0, "backward": 1.0}, {part: 2.0, "backward": 2.0}]
    rows = list(step_profile.rows({"ours": ours, step_profile.PLAIN: plain}))
    assert rows[0][:3] == ["ours", "4000.0", "1.00"]
    assert rows[0][3] == "50%"
    assert rows[1][2] == "1.00"
