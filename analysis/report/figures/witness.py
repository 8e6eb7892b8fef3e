"""A witness as pictures: the images it names, what an attack changed about them, and its states as bars.

Everything is drawn here from numbers that were looked at first; nothing that a report holds reaches the page as it stands.
"""

import base64
import html
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from analysis.findings import Finding
from analysis.findings.values import mapping, numbers, sequence
from analysis.report.quantities import cut, quantity
from analysis.report.report import Report, images_named

if TYPE_CHECKING:
    import numpy as np

MAX_SIDE = 256
MAX_NAME = 200  # characters of a class
MAX_BARS = 4096
MAX_IMAGES = 8  # test images of one witness
MAX_MARKUP = 1_000_000  # characters of all pictures of a page, and what the last adds
# The ends of the colours of a change, as on the page in its light scheme: brighter, darker, and white between.
BRIGHTER, DARKER, UNCHANGED = (200, 80, 10), (11, 91, 156), (247, 247, 247)
_STATES = {"state": "The state", "first": "The first equilibrium", "start": "Where it was started"}
# Checks whose states are counted from V's centre; one of convexity is two states, one after the other.
_OFFSETS = {"positivity": "The state, from V’s centre", "convexity": "Two states, from V’s centre, one after the other"}
_BAR_WIDTH, _BAR_HEIGHT = 320, 72


@dataclass(frozen=True, kw_only=True)
class Picture:
    """``markup`` was made here, an image or an SVG with its text alternative; ``caption`` is plain, still to be escaped."""

    markup: str
    caption: str


def pictures(report: Report, finding: Finding, room: int = MAX_MARKUP) -> tuple[list[Picture], list[str]]:
    """Return the pictures of the witness of ``finding``, and a sentence for each that is not drawn.

    Nothing is drawn once the pictures' markup has ``room`` characters: what the page has left for them.
    """
    witness = finding.witness or {}
    drawn: list[Picture] = []
    missing: list[str] = []

    def add(caption: str, draw: Callable[[], list[Picture]], lacking: str) -> None:
        if sum(len(picture.markup) for picture in drawn) >= room:
            missing.append(f"{caption} is not drawn: the page would become too large.")
        elif made := draw():
            drawn.extend(made)
        else:
            missing.append(f"{caption} is not drawn: the report holds no usable {lacking}.")

    # An input that is no image is told in report.json.
    places = [place for place in images_named(witness) if "input" not in _held(report, place)]
    for place in places[:MAX_IMAGES]:
        add(f"Test image {place}", partial(_test_image, report, place), "pixels of it")
    if len(places) > MAX_IMAGES:
        missing.append(
            f"The witness names {len(places)} test images: those after the first {MAX_IMAGES} are not drawn."
        )
    for key, caption in (("attacked_image", "The changed image"), ("point", "The point that was judged")):
        if key in witness:
            add(caption, partial(_changed, report, witness, key, caption), "numbers for it")
    for key, caption in _STATES.items():
        if key in witness:
            caption = _caption_of_state(finding, key, caption)
            add(caption, partial(_bars, numbers(witness[key]), caption), "numbers for it")
    return drawn, missing


def _test_image(report: Report, place: int) -> list[Picture]:
    pixels = _pixels(report, place)
    name = _class_name(report, _held(report, place).get("label"))
    return [] if pixels is None else [_image(pixels, f"Test image {place}, class {name}")]


def _held(report: Report, place: int) -> dict[Any, Any]:
    """Return what the report holds of the test image at ``place``."""
    return mapping(report.images.get(str(place)))


def _pixels(report: Report, place: int) -> "np.ndarray | None":
    """Return the levels (C, H, W), 0 to 255, of the test image at ``place``; None where the report holds none."""
    import numpy as np

    # Looked at before an array is made: one of texts would give the longest text's room to each.
    channels = [sequence(channel) for channel in sequence(_held(report, place).get("pixels"))]
    rows = [sequence(row) for channel in channels for row in channel]
    heights, widths = {len(channel) for channel in channels}, {len(row) for row in rows}
    if len(channels) not in (1, 3) or not all(
        len(side) == 1 and 1 <= max(side) <= MAX_SIDE for side in (heights, widths)
    ):
        return None
    if not all(type(level) is int and 0 <= level <= 255 for row in rows for level in row):
        return None
    return np.array(rows).reshape(len(channels), len(channels[0]), -1)


def _class_name(report: Report, label: Any) -> str:
    """Return the name of a class, its number where the report names none."""
    classes = report.class_names
    name = classes[label] if type(label) is int and 0 <= label < len(classes) else label
    return cut(name, MAX_NAME) or "unknown"


def _changed(report: Report, witness: dict[Any, Any], key: str, caption: str) -> list[Picture]:
    """Return the image under ``key`` and its difference to the test image; nothing where either is not usable."""
    import numpy as np

    named = images_named(witness)
    clean = _pixels(report, named[0]) if named else None
    values = np.array(numbers(witness[key]))
    if clean is None or values.size != clean.size or not ((values >= 0) & (values <= 1)).all():
        return []
    changed = 255 * values.reshape(clean.shape)
    if "prediction_attacked" in witness:
        before, after = (_class_name(report, witness.get(f"prediction_{which}")) for which in ("clean", "attacked"))
        caption = f"{caption}, taken for {after}, {'as before' if after == before else f'not {before}'}"
    return [_image(changed.round().astype(int), caption), _difference(changed - clean)]


def _image(pixels: "np.ndarray", caption: str) -> Picture:
    height, width = pixels.shape[1:]
    array = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    return Picture(markup=_png(array, f"{caption}: {height} by {width} pixels."), caption=f"{caption}.")


def _difference(change: "np.ndarray") -> Picture:
    """Draw ``change`` (C, H, W), in levels, in diverging colours: of the channels of a pixel, the one that changed most."""
    import numpy as np

    channel = np.abs(change).argmax(0)[None]
    most = np.take_along_axis(change, channel, 0)[0]
    scale = float(np.abs(most).max())
    share = (most / (scale or 1.0))[..., None]
    ends = np.where(share > 0, np.array(BRIGHTER), np.array(DARKER))
    colours = (np.array(UNCHANGED) + np.abs(share) * (ends - np.array(UNCHANGED))).round()
    row, column = np.unravel_index(int(np.abs(most).argmax()), most.shape)
    size = f"{quantity(round(scale, 4))} of 255 levels"
    count = int((most != 0).sum())
    alternative = (
        f"The change: at most {size}, at row {row + 1}, column {column + 1}; {count} of {most.size} pixels differ."
    )
    caption = f"The change: at most {size}. Orange is brighter, blue darker."
    return Picture(markup=_png(colours, alternative), caption=caption)


def _png(array: "np.ndarray", alternative: str) -> str:
    """Return ``array`` (H, W) or (H, W, 3), levels of 0 to 255, as an element that a browser draws without smoothing."""
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = array.shape[:2]
    return (
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{html.escape(alternative)}">'
    )


def _caption_of_state(finding: Finding, key: str, caption: str) -> str:
    if key != "state":
        return caption
    if (finding.witness or {}).get("offset_from") in ("equilibrium", "origin"):
        return _OFFSETS["positivity"]
    return _OFFSETS.get(finding.check, caption)


def _bars(values: list[float], caption: str) -> list[Picture]:
    """Draw the components of a state as bars from a line at 0; nothing where there are none, too many, or none finite."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or len(values) > MAX_BARS:
        return []
    low, high = min(0.0, *finite), max(0.0, *finite)
    scale = _BAR_HEIGHT / 2 / (high / 2 - low / 2 or 1.0)  # halves, since the sum of the largest floats is infinite
    zero, step = high * scale, _BAR_WIDTH / len(values)
    paths = {1: "", 2: ""}
    for index, value in enumerate(values):
        if math.isfinite(value) and value:
            left = (index + 0.1) * step
            paths[1 if value > 0 else 2] += (
                f"M{left:.5g} {zero:.4g}h{0.8 * step:.3g}v{-value * scale:.4g}h{-0.8 * step:.3g}z"
            )
    broken = len(values) - len(finite)
    words = f"{caption}: {len(values)} component{'s' * (len(values) > 1)} from {quantity(min(finite))} to {quantity(max(finite))}"
    if broken:
        words += f", and {broken} that {'are' if broken > 1 else 'is'} not finite, without a bar"
    place = max(range(len(values)), key=lambda index: abs(values[index]) if math.isfinite(values[index]) else -1.0)
    alternative = f"Bars. {words}; the largest in size is number {place + 1}."
    shapes = "".join(f'<path d="{path}" fill="var(--series-{series})"/>' for series, path in paths.items() if path)
    markup = (
        f'<svg viewBox="0 -1 {_BAR_WIDTH} {_BAR_HEIGHT + 2}" role="img" aria-label="{html.escape(alternative)}">{shapes}'
        f'<path d="M0 {zero:.4g}h{_BAR_WIDTH}" stroke="var(--muted)" stroke-width="0.75"/></svg>'
    )
    return [Picture(markup=markup, caption=f"{words}.")]
