"""Exact tests on counts of images: how likely is what was seen, if nothing but chance were at work?"""

from dataclasses import dataclass

from torch import Tensor

from analysis.evidence.sampling import clopper_pearson_upper

LEVEL = 0.01  # an indicator fires where chance alone does as much in at most one audit of a hundred


def binomial_tail(count: int, trials: int, rate: float = 0.5) -> float:
    """Return the probability of ``count`` or more successes in ``trials`` of probability ``rate``.

    >>> binomial_tail(7, 7)
    0.0078125
    """
    from scipy.stats import binom

    return float(binom.sf(count - 1, trials, rate))


def interval(right: int, count: int) -> tuple[float, float]:
    """Return the two-sided 95 % Clopper-Pearson interval of a rate of which ``right`` of ``count`` were seen."""
    return 1 - clopper_pearson_upper(count - right, count, 0.975), clopper_pearson_upper(right, count, 0.975)


def is_material(right: int, changed: int, count: int) -> bool:
    """Return whether ``changed`` images take an accuracy of ``right`` in ``count`` below its own 95 % interval.

    With enough images any effect is more than chance; below the accuracy's own sampling error it changes no conclusion.

    >>> is_material(90, 7, 128), is_material(90, 14, 128)
    (False, True)
    """
    return (right - changed) / count < interval(right, count)[0]


@dataclass(frozen=True)
class Paired:
    """Two treatments of the same images: on how many only the first did it, and on how many only the second.

    ``p`` is the probability of so many for the first, or more, if both were as likely (the exact test of McNemar). Seven
    to none is the least that fires at ``LEVEL``.
    """

    first: int
    second: int

    @classmethod
    def of(cls, first: Tensor, second: Tensor) -> "Paired":
        """Compare two flags of the same images, (N,) bool."""
        return cls(int((first & ~second).sum()), int((second & ~first).sum()))

    @property
    def p(self) -> float:
        """The exact one-sided probability."""
        return binomial_tail(self.first, self.first + self.second)


def can_fire(images: int) -> bool:
    """Return whether a paired test of so many images could fire at all.

    >>> can_fire(6), can_fire(7)
    (False, True)
    """
    return binomial_tail(images, images) <= LEVEL
