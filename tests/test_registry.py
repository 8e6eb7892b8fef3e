"""A user's own backbone, cell, attack and data set: registered by name, trained, saved, loaded, audited; and what is refused."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.audit import audit
from analysis.certify import certify
from analysis.proofs.cells.l2_radii import ends_of
from stabdeq.attacks import PGD, Attack, build_attack, evaluate
from stabdeq.backbones import Backbone, FullyConnected, build_backbone
from stabdeq.bounds import logit_difference_bound
from stabdeq.bounds.interval import backbone_layers, require_interval_bounds
from stabdeq.cells import Cell, CertifiedCell, EquilibriumCell, build_cell, is_as_made
from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import AndersonConfig, DataConfig, ModelConfig, kinds
from stabdeq.data import Split, load_data
from stabdeq.errors import CheckpointError, ConfigError, DataError
from stabdeq.model import StabilisedDEQ
from stabdeq.registry import (
    ATTACKS,
    BACKBONES,
    CELLS,
    DATA_SETS,
    Registry,
    located,
    register_attack,
    register_backbone,
    register_cell,
    register_data_set,
)
from train.recipe import load_recipe
from train.trainer import CHECKPOINT_NAME, train

REGISTRIES = (ATTACKS, BACKBONES, CELLS, DATA_SETS)


@pytest.fixture(autouse=True)
def registries_as_before() -> Iterator[None]:
    before = [dict(registry._registered) for registry in REGISTRIES]
    yield
    for registry, registered in zip(REGISTRIES, before, strict=True):
        registry._registered = registered


def train_one_epoch(out: Path, *settings: str, kind: str = "lyadeq-anchored") -> Path:
    """Train on a part of the digits that is large enough to be stratified, and return the checkpoint."""
    recipe = load_recipe("digits", {"kind": kind, "epochs": 1}, ["model.state_dim=8", *settings])
    train(recipe, load_data(recipe.data), out)
    return out / CHECKPOINT_NAME


def model_config(**changes: Any) -> ModelConfig:
    return ModelConfig(image_shape=(1, 8, 8), classes=3, mean=(0.5,), std=(0.5,), state_dim=4, **changes)


def logits_of(model: nn.Module) -> Tensor:
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(images)


# Registries.


def test_importing_the_registry_imports_nothing_of_what_is_in_it() -> None:
    code = "import sys, stabdeq.registry, stabdeq.config; print(sorted(m for m in sys.modules if 'torch' in m or 'cells' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.sort)
def test_every_row_of_ours_is_found(registry: Registry) -> None:
    assert [registry[name] for name in registry._own] == registry.own_makers()
    assert all(callable(made) or isinstance(made, Backbone) for made in registry.own_makers())
    assert len(registry) == len(list(registry)) >= len(registry._own)
    assert located("math:pi") > 3


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.sort)
def test_a_name_that_is_taken_is_refused(registry: Registry) -> None:
    own = next(iter(registry))
    with pytest.raises(ConfigError, match=f"the {registry.sort} '{own}' exists already"):
        registry.register(own, object())
    mine = object()
    registry.register("mine", mine)
    registry.register("mine", mine)  # a module that is imported again registers the same
    assert registry["mine"] is mine
    assert "mine" in registry
    with pytest.raises(ConfigError, match="'mine' exists already"):
        registry.register("mine", object())
    with pytest.raises(ConfigError, match=f"unknown {registry.sort} 'mime': did you mean 'mine'"):
        registry["mime"]


@dataclass
class InstalledPackage:
    """A distribution in a folder, with entry points in the groups that are given."""

    folder: Path

    def write(self, source: str, **points: str) -> None:
        info = self.folder / "their_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "".join(f"[stabdeq.{group}]\n{point}\n" for group, point in points.items())
        )
        (self.folder / "their_package.py").write_text(source)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstalledPackage:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_package", raising=False)
    return InstalledPackage(tmp_path)


THEIRS = """
from torch import nn
from stabdeq.config import kinds
from stabdeq.attacks import PGD
from stabdeq.backbones import Backbone
from stabdeq.cells import MonotoneCell
from stabdeq.data import Split
from stabdeq.data.digits import read

BACKBONE = Backbone(lambda shape, features: nn.Sequential(nn.Flatten(), nn.LazyLinear(features)), least=3)
CELL = MonotoneCell

def attack(*, eps, norm, steps, restarts):
    return PGD(eps=eps, norm=norm, steps=steps or 3)
"""


def test_entry_points_of_an_installed_package_are_found(installed: InstalledPackage) -> None:
    installed.write(
        THEIRS,
        backbone="theirs = their_package:BACKBONE",
        cell="theirs = their_package:CELL",
        attack="theirs = their_package:attack",
        data_set="theirs = their_package:read",
    )
    assert all("theirs" in registry for registry in REGISTRIES)
    assert "their_package" not in sys.modules  # a name is known without importing anything
    assert build_attack("theirs", eps=0.1) == PGD(eps=0.1, steps=3)
    assert is_as_made(build_cell("theirs", 4))
    assert len(load_data(DataConfig(name="theirs")).test) == 360
    assert load_recipe("digits", settings=["model.backbone=theirs"]).model.backbone == "theirs"
    with pytest.raises(ConfigError, match="at least 3 x 3 pixels"):
        build_backbone("theirs", (1, 2, 2), 4)


def test_a_package_that_cannot_be_imported_is_named(installed: InstalledPackage) -> None:
    installed.write("import no_such_module", attack="theirs = their_package:attack")
    with pytest.raises(ConfigError, match=r"'theirs' could not be imported from their_package:attack .*their-package"):
        build_attack("theirs", eps=0.1)


def test_a_package_that_comes_later_is_found_and_the_packages_are_read_once_until_then(
    installed: InstalledPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(installed.folder, (0, 0))  # however coarse the clock of the file system is, the folder is seen to change
    reads, read = [], importlib.metadata.entry_points
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **of: (reads.append(of), read(**of))[1])
    assert not any("theirs" in registry for registry in REGISTRIES for _ in range(3))
    assert sorted(of["group"] for of in reads) == [
        "stabdeq.attack",
        "stabdeq.backbone",
        "stabdeq.cell",
        "stabdeq.data_set",
    ]
    installed.write(THEIRS, cell="theirs = their_package:CELL")
    assert ["theirs" in registry for registry in REGISTRIES] == [False, False, True, False]
    shutil.rmtree(installed.folder / "their_package-1.0.dist-info")
    os.utime(installed.folder, (1, 1))
    assert "theirs" not in CELLS


# A user's backbone.


class Doubled(FullyConnected):
    """A subclass of one that proofs hold of, that computes something else."""

    def forward(self, images: Tensor) -> Tensor:
        return 2 * super().forward(images)


def test_a_registered_backbone_is_trained_saved_loaded_and_audited(tmp_path: Path) -> None:
    register_backbone("doubled", Backbone(Doubled, least=4))
    file = train_one_epoch(tmp_path / "run", "model.backbone=doubled")
    loaded = load_checkpoint(file)
    assert isinstance(loaded.model.backbone, Doubled)
    assert loaded.kind == "lyadeq-anchored"
    data = load_data(DataConfig())
    few = Split(data.test.images[:20], data.test.labels[:20])
    assert evaluate(PGD(eps=0.01), loaded.model, few, seed=0).clean_correct.shape == (20,)
    assert audit(file, samples=3, checks=["convergence"]).findings


def test_a_backbone_without_its_registration_is_refused(tmp_path: Path) -> None:
    register_backbone("doubled", Backbone(Doubled))
    file = train_one_epoch(tmp_path / "run", "model.backbone=doubled", kind="deq")
    BACKBONES._registered.clear()
    with pytest.raises(CheckpointError, match=r"model\.backbone = 'doubled' is unknown: .*must be registered"):
        load_checkpoint(file)


def test_no_proof_holds_of_a_users_backbone() -> None:
    """It inherits from a layer that has bounds, and doubles it."""
    register_backbone("doubled", Backbone(Doubled))
    model = StabilisedDEQ(model_config(backbone="doubled", cell="interval"))
    assert backbone_layers(model) == [model.backbone]
    with pytest.raises(ConfigError, match="backbone doubled has no interval bounds"):
        require_interval_bounds(model)
    certified = StabilisedDEQ(model_config(backbone="doubled", cell="certified"))
    with pytest.raises(ConfigError, match="the extractor doubled has no Lipschitz constant"):
        ends_of(certified)
    with pytest.raises(ConfigError, match="the extractor doubled has no Lipschitz constant"):
        logit_difference_bound(certified, torch.zeros(1, dtype=torch.int64))
    ends_of(StabilisedDEQ(model_config(cell="certified")).double())


def test_what_is_no_backbone_is_refused() -> None:
    register_backbone("mine", FullyConnected)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"registered as a type: expected a stabdeq\.backbones\.Backbone"):
        build_backbone("mine", (1, 8, 8), 4)


def test_features_of_another_shape_are_refused() -> None:
    register_backbone("mine", Backbone(lambda shape, features: nn.Flatten()))
    with pytest.raises(ConfigError, match=r"mine returned \(2, 64\) for 2 images: expected features \(2, 4\)"):
        StabilisedDEQ(model_config(backbone="mine")).inject(torch.rand(2, 1, 8, 8))


class Forgetful(FullyConnected):
    def __init__(self, image_shape: tuple[int, int, int], features: int) -> None:
        super().__init__(image_shape, features)
        self.register_buffer("scale", torch.ones(()), persistent=False)


def test_buffers_that_a_checkpoint_would_lose_are_refused(tmp_path: Path) -> None:
    register_backbone("forgetful", Backbone(Forgetful))
    with pytest.raises(CheckpointError, match=r"backbone\.scale out of its state dict.*persistent=True"):
        train_one_epoch(tmp_path / "run", "model.backbone=forgetful", kind="deq")


# A user's cell.


class Tanh(EquilibriumCell):
    """f(z, h) = tanh(h + z / 4 W): ``forward`` alone."""

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(state_dim, state_dim)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(h + self.linear(z) / 4)


class Plain(EquilibriumCell):
    """f(z, h) = tanh(h + z / 4), which has no parameters."""

    def __init__(self, state_dim: int) -> None:
        super().__init__()

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(h + z / 4)


class Centred(EquilibriumCell):
    """A cell that couples samples in training mode, and does not say how to part them."""

    couples_samples = True

    def __init__(self, state_dim: int) -> None:
        super().__init__()

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        shared = z.mean(0) if self.training else 0
        return torch.tanh(h + (z - shared) / 4)


@pytest.mark.parametrize("kind", ["deq", "lyadeq-anchored", "lyadeq"])
def test_a_cell_with_forward_alone_is_trained_saved_loaded_and_audited(kind: str, tmp_path: Path) -> None:
    register_cell("tanh", Tanh)
    file = train_one_epoch(tmp_path / "run", "model.cell=tanh", kind=kind)
    loaded = load_checkpoint(file)
    assert loaded.kind == f"{kind}, tanh cell"
    solution = loaded.model.solve(loaded.model.inject(torch.rand(4, 1, 8, 8)))
    assert bool(solution.converged.all())
    assert torch.equal(logits_of(loaded.model), logits_of(load_checkpoint(file).model))
    assert audit(file, samples=3, checks=["equilibrium"]).findings
    with pytest.raises(ConfigError, match="the cell is a Tanh, expected one of this library's cells"):
        certify(file)


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_through_a_cell_with_forward_alone_is_right(training: bool, gradient: str) -> None:
    register_cell("tanh", Tanh)
    settings = AndersonConfig(tolerance=1e-12, gradient=gradient, gradient_steps=60)
    model = StabilisedDEQ(model_config(cell="tanh", solver=settings)).double().train(training)
    h = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    wanted = [h, *model.cell.parameters()]
    z = h
    for _ in range(200):
        z = model.cell(z, h)
    expected = torch.autograd.grad(z.sin().sum(), wanted)
    found = torch.autograd.grad(model.solve(h).z.sin().sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("make", [Plain, Centred])
def test_other_cells_are_solved_and_differentiated(make: Callable[[int], EquilibriumCell]) -> None:
    register_cell("mine", make)
    model = StabilisedDEQ(model_config(cell="mine")).train()
    prediction = model.predict(torch.rand(6, 1, 8, 8))
    prediction.logits.sum().backward()
    assert bool(prediction.solution.converged.all())
    assert model.backbone.linear.weight.grad.abs().sum() > 0


def test_a_cell_that_does_not_part_its_samples_says_so_where_it_must(tmp_path: Path) -> None:
    register_cell("centred", Centred)
    with pytest.raises(ConfigError, match=r"Centred couples them in training mode: give it a method decoupled"):
        train_one_epoch(tmp_path / "run", "model.cell=centred")


def test_running_statistics_that_change_at_every_evaluation_are_named() -> None:
    class Tracking(Tanh):
        def __init__(self, state_dim: int) -> None:
            super().__init__(state_dim)
            self.norm = nn.BatchNorm1d(state_dim)

        def forward(self, z: Tensor, h: Tensor) -> Tensor:
            return super().forward(z, self.norm(h))

    register_cell("tracking", Tracking)
    with pytest.raises(ConfigError, match="changes the buffer"):
        StabilisedDEQ(model_config(cell="tracking")).train().predict(torch.rand(6, 1, 8, 8))


def test_nothing_is_proved_of_a_users_cell_by_its_make() -> None:
    class Mine(CertifiedCell):
        pass

    register_cell("mine", Mine)
    assert not is_as_made(build_cell("mine", 3))
    assert not is_as_made(Tanh(3))
    assert not is_as_made(nn.Linear(3, 3))
    assert all(is_as_made(build_cell(name, 21 * 16, (4, 4))) for name in CELLS._own)
    register_cell("the paper's", Cell)
    assert is_as_made(build_cell("the paper's", 3))  # whatever it is called


def test_what_is_no_cell_is_refused() -> None:
    register_cell("mine", lambda state_dim: nn.Linear(state_dim, state_dim))  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match=r"a maker of Linear: expected a subclass of stabdeq\.cells\.EquilibriumCell"):
        build_cell("mine", 3)


def test_a_kind_without_an_equilibrium_takes_no_cell() -> None:
    register_cell("tanh", Tanh)
    recipe = load_recipe("digits", {"kind": "mondeq"}, ["model.cell=tanh"])
    with pytest.raises(ConfigError, match="kind mondeq has cell monotone, not tanh"):
        kinds.model_config(recipe.kind, recipe.model, image_shape=(1, 8, 8), classes=3, mean=(0.5,), std=(0.5,))


# A user's attack and data set.


def test_a_registered_attack_is_built_by_name() -> None:
    def build(*, eps: float, norm: str, steps: int | None, restarts: int) -> Attack:
        return PGD(eps=eps, steps=7 if steps is None else steps, restarts=restarts)

    register_attack("mine", build)
    assert build_attack("mine", eps=0.1) == PGD(eps=0.1, steps=7)
    assert build_attack("mine", eps=0.1, steps=2, restarts=3) == PGD(eps=0.1, steps=2, restarts=3)


def stripes(data_dir: Path | None, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    images = torch.randint(0, 128, (80, 1, 8, 8), generator=generator)
    images[labels == 1, :, ::2] += 100
    whole = Split(images.byte(), labels)
    return Split(whole.images[:60], labels[:60]), Split(whole.images[60:], labels[60:]), ("plain", "striped")


def test_a_registered_data_set_is_named_in_a_recipe(tmp_path: Path) -> None:
    seen = []

    def read(data_dir: Path | None, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
        seen.append((data_dir, download))
        return stripes(data_dir, download)

    register_data_set("stripes", read)
    file = train_one_epoch(tmp_path / "run", "data.name=stripes", kind="deq")
    loaded = load_checkpoint(file)
    assert loaded.class_names == ("plain", "striped")
    assert len(load_data(loaded.data, data_dir=tmp_path, download=True).test) == 20
    assert seen == [(None, False), (tmp_path, True)]


@pytest.mark.parametrize(
    "change",
    [
        lambda split: Split(split.images.float(), split.labels),
        lambda split: Split(split.images, split.labels.int()),
        lambda split: Split(split.images[:, 0], split.labels),
    ],
    ids=["floats", "int32 labels", "no channels"],
)
def test_a_data_set_of_other_tensors_is_refused(change: Callable[[Split], Split]) -> None:
    def read(data_dir: Path | None, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
        first, second, classes = stripes(data_dir, download)
        return change(first), change(second), classes

    register_data_set("mine", read)
    with pytest.raises(DataError, match=r"expected images \(N, C, H, W\) of uint8 and labels of int64"):
        load_data(DataConfig(name="mine"))


def test_a_name_in_a_recipe_that_is_not_registered_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.name = 'digit' is unknown: did you mean 'digits'"):
        load_recipe("digits", settings=["data.name=digit"])
    with pytest.raises(ConfigError, match=r"model\.cell = 'os:system' is unknown: Valid: batchnorm"):
        load_recipe("digits", settings=["model.cell='os:system'"])


def test_the_example_of_the_reference_runs() -> None:
    page = Path(__file__).parents[1] / "docs" / "api" / "cells-and-backbones.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(compile(code, str(page), "exec"), {"__name__": "page"})
    model = StabilisedDEQ(model_config(cell="tanh", backbone="flat")).eval()
    assert bool(model.predict(torch.rand(2, 1, 8, 8)).solution.converged.all())
