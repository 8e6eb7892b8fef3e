"""Boxes made smaller by a linear constraint."""

import torch
from torch import Tensor

from analysis.proofs.intervals.interval import ROUNDOFF


def contracted(low: Tensor, high: Tensor, slope: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the hull (B, n), (B, n) of the states z between ``low`` and ``high`` (B, n) where slope . z + offset >= 0.

    ``slope`` is (B, n), ``offset`` (B,); the third result (B,) says where there is no such state at all. All is rounded outwards: no
    such state is lost in real arithmetic. A constraint that is not finite takes nothing away.
    """
    most = torch.maximum(slope * low, slope * high)
    size = slope.abs() * torch.maximum(low.abs(), high.abs())
    # Sums of n + 1 products.
    error = (size.sum(1) + offset.abs()) * ((slope.shape[1] + 4) * ROUNDOFF) + 1e-300
    total = most.sum(1) + offset + error
    known = total.isfinite() & slope.isfinite().all(1)
    empty = known & (total < 0)
    # The side may recede from its best end by this much before the constraint fails, with all others at theirs.
    step = total.clamp(min=0)[:, None] / slope.abs()
    step = step + (step + torch.maximum(low.abs(), high.abs())) * (4 * ROUNDOFF)
    step = step.masked_fill(~known[:, None] | step.isnan(), torch.inf)
    new_low = torch.where(slope > 0, torch.maximum(low, high - step), low)
    new_high = torch.where(slope < 0, torch.minimum(high, low + step), high)
    return torch.minimum(new_low, high), torch.maximum(new_high, low), empty
