"""Square: its squares and bumps, its evaluations, models without gradients, another library."""

from typing import Any

import pytest
import torch
from attack_problems import generator, network, random_batch, random_split
from torch import Tensor, nn

from stabdeq.attacks import PGD, Square, evaluate, square_moves
from stabdeq.attacks.square import SHARE, square_side
from stabdeq.attacks.threat_model import judge


@pytest.mark.parametrize("shape", [(28, 28), (5, 40)])
def test_squares_shrink_from_most_of_the_image_to_a_pixel(shape: tuple[int, int]) -> None:
    sides = [square_side(query / 1000, *shape, share=0.8) for query in range(1000)]
    assert sides[0] == min(round((0.8 * shape[0] * shape[1]) ** 0.5), *shape)
    assert sides[-1] == 1
    assert sides == sorted(sides, reverse=True)


def test_square_breaks_a_masked_model_that_gradients_cannot() -> None:
    """Logits in steps, which have no slope anywhere; gradients see the flat part of them."""
    plain = network(scale=6)

    def masked(x: Tensor) -> Tensor:
        return (plain(x) / 0.05).round() * 0.05 + 0 * x.sum()

    split = random_split(200)
    split = type(split)(split.images, masked(split.images / 255).argmax(1))
    eps = 16 / 255
    by_pgd = evaluate(PGD(eps=eps, steps=20, restarts=3), masked, split, seed=0)
    by_square = evaluate(Square(eps=eps, steps=300), masked, split, seed=0)
    unmasked = evaluate(PGD(eps=eps, steps=20, restarts=3), plain, split, seed=0)
    assert by_pgd.zero.all()
    assert not by_square.zero.any()
    assert by_square.robust_correct.sum() < 0.5 * by_pgd.robust_correct.sum()
    assert by_square.robust_correct.sum() <= unmasked.robust_correct.sum() + 20


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.35)])
def test_square_agrees_with_torchattacks(norm: Any, eps: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    weights = torch.randn(2, 100, 5, generator=generator(4)) / 10
    images = torch.rand(200, 2, 10, 10, generator=generator()) * 0.8 + 0.1

    def model(x: Tensor) -> Tensor:
        return torch.einsum("bcp,cpk->bk", (x.flatten(2) * 4).sin(), weights)

    labels = model(images).argmax(1)
    theirs = torchattacks.Square(
        nn.Identity(), norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, n_queries=200, p_init=SHARE[norm]
    )
    theirs.get_logits = model
    with torch.random.fork_rng():
        expected = judge(model, theirs(images, labels), labels)[0].double().mean()
    found = Square(eps=eps, steps=200, norm=norm)(model, images, labels, generator=generator())
    reached = judge(model, found.images, labels)[0].double().mean()
    assert reached >= expected - 0.05
    assert 0.1 < expected < 0.9


def test_bumps_are_concentric_squares_of_norm_one() -> None:
    edge, middle = 0.25, 1.25
    expected = [[edge] * 3, [edge, middle, edge], [edge] * 3]
    assert square_moves._bump(3, 3).tolist() == expected
    for side in (1, 2, 3, 8):
        both = square_moves._bumps(side, torch.zeros(1, dtype=torch.float64), generator())
        assert both.shape == (side, side)
        assert both.norm().item() == pytest.approx(1)
    assert abs(both.sum()) < 1e-12  # as much up as down, where the halves are alike


@pytest.mark.parametrize("side", [1, 3, 4])
def test_a_move_in_l2_keeps_the_norm_and_touches_two_windows(side: int) -> None:
    images = torch.full((6, 2, 9, 9), 0.5, dtype=torch.float64)
    moves, draws = square_moves.L2Moves(0.3), generator()
    best = moves.start(images, draws)
    for _ in range(20):
        found = moves.propose(images, best, side, draws)
        torch.testing.assert_close((found - images).flatten(1).norm(dim=1), images.new_full((6,), 0.3))
        touched = ((found - best).abs() > 1e-12).flatten(1).sum(1)
        assert (touched <= 2 * 2 * max(side + 1 - side % 2, 3) ** 2).all()
        best = found


def test_square_asks_the_model_as_often_as_it_says_and_never_for_gradients() -> None:
    images, _ = random_batch()
    calls: list[bool] = []

    def model(x: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return torch.eye(5)[torch.zeros(len(x), dtype=torch.int64)]

    Square(eps=0.1, steps=30)(model, images, torch.zeros(16, dtype=torch.int64), generator=generator())
    assert len(calls) == 30 + 2  # the clean image, and what was found
    assert not any(calls)
