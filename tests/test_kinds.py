"""The kinds of models, their variants, what contradicts them, and their heads."""

from typing import Any

import pytest
import torch
from small_models import DIM, SHAPE, WITH_EQUILIBRIUM, generator, settings

from stabdeq.config import ArchitectureConfig, BroydenConfig, LyapunovConfig, ModelConfig
from stabdeq.config.kinds import KINDS, kind_of, model_config
from stabdeq.errors import ConfigError
from stabdeq.heads import Head
from stabdeq.model import StabilisedDEQ

# Heads


@pytest.mark.parametrize("name", ["orthogonal", "orthogonal-direct"])
@pytest.mark.parametrize(("features", "classes"), [(DIM, 3), (64, 10)])
def test_orthogonal_weight(name: str, features: int, classes: int) -> None:
    torch.manual_seed(0)
    head = Head(name, features, classes)
    layer = head.rotation if name == "orthogonal" else head.classifier
    rows = layer.weight.shape[0]
    assert layer.weight.shape == ((features, features) if name == "orthogonal" else (classes, features))
    with torch.no_grad():
        for parameter in layer.parametrizations.weight.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator())  # as a step of training would
    for width, bound in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        weight = head.to(width) and layer.weight
        assert (weight @ weight.T - torch.eye(rows, dtype=width)).abs().max() < bound


def test_orthogonal_head_keeps_distances() -> None:
    head = Head("orthogonal", DIM, 3).double()
    z = torch.randn(10, DIM, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(torch.cdist(head.rotate(z), head.rotate(z)), torch.cdist(z, z))
    assert Head("linear", DIM, 3).rotate(z) is z


def test_orthogonal_direct_needs_features_for_its_classes() -> None:
    with pytest.raises(ConfigError, match="not 6 for 7: use head orthogonal"):
        Head("orthogonal-direct", 6, 7)


# Kinds


def test_the_kinds() -> None:
    networks = ["resnet20", "resnet56", "vgg16", "wrn-28-10"]
    assert [name for name in KINDS if name not in networks] == WITH_EQUILIBRIUM
    assert [name for name, kind in KINDS.items() if kind.backbone == name] == networks
    assert WITH_EQUILIBRIUM[:5] == ["deq", "deq-orth", "lyadeq-noorth", "lyadeq", "lyadeq-anchored"]
    for name in KINDS:
        assert kind_of(configured(name)) == name


def test_a_network_brings_its_own_backbone_and_width() -> None:
    config = configured("vgg16", backbone="resnet20", state_dim=7)
    assert (config.backbone, config.cell, config.state_dim, config.stability) == ("vgg16", "constant", 512, "none")


def configured(kind: str, **architecture: Any) -> ModelConfig:
    return model_config(kind, ArchitectureConfig(**architecture), image_shape=SHAPE, classes=3, mean=(0.5,), std=(0.5,))


def test_variants_of_a_kind() -> None:
    config = configured("lyadeq", stability="residual", head="orthogonal-direct")
    assert (config.stability, config.head) == ("residual", "orthogonal-direct")
    assert kind_of(config) == "lyadeq"
    assert kind_of(settings(stability="residual")) == "lyadeq-noorth"
    assert kind_of(settings(stability="anchored")) == "anchored stability, linear head"


def test_the_cell_of_a_kind() -> None:
    assert kind_of(configured("lyadeq", cell="certified")) == "lyadeq, certified cell"
    assert kind_of(configured("deq", cell="monotone")) == kind_of(configured("mondeq")) == "mondeq"
    assert kind_of(settings(stability="anchored", cell="interval")) == "anchored stability, linear head, interval cell"
    assert kind_of(settings(cell="constant")) == "deq, constant cell"


@pytest.mark.parametrize(
    ("kind", "architecture", "message"),
    [
        ("deq", {"stability": "anchored"}, "kind deq has stability none, not anchored"),
        ("deq", {"head": "orthogonal"}, "kind deq has head linear, not orthogonal"),
        ("lyadeq", {"stability": "anchored"}, "kind lyadeq has stability state or residual, not anchored"),
        ("lyadeq-anchored", {"head": "linear"}, "has head orthogonal or orthogonal-direct, not linear"),
        ("resnet20", {"cell": "certified"}, "kind resnet20 has cell constant, not certified"),
        ("resnet20", {"head": "orthogonal"}, "kind resnet20 has head linear, not orthogonal"),
        ("mondeq", {"cell": "batchnorm"}, "kind mondeq has cell monotone, not batchnorm"),
        (
            "deq",
            {"cell": "constant"},
            "kind deq has cell batchnorm or certified or monotone or interval or convolution or conv",
        ),
        ("lyadeq-anchord", {}, "unknown kind 'lyadeq-anchord': did you mean 'lyadeq-anchored'"),
    ],
)
def test_contradictions_are_refused(kind: str, architecture: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(kind, **architecture)


def test_architecture_reaches_the_model() -> None:
    config = configured("deq", state_dim=17, solver=BroydenConfig(), lyapunov=LyapunovConfig(eta=0.7))
    assert (config.state_dim, config.solver.name, config.lyapunov.eta) == (17, "broyden", 0.7)
    assert config.image_shape == SHAPE


def test_a_change_of_mode_before_the_backward_pass_is_refused() -> None:
    torch.manual_seed(0)
    config = model_config(
        "deq", ArchitectureConfig(state_dim=6), image_shape=(1, 4, 4), classes=3, mean=(0.5,), std=(0.3,)
    )
    model = StabilisedDEQ(config).train()
    loss = model(torch.rand(5, 1, 4, 4)).square().sum()
    model.eval()
    with pytest.raises(ConfigError, match="run it again"):
        loss.backward()
