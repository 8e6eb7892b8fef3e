"""Square, a random search that reads logits alone (Andriushchenko et al. 2020, arXiv 1912.00049)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.attacks.ball import build_ball
from stabdeq.attacks.square_moves import MOVES
from stabdeq.attacks.standing import Standing
from stabdeq.attacks.threat_model import Adversarial, Classifier, check_counts
from stabdeq.attacks.worst import attack_standing
from stabdeq.radius import NormName

STEPS = 1000  # queries
# Of the pixels, at the first query: in l-infinity as in AutoAttack, in l2 as in the paper.
SHARE = {"linf": 0.8, "l2": 0.1}
# The share is halved at these queries of 10 000 (Sec. 5), or at the same fractions of fewer.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True, kw_only=True)
class Square:
    """Changes of squares of pixels within ``eps`` (pixels of [0, 1]), kept where they bring the mistake nearer.

    ``steps`` is the number of queries of the model. Gradients, masked or not, play no part.
    Raises ConfigError for settings out of range.
    """

    eps: float
    steps: int = STEPS
    restarts: int = 1
    norm: NormName = "linf"

    def __post_init__(self) -> None:
        build_ball(self.eps, self.norm)
        check_counts(steps=self.steps, restarts=self.restarts)

    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,); squares come from ``generator``.

        Raises DataError for images or labels that are not as expected; ConfigError for a model in training mode.
        """
        return attack_standing([self._run] * self.restarts, model, images, labels, generator=generator)

    @torch.no_grad()
    def _run(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        ball, moves = build_ball(self.eps, self.norm), MOVES[self.norm](self.eps)
        standing = Standing(model, images, labels)
        best = ball.project(moves.start(images, generator), images)
        value, rows = standing.margins(best)
        for query in range(1, self.steps):
            images, best, value = images[rows], best[rows], value[rows]
            if not len(standing):
                break
            side = square_side(query / self.steps, *images.shape[2:], share=SHARE[self.norm])
            proposal = ball.project(moves.propose(images, best, side, generator), images)
            proposal_value, rows = standing.margins(proposal)
            better = proposal_value > value
            best, value = (
                torch.where(better.view(-1, 1, 1, 1), proposal, best),
                torch.where(better, proposal_value, value),
            )
        return standing.found(best[rows])


def build(*, eps: float, norm: NormName, steps: int | None, restarts: int) -> Square:
    """Return the attack that the name "square" stands for."""
    return Square(eps=eps, steps=STEPS if steps is None else steps, restarts=restarts, norm=norm)


def square_side(progress: float, height: int, width: int, *, share: float) -> int:
    """Return the side of the squares, in pixels, after the fraction ``progress`` of the queries, from ``share`` at first."""
    halvings = sum(10_000 * progress > query for query in HALVINGS)
    side = round(math.sqrt(share / 2**halvings * height * width))
    return min(max(side, 1), height, width)
