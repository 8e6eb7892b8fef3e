"""The loss of training for certified predictions: what other classes can gain within a distance, or how far away they are."""

import torch
from torch import Tensor
from torch.nn import functional

from stabdeq.bounds import logit_difference_bound
from stabdeq.model import StabilisedDEQ
from train.recipe import MarginConfig


def margin_loss(model: StabilisedDEQ, logits: Tensor, labels: Tensor, margin: MarginConfig) -> Tensor:
    """Return the loss () of ``logits`` (B, classes) with respect to ``labels`` (B,), for ``margin.radius`` > 0.

    With K[j] the most that logit j can gain on the label's a unit of distance in pixels, it is the cross-entropy of the logits raised
    by radius K (Tsuzuku, Sato and Sugiyama 2018). With a ``sharpness`` s it is of distances d[j] = (logit y - logit j) / K[j], no
    image nearer than which is taken for j: the mean of log(1 + sum over j of exp(s (radius - d[j]))) / s. That does not change with the
    classifier's scale, and what is much further away than the radius by 1 / s counts for nothing.
    """
    bound = logit_difference_bound(model, labels)
    if margin.sharpness == 0:
        return functional.cross_entropy(logits + margin.radius * bound, labels)
    label = functional.one_hot(labels, logits.shape[1]).bool()
    # Two equal rows of the classifier are no distance apart; nothing is to be divided by 0.
    shift = (logits - logits.gather(1, labels[:, None])) / torch.where(bound == 0, 1, bound)
    raised = torch.where(label, 0, margin.radius + shift)
    return functional.cross_entropy(margin.sharpness * raised, labels) / margin.sharpness
