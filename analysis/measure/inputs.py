"""What a model is audited on: inputs of any dtype and shape, and labels that fit what its readout gives for them."""

from typing import Literal

import torch
from torch import Tensor

from stabdeq.data.labels import check_labels
from stabdeq.errors import DataError

Answers = Literal["classes", "tokens", "numbers"]


def are_pixels(inputs: Tensor) -> bool:
    """Return whether ``inputs`` are images (N, C, H, W), which an attack may change."""
    return inputs.dim() == 4 and inputs.is_floating_point()


def require_labelled(inputs: Tensor, labels: Tensor) -> None:
    """Raise DataError where there are no ``inputs`` (N, *), or ``labels`` (N, *) are not one for each."""
    if not inputs.dim() or not len(inputs) or labels.shape[:1] != inputs.shape[:1]:
        raise DataError(
            "expected images (N, C, H, W), or inputs of another shape (N, *), and labels (N,), (N, tokens) or (N, numbers), N >= 1: "
            f"got {tuple(inputs.shape)}, {tuple(labels.shape)}"
        )


def require_places(indices: Tensor | None, count: int) -> None:
    """Raise DataError where ``indices`` are not ``count`` different whole numbers (N,), by which witnesses can name inputs."""
    if indices is None:
        return
    is_whole = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
    if not is_whole or indices.shape != (count,) or bool((indices < 0).any()) or len(indices.unique()) < count:
        raise DataError(
            f"indices {tuple(indices.shape)} of {indices.dtype}: expected {count} whole numbers, one for each input, all different and 0 "
            "or more, by which witnesses name the inputs"
        )


def as_read(inputs: Tensor) -> Tensor:
    """Return ``inputs`` (B, *) as a model in float64 reads them: whole numbers, such as tokens, stay what they are.

    Raises DataError where images (B, C, H, W) are not in [0, 1], and others not finite.
    """
    if inputs.is_complex():
        raise DataError(f"inputs of {inputs.dtype}: expected real or whole numbers; write torch.view_as_real(inputs)")
    if inputs.dim() == 4 and (inputs.is_floating_point() or inputs.dtype == torch.uint8):
        inputs = inputs.double()
        if not bool(((inputs >= 0) & (inputs <= 1)).all()):
            raise DataError(
                "expected images with all pixels in [0, 1]; normalisation belongs inside the model's inject"
            )
        return inputs
    if not inputs.is_floating_point():
        return inputs
    if not bool(inputs.isfinite().all()):
        raise DataError("expected inputs that are all finite: some are NaN or infinite")
    return inputs.double()


def kind_of_answers(outputs: Tensor, labels: Tensor) -> Answers:
    """Return what a readout that gave ``outputs`` (1, *) for one input answers, by its ``labels`` (N, *).

    Classes where these are whole numbers (N,) and the outputs logits (1, classes); tokens where they are (N, T) and (1, T, classes);
    numbers where the labels are floating, of the outputs' shape. Raises DataError for all else, and for labels of no class.
    """
    is_number = labels.is_floating_point()
    if is_number and outputs.shape[1:] == labels.shape[1:]:
        return "numbers"
    if not is_number and (outputs.dim(), labels.dim()) in ((2, 1), (3, 2)) and outputs.shape[1:-1] == labels.shape[1:]:
        check_labels(labels, outputs.shape[-1])
        return "classes" if labels.dim() == 1 else "tokens"
    if is_number and (outputs.dim(), labels.dim()) == (2, 1):
        numbers = (len(labels), outputs.shape[1])
        raise DataError(
            f"labels {tuple(labels.shape)} of {labels.dtype} for a readout that gives {tuple(outputs.shape)} for one input: of classes "
            f"expected whole numbers, 0 to {outputs.shape[1] - 1}; of numbers as many as it gives, labels {numbers}"
        )
    if (outputs.dim(), labels.dim()) == (2, 1):
        check_labels(labels, outputs.shape[1])
    raise DataError(
        f"the model's readout gave {tuple(outputs.shape)} for one input, with labels {tuple(labels.shape)} of {labels.dtype}: expected "
        "logits (1, classes) with whole numbers (N,), (1, T, classes) with whole numbers (N, T), or (1, *) with floating numbers (N, *)"
    )
