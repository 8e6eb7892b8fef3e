"""A model from code of the user's, at MODULE:NAME on the command line, in the place of a checkpoint."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabdeq.errors import ConfigError, StabdeqError

if TYPE_CHECKING:
    from stabdeq.checkpoint import Checkpoint

PARTS = ("inject", "cell", "readout", "solve", "lyapunov")
_LOCATION = re.compile(r"[\w.]+:[\w.]+")


def is_location(text: str) -> bool:
    """Return whether ``text`` is MODULE:NAME, and no file."""
    return bool(_LOCATION.fullmatch(text)) and not Path(text).exists()


@dataclass(frozen=True)
class Given:
    """What a command is about: a checkpoint, or else the ``model`` of the user's; and images of the user's, where there are such.

    ``images`` are the keywords "images", "labels" and "indices" of the functions behind commands; empty for the checkpoint's own.
    """

    model: Any
    checkpoint: "Checkpoint | None"
    images: dict[str, Any]

    @property
    def subject(self) -> Any:
        """The checkpoint, where there is one, or the model."""
        return self.model if self.checkpoint is None else self.checkpoint


def read_given(
    text: str,
    place: Path | None,
    labels: Path | None,
    count: int | None,
    seed: int,
    *,
    data_dir: Path | None,
    resize: int | None,
    trusted: bool,
) -> Given:
    """Return what ``text`` names, a checkpoint's path or MODULE:NAME, with ``count`` of the images at ``place`` or all.

    Raises what ``load_own_model``, ``load_checkpoint`` and ``own_images`` raise.
    """
    if is_location(text):
        return Given(
            load_own_model(text),
            None,
            own_images(place, labels, count, seed, needed=True, data_dir=data_dir, resize=resize),
        )
    from stabdeq.checkpoint import load_checkpoint

    loaded = load_checkpoint(Path(text), trusted=trusted)
    images = own_images(
        place, labels, count, seed, needed=False, data_dir=data_dir, classes=loaded.class_names, resize=resize
    )
    return Given(loaded.model, loaded, images)


def load_own_model(location: str) -> Any:
    """Return the ``EquilibriumModel`` at ``location``, "module:name": the object itself, or what a class or function makes of nothing.

    The module is imported, and runs, with the current folder at the end of the import path. Raises ConfigError where it is not found,
    or lacks a part of an ``EquilibriumModel``.
    """
    return _complete(_found(location), location)


def _complete(model: Any, location: str) -> Any:
    if missing := [part for part in PARTS if not hasattr(model, part)]:
        raise ConfigError(
            f"{location} is a {type(model).__name__} without {', '.join(missing)}: expected what stabdeq.model.EquilibriumModel has: "
            "write stabdeq.adapters.from_functions(inject, cell, readout), or looped(block, injection, readout, loops=N), of its parts "
            "(docs: how-to, audit a model of your own)"
        )
    return model


def load_own_classifier(location: str) -> Any:
    """Return the classifier at ``location``, images (B, C, H, W) -> logits (B, classes), in evaluation mode.

    It is the object itself where that can be called, else the ``EquilibriumModel`` put together. Raises ConfigError as
    ``load_own_model``.
    """
    from torch import nn

    model = _found(location)
    if isinstance(model, nn.Module):
        model.eval()
    if not callable(model) or (isinstance(model, nn.Module) and type(model).forward is nn.Module.forward):
        from stabdeq.model import EquilibriumClassifier

        return EquilibriumClassifier(_complete(model, location)).eval()
    return model


def require_reads(model: Any, images: Any) -> None:
    """Raise DataError for what somebody's classifier raises on the first of ``images`` (N, C, H, W)."""
    import torch

    try:
        with torch.no_grad():
            model(images[:1])
    except (StabdeqError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        from analysis.measure.failures import failure_on

        raise failure_on(error, tuple(images.shape), images.dtype) from error


def weights_dtype(model: Any) -> Any:
    """Return the dtype of a model's weights, in which it reads its images; float32, a checkpoint's, where it shows none."""
    import torch

    parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
    return next((each.dtype for each in parameters if each.is_floating_point()), torch.float32)


def _found(location: str) -> Any:
    from analysis.user_function.function import find_object, made_by_factory

    return made_by_factory(find_object(location, "my_model:make"), location)


def own_images(
    place: Path | None,
    labels: Path | None,
    count: int | None,
    seed: int,
    *,
    needed: bool,
    data_dir: Path | None,
    classes: Sequence[str] | None = None,
    resize: int | None = None,
) -> dict[str, Any]:
    """Return the "images" in [0, 1], "labels" and "indices" of images of the user's, ``count`` at random or all; or nothing.

    ``classes`` are those of a checkpoint, by which the folders of a folder of images are numbered; ``resize`` is the size to which its
    pictures are scaled. Raises ConfigError where images are ``needed`` and not named, or beside a folder of a checkpoint's data;
    DataError where they cannot be read.
    """
    if place is None:
        if needed:
            raise ConfigError("a model of your own has no test images: name a file or folder of them with --images")
        for option, value in (("--labels", labels), ("--resize", resize)):
            if value is not None:
                raise ConfigError(f"{option} is of images of your own: name their file or folder with --images, too")
        return {}
    if data_dir is not None:
        raise ConfigError("--data-dir is of a checkpoint's own data set: leave it out beside images of your own")
    import torch

    from stabdeq.data import to_unit
    from stabdeq.data.own_images import draw, read_own

    images, numbers, places = draw(read_own(place, labels, classes, resize), count, seed)
    if images.dtype == torch.uint8:
        images = to_unit(images, torch.float64)
    return {"images": images, "labels": numbers, "indices": places}
