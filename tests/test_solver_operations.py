"""How many operations the loop and Anderson add to each evaluation of the map: what small problems pay for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stabdeq.solvers import Anderson, solve
from tests.solver_problems import normal

VIEWS = ("alias", "detach", "diagonal", "expand", "permute", "select", "slice", "t", "transpose", "unsqueeze", "view")


class Counted(TorchDispatchMode):
    """Counts operations that compute or allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func.overloadpacket.__name__ not in VIEWS  # pyrefly: ignore
        return func(*args, **(kwargs or {}))


def operations(evaluations: int, components: int) -> int:
    """Return the operations of a solve of so many evaluations, those of the map included."""
    weight, offset = 0.95 * torch.linalg.qr(normal(components, components)).Q, normal(8, components, seed=1)

    def f(z: Tensor) -> Tensor:
        return torch.addmm(offset, z, weight)

    with Counted() as counted:
        solve(f, torch.zeros_like(offset), Anderson(), tolerance=1e-12, max_evaluations=evaluations)
    return counted.count


def test_an_iteration_takes_few_operations() -> None:
    """Short or long, with a full history or a growing one, while every sample gets nearer and none has arrived."""
    for components in (64, 300):
        for evaluations in (4, 9):
            added = operations(evaluations + 1, components) - operations(evaluations, components)
            assert added <= 35, f"{added} operations in evaluation {evaluations + 1}, {components} components"
