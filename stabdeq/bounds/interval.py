"""Interval bound propagation: what the logits can become when each pixel moves by at most eps.

Gowal et al. 2018, arXiv 1810.12715; through the equilibrium as Wei and Kolter, ICLR 2022. In floating point, and to the
solver's tolerance: this is for training. ``stabdeq certify`` proves its bounds.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.alteration import alteration, own_alteration, require_unaltered
from stabdeq.bounds.ends import require_unaltered_model
from stabdeq.cells import IntervalCell, cell_alteration
from stabdeq.errors import ConfigError, SolverError
from stabdeq.model import StabilisedDEQ
from stabdeq.radius import check_eps
from stabdeq.solvers import Forward, Implicit, build_solver, fixed_point


def worst_logits(model: StabilisedDEQ, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Return upper bounds (B, classes) of logit j - logit y over the images within ``eps`` of ``images``; 0 where j = y.

    Pixels are in [0, 1], before and after the change; ``labels`` y (B,). The prediction is y throughout the ball where all
    others are negative. The cross-entropy of these logits bounds that of every image in the ball. Differentiable: the gradient
    of the equilibrium's bounds is implicit. Raises ConfigError where a part of the model has no interval bounds, SolverError where
    the solver does not find the equilibrium's.
    """
    require_interval_bounds(model)
    check_eps(eps)
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    middle, radius = ((high + low) / 2 - model.mean) / model.std, (high - low) / 2 / model.std.abs()
    for layer in backbone_layers(model):
        middle, radius = _through(layer, middle, radius)
    low, high = equilibrium_bounds(
        model, (middle - radius).to(model.mean.dtype), (middle + radius).to(model.mean.dtype)
    )
    classifier = model.head.classifier
    rows = classifier.weight - classifier.weight[labels][:, None]
    shift = classifier.bias - classifier.bias[labels][:, None]
    middle, radius = (high + low) / 2, (high - low) / 2
    return (rows @ middle[:, :, None] + rows.abs() @ radius[:, :, None]).squeeze(2) + shift


def require_interval_bounds(model: StabilisedDEQ) -> None:
    """Raise ConfigError, with the reason, where a part of ``model`` has no interval bounds."""
    config = model.config
    if not (isinstance(model.cell, IntervalCell) and config.stability == "none" and config.head == "linear"):
        raise ConfigError(
            "interval bounds need the cell interval, no stability module and the head linear (kind ibp-mondeq), not cell "
            f"{config.cell}, stability {config.stability} and head {config.head}"
        )
    require_unaltered_model(model)
    require_unaltered(cell_alteration(model.cell))
    for place, layer in enumerate(backbone_layers(model)):
        is_plain = (
            type(layer) is nn.Conv2d
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
            and layer.groups == 1
        )
        if not (is_plain or type(layer) in (nn.Flatten, nn.Linear, nn.ReLU)):
            raise ConfigError(
                f"backbone {config.backbone} has no interval bounds, since it holds {layer}: use backbone fcn or cnn"
            )
        require_unaltered(alteration(layer, f"the backbone's layer {place}"))


def backbone_layers(model: StabilisedDEQ) -> list[nn.Module]:
    """Return the layers that the normalised image passes, one after the other; the backbone alone where it is no such chain.

    Raises ConfigError where the chain itself is altered; its layers are not looked at.
    """
    backbone = model.backbone
    # A subclass of nn.Sequential, such as a user's, may do more than pass its layers.
    if not (isinstance(backbone, nn.Sequential) and type(backbone).forward is nn.Sequential.forward):
        return [backbone]
    require_unaltered(own_alteration(backbone, "the backbone"))
    return list(backbone)


def equilibrium_bounds(model: StabilisedDEQ, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds (B, n), (B, n) of the equilibria for all features between ``low`` and ``high`` (B, n), by the model's solver.

    Raises SolverError where it does not find them.
    """
    assert isinstance(model.cell, IntervalCell)
    settings = model.config.solver
    bounds = model.cell.bounds()
    injected = bounds.inject(torch.cat([low, high], 1))
    solution = fixed_point(
        lambda z, injected, transition: functional.relu(z @ transition + injected),
        torch.zeros_like(injected),
        build_solver(settings),
        inputs=(injected,),
        parameters=(bounds.transition,),
        adjoint=Implicit(linearise=lambda z: bounds.linearise(z, injected)),
        forward=Forward(bounds, (injected.detach(),)),
        tolerance=settings.stopping_tolerance,
        max_evaluations=settings.max_evaluations,
        compiled=settings.compiled,
    )
    if not bool(solution.converged.all()):  # an unfinished iteration bounds nothing
        raise SolverError(
            f"the interval bounds were not found ({solution.describe_failures()}): raise model.solver.max_evaluations, or "
            "model.solver.tolerance where it is near rounding"
        )
    low, high = solution.z.chunk(2, dim=1)
    return low, high


def _through(layer: nn.Module, middle: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Return middle and radius of what ``layer`` makes of all inputs within ``radius`` of ``middle``."""
    if isinstance(layer, nn.Linear):
        return layer(middle), functional.linear(radius, layer.weight.abs())
    if isinstance(layer, nn.Conv2d):
        size = functional.conv2d(
            radius, layer.weight.abs(), stride=layer.stride, padding=layer.padding, dilation=layer.dilation
        )
        return layer(middle), size
    if isinstance(layer, nn.Flatten):
        return layer(middle), layer(radius)
    low, high = layer(middle - radius), layer(middle + radius)  # a ReLU
    return (high + low) / 2, (high - low) / 2
