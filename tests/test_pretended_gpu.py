"""The pretended GPU refuses what a GPU refuses, and takes what it takes."""

from collections.abc import Callable, Iterator

import pytest
import torch
from pretended_gpu import DevicesMixedError, pretended_gpu
from torch import Tensor


@pytest.fixture(autouse=True)
def there() -> Iterator[None]:
    with pretended_gpu():
        yield


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


REFUSED: dict[str, Callable[[Tensor], object]] = {
    "a sum": lambda x: x + torch.ones(3),
    "a sum in place": lambda x: x.add_(torch.ones(3)),
    "a sum with what the CPU made of a number": lambda x: x + torch.tensor([1.0]),
    "a product": lambda x: x @ torch.ones(3),
    "a choice": lambda x: torch.where(torch.ones(3) > 0, x, x),
    "a list": lambda x: torch.cat([x, torch.ones(3)]),
    "indices of the GPU": lambda x: torch.ones(3)[x.long()],
    "a mask of the GPU": lambda x: torch.ones(3).masked_fill(x > 0, 0.0),
    "values put at indices": lambda x: x.index_put((torch.tensor([0]),), torch.ones(1)),
    "after a copy back": lambda x: x + x.cpu(),
    "within vmap": lambda x: torch.func.vmap(lambda row: row + torch.ones(3))(x.view(1, 3)),
    "in a backward pass": lambda x: Lazy.apply(x.requires_grad_()).sum().backward(),
    "NumPy": lambda x: x.numpy(),
    "a generator of the CPU": lambda x: torch.rand(3, generator=seeded(), device="cuda"),
    "a generator of the CPU, in place": lambda x: x.normal_(generator=seeded()),
}

TAKEN: dict[str, Callable[[Tensor], Tensor]] = {
    "a number": lambda x: x + torch.tensor(1.0),
    "its like": lambda x: x + torch.ones_like(x) + x.new_ones(3) + x.new_tensor([1.0, 2.0, 3.0]),
    "what was moved": lambda x: (
        x + torch.ones(3).to(x) + torch.ones(3).cuda() + torch.ones(3).to("cuda", torch.float64)
    ),
    "what was made there": lambda x: x + torch.ones(3, device=x.device) + torch.as_tensor(torch.ones(3), device="cuda"),
    "indices of the CPU": lambda x: x[torch.tensor([0, 2])] + x[torch.tensor([True, True, False])],
    "a view": lambda x: x.view(1, 3)[0].double(),
    "a copy into it": lambda x: x.copy_(torch.ones(3)),
    "vmap": lambda x: torch.func.vmap(torch.func.jacrev(torch.sin))(x),
    "a gradient": lambda x: torch.autograd.grad(x.requires_grad_().unbind()[0], x)[0],
    "a layer": lambda x: torch.nn.Linear(3, 2).to("cuda")(x),
}


class Lazy(torch.autograd.Function):
    """Its gradient is of the CPU, by mistake."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * torch.full((3,), 2.0)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gpu_refuses_is_refused(name: str) -> None:
    with pytest.raises(DevicesMixedError):
        REFUSED[name](torch.zeros(3, device="cuda"))


@pytest.mark.parametrize("name", TAKEN)
def test_what_a_gpu_takes_stays_there(name: str) -> None:
    result = TAKEN[name](torch.zeros(3, device="cuda"))
    assert result.is_cuda
    assert result.device == torch.device("cuda", 0)
    assert result.sum().item() == result.cpu().sum().item()


def test_a_gradient_comes_back_to_the_cpu() -> None:
    x = torch.ones(3, requires_grad=True)
    layer = torch.nn.Linear(3, 1).to("cuda")
    layer(x.to("cuda")).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert not x.grad.is_cuda
    assert layer.weight.grad.is_cuda
