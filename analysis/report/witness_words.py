"""What the fields of a witness are called on the page, and their values in words where they stand for something."""

from collections.abc import Mapping
from typing import Any

from analysis.findings.values import printable
from analysis.report.quantities import quantity

WORDS = {
    "image": "Test image",
    "images": "Test images",
    "other_image": "The other test image",
    "label": "Class",
    "prediction_clean": "Answer for the image",
    "prediction_attacked": "Answer for the changed image",
    "other_prediction": "Answer for the other image",
    "eps": "Change allowed of a pixel",
    "attacked_image": "The changed image",
    "point": "The image that was judged",
    "state": "The state z",
    "offset_from": "The state is counted from",
    "a": "One state",
    "b": "The other state",
    "value": "Value there",
    "value_a": "Value at the one state",
    "value_b": "Value at the other state",
    "velocity": "Velocity there",
    "derivative": "V-dot there",
    "next": "The next state z+",
    "next_value": "V at the next state",
    "set": "What bounds the set, there",
    "level": "Level of V",
    "ray": "Direction",
    "first": "The first equilibrium",
    "second": "The second result",
    "before": "Before the jump",
    "after": "After the jump",
    "start": "Where it was started",
    "distance": "Distance from the centre",
    "excess": "Violated by",
    "relative": "Violated by, relative to its terms",
    "replayed_by": "A second way to compute it",
    "replayed_excess": "Violated by, the second way",
    "replayed_relative": "The same, relative to its terms",
    "replayed_residual": "Residual, computed anew",
    "replayed_norm": "The same, computed anew",
    "stabilised_norm": "Speed of the stabilised field there",
    "least_norm_proved": "Speed that is proved at least",
    "holds": "The inequality holds there after all",
    "isolated": "No state beside it violates",
    "residual": "Residual",
    "status": "How the solver ended",
    "abscissa": "Largest real part of eig(J) - 1",
    "deviation": "||Q'Q - I||",
    "distance_before": "Distance before the orthogonal layer",
    "distance_after": "Distance after it",
    "logits": "Logits",
    "logits_again": "Logits, the second time",
    "gradient_norm": "Length of the gradient",
    "slopes": "Slopes, by direction",
    "beyond_kinks": "Difference that no kink explains",
    "step": "Length of the step",
    "loss_gradient_step": "Loss after a step along the gradient",
    "loss_random_step": "Loss after a random step",
}
_CLASSES = ("label", "prediction_clean", "prediction_attacked", "other_prediction")


def key_in_words(key: str, witness: Mapping[Any, Any]) -> str:
    """Return what the field ``key`` of ``witness`` is called; of a check that is not ours, its key with spaces.

    >>> key_in_words("replayed_norm", {}), key_in_words("mean_error", {})
    ('The same, computed anew', 'Mean error')
    """
    if key == "distance" and "other_image" in witness:
        return "Largest difference of a pixel between the two"
    words = WORDS.get(key) or printable(key).replace("_", " ")
    return words[:1].upper() + words[1:]


def value_in_words(key: str, value: Any, class_names: list[str]) -> str:
    """Return in words a value that stands for something, such as a class; empty where it stands for itself."""
    if key in _CLASSES and type(value) is int:
        return class_names[value] if 0 <= value < len(class_names) else quantity(value)
    if key == "eps" and isinstance(value, float) and 0 < value <= 1:
        return f"{quantity(255 * value)} of 255 grey levels"
    if key == "offset_from" and value in ("equilibrium", "origin"):
        return f"the {value}"
    if key == "replayed_by":
        return printable(value).rstrip(", ")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(value).replace("_", " ") if key == "status" else ""
