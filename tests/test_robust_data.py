"""Robust data sets: what they take the place of, what is refused, and how a set is made."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensor_files import FORMATS, save
from torch import Tensor

from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import DataConfig, ModelConfig
from stabdeq.data import DataSet, Split, load_data, read_robust
from stabdeq.data.robust import IMAGES_NAME, LABELS_NAME
from stabdeq.data.tensor_file import read_tensor
from stabdeq.errors import ConfigError, DataError, FileError, SolverError
from stabdeq.model import StabilisedDEQ
from train.commands.robust_data import robust_data
from train.robust_data import PARTS_NAME, Settings, build_robust_data, features, match_features

# Robust data sets.


def write_robust(folder: Path, images: Any = None, labels: Any = None, form: str = "old") -> Path:
    save(torch.rand(30, 1, 8, 8) if images is None else images, folder / IMAGES_NAME, form)
    save(torch.arange(30) % 10 if labels is None else labels, folder / LABELS_NAME, form)
    return folder


@pytest.mark.parametrize("form", FORMATS)
def test_a_robust_set_takes_the_place_of_the_training_images(form: str, tmp_path: Path) -> None:
    images, labels = torch.rand(200, 1, 8, 8), torch.arange(200) % 10
    write_robust(tmp_path, list(images.split(64)), list(labels.split(64)), form)
    data = load_data(DataConfig(robust=True, validation_fraction=0.1), data_dir=tmp_path)
    original = load_data(DataConfig())
    assert torch.equal(data.test.images, original.test.images)
    assert (len(data.train), len(data.validation)) == (180, 20)
    assert data.validation.labels.bincount().tolist() == [2] * 10
    both = torch.cat([data.train.images, data.validation.images])
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, (images * 255).round().byte().numpy()))
    assert data.mean == pytest.approx((float(data.train.images.double().mean() / 255),))


def test_floats_are_rounded_to_the_nearest_level(tmp_path: Path) -> None:
    levels = torch.arange(256).view(4, 1, 8, 8) / 255
    write_robust(tmp_path, (levels + 0.4 / 255).clamp(max=1), torch.zeros(4).long())
    assert torch.equal(read_robust(tmp_path)[0].flatten(), torch.arange(256).byte())
    write_robust(tmp_path, torch.arange(256).view(4, 1, 8, 8).byte(), torch.zeros(4).long())
    assert torch.equal(read_robust(tmp_path)[0].flatten(), torch.arange(256).byte())


def spoilt(value: float) -> Tensor:
    images = torch.rand(30, 1, 8, 8)
    images[3, 0, 2, 2] = value
    return images


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (spoilt(float("nan")), None, "1 of 1920 pixels are NaN or outside [0, 1]"),
        (spoilt(1.001), None, "1 of 1920 pixels are NaN or outside [0, 1]"),
        (spoilt(-float("inf")), None, "1 of 1920 pixels are NaN or outside [0, 1]"),
        (torch.rand(30, 64), None, "expected images (N, C, H, W)"),
        (torch.zeros(30, 1, 8, 8).long(), None, "not (30, 1, 8, 8) of torch.int64"),
        (None, torch.rand(30), "expected labels (N,) of int64"),
        (None, torch.zeros(30, 1).long(), "expected labels (N,) of int64"),
        (None, torch.arange(30) % 11, "labels from 0 to 10 where 0 to 9 were expected"),
        (None, torch.arange(30) % 10 - 1, "labels from -1 to 8 where 0 to 9 were expected"),
        (None, torch.arange(29) % 10, "30 training images and 29 labels"),
        (torch.rand(30, 3, 8, 8), None, "training images of shape (3, 8, 8)"),
        (torch.rand(0, 1, 8, 8), torch.zeros(0).long(), "there are no training images"),
        (None, torch.zeros(30).long(), "only 1 of the 10 classes"),
    ],
)
def test_robust_sets_that_do_not_fit(images: Any, labels: Any, reason: str, tmp_path: Path) -> None:
    write_robust(tmp_path, images, labels)
    with pytest.raises(DataError) as caught:
        load_data(DataConfig(robust=True, validation_fraction=0), data_dir=tmp_path)
    assert reason in str(caught.value)


def test_a_missing_robust_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="say with --data-dir DIR"):
        load_data(DataConfig(robust=True))
    for present in ((), (IMAGES_NAME,)):
        for name in present:
            save(torch.rand(3, 1, 8, 8), tmp_path / name)
        with pytest.raises(DataError, match=r"stabdeq robust-data CHECKPOINT --out DIR"):
            load_data(DataConfig(robust=True), data_dir=tmp_path)


# Making one.


def linear_model(state_dim: int = 64, **settings: Any) -> StabilisedDEQ:
    """Features that are linear in the pixels, of 8 x 8 digits."""
    torch.manual_seed(0)
    options = {"image_shape": (1, 8, 8), "classes": 10, "mean": (0.5,), "std": (0.5,), "cell": "constant"}
    return StabilisedDEQ(ModelConfig(state_dim=state_dim, **options | settings)).eval()  # type: ignore[arg-type]


def digits() -> DataSet:
    return load_data(DataConfig(validation_fraction=0))


def test_features_that_see_all_give_the_image_back() -> None:
    """Through an orthogonal map, the features' distance is that of the pixels: the steps lead straight to the image."""
    model = linear_model()
    with torch.no_grad():
        torch.nn.init.orthogonal_(model.backbone[1].weight)  # type: ignore[index, arg-type]
    images = digits().train.images[:6] / 255
    starts, targets = images[:3], images[3:]
    distance = (starts - targets).flatten(1).norm(dim=1)
    matched = match_features(model, starts, targets, steps=30, step_size=0.05)
    assert torch.allclose(matched.before, distance * 2, rtol=1e-4)  # pixels are divided by the deviation, 0.5
    assert bool(((matched.images - starts).flatten(1).norm(dim=1) <= 1.5 + 1e-4).all())
    assert torch.allclose(matched.after, (distance - 1.5).clamp(min=0) * 2, atol=0.11)
    assert bool(((matched.images >= 0) & (matched.images <= 1)).all())
    assert not bool(matched.unconverged.any())


def test_what_features_do_not_see_stays_that_of_the_other_image() -> None:
    model = linear_model(state_dim=2)
    with torch.no_grad():  # the first pixel's value, and the second's
        model.backbone[1].weight.copy_(torch.eye(64)[:2])  # type: ignore[index, union-attr, operator]
    generator = torch.Generator().manual_seed(0)
    starts, targets = (torch.rand(4, 1, 8, 8, generator=generator) for _ in range(2))
    matched = match_features(model, starts, targets, steps=400, step_size=0.01)
    assert torch.equal(matched.images.flatten(1)[:, 2:], starts.flatten(1)[:, 2:])
    assert torch.allclose(matched.images.flatten(1)[:, :2], targets.flatten(1)[:, :2], atol=0.011)


@pytest.mark.parametrize("stability", ["none", "anchored", "state"])
def test_features_are_what_the_head_reads(stability: Any) -> None:
    model = linear_model(cell="batchnorm", stability=stability, head="orthogonal", state_dim=8)
    images = torch.rand(3, 1, 8, 8)
    read: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda head, inputs: read.append(inputs[0]))
    model(images)
    assert torch.equal(features(model, images)[0], read[0])


def test_a_gradient_that_is_not_finite_is_no_image() -> None:
    model = linear_model()
    with torch.no_grad():
        model.backbone[1].weight[0, 0] = float("inf")  # type: ignore[index]
    images = torch.rand(2, 1, 8, 8)
    with pytest.raises(SolverError, match="2 of 2 images is NaN or infinite in step 1"):
        match_features(model, images, images.flip(0), steps=2, step_size=0.1)


SETTINGS: dict[str, Any] = {"model": "abc", "count": 25, "steps": 3, "batch_size": 10}


def test_a_set_that_was_made_is_read(tmp_path: Path) -> None:
    split = digits().train
    matched = build_robust_data(linear_model(), split, tmp_path / "set", Settings(**SETTINGS))
    images, labels = read_robust(tmp_path / "set")
    assert torch.equal(images, (matched.images * 255).round().byte())
    assert (len(images), len(labels)) == (25, 25)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [IMAGES_NAME, LABELS_NAME]
    assert float(matched.after.mean()) < float(matched.before.mean())


def test_each_image_has_the_label_of_its_target_and_begins_as_another(tmp_path: Path) -> None:
    """Steps of almost nothing leave every image what it began as."""
    split = digits().train
    model = linear_model()

    def made(folder: Path, **changes: Any) -> tuple[Tensor, Tensor]:
        build_robust_data(model, split, folder, Settings(**SETTINGS | changes))
        return torch.load(folder / IMAGES_NAME), torch.load(folder / LABELS_NAME)

    images, labels = made(tmp_path / "a", count=len(split), steps=1, step_size=1e-9, batch_size=500)
    assert torch.equal(labels, split.labels)
    assert not bool(torch.isclose(images, split.images / 255, atol=1e-6).flatten(1).all(1).any())
    known = {bytes(one) for one in split.images.numpy()}
    assert all(bytes(one) in known for one in (images * 255).round().byte().numpy())
    some, their_labels = made(tmp_path / "b", steps=1, step_size=1e-9)
    again, _ = made(tmp_path / "c", steps=1, step_size=1e-9)
    other, _ = made(tmp_path / "d", steps=1, step_size=1e-9, seed=1)
    assert torch.equal(some, again)
    assert not torch.equal(some, other)
    assert len(their_labels.unique()) > 5


class StoppedError(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    split, model = digits().train, linear_model()
    whole = build_robust_data(model, split, tmp_path / "whole", Settings(**SETTINGS))
    counted: list[int] = []

    def stop(done: int) -> None:
        counted.append(done)
        if len(counted) == 5:  # in the second batch of three steps each
            raise StoppedError

    out = tmp_path / "cut"
    with pytest.raises(StoppedError):
        build_robust_data(model, split, out, Settings(**SETTINGS), stop)
    assert [path.name for path in out.iterdir()] == [PARTS_NAME]
    with pytest.raises(ConfigError, match="begun with steps = 3, not 4"):
        build_robust_data(model, split, out, Settings(**SETTINGS | {"steps": 4}))
    with pytest.raises(ConfigError, match="begun with model = abc, not abd"):
        build_robust_data(model, split, out, Settings(**SETTINGS | {"model": "abd"}))
    counted.clear()
    matched = build_robust_data(model, split, out, Settings(**SETTINGS), counted.append)
    assert counted == [30, 10, 10, 10, 5, 5, 5]
    assert torch.equal(matched.images, whole.images)
    for name in (IMAGES_NAME, LABELS_NAME):
        assert torch.equal(read_tensor(out / name), read_tensor(tmp_path / "whole" / name))
    with pytest.raises(ConfigError, match="already holds CIFAR_ims"):
        build_robust_data(model, split, out, Settings(**SETTINGS))


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    (tmp_path / PARTS_NAME).mkdir()
    (tmp_path / PARTS_NAME / "00000000.safetensors").write_bytes(b"abc")
    with pytest.raises(ConfigError, match=r"00000000\.safetensors is not a whole part"):
        build_robust_data(linear_model(), digits().train, tmp_path, Settings(**SETTINGS))


@pytest.mark.parametrize("count", [0, 1438])
def test_more_images_than_there_are(count: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 1437"):
        build_robust_data(linear_model(), digits().train, tmp_path / "set", Settings(**SETTINGS | {"count": count}))
    assert not (tmp_path / "set").exists()


def test_an_out_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot make the folder"):
        build_robust_data(linear_model(), digits().train, tmp_path / "file" / "set", Settings(**SETTINGS))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model = linear_model(cell="batchnorm", state_dim=8)
    classes = tuple("0123456789")
    save_checkpoint(
        path, Checkpoint(model=model, data=DataConfig(augment=True), class_names=classes, seed=0, epoch=1, recipe={})
    )
    robust_data(path, out=tmp_path / "set", steps=2, limit=40)
    assert "wrote 40 images and their labels" in capsys.readouterr().out
    data = load_data(DataConfig(robust=True, validation_fraction=0), data_dir=tmp_path / "set")
    assert isinstance(data.train, Split)
    assert len(data.train) == 40
    assert np.isfinite(data.mean).all()
