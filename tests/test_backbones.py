"""The networks: their published sizes, and outputs against references written apart from them."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.backbones import VGG16, ResNet, SmallConvolutional, WideResNet, build_backbone, native_width
from stabdeq.config import ArchitectureConfig, BackboneName
from stabdeq.config.kinds import KINDS, model_config
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

NETWORKS: list[BackboneName] = [kind.backbone for kind in KINDS.values() if kind.backbone]
# Height and width below which a backbone has nothing left.
LEAST: dict[BackboneName, int] = {"cnn": 10, "resnet20": 8, "resnet56": 8, "vgg16": 32, "wrn-28-10": 8}


def on_no_device(name: BackboneName, features: int, size: int = 32) -> nn.Module:
    """The backbone without storage: what is asked of its shapes costs nothing."""
    with torch.device("meta"):
        return build_backbone(name, (3, size, size), features)


def drawn(network: nn.Module) -> nn.Module:
    """In evaluation mode, in float64, with nothing at its initial value."""
    generator = torch.Generator().manual_seed(0)
    network.eval().double()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point() and tensor.dim() == 1:
            tensor.uniform_(-0.5, 1, generator=generator)
    return network


def images(count: int = 2, *, channels: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# Published sizes, with a linear classifier of 10 classes.


@pytest.mark.parametrize(
    ("kind", "count", "tolerance"),
    [
        ("resnet20", 0.27e6, 0.02),  # He et al. 2016, table 6; here with shortcuts that are convolutions
        ("resnet56", 0.85e6, 0.01),
        ("vgg16", 14.72e6, 1e-3),
        ("wrn-28-10", 36_479_194, 0),  # Zagoruyko and Komodakis 2016, table 5: 36.5 M
    ],
)
def test_published_number_of_parameters(kind: str, count: float, tolerance: float) -> None:
    mean, std = (0.5,) * 3, (0.2,) * 3
    config = model_config(kind, ArchitectureConfig(), image_shape=(3, 32, 32), classes=10, mean=mean, std=std)
    with torch.device("meta"):
        network = StabilisedDEQ(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(count, rel=tolerance)


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 19), ("resnet56", 55), ("vgg16", 13), ("wrn-28-10", 25)])
def test_published_number_of_layers(name: BackboneName, layers: int) -> None:
    """Convolutions of 3 x 3, all of them without a bias, which the BatchNorm after them would take away."""
    convolutions = [one for one in on_no_device(name, 7).modules() if isinstance(one, nn.Conv2d)]
    assert sum(one.kernel_size == (3, 3) for one in convolutions) == layers
    assert all(one.bias is None for one in convolutions)


# References.


def convolve(x: Tensor, weights: dict[str, Tensor], name: str, stride: int = 1) -> Tensor:
    weight = weights[f"{name}.weight"]
    return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def normalise(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    mean, variance, scale, shift = (
        weights[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


@pytest.mark.parametrize(("depth", "features"), [(8, 64), (20, 64), (20, 5)])
def test_resnet_is_that_of_the_paper(depth: int, features: int) -> None:
    network = drawn(ResNet(depth, (3, 32, 32), features))
    weights, x = network.state_dict(), images()
    with torch.no_grad():
        z = normalise(convolve(x, weights, "stem.0"), weights, "stem.1").relu()
        for stage in range(3):
            for block in range((depth - 2) // 6):
                name, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
                inner = normalise(convolve(z, weights, f"{name}.conv1", stride), weights, f"{name}.bn1").relu()
                if stride == 2:
                    z = normalise(convolve(z, weights, f"{name}.downsample.0", stride), weights, f"{name}.downsample.1")
                z = (z + normalise(convolve(inner, weights, f"{name}.conv2"), weights, f"{name}.bn2")).relu()
        assert z.shape == (2, 64, 8, 8)
        z = z.mean((2, 3))
        if features != 64:
            z = z @ weights["features.weight"].T + weights["features.bias"]
        torch.testing.assert_close(network(x), z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("depth", "widening", "features"), [(10, 2, 128), (16, 1, 64), (16, 1, 5)])
def test_wide_resnet_is_that_of_the_paper(depth: int, widening: int, features: int) -> None:
    """After the authors' own functional code: the shortcut of a block that changes shape reads what BN and ReLU return."""
    network = drawn(WideResNet(depth, widening, (3, 32, 32), features))
    weights, x = network.state_dict(), images()
    with torch.no_grad():
        z = convolve(x, weights, "stem")
        for stage in range(3):
            for block in range((depth - 4) // 6):
                name, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
                activated = normalise(z, weights, f"{name}.before.0").relu()
                inner = convolve(activated, weights, f"{name}.residual.0", stride)
                inner = normalise(inner, weights, f"{name}.residual.1").relu()
                if f"{name}.shortcut.weight" in weights:
                    z = convolve(activated, weights, f"{name}.shortcut", stride)
                z = z + convolve(inner, weights, f"{name}.residual.3")
        z = normalise(z, weights, "last.0").relu()
        assert z.shape == (2, 64 * widening, 8, 8)
        z = z.mean((2, 3))
        if features != 64 * widening:
            z = z @ weights["features.weight"].T + weights["features.bias"]
        torch.testing.assert_close(network(x), z, rtol=1e-9, atol=1e-9)


def test_vgg16_is_torchvisions() -> None:
    """Its column D with BatchNorm, whose convolutions have biases: here zero."""
    from torchvision.models.vgg import cfgs, make_layers

    network, theirs = drawn(VGG16((3, 32, 32), 512)), make_layers(cfgs["D"], batch_norm=True).double().eval()
    ours = iter(one for one in network.stages if isinstance(one, nn.Conv2d | nn.BatchNorm2d))
    for layer in theirs:
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            layer.load_state_dict(next(ours).state_dict(), strict=False)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.load_state_dict(next(ours).state_dict())
    assert next(ours, None) is None
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(network(x), theirs(x).flatten(1), rtol=1e-9, atol=1e-9)


def test_small_convolutional() -> None:
    """The layers that interval bounds know, in order; on MNIST the published 3200 features before the linear layers."""
    network = SmallConvolutional((1, 28, 28), 100).double()
    assert [type(one) for one in network] == [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear]
    assert network[-1].in_features == 3200
    weights, x = network.state_dict(), images(channels=1, size=28)
    with torch.no_grad():
        z = functional.conv2d(x, weights["0.weight"], weights["0.bias"], stride=2).relu()
        z = functional.conv2d(z, weights["2.weight"], weights["2.bias"]).relu().flatten(1)
        torch.testing.assert_close(network(x), z @ weights["5.weight"].T + weights["5.bias"])


def test_fully_connected() -> None:
    backbone = build_backbone("fcn", (1, 28, 28), 64)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 784 * 64 + 64
    assert backbone(torch.zeros(3, 1, 28, 28)).shape == (3, 64)


# Shapes.


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize("features", [None, 7])
def test_images_from_the_least_size_up(name: BackboneName, features: int | None) -> None:
    width = features or native_width(name) or 9
    for size in (LEAST[name], 45):
        x = torch.zeros(2, 3, size, size, device="meta")
        assert on_no_device(name, width, size)(x).shape == (2, width)


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize("narrow", [(1, 0), (0, 1)])
def test_images_too_small_are_refused(name: BackboneName, narrow: tuple[int, int]) -> None:
    size = LEAST[name]
    height, width = size - narrow[0], size - narrow[1]
    message = f"{name} needs images of at least {size} x {size} pixels, not {height} x {width}: use backbone fcn, or"
    with pytest.raises(ConfigError, match=message):
        build_backbone(name, (1, height, width), 64)


@pytest.mark.parametrize(
    ("name", "width"), [("fcn", None), ("cnn", None), *zip(NETWORKS, (64, 64, 512, 640), strict=True)]
)
def test_native_width_needs_no_layer(name: BackboneName, width: int | None) -> None:
    assert native_width(name) == width
    if width is not None:
        assert not list(on_no_device(name, width).features.parameters())
        assert list(on_no_device(name, 7).features.parameters())


# Weights.


@pytest.mark.parametrize(
    "build", [partial(ResNet, 20), VGG16, partial(WideResNet, 10, 4)], ids=["resnet", "vgg", "wrn"]
)
def test_he_initialisation(build: Callable[..., nn.Module]) -> None:
    """Variance 2 / (channels out * pixels of the kernel), within five standard errors."""
    torch.manual_seed(0)
    for layer in build((3, 32, 32), 64).modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.detach()
            expected = (2 / (layer.out_channels * layer.kernel_size[0] ** 2)) ** 0.5
            assert float(weight.std()) == pytest.approx(expected, rel=5 / (2 * weight.numel()) ** 0.5)
            assert abs(float(weight.mean())) < 5 * expected / weight.numel() ** 0.5


@pytest.mark.parametrize("name", ["resnet20", "vgg16"])
def test_every_weight_learns(name: BackboneName) -> None:
    torch.manual_seed(0)
    size = LEAST[name]
    network = build_backbone(name, (1, size, size), 7)
    network(images(4, channels=1, size=size).float()).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name
