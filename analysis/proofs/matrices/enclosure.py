"""Matrices known to within a bound on each entry: arithmetic on them keeps the bound true through every rounding."""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.matrices.definiteness import proves_positive_definite
from stabdeq.linear_algebra import spectral_norm

EPS = torch.finfo(torch.float64).eps  # twice the unit roundoff, which covers the second-order terms of every bound here
TINY = 1e-300  # covers underflow


@dataclass(frozen=True)
class Enclosure:
    """All real matrices within ``radius`` of ``centre``, entry by entry; both (..., n, m), float64, or vectors (..., m).

    The result of every operation holds the exact results for all members of its operands. For products the bound is
    |fl(AB) - AB| <= k u |A| |B|, in whatever order the k terms are summed (Higham 2002, section 3.5).
    """

    centre: Tensor
    radius: Tensor

    @classmethod
    def exact(cls, values: Tensor) -> "Enclosure":
        """Return ``values`` (float32 or float64) as they are."""
        return cls(values.double(), torch.zeros_like(values, dtype=torch.float64))

    def __add__(self, other: "Enclosure") -> "Enclosure":
        centre = self.centre + other.centre
        return _enclosure(centre, self.radius + other.radius + EPS * centre.abs())

    def __neg__(self) -> "Enclosure":
        return Enclosure(-self.centre, self.radius)

    def __sub__(self, other: "Enclosure") -> "Enclosure":
        return self + (-other)

    def __mul__(self, other: "Enclosure | float") -> "Enclosure":
        """Return the product entry by entry; a number is taken as it is."""
        if not isinstance(other, Enclosure):
            other = Enclosure.exact(torch.tensor(other, dtype=torch.float64))
        centre = self.centre * other.centre
        spread = self.centre.abs() * other.radius + self.radius * (other.centre.abs() + other.radius)
        return _enclosure(centre, spread + EPS * centre.abs())

    def reciprocal(self) -> "Enclosure":
        """Return 1 / x for entries known exactly; raises ValueError where one is not."""
        if bool(self.radius.any()):
            raise ValueError("expected entries without error")
        centre = self.centre.reciprocal()
        return _enclosure(centre, EPS * centre.abs())

    def __matmul__(self, other: "Enclosure") -> "Enclosure":
        terms = self.centre.shape[-1]
        mine, theirs = self.centre.abs(), other.centre.abs()
        radius = (terms + 2) * EPS * (mine @ theirs)
        # Of what is known exactly, as weights are, no product is taken.
        if bool(other.radius.any()):
            radius = radius + mine @ other.radius
        if bool(self.radius.any()):
            radius = radius + self.radius @ (theirs + other.radius)
        return _enclosure(self.centre @ other.centre, radius, terms)

    @property
    def mT(self) -> "Enclosure":
        """The transpose."""
        return Enclosure(self.centre.mT, self.radius.mT)

    def __getitem__(self, index: object) -> "Enclosure":
        return Enclosure(self.centre[index], self.radius[index])  # pyrefly: ignore

    def relu(self) -> "Enclosure":
        """Return max(x, 0), which moves no two numbers apart."""
        return Enclosure(self.centre.relu(), self.radius)

    def magnitude(self) -> Tensor:
        """Return the largest absolute value of each entry."""
        return (self.centre.abs() + self.radius) * (1 + 2 * EPS)

    def norm(self) -> Tensor:
        """Return an upper bound (...,) of the Euclidean norm of vectors (..., m)."""
        size = self.magnitude()
        return torch.linalg.vector_norm(size, dim=-1) * (1 + (size.shape[-1] + 8) * EPS) + TINY**0.5

    def is_positive_definite(self) -> Tensor:
        """Return (...,) bool: whether the symmetric matrices in here are proved to be positive definite; False says nothing."""
        symmetric = (self + self.mT) * 0.5
        finite = (symmetric.centre + symmetric.radius).isfinite().all(-1).all(-1)[..., None, None]
        centre, radius = (torch.where(finite, part, 0.0) for part in (symmetric.centre, symmetric.radius))
        return proves_positive_definite(
            centre, radius
        )  # of the zeros in the place of what overflowed, it proves nothing


def identity(n: int, scale: float = 1.0) -> Enclosure:
    """Return ``scale`` times the (n, n) identity."""
    return Enclosure.exact(scale * torch.eye(n, dtype=torch.float64))


def diagonal(entries: Tensor) -> Enclosure:
    """Return the diagonal matrices of ``entries`` (..., n)."""
    return Enclosure.exact(torch.diag_embed(entries))


def block(rows: list[list[Enclosure]]) -> Enclosure:
    """Return the matrix of these blocks."""
    centre, radius = (
        torch.cat([torch.cat([getattr(entry, part) for entry in row], -1) for row in rows], -2)
        for part in ("centre", "radius")
    )
    return Enclosure(centre, radius)


def spectral_norm_bound(matrix: Enclosure) -> float:
    """Return an upper bound of the largest singular value of every (n, m) matrix in ``matrix``, proved."""
    estimate = float(spectral_norm(matrix.centre))
    for bound in (estimate * (1 + 1e-9), estimate * (1 + 1e-6) + 1e-12):
        if bool((identity(matrix.centre.shape[-1]) * bound * bound - matrix.mT @ matrix).is_positive_definite()):
            return bound
    size = matrix.magnitude()
    terms = max(size.shape)
    return float((size.sum(0).max() * size.sum(1).max()).sqrt()) * (1 + terms * EPS) + TINY**0.5


def _enclosure(centre: Tensor, radius: Tensor, terms: int = 1) -> Enclosure:
    """Return an enclosure whose radius was itself summed, in floating point, from about ``terms`` terms an entry."""
    return Enclosure(centre, radius * (1 + (terms + 8) * EPS) + (terms * TINY))
