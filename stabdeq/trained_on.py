"""The data set that a checkpoint's model was trained on, read again."""

from pathlib import Path

from stabdeq.checkpoint import Checkpoint
from stabdeq.data import DataSet, load_data
from stabdeq.errors import DataError


def data_of(loaded: Checkpoint, data_dir: str | Path | None) -> DataSet:
    """Return the data set of ``loaded``, from ``data_dir`` where it is not embedded.

    Raises DataError where it is not there, or is another: of other images, or of other classes, whose numbers would be taken for those
    that the model learned.
    """
    data = load_data(loaded.data, data_dir=None if data_dir is None else Path(data_dir))
    shape, classes = tuple(loaded.model.config.image_shape), tuple(loaded.class_names)
    if data.image_shape != shape or len(data.classes) != len(classes):
        raise DataError(
            f"the model reads {shape} images of {len(classes)} classes, and {data.name} has {data.image_shape} of "
            f"{len(data.classes)}: give the data set it was trained on with --data-dir"
        )
    for number, (learned, found) in enumerate(zip(classes, data.classes, strict=True)):
        if learned != found:
            raise DataError(
                f"class {number} is {learned!r:.80} to the model, and {found!r:.80} in {data.name}: give the data set it was trained "
                "on with --data-dir, or name its classes as they were"
            )
    return data
