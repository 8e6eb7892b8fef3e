"""The size of a map's Jacobian, estimated without forming it, to be made small in training."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.shared_batch import drawn
from stabdeq.solvers.solution import accumulation_dtype


def squared_jacobian_norm(
    f: Callable[[Tensor], Tensor], z: Tensor, *, generator: torch.Generator | None = None, probes: int = 1
) -> Tensor:
    """Return an unbiased estimate of ||df/dz||_F^2 at the states ``z`` (B, *), (B,), of half precision in float32, to be differentiated.

    It is the mean of ||J' e||^2 over ``probes`` vectors e of random signs, drawn on the CPU from ``generator`` (Hutchinson 1990;
    Bai et al. 2021 for equilibria). Each product J' e is recorded, so that the estimate has the gradient of the very number that
    it is, with respect to all that f reads; where ``z`` carries the gradient of an equilibrium, of that too. Where f couples
    samples, a sample's number is the sum over its row of the whole batch's Jacobian. Raises ConfigError where ``probes`` is below 1.
    """
    if probes < 1:
        raise ConfigError(f"probes = {probes}: expected at least 1 vector")
    with torch.enable_grad():
        state = z if z.requires_grad else z.detach().clone().requires_grad_()
        image = f(state.clone())  # f may write into it
        total = image.new_zeros(len(z), dtype=accumulation_dtype(image.dtype))
        if not image.requires_grad:  # f reads no state
            return total
        for _ in range(probes):
            signs = (2 * drawn(partial(torch.randint, 2, generator=generator), image.shape) - 1).to(image)
            product = torch.autograd.grad(image, state, signs, create_graph=True, materialize_grads=True)[0]
            total = total + product.flatten(1).to(total).square().sum(1)
    return total / probes
