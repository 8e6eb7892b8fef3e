"""Witnesses as pictures: what is drawn is what the report holds, and what it cannot give is said."""

import base64
import io
import math
import re
import shlex
from html import unescape
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sample_report import page_of

from analysis.report.figures.witness import pictures
from analysis.report.report import Report

PIXELS = [[[0, 255, 17], [200, 3, 90]]]
REPORT = {
    "images": {
        "4": {"label": 1, "pixels": PIXELS},
        "9": {"label": 7, "pixels": [[[row] * 5] * 4 for row in (9, 8, 7)]},
    },
    "checkpoint": {"data": {"classes": ["cat", "dog"]}},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def drawn(
    witness: dict[str, Any], report: dict[str, Any] = REPORT, check: str = "decay"
) -> tuple[list[Any], list[str]]:
    read = Report.parse(report | {"findings": [{"check": check, "witness": witness}]})
    return pictures(read, read.findings[0])


def decoded(markup: str) -> np.ndarray:
    data = re.search(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', markup)
    assert data
    return np.array(Image.open(io.BytesIO(base64.b64decode(data[1]))))


def heights(markup: str) -> list[float]:
    """The signed heights of the bars, upwards positive, those above 0 first."""
    return [-float(height) for height in re.findall(r"h[\d.e-]+v(-?[\d.e-]+)h", markup)]


def test_the_image_is_drawn_pixel_by_pixel() -> None:
    (grey, colour), missing = drawn({"images": [4, 9]})
    assert not missing
    assert np.array_equal(decoded(grey.markup), PIXELS[0])
    assert np.array_equal(decoded(colour.markup)[0, 0], [9, 8, 7])
    assert (grey.caption, colour.caption) == ("Test image 4, class dog.", "Test image 9, class 7.")
    assert 'alt="Test image 4, class dog: 2 by 3 pixels."' in grey.markup


def test_a_change_is_drawn_with_its_largest_size_and_signs() -> None:
    clean = np.array(PIXELS).flatten() / 255
    attacked = clean + np.array([8, -4, 0, 0, 0, 0]) / 255
    witness = {"image": 4, "attacked_image": attacked.tolist(), "prediction_clean": 1, "prediction_attacked": 0}
    (_, changed, change), missing = drawn(witness)
    assert not missing
    assert np.array_equal(decoded(changed.markup)[0], [8, 251, 17])
    assert changed.caption == "The changed image, taken for cat, not dog."
    assert change.caption.startswith("The change: at most 8 of 255 levels.")
    assert "at row 1, column 1; 2 of 6 pixels differ" in change.markup
    brighter, darker, same = decoded(change.markup)[0].astype(int)
    assert brighter[0] > brighter[2]
    assert darker[2] > darker[0]
    assert len(set(same)) == 1


def test_a_state_is_drawn_to_scale_with_its_range() -> None:
    (bars,), _ = drawn({"state": [2.0, -1.0, 0.0, 1.0]})
    up, half, down = heights(bars.markup)
    assert up == pytest.approx(2 * half, rel=1e-2)
    assert down == pytest.approx(-half, rel=1e-2)
    assert "4 components from −1 to 2" in bars.caption
    assert "the largest in size is number 1" in unescape(bars.markup)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, "nan", "-inf"], "2 that are not finite"),
        ([1e308, -1e308], "from −1×10³⁰⁸ to 1×10³⁰⁸"),
        ([0.0], "1 component from 0 to 0"),
        ([5e-324] * 4096, "4096 components"),
    ],
)
def test_extreme_states_are_drawn(values: list[Any], words: str) -> None:
    (bars,), missing = drawn({"state": values})
    assert not missing
    assert words in bars.caption.replace("\u2009", "")
    assert "nan" not in bars.markup
    assert "inf" not in bars.markup


@pytest.mark.parametrize("check", ["convexity", "positivity"])
def test_offsets_are_called_so(check: str) -> None:
    (bars,), _ = drawn({"state": [1.0, 2.0]}, check=check)
    assert "from V’s centre" in bars.caption


@pytest.mark.parametrize(
    "pixels",
    [
        *(
            None,
            "text",
            [],
            [[[]]],
            [[0, 1]],
            [[[0.5]]],
            [[[256]]],
            [[[-1]]],
            [[[10**30]]],
            [[[True]]],
            [[[1], [1, 2]]],
        ),
        *([[[1]]] * 2, [[[0] * 257]], [[["</td>"]]]),
    ],
)
def test_pixels_that_are_none_are_a_gap_that_is_said(pixels: Any) -> None:
    nothing, missing = drawn({"image": 4}, {"images": {"4": {"label": 0, "pixels": pixels}}})
    assert nothing == []
    assert missing == ["Test image 4 is not drawn: the report holds no usable pixels of it."]


@pytest.mark.parametrize("values", [None, [], [0.1] * 5, [0.1] * 5 + [1.1], [0.1] * 5 + ["nan"], {"a": 1}, "text"])
def test_a_changed_image_that_does_not_fit_is_a_gap_that_is_said(values: Any) -> None:
    (image,), missing = drawn({"image": 4, "attacked_image": values})
    assert image.caption.startswith("Test image 4")
    assert missing == ["The changed image is not drawn: the report holds no usable numbers for it."]


@pytest.mark.parametrize("values", [None, [], ["nan"], [math.inf], 3, "text", [0.0] * 4097, [[1.0, 2.0]]])
def test_a_state_that_holds_no_numbers_is_a_gap_that_is_said(values: Any) -> None:
    assert drawn({"state": values}) == ([], ["The state is not drawn: the report holds no usable numbers for it."])


@given(images=JSON, witness=JSON, state=JSON, classes=JSON)
def test_no_report_breaks_the_page(images: Any, witness: Any, state: Any, classes: Any) -> None:
    told = {"image": 4, "state": state, "attacked_image": state, "prediction_attacked": images, "point": witness}
    report = {"images": images, "checkpoint": {"path": classes, "data": {"classes": classes}}}
    report["findings"] = [
        {"verdict": "REFUTED", "check": state, "name": images, "witness": told},
        {"verdict": "REFUTED", "check": "decay", "name": "x", "witness": witness},
    ]
    page_of(report)
    page_of(report | {"images": {"4": {"label": images, "pixels": witness}}})


def test_a_refuted_finding_says_how_to_evaluate_it_anew() -> None:
    finding = {"verdict": "REFUTED", "check": "convergence", "name": "own solver", "witness": {"image": 4}}
    told = {"path": "checkpoint.safetensors", "data": {"name": "digits"}}
    page = unescape(page_of(REPORT | {"findings": [finding, finding], "checkpoint": told}))
    assert "stabdeq replay report.json --finding 'convergence.own solver'<" in page
    assert "stabdeq replay report.json --finding 'convergence.own solver#2'<" in page
    told["data"] = {"name": "mnist"}
    page = unescape(page_of(REPORT | {"findings": [finding], "checkpoint": told}))
    assert "--finding 'convergence.own solver' --data-dir DIR<" in page
    assert "stabdeq replay" not in page_of(REPORT | {"findings": [finding], "checkpoint": {}})
    assert "stabdeq replay" not in page_of({"findings": [finding | {"verdict": "PROVED"}], "checkpoint": told})


def test_a_name_cannot_leave_its_argument() -> None:
    name = "x'; rm -rf ~; '\n\x1b[31m`a`$(b)"
    finding = {"verdict": "REFUTED", "check": "decay", "name": name, "witness": None}
    page = page_of({"findings": [finding], "checkpoint": {"path": "a"}})
    line = re.search(r"<code>(.*?)</code>", page)
    assert line
    arguments = shlex.split(unescape(line[1]))
    assert len(arguments) == 7
    assert arguments[4].startswith("decay.x'; rm -rf ~; '")


def test_texts_for_pixels_take_no_more_room_than_they_have() -> None:
    pixels = ["x" * 1_000_000] + [""] * 1_000_000  # an array of these would take four terabytes
    nothing, missing = drawn({"image": 4}, {"images": {"4": {"label": 0, "pixels": pixels}}})
    assert nothing == []
    assert missing == ["Test image 4 is not drawn: the report holds no usable pixels of it."]


def test_a_witness_of_many_images_shows_the_first() -> None:
    pictures_of, missing = drawn({"images": [4, *range(10, 3000)]})
    assert len(pictures_of) == 1
    assert len(missing) == 8
    assert missing[-1] == "The witness names 2991 test images: those after the first 8 are not drawn."


def test_a_long_class_name_is_cut() -> None:
    report = REPORT | {"checkpoint": {"data": {"classes": ["cat", "d" * 100_000]}}}
    (picture,), _ = drawn({"image": 4}, report)
    assert len(picture.caption) < 400
    assert "cut here" in picture.caption


def test_nothing_is_drawn_without_room() -> None:
    report = Report.parse(REPORT | {"findings": [{"witness": {"image": 4}}]})
    assert pictures(report, report.findings[0], room=0) == (
        [],
        ["Test image 4 is not drawn: the page would become too large."],
    )
