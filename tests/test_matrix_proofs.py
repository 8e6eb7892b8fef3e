"""Definiteness and enclosures of matrices hold in exact rational arithmetic, and whatever does not is refused."""

from fractions import Fraction

import pytest
import torch
from exact_forms import Exact, combine, exact, is_definite, product, scaled, transpose
from hypothesis import given
from hypothesis import strategies as st
from proof_cells import encloses, states
from torch import Tensor

from analysis.proofs.matrices import enclosure
from analysis.proofs.matrices.definiteness import proves_positive_definite
from analysis.proofs.matrices.enclosure import Enclosure, identity, spectral_norm_bound

# Definiteness.


@given(n=st.integers(1, 6), rank=st.integers(1, 6), shift=st.integers(-3, 3), seed=st.integers(0, 10**6))
def test_definiteness_agrees_with_exact_pivots(n: int, rank: int, shift: int, seed: int) -> None:
    """B'B of integers, singular where ``rank`` < n, moved by a few units of roundoff."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randint(-9, 10, (rank, n), generator=generator).double()
    gram = factor.mT @ factor
    matrix = gram + shift * torch.finfo(torch.float64).eps * float(gram.diagonal().sum()) * torch.eye(n).double()
    proved = bool(proves_positive_definite(matrix))
    assert not proved or is_definite(exact(matrix))
    away = gram + torch.eye(n)
    assert bool(proves_positive_definite(away))


def test_definiteness_refuses_what_is_indefinite_or_within_its_error_of_it() -> None:
    matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    assert proves_positive_definite(matrix)
    assert proves_positive_definite(matrix, 0.2)
    assert not proves_positive_definite(matrix, 0.6)
    assert not proves_positive_definite(matrix - 3 * torch.eye(2))
    assert not proves_positive_definite(matrix - torch.eye(2))
    assert proves_positive_definite(torch.stack([matrix, -matrix])).tolist() == [True, False]
    with pytest.raises(ValueError, match="transposes"):
        proves_positive_definite(torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64))


def test_what_overflowed_is_not_definite() -> None:
    huge = identity(2) * 1e200 * 1e200
    assert not bool(huge.is_positive_definite())


# Enclosures.


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 5),
    magnitude=st.integers(-40, 40),
    spread=st.sampled_from([0.0, 1e-9, 0.3]),
)
def test_enclosures_hold_the_exact_results(seed: int, n: int, magnitude: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> tuple[Enclosure, Exact]:
        centre = torch.randn(n, n, generator=generator, dtype=torch.float64) * 2.0**magnitude
        radius = spread * centre.abs()
        sign = torch.randint(-1, 2, (n, n), generator=generator)
        member = [
            [Fraction(c) + int(s) * Fraction(r) for c, r, s in zip(*rows, strict=True)]
            for rows in zip(centre.tolist(), radius.tolist(), sign.tolist(), strict=True)
        ]
        return Enclosure(centre, radius), member

    (a, exact_a), (b, exact_b), (c, exact_c) = draw(), draw(), draw()
    assert encloses(a @ b + c, combine(product(exact_a, exact_b), exact_c))
    assert encloses(a - b.mT, combine(exact_a, transpose(exact_b), -1))
    entries = [[x * y for x, y in zip(*rows, strict=True)] for rows in zip(exact_a, exact_b, strict=True)]
    assert encloses(a * b, entries)
    assert encloses(a * 0.1, scaled(exact_a, Fraction(0.1)))
    assert encloses((a @ b) @ c, product(product(exact_a, exact_b), exact_c))
    known = Enclosure.exact(b.centre)
    assert encloses(known.reciprocal(), [[1 / Fraction(x) for x in row] for row in b.centre.tolist()])
    squares = sum((x * x for row in exact_a for x in row), Fraction())
    whole = Enclosure(a.centre.flatten(), a.radius.flatten())
    assert squares <= Fraction(float(whole.norm())) ** 2


def test_a_quotient_of_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="without error"):
        (identity(1) * 0.1).reciprocal()


@given(seed=st.integers(0, 1000), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_the_norm_bound_is_proved_and_tight(seed: int, rows: int, columns: int) -> None:
    matrix = states(rows, columns, seed)
    bound = spectral_norm_bound(Enclosure.exact(matrix))
    square = [[Fraction(bound) ** 2 * (i == j) for j in range(columns)] for i in range(columns)]
    assert is_definite(combine(square, product(transpose(exact(matrix)), exact(matrix)), -1))
    assert bound <= float(torch.linalg.matrix_norm(matrix, 2)) * (1 + 1e-5)
    assert spectral_norm_bound(Enclosure.exact(0 * matrix)) < 1e-9


def columns_that_reach(matrix: Tensor, radius: Tensor) -> list[Exact]:
    """Members of an enclosure at its corners: each entry moved out, then along the sign of the largest singular vectors."""
    u, _, v = torch.linalg.svd(matrix)
    return [exact(matrix + radius * signs) for signs in (matrix.sign(), torch.outer(u[:, 0], v[0]).sign())]


@given(seed=st.integers(0, 1000), n=st.integers(1, 5), spread=st.sampled_from([1e-12, 1e-6, 0.1, 10.0]))
def test_the_norm_bound_holds_for_what_is_not_known_exactly(seed: int, n: int, spread: float) -> None:
    matrix = states(n, n, seed)
    radius = spread * matrix.abs()
    bound = spectral_norm_bound(Enclosure(matrix, radius))
    square = [[Fraction(bound) ** 2 * (i == j) for j in range(n)] for i in range(n)]
    for member in columns_that_reach(matrix, radius * (1 - 1e-15)):
        assert is_definite(combine(square, product(transpose(member), member), -1))


def test_the_norm_bound_is_not_taken_from_an_estimate_on_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = states(4, 4, 0)
    largest = float(torch.linalg.matrix_norm(matrix, 2))
    monkeypatch.setattr(enclosure, "spectral_norm", lambda matrix: torch.linalg.matrix_norm(matrix, 2) * (1 - 1e-3))
    assert spectral_norm_bound(Enclosure.exact(matrix)) >= largest
