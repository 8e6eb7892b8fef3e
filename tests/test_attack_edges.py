"""The least and the largest settings of attacks, where they look back, and what Square's moves cover."""

import pytest
import torch
from attack_problems import generator
from torch import Tensor, nn

from stabdeq.attacks import ExternalAttack, Square, square
from stabdeq.attacks.apgd import step_checkpoints
from stabdeq.attacks.run import attack
from stabdeq.attacks.square import square_side
from stabdeq.attacks.square_moves import L2Moves, LinfMoves
from stabdeq.errors import ConfigError, DataError


def classifier() -> nn.Module:
    """The more there is above than below, the more it is of class 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.cat([torch.zeros(1, 8), torch.tensor([[1.0] * 4 + [-1.0] * 4])]))  # pyrefly: ignore
        model[1].bias.zero_()  # pyrefly: ignore
    return model


def images(count: int = 3) -> tuple[Tensor, Tensor]:
    pixels = torch.rand(count, 1, 4, 2, generator=generator(5))
    return pixels, classifier()(pixels).argmax(1)


@pytest.mark.parametrize(
    "settings", [{"samples": 1}, {"batch_size": 1}, {"seed": 0}, {"seed": 2**63 - 1}, {"restarts": 1}]
)
def test_the_last_setting_that_is_taken(settings: dict[str, int]) -> None:
    found = attack(classifier(), *images(), eps=0.01, steps=1, **settings)  # pyrefly: ignore
    assert len(found.indices) == settings.get("samples", 3)
    assert found.accuracies["clean"] == 1


@pytest.mark.parametrize(
    "settings", [{"samples": 0}, {"batch_size": 0}, {"seed": -1}, {"seed": 2**63}, {"restarts": 0}]
)
def test_the_first_setting_that_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(settings.values())))):
        attack(classifier(), *images(), eps=0.01, steps=1, **settings)  # pyrefly: ignore


def test_the_table_has_a_row_for_each_kind_of_image() -> None:
    pixels, labels = images()
    labels[0] = 1 - labels[0]
    found = attack(classifier(), pixels, labels, eps="1/1000", steps=1)
    lines = [line.replace("│", " ").split() for line in str(found).splitlines()]
    assert ["clean", "66.67%"] in lines
    assert ["attacked,", "eps", "=", "0", "66.67%", "66.67%"] in lines
    assert ["attacked,", "eps", "=", "1/1000", "66.67%", "66.67%"] in lines


@pytest.mark.parametrize(("weights", "pixels"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_images_are_read_in_the_dtype_of_the_weights(weights: torch.dtype, pixels: torch.dtype) -> None:
    given, labels = images()
    found = attack(classifier().to(weights), given.to(pixels), labels, eps=0.01, steps=1)
    assert found.accuracies["clean"] == 1


def test_whole_levels_are_read_in_the_dtype_of_the_weights() -> None:
    levels = (images()[0] * 255).to(torch.uint8)
    model = classifier().double()
    labels = model(levels.double() / 255).argmax(1)
    assert attack(model, levels, labels, eps=0.01, steps=1).accuracies["clean"] == 1


def test_images_are_not_rounded_to_weights_of_half_precision() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier().bfloat16()
            self.seen: list[torch.dtype] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(x.dtype)
            return self.inner(x.bfloat16()).float()

    pixels, _ = images()
    model = Half().eval()
    attack(model, pixels, model(pixels).argmax(1), eps=0.01, steps=1)
    assert set(model.seen) == {torch.float32}


def test_where_apgd_looks_back() -> None:
    assert step_checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert step_checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]
    assert step_checkpoints(1) == [1]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("times", "is_refused"), [(0.999, False), (1.001, True)])
def test_an_external_attack_stays_in_the_ball_of_all_pixels(norm: str, times: float, is_refused: bool) -> None:
    class Moving:
        def run_standard_evaluation(self, images: Tensor, labels: Tensor, bs: int) -> Tensor:
            each = 0.1 * times / (8**0.5 if norm == "l2" else 1)
            return images + each * torch.where(torch.arange(len(images)) == 1, 1.0, 0.0)[:, None, None, None]

    external = ExternalAttack(build=lambda model: Moving(), eps=0.1, norm=norm)  # pyrefly: ignore
    pixels, labels = images()
    pixels = pixels.clamp(0, 0.8)
    if is_refused:
        with pytest.raises(DataError, match=r"moved an image by 0\.1"):
            external(classifier(), pixels, labels, generator=generator())
    else:
        found = external(classifier(), pixels, labels, generator=generator())
        assert not torch.equal(found.images[1], pixels[1])


def test_the_first_change_in_l2_is_tiles_that_weigh_the_same() -> None:
    grey = torch.full((2, 1, 11, 13), 0.5, dtype=torch.float64)
    change = (L2Moves(0.4).start(grey, generator()) - grey) / 0.4
    tiles = change.unfold(2, 2, 2).unfold(3, 2, 2).square().sum((4, 5))  # of 2 by 2 pixels: 5 rows of 6
    torch.testing.assert_close(tiles, torch.full((2, 1, 5, 6), 1 / 30, dtype=torch.float64))
    assert not bool(change[:, :, 10].any())


def test_a_move_in_l2_spends_what_is_left_of_the_norm() -> None:
    """From the image itself all of it is left, and goes into one window."""
    grey = torch.full((3, 2, 9, 9), 0.5, dtype=torch.float64)
    change = L2Moves(0.4).propose(grey, grey, 3, generator()) - grey
    torch.testing.assert_close(change.flatten(1).norm(dim=1), torch.full((3,), 0.4, dtype=torch.float64))
    torch.testing.assert_close(change.square().sum((2, 3)), torch.full((3, 2), 0.08, dtype=torch.float64))


def test_square_shrinks_its_squares_by_the_share_of_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []

    class Watched(LinfMoves):
        def propose(self, images: Tensor, best: Tensor, side: int, generator: torch.Generator) -> Tensor:
            sides.append(side)
            return super().propose(images, best, side, generator)

    monkeypatch.setitem(square.MOVES, "linf", Watched)
    pixels = torch.rand(2, 1, 20, 20, generator=generator())
    model = nn.Sequential(nn.Flatten(), nn.Linear(400, 2)).eval().requires_grad_(False)
    Square(eps=1e-6, steps=40)(model, pixels, model(pixels).argmax(1), generator=generator())
    assert sides == [square_side(query / 40, 20, 20, share=0.8) for query in range(1, 40)]
    assert len(set(sides)) > 3
