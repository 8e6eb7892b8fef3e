"""Entries of the board whose numbers contradict each other are refused: no attack turns an image that is certified."""

from pathlib import Path
from typing import Any

import pytest
from test_board import PLAIN, certification, written

from benchmarks.board import read_entry
from stabdeq.errors import ConfigError

CERTIFIED = {
    "l2": {"0.1": 90.0, "0.3": 80.0, "0.5": 70.0, "1": None, "1.58": None},
    "linf": {"2/255": 85.0, "0.1": 60.0},
}


def attacked(norm: str, eps: str, accuracy: float, **values: Any) -> dict[str, Any]:
    """An entry with one attack, certified as above but for ``values``."""
    honest = [{"norm": norm, "eps": eps, "images": 40, "accuracy": accuracy}]
    return certification(**CERTIFIED | values) | {"honest": honest}


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (attacked("linf", "2/255", 84.9), ["honest at linf 2/255 is 84.9 % of 40 images, and at linf 2/255"]),
        (attacked("linf", "1/255", 84.9), ["honest at linf 1/255 is 84.9 % of 40 images, and at linf 2/255"]),
        (attacked("linf", "8/255", 59.9), ["honest at linf 8/255 is 59.9 % of 40 images, and at linf 0.1"]),
        (attacked("l2", "0.3", 79.9), ["honest at l2 0.3 is 79.9 % of 40 images, and at l2 0.3"]),
        (attacked("l2", "0.2", 75.0), ["honest at l2 0.2 is 75.0 % of 40 images, and at l2 0.3"]),
        (
            attacked("l2", "0.1", 55.0),
            [
                f"honest at l2 0.1 is 55.0 % of 40 images, and at {ball}"
                for ball in ("l2 0.1", "l2 0.3", "l2 0.5", "linf 0.1")
            ],
        ),
        (PLAIN | {"clean": {"accuracy": 96.6, "images": 40}}, ["clean is 96.6 % of 40 images, and at l2 0.1"]),
        (attacked("l2", "0.2", 85.9, deployed=86.0), ["honest at l2 0.2 is 85.9 % of 40 images, and at l2 0.3"]),
        (attacked("linf", "0.2", 1.0, deployed=97.6), ["clean is 97.5 % of 40 images, and at l2 0.3"]),
    ],
)
def test_what_is_below_its_certified_share_is_refused(plain: dict[str, Any], said: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contradicts itself") as refused:
        read_entry(written(tmp_path, plain))
    sentences = str(refused.value).removeprefix("entry.json contradicts itself: ").split("; ")
    assert [one[: len(start)] for one, start in zip(sentences, said, strict=True)] == said
    assert "(--images 40 --seed 3)" in sentences[0]


def test_what_is_told_to_do_is_to_measure_the_certified_images(tmp_path: Path) -> None:
    plain = attacked("l2", "0.3", 79.9)
    plain["honest"][0]["images"] = 7
    with pytest.raises(
        ConfigError, match=r"is 79\.9 % of 7 images, .* 80\.0 % of 40 are certified: .*\(--images 40 --seed 3\)"
    ):
        read_entry(written(tmp_path, plain))


@pytest.mark.parametrize(
    "plain",
    [
        attacked("linf", "2/255", 85.0),
        attacked("linf", "3/255", 60.0),
        attacked("linf", "0.2", 1.0),
        attacked("l2", "0.4", 70.0),
        attacked("l2", "0.6", 1.0),
        # Moving every pixel by 0.01 goes further, in l2, than 0.3 from 900 pixels on: nothing is known of it.
        attacked("linf", "0.01", 60.0),
        attacked("l2", "0.1", 1.0, l2=dict.fromkeys(CERTIFIED["l2"]), linf={"2/255": None, "0.1": None}),
    ],
)
def test_what_may_be_true_is_taken(plain: dict[str, Any], tmp_path: Path) -> None:
    assert read_entry(written(tmp_path, plain)).honest is not None
