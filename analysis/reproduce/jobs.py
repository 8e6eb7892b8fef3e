"""A job is a command line of this program and the file that it leaves: done where the file is there and says the same settings.

So a second run starts only what is missing, and whatever runs a command line can run a job.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from stabdeq.errors import ConfigError
from stabdeq.reading import parsed_json, read_regular

TEST_IMAGES = {"digits": 360, "mnist": 10_000, "svhn": 26_032, "cifar10": 10_000, "cifar100": 10_000}
# Where the models are small, so large a batch is twice as fast as the usual one.
LARGE_BATCH = {"digits": 1000, "mnist": 1000}
LARGEST_RESULT = 2**28  # bytes
# What recipes that do not say otherwise have.
_USUAL = {"objective.name": "cross-entropy", "data.robust": False}


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of a table: a kind of model, and the recipe values that set its training apart."""

    name: str
    kind: str
    settings: Mapping[str, str | bool | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model to train; done when its checkpoint holds the last epoch.

    With ``as_folder`` the data set is read as a folder of images, ``data_dir``/``data``.
    """

    data: str
    system: System
    seed: int
    epochs: int
    out: Path
    data_dir: Path | None
    as_folder: bool = False

    @property
    def action(self) -> str:
        """What the job does, as the attacks have it."""
        return "train"

    @property
    def name(self) -> str:
        """The name to show, which is that of the folder below ``out``."""
        return f"{self.data}/{self.system.name}-seed{self.seed}"

    @property
    def checkpoint(self) -> Path:
        """The file that it leaves."""
        return self.out / self.name / "checkpoint.safetensors"

    @property
    def metrics(self) -> Path:
        """The file that holds a line of every epoch."""
        return self.out / self.name / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.out / self.name / "train.log"

    @property
    def data_name(self) -> str:
        """The data set's name in recipes and results."""
        return "folder" if self.as_folder else self.data

    @property
    def images_dir(self) -> Path | None:
        """What ``--data-dir`` names: the folder of images, or where the data sets lie."""
        return self.data_dir / self.data if self.as_folder and self.data_dir else self.data_dir

    @property
    def test_images(self) -> int:
        """How many test images there are: of a folder that is here, those in it."""
        folder = self.images_dir / "test" if self.as_folder and self.images_dir else None
        return _count(folder.resolve()) if folder and folder.is_dir() else TEST_IMAGES[self.data]

    def command(self) -> list[str]:
        """Return the arguments of ``stabdeq``."""
        words = ["train", self.data, "--kind", self.system.kind, "--seed", str(self.seed), "--epochs", str(self.epochs)]
        if self.as_folder:
            words += ["--set", "data.name=folder"]
        for key, value in self.system.settings.items():
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        return [*words, "--out", str(self.checkpoint.parent), *_data_dir(self.images_dir), "--resume"]

    def is_done(self) -> bool:
        """Whether the checkpoint holds the last epoch.

        Raises ConfigError where it was trained with other settings (training is dear: nothing is written over), CheckpointError
        where it cannot be read.
        """
        if not self.checkpoint.exists():
            return False
        from stabdeq.checkpoint import load_checkpoint

        found = load_checkpoint(self.checkpoint)
        expected = {"kind": self.system.kind, "seed": self.seed, "epochs": self.epochs, "data.name": self.data_name}
        for key, value in {**expected, **_USUAL, **self.system.settings}.items():
            if (stated := _lookup(found.recipe, key)) != value:
                raise ConfigError(
                    f"{self.checkpoint} was trained with {key} = {stated}, not {value}: "
                    "ask for that, name another --out, or move the folder away"
                )
        return found.epoch == self.epochs


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack on what ``training`` leaves, at ``eps`` / 255, on ``limit`` test images or all of them."""

    training: Training
    attack: str
    eps: int
    limit: int | None

    @property
    def action(self) -> str:
        """What the job does."""
        return self.attack

    @property
    def data(self) -> str:
        """The data set's name."""
        return self.training.data

    @property
    def name(self) -> str:
        """The name to show, which is that of the result below ``out``, without its suffix."""
        return f"{self.training.name}/{self.attack}-{self.eps}"

    @property
    def result(self) -> Path:
        """The file that it leaves."""
        return self.training.out / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.training.out / f"{self.name}.log"

    @property
    def count(self) -> int:
        """How many images are attacked."""
        everything = self.training.test_images
        return everything if self.limit is None else min(self.limit, everything)

    def command(self) -> list[str]:
        """Return the arguments of ``stabdeq``."""
        words = ["attack", str(self.training.checkpoint), "--attack", self.attack, "--eps", f"{self.eps}/255"]
        words += [] if self.limit is None else ["--images", str(self.limit)]
        words += ["--batch-size", str(LARGE_BATCH[self.data])] if self.data in LARGE_BATCH else []
        seed = str(self.training.seed)
        return [*words, "--seed", seed, *_data_dir(self.training.images_dir), "--json", str(self.result)]

    def read(self) -> dict[str, Any] | None:
        """Return what the file holds; None where there is none, or one of other settings, or older than its checkpoint."""
        try:
            content = parsed_json(read_regular(self.result, LARGEST_RESULT))
            if self.result.stat().st_mtime < self.training.checkpoint.stat().st_mtime:
                return None
        except (OSError, ValueError):
            return None
        eps = self.eps / 255
        expected = {
            "schema": 1,
            "data": self.training.data_name,
            "attack": self.attack,
            "norm": "linf",
            "seed": self.training.seed,
            "n": self.count,
        }
        if self.attack != "honest":  # the paper's steps
            expected["steps"] = min(self.eps + 4, 5 * self.eps // 4)
        if not isinstance(content, dict) or content.get("clamp_normalised"):  # the latter: a fault made on purpose
            return None
        same = all(content.get(key) == value for key, value in expected.items())
        stated = content.get("eps")
        same = same and isinstance(stated, float) and math.isclose(stated, eps)
        return content if same and _has_figures(content) else None

    def is_done(self) -> bool:
        """Whether the file is there with the settings of this job."""
        return self.read() is not None


@cache
def _count(folder: Path) -> int:
    from stabdeq.data.folder import list_images

    return len(list_images(folder)[0])


def _data_dir(folder: Path | None) -> list[str]:
    return [] if folder is None else ["--data-dir", str(folder)]


def _lookup(recipe: Mapping[str, Any], dotted: str) -> Any:
    """Return a recipe's value; recipes older than a setting had its usual value."""
    value: Any = recipe
    for part in dotted.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _USUAL.get(dotted)
        value = value[part]
    return value


def _has_figures(content: dict[str, Any]) -> bool:
    """Return whether a result has what a table is made of: shares, and warnings in words."""
    accuracy, unconverged, warnings = (content.get(key) for key in ("accuracy", "unconverged", "warnings"))
    if not isinstance(accuracy, dict) or not isinstance(unconverged, dict) or not isinstance(warnings, list):
        return False
    if "robust" not in unconverged or not all(isinstance(warning, str) for warning in warnings):
        return False
    lost = unconverged["robust"]  # None of a model that solves for nothing
    shares: list[Any] = [
        *(accuracy.get(key) for key in ("clean", "robust", "worst")),
        *([] if lost is None else [lost]),
    ]
    return all(type(share) in (int, float) and 0 <= share <= 1 for share in shares)
