"""The model and the images that all claims of a proof are about."""

import base64
import math
from typing import Any

from flint import arb_mat

from .parameters import Model, read_cell
from .reading import Failure, fields, items, numbers, place, require


class Case:
    """The model, its cell, and ``count`` images: their levels as bytes, labels, and activations w near their equilibria."""

    def __init__(self, model: Model, step: Any, images: Any) -> None:
        self.model, self.cell, self.count = model, read_cell(model, step), 0
        if images is None:
            return
        pixels, labels, activations = fields(images, "images", "pixels", "labels", "activations")
        size, m = math.prod(model.settings["image_shape"]), self.cell.M.nrows()
        try:
            self.levels = base64.b64decode(pixels, validate=True)
        except (ValueError, TypeError):
            raise Failure("images.pixels: expected base64") from None
        self.count = len(self.levels) // size
        require(0 < self.count * size == len(self.levels), f"images.pixels: expected {size} bytes for each image")
        listed = enumerate(items(labels, "images.labels", self.count))
        self.labels = [place(label, model.classes, f"images.labels[{i}]") for i, label in listed]
        rows = enumerate(items(activations, "images.activations", self.count))
        self.activations = arb_mat([numbers(row, m, f"images.activations[{i}]") for i, row in rows])

    def places(self, entries: Any, where: str, width: int) -> list[list[Any]]:
        """Return the lists of ``width`` items whose first is the place of an image, in their order, none twice."""
        before = -1
        for i, entry in enumerate(items(entries, where)):
            before = place(items(entry, f"{where}[{i}]", width)[0], self.count, f"{where}[{i}]: image", before + 1)
        return entries
