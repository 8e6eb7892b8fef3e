"""Bounds of a model's logits over all images near a given one, differentiable, for training."""

from stabdeq.bounds.interval import worst_logits
from stabdeq.bounds.lipschitz import logit_difference_bound

__all__ = ["logit_difference_bound", "worst_logits"]
