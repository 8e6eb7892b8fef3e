"""Sums that an adversary orders err by no more than deployed certificates charge, and where he is free to, by nearly as much."""

from collections.abc import Callable

import pytest
import torch
from test_deployed import COARSE, as_matrix, coarse, draw
from torch import Tensor
from torch.nn import functional

from analysis.proofs.cells.deployed import Arithmetic, Near, distance, linear
from analysis.proofs.cells.deployed_extractor import _through
from stabdeq.backbones.lipschitz import OrthonormalRows, Residual, ResidualConvolution, ResidualLinear
from stabdeq.backbones.lipschitz.blocks import BLOCK

Order = Callable[[Tensor], Tensor]  # of terms (k, *), the order in which each sum takes its own
Way = Callable[[Tensor], Tensor]  # adds up terms (k, *) in their dtype


def chain(terms: Tensor) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def blocks(terms: Tensor) -> Tensor:
    return chain(torch.stack([chain(part) for part in terms.split(8)]))


def pairwise(terms: Tensor) -> Tensor:
    while len(terms) > 1:
        half = len(terms) // 2
        terms = torch.cat([terms[:half] + terms[half : 2 * half], terms[2 * half :]])
    return terms[0]


ORDERS: dict[str, Order] = {
    "as they are": lambda terms: terms,
    "positive ones first": lambda terms: terms.sort(0, descending=True).values,
    "large ones first": lambda terms: terms.gather(0, terms.abs().argsort(0, descending=True)),
    "signs in turn": lambda terms: terms.gather(0, terms.abs().argsort(0)),
    "shuffled": lambda terms: terms[torch.randperm(len(terms), generator=torch.Generator().manual_seed(3))],
}
WAYS: dict[str, Way] = {"one by one": chain, "in blocks": blocks, "pairwise": pairwise}


def products(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The rounded terms (k, B, m) of W x + b, for x (B, k)."""
    terms = x.to(COARSE).mT[:, :, None] * weight.to(COARSE).mT[:, None, :]
    return terms if bias is None else torch.cat([terms, bias.to(COARSE).expand(1, len(x), -1)])


def exactly(values: Tensor) -> Near:
    """Values that are computed without error."""
    return Near(values, *torch.zeros(2, len(values), dtype=torch.float64))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", ORDERS)
def test_no_order_of_a_linear_layer_errs_by_more_than_is_charged(order: str, way: str) -> None:
    weight, bias, x = coarse(draw(4, 60)), coarse(draw(4, seed=1)), coarse(draw(40, 60, seed=2) ** 3)
    found = linear(exactly(x), weight, bias, Arithmetic(COARSE, 1.0, {}))
    computed = WAYS[way](ORDERS[order](products(x, weight, bias)))
    assert bool(((computed.double() - (x @ weight.mT + bias)).norm(dim=1) <= found.error).all())


@pytest.mark.parametrize("last", [0.99, -(2.0**24)])
def test_the_charge_is_nearly_reached(last: float) -> None:
    """Beside 2^24 float32 loses each .99. Of terms of both signs what is charged rests on those of one sign."""
    weight = torch.tensor([[2.0**24, *[0.99] * 30, last]])
    x, bias = torch.ones(1, weight.shape[1]).double(), torch.zeros(1, dtype=torch.float64)
    found = linear(exactly(x), weight.double(), bias, Arithmetic(torch.float32, 1.0, {}))
    error = float((chain(weight.mT).double() - weight.double().sum()).abs())
    assert error <= float(found.error) <= 1.2 * error


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("make", [lambda: ResidualLinear(20, 7), lambda: ResidualConvolution(2, 3)])
def test_no_order_of_a_residual_layer_errs_by_more_than_is_charged(make: Callable[[], Residual], order: str) -> None:
    """Its rows are of sizes that lie far apart, and so are its scales: each is charged by its own."""
    torch.manual_seed(0)
    layer = make().double().requires_grad_(False)
    shape = (20,) if isinstance(layer, ResidualLinear) else (2, 4, 4)
    layer.weight.mul_(torch.logspace(-2, 2, len(layer.bias)).view(-1, *[1] * (layer.weight.dim() - 1)))
    for parameter in layer.parameters():
        parameter.copy_(coarse(parameter + 0.3 * torch.randn_like(parameter)))
    weight = as_matrix(layer, shape)
    bias, scale = (one.repeat_interleave(len(weight) // len(layer.bias)) for one in (layer.bias, layer.scale()))
    x = coarse(draw(25, *shape, seed=4))
    deltas = {"layer": distance(coarse(layer.scale()), layer.scale())}
    found = _through(layer, exactly(x), Arithmetic(COARSE, 1.0, deltas), "layer")
    inner = chain(ORDERS[order](products(x.flatten(1), weight, bias))).double().relu()
    back = chain(ORDERS[order](products(coarse(inner * coarse(scale)), weight.mT, None)))
    computed = coarse(x.flatten(1) - back.double()).view_as(x)
    error = (computed - layer(x)).flatten(1).norm(dim=1)
    assert bool((error <= found.error).all())
    assert bool((error * 300 >= found.error).any())


def test_a_residual_layer_that_overflows_has_no_bound() -> None:
    """Its scale is small, so that nothing overflows as the bound measures it."""
    layer = ResidualLinear(2, 1).double().requires_grad_(False)
    layer.weight.fill_(1000.0)
    x = torch.full((1, 2), 3e35, dtype=torch.float64)
    assert bool(layer(x).isfinite().all())
    assert not bool(layer.float()(x.float()).isfinite().all())
    found = _through(layer.double(), exactly(x), Arithmetic(torch.float32, 1.0, {"layer": 1e-6}), "layer")
    assert found.error.tolist() == [torch.inf]


def test_orthonormal_rows_add_up_sums_of_few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside 2^24 float32 has no odd numbers: what is lost of 3/4 is lost in one block alone."""
    terms = 4 * BLOCK
    weight = torch.full((1, terms), 0.75)
    weight[0, 0] = 2.0**24
    monkeypatch.setattr(OrthonormalRows, "weight", weight)
    layer, x = OrthonormalRows(terms, 1).requires_grad_(False), torch.ones(1, terms)
    arithmetic, bias = Arithmetic(torch.float32, 1.0, {}), torch.zeros(1, dtype=torch.float64)
    found, whole = (
        linear(exactly(x.double()), weight.double(), bias, arithmetic, in_blocks=in_blocks)
        for in_blocks in (True, False)
    )
    error = float((layer(x).double() - (2.0**24 + 0.75 * (terms - 1))).abs())
    assert error <= 0.75 * BLOCK + 2
    assert error <= float(found.error) < float(whole.error) / 3


def losing(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x + b as one sum that begins with its largest terms."""
    terms = x.mT[:, :, None] * weight.mT[:, None, :]
    terms = terms if bias is None else torch.cat([terms, bias.expand(1, len(x), -1)])
    return chain(ORDERS["large ones first"](terms))


def losing_forth() -> tuple[ResidualLinear, Tensor]:
    layer = ResidualLinear(4 * BLOCK, 1)
    layer.weight.data.fill_(0.75)
    layer.weight.data[0, 0] = 2.0**24
    return layer, torch.ones(1, 4 * BLOCK)


def losing_back() -> tuple[ResidualLinear, Tensor]:
    layer = ResidualLinear(1, 4 * BLOCK)
    layer.weight.data.fill_(1.0)
    layer.bias.data.fill_(0.75)
    layer.bias.data[0] = 2.0**24
    return layer, torch.zeros(1, 1)


@pytest.mark.parametrize("make", [losing_forth, losing_back])
def test_an_evaluated_residual_layer_adds_up_in_blocks(
    make: Callable[[], tuple[ResidualLinear, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the fourth part of its terms, which stand beside 2^24 in one block, 3/4 are lost each; without blocks it would be of all."""
    layer, x = make()
    layer.eval().requires_grad_(False)
    scale = layer.scale()
    with monkeypatch.context() as patch:
        patch.setattr(functional, "linear", losing)
        computed = layer(x)
    layer.double()
    deltas = {"layer": distance(scale, layer.scale())}
    found = _through(layer, exactly(x.double()), Arithmetic(torch.float32, 1.0, deltas), "layer")
    error = float((computed.double() - layer(x.double())).norm())
    assert error <= float(found.error) <= 4 * error
