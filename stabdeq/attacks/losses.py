"""What attacks climb: for each sample a number that is larger the nearer its logits are to a mistake."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from stabdeq.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, classes), labels (B,) -> (B,)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy (B,): its gradient vanishes, to rounding, where the model is sure of itself."""
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest other logit minus the label's, (B,): positive where the prediction is wrong."""
    return _others(logits, labels).amax(1) - _at(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio (B,): the margin over the distance from the largest to the third logit.

    It stays the same when the logits are shifted or scaled (Croce and Hein 2020, Eq. 6).
    Raises ConfigError for fewer than 3 classes.
    """
    _require_classes(logits, 3, "DLR divides by the distance to the third largest logit")
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return _ratio(margin(logits, labels), first - third)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return DLR towards the classes ``targets`` (B,): the target's logit minus the label's, over the spread (B,).

    The spread is the largest logit minus the mean of the third and fourth (Croce and Hein 2020, Eq. 7).
    Raises ConfigError for fewer than 4 classes.
    """
    _require_classes(logits, 4, "targeted DLR divides by the distance to the third and fourth largest logits")
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    return _ratio(logit_difference(logits, labels, targets), first - (third + fourth) / 2)


def logit_difference(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the logit of the classes ``targets`` (B,) minus the label's, (B,): targeted DLR without its spread."""
    return _at(logits, targets) - _at(logits, labels)


def other_class(logits: Tensor, labels: Tensor, rank: int) -> Tensor:
    """Return, for each sample, the class with the ``rank``-th largest logit (1 is the largest) but the label, (B,)."""
    return _others(logits, labels).topk(rank, dim=1).indices[:, -1]


def _at(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels[:, None], -torch.inf)


def _ratio(difference: Tensor, spread: Tensor) -> Tensor:
    """The quotient; the difference itself where the leading logits are all equal."""
    return difference / torch.where(spread == 0, 1, spread)


def _require_classes(logits: Tensor, least: int, reason: str) -> None:
    if logits.shape[1] < least:
        raise ConfigError(
            f"the model has {logits.shape[1]} classes, and {reason}: expected {least} or more; use the cross-entropy"
        )
