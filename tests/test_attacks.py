"""Attacks against closed forms and an independent library; what they refuse; the command."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from analysis.commands.attack import attack as attack_command
from analysis.commands.attack import parse_eps
from stabdeq.attacks import IFGSM, PGD, ClampNormalised, Outcome, build_attack, evaluate, paper_steps
from stabdeq.attacks.ball import L2Ball
from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import DataConfig, ModelConfig, SolverConfig
from stabdeq.data import Split, load_data
from stabdeq.errors import ConfigError, DataError, StabdeqError
from stabdeq.model import StabilisedDEQ

SHAPE = (2, 4, 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distance(first: Tensor, second: Tensor) -> float:
    return (first - second).abs().max().item()


def random_batch(count: int = 16, *, classes: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images with many pixels at 0 and at 1, where the box cuts the ball."""
    images = (torch.rand(count, *SHAPE, generator=generator(), dtype=dtype) * 1.4 - 0.2).clamp(0, 1)
    return images, torch.randint(classes, (count,), generator=generator(1))


def random_split(count: int = 24, *, classes: int = 5) -> Split:
    images = torch.randint(256, (count, *SHAPE), dtype=torch.uint8, generator=generator())
    return Split(images, torch.randint(classes, (count,), generator=generator(1)))


def network(classes: int = 5, *, scale: float = 3.0) -> nn.Module:
    """A network with random weights, curved enough for random starts to matter."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(2)) * scale / 5)
    return model.eval()


def equilibrium_model(*, max_evaluations: int = 50) -> StabilisedDEQ:
    torch.manual_seed(3)
    config = ModelConfig(
        image_shape=SHAPE,
        classes=5,
        mean=(0.5, 0.4),
        std=(0.3, 0.2),
        state_dim=12,
        stability="anchored",
        head="orthogonal",
        solver=SolverConfig(tolerance=1e-4, max_evaluations=max_evaluations),
    )
    return StabilisedDEQ(config).eval()


class TwoClassLinear(nn.Module):
    """Logits (0, w x + b): the loss of label y falls with (2 y - 1)(w x + b) alone."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, generator=generator(5), dtype=dtype))
        self.bias = nn.Parameter(-self.weight.detach().sum() / 2)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def optimal_attack(self, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        sign = (1 - 2 * labels).view(-1, 1, 1, 1) * self.weight.detach().sign().view(SHAPE)
        return (images + eps * sign).clamp(0, 1)


@pytest.mark.parametrize(("level", "steps"), [(0, 0), (2, 2), (4, 5), (6, 7), (8, 10), (16, 20), (20, 24)])
def test_the_papers_number_of_steps(level: int, steps: int) -> None:
    assert paper_steps(level / 255) == steps
    assert paper_steps(level * (1 / 255)) == steps


@pytest.mark.parametrize("level", [2, 4, 6, 8, 20])
def test_an_attack_evaluates_the_model_once_for_each_step(level: int) -> None:
    images, labels = random_batch()
    calls = []
    model = network()
    IFGSM(eps=level / 255)(lambda x: calls.append(x) or model(x), images, labels)
    assert len(calls) == paper_steps(level / 255)
    assert torch.equal(calls[0], images)


@pytest.mark.parametrize("level", [1, 2, 4, 6, 8, 20])
def test_ifgsm_is_optimal_on_a_linear_model(level: int) -> None:
    model = TwoClassLinear()
    images, labels = random_batch(classes=2, dtype=torch.float64)
    found = IFGSM(eps=level / 255)(model, images, labels).images
    assert distance(found, model.optimal_attack(images, labels, level / 255)) <= 1e-14


@pytest.mark.parametrize("level", [2, 8, 20])
def test_pgd_is_optimal_on_a_linear_model_once_it_can_cross_the_ball(level: int) -> None:
    model = TwoClassLinear()
    images, labels = random_batch(classes=2, dtype=torch.float64)
    attack = PGD(eps=level / 255, steps=2 * level + 1)
    found = attack(model, images, labels, generator=generator()).images
    assert distance(found, model.optimal_attack(images, labels, level / 255)) <= 1e-14


@pytest.mark.parametrize("eps", [0.05, 0.4])
def test_pgd_in_l2_is_optimal_on_a_linear_model(eps: float) -> None:
    model = TwoClassLinear()
    images, labels = random_batch(classes=2, dtype=torch.float64)
    images = images / 2 + 0.25  # far enough from 0 and 1 that the box does not bind
    attack = PGD(eps=eps, steps=200, step_size=eps / 10, norm="l2")
    found = attack(model, images, labels, generator=generator()).images
    with torch.no_grad():
        loss = cross_entropy(model(found), labels, reduction="none")
        sign = (1 - 2 * labels).view(-1, 1, 1, 1)
        optimum = images + eps * sign * (model.weight / model.weight.norm()).view(SHAPE)
        assert ((optimum >= 0) & (optimum <= 1)).all()
        torch.testing.assert_close(loss, cross_entropy(model(optimum), labels, reduction="none"), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.0, 0.3, 2.0, 50.0])
def test_the_l2_ball_and_the_box_are_respected(dtype: torch.dtype, eps: float) -> None:
    images, labels = random_batch(dtype=dtype)
    model = network().to(dtype)
    attack = PGD(eps=eps, steps=5, restarts=2, norm="l2")
    found = attack(model, images, labels, generator=generator()).images
    assert found.dtype == dtype
    assert ((found >= 0) & (found <= 1)).all()
    length = (found - images).double().flatten(1).norm(dim=1)
    assert (length <= eps * (1 + 4 * torch.finfo(dtype).eps) + 4 * torch.finfo(dtype).eps).all()
    assert eps == 0 or (length > 0.5 * min(eps, 1)).any()


def test_l2_starts_are_uniform_by_volume() -> None:
    images = torch.full((4000, 1, 1, 2), 0.5, dtype=torch.float64)
    length = (L2Ball(0.25).start(images, generator()) - images).flatten(1).norm(dim=1) / 0.25
    quantiles = torch.quantile(length.square(), torch.linspace(0, 1, 21, dtype=torch.float64))
    assert (quantiles - torch.linspace(0, 1, 21, dtype=torch.float64)).abs().max() < 0.03


def test_tiny_and_infinite_slopes_have_a_direction_in_l2() -> None:
    tiny = torch.full((1, 1, 1, 4), 1e-200, dtype=torch.float64)
    torch.testing.assert_close(L2Ball(1.0).steepest(tiny), torch.full_like(tiny, 0.5))
    endless = torch.tensor([[[[torch.inf, 1.0, 0.0, 0.0]]]])
    torch.testing.assert_close(L2Ball(1.0).steepest(endless), torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]]))
    assert torch.equal(L2Ball(1.0).steepest(torch.zeros(1, 1, 1, 4)), torch.zeros(1, 1, 1, 4))


def test_bad_l2_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="in l2 say how many"):
        PGD(eps=0.3, norm="l2")
    with pytest.raises(ConfigError, match="from 0 up"):
        PGD(eps=-1.0, steps=3, norm="l2")
    with pytest.raises(ConfigError, match="unknown norm"):
        PGD(eps=0.3, norm="l1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="use pgd"):
        build_attack("ifgsm", eps=0.3, norm="l2")


def test_robust_accuracy_of_a_linear_model_is_the_known_one() -> None:
    model = TwoClassLinear(torch.float32)
    split = random_split(200)
    with torch.no_grad():
        images = split.images / 255
        split = Split(split.images, (model(images)[:, 1] > 0).long())
        expected = model(model.optimal_attack(images, split.labels, 8 / 255)).argmax(1) == split.labels
    outcome = evaluate(IFGSM(eps=8 / 255), model, split, seed=0, batch_size=64)
    assert outcome.clean_correct.all()
    assert torch.equal(outcome.robust_correct, expected)
    assert 0.1 < expected.double().mean() < 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [1e-3, 8 / 255, 0.3, 1.0])
@pytest.mark.parametrize("step_size", [1 / 255, 0.7])
def test_ball_and_box_are_respected(dtype: torch.dtype, eps: float, step_size: float) -> None:
    images, labels = random_batch(dtype=dtype)
    model = network().to(dtype)
    for attack in (IFGSM, PGD):
        found = attack(eps=eps, steps=5, step_size=step_size)(model, images, labels, generator=generator()).images
        assert found.dtype == dtype
        assert not found.requires_grad
        assert ((found >= 0) & (found <= 1)).all()
        assert (found.double() - images.double()).abs().max() <= eps + torch.finfo(dtype).eps
        assert (found != images).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [None, 3])
def test_eps_zero_returns_the_image_itself(dtype: torch.dtype, steps: int | None) -> None:
    images, labels = random_batch(dtype=dtype)
    model = network().to(dtype)
    assert torch.equal(IFGSM(eps=0, steps=steps)(model, images, labels).images, images)
    attack = PGD(eps=0, steps=steps, restarts=2)
    assert torch.equal(attack(model, images, labels, generator=generator()).images, images)


def test_pgd_starts_uniformly_in_the_ball() -> None:
    images = torch.full((64, *SHAPE), 0.5)
    starts = []
    model = network()
    attack = PGD(eps=0.25, steps=1)
    attack(
        lambda x: starts.append(x) or model(x),
        images,
        torch.zeros(64, dtype=torch.int64),
        generator=generator(),
    )
    noise = (starts[0].detach() - images).flatten() / 0.25
    quantiles = torch.quantile(noise, torch.linspace(0, 1, 21))
    assert (quantiles - torch.linspace(-1, 1, 21)).abs().max() < 0.08  # 2048 draws: a deviation of 0.022


def test_more_restarts_are_never_better_for_the_model() -> None:
    model = network(scale=8)
    split = random_split(96)
    previous = None
    broken = []
    for restarts in (1, 2, 4, 8):
        attack = PGD(eps=16 / 255, steps=2, restarts=restarts)
        right = evaluate(attack, model, split, seed=1, batch_size=32).robust_correct
        assert previous is None or not (right & ~previous).any()
        previous = right
        broken.append(int((~right).sum()))
    assert broken[-1] > broken[0]


def test_restarts_keep_the_worst_of_single_runs() -> None:
    images, labels = random_batch(96)
    model = network(scale=8)
    single, restarted = PGD(eps=16 / 255, steps=2), PGD(eps=16 / 255, steps=2, restarts=6)
    draws = generator()  # six runs from one generator draw what six restarts draw
    runs = torch.stack([single(model, images, labels, generator=draws).images for _ in range(6)])
    with torch.no_grad():
        logits = model(runs.flatten(0, 1)).view(6, 96, 5)
    losses = torch.stack([cross_entropy(each, labels, reduction="none") for each in logits])
    wrong = logits.argmax(2) != labels
    worst = [max(range(6), key=lambda run: (wrong[run, i], losses[run, i])) for i in range(96)]
    found = restarted(model, images, labels, generator=generator()).images
    assert torch.equal(found, runs[worst, range(96)])
    assert len(set(worst)) == 6


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    images, labels = random_batch()
    model = network()
    attack = PGD(eps=8 / 255, restarts=2)
    before = torch.get_rng_state()
    first, again, other = (attack(model, images, labels, generator=generator(s)).images for s in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("build", [network, equilibrium_model])
def test_the_model_is_left_as_it_was(build: Callable[[], nn.Module]) -> None:
    images, labels = random_batch()
    model = build()
    first, *others = model.parameters()
    first.grad = torch.ones_like(first)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    original = images.clone()
    for attack in (IFGSM(eps=8 / 255), PGD(eps=8 / 255, restarts=2)):
        attack(model, images, labels, generator=generator())
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(parameter.grad is None for parameter in others)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert torch.equal(images, original)
    assert not images.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_off(context: Callable[[], torch.no_grad]) -> None:
    images, labels = random_batch()
    model = network()
    expected = IFGSM(eps=8 / 255)(model, images, labels).images
    with context():
        assert torch.equal(IFGSM(eps=8 / 255)(model, images, labels).images, expected)


@pytest.mark.parametrize("build", [network, equilibrium_model])
@pytest.mark.parametrize("level", [2, 4, 6, 8, 20])
def test_ifgsm_is_torchattacks_bim_to_the_last_bit(build: Callable[[], nn.Module], level: int) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = random_batch()
    model = build()
    theirs = torchattacks.BIM(model, eps=level / 255, alpha=1 / 255, steps=0)  # 0: by the paper's rule
    ours = IFGSM(eps=level / 255)
    assert theirs.steps == paper_steps(level / 255)
    assert torch.equal(ours(model, images, labels).images, theirs(images, labels))


@pytest.mark.parametrize("build", [network, equilibrium_model])
@pytest.mark.parametrize("level", [2, 8])
def test_pgd_is_torchattacks_pgd(build: Callable[[], nn.Module], level: int) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = random_batch()
    model = build()
    theirs = torchattacks.PGD(model, eps=level / 255, alpha=1 / 255, steps=paper_steps(level / 255))
    torch.manual_seed(11)  # their starts come from the global generator
    expected = theirs(images, labels)
    found = PGD(eps=level / 255)(model, images, labels, generator=generator(11)).images
    # They clip the perturbation where we clip the image: the last bit differs.
    assert distance(found, expected) <= 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": 8}, r"eps = 8 is above 1.*pixels of \[0, 1\].*8/255"),
        ({"eps": 1.5}, r"1.5/255"),
        ({"eps": 300}, "from 0 to 1"),
        ({"eps": -0.1}, "from 0 to 1"),
        ({"eps": float("nan")}, "from 0 to 1"),
        ({"eps": float("inf")}, "from 0 to 1"),
        ({"eps": "8/255"}, "expected a number"),
        ({"eps": True}, "expected a number"),
        ({"eps": 0.003}, "no step at all"),
        ({"eps": 0.1, "steps": 0}, "steps = 0"),
        ({"eps": 0.1, "steps": 2.5}, "steps = 2.5"),
        ({"eps": 0.1, "step_size": 0}, "step size"),
        ({"eps": 0.1, "step_size": float("nan")}, "step size"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    for attack in (IFGSM, PGD):
        with pytest.raises(ConfigError, match=message):
            attack(**settings)


@pytest.mark.parametrize("restarts", [0, -1, 1.0, True])
def test_bad_restarts_are_refused(restarts: Any) -> None:
    with pytest.raises(ConfigError, match="restarts"):
        PGD(eps=0.1, restarts=restarts)


def test_bad_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pgd'"):
        build_attack("pgdd", eps=0.1)
    with pytest.raises(ConfigError, match="ifgsm has none, only pgd"):
        build_attack("ifgsm", eps=0.1, restarts=2)
    assert build_attack("pgd", eps=0.1, steps=3, restarts=2) == PGD(eps=0.1, steps=3, restarts=2)
    assert build_attack("ifgsm", eps=0.1) == IFGSM(eps=0.1)


def spoil(images: Tensor, value: float) -> Tensor:
    spoilt = images.clone()
    spoilt[3, 1, 2, 2] = value
    return spoilt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (spoil(x, 1.001), y), "1 of 512 pixels are NaN or outside"),
        (lambda x, y: (spoil(x, -1e-6), y), "outside"),
        (lambda x, y: (spoil(x, torch.nan), y), "NaN"),
        (lambda x, y: (spoil(x, torch.inf), y), "outside"),
        (lambda x, y: ((x * 255).to(torch.uint8), y), "divide uint8 images by 255"),
        (lambda x, y: (x.flatten(1), y), "expected floats"),
        (lambda x, y: (x[:0], y[:0]), "B >= 1"),
        (lambda x, y: (x, y[:-1]), "one for each image"),
        (lambda x, y: (x, y.float()), "int64"),
        (lambda x, y: (x, y + 5), "labels from 5 to 9 for a model of 5 classes"),
        (lambda x, y: (x, y - 5), "labels from -5"),
    ],
)
def test_bad_batches_are_refused(change: Callable, message: str) -> None:
    images, labels = change(*random_batch())
    for attack in (IFGSM(eps=0.1), PGD(eps=0.1)):
        with pytest.raises(DataError, match=message):
            attack(network(), images, labels, generator=generator())


def test_a_model_in_training_mode_is_refused() -> None:
    images, labels = random_batch()
    model = network()
    model.get_submodule("2").train()
    with pytest.raises(ConfigError, match=r"module '2' is in training mode.*model.eval\(\)"):
        IFGSM(eps=0.1)(model, images, labels)
    with pytest.raises(ConfigError, match="the model is in training mode"):
        evaluate(IFGSM(eps=0.1), network().train(), random_split(), seed=0)


def test_logits_of_another_shape_are_refused() -> None:
    images, labels = random_batch()
    with pytest.raises(DataError, match=r"returned \(16, 2, 4, 4\) for 16 images"):
        IFGSM(eps=0.1)(lambda x: 2 * x, images, labels)


@pytest.mark.parametrize("model", [lambda x: network()(x.detach()), lambda x: torch.ones(16, 5, requires_grad=True)])
def test_a_model_without_gradient_is_refused(model: Callable[[Tensor], Tensor]) -> None:
    images, labels = random_batch()
    with pytest.raises(ConfigError, match="do not depend on the images"):
        IFGSM(eps=0.1)(model, images, labels)


def test_gradients_that_are_not_finite_or_zero_are_reported() -> None:
    """The square root gives NaN at a black pixel; the model is flat where the image is white."""
    images, labels = random_batch()
    images = images.clamp(0.1, 0.9)
    images[2, 0, 0, 0] = 0
    images[5] = 1
    weights = torch.randn(32, 5, generator=generator(4))

    def model(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        flat = torch.where(flat.mean(1, keepdim=True) > 0.99, flat.detach(), flat)
        return (flat.sqrt() * flat.sign().detach()) @ weights + 0 * x.sum()

    found = IFGSM(eps=4 / 255)(model, images, labels)
    assert found.nonfinite.nonzero().flatten().tolist() == [2]
    assert found.zero.nonzero().flatten().tolist() == [5]
    assert found.images.isfinite().all()
    assert found.images[2, 0, 0, 0] == 0
    assert (found.images[2] != images[2]).sum() > 20  # the other pixels are attacked
    assert torch.equal(found.images[5], images[5])


def test_nan_logits_count_as_wrong_and_nothing_but_nan_is_refused() -> None:
    split = random_split()
    nan_class = int(split.labels[0])

    def model(x: Tensor) -> Tensor:
        logits = network()(x)
        logits[0, nan_class] = torch.nan  # argmax would take NaN for the largest
        return logits

    outcome = evaluate(PGD(eps=0.1, restarts=2), model, split, seed=0)
    assert not outcome.clean_correct[0]
    assert not outcome.robust_correct[0]
    assert outcome.nonfinite.nonzero().flatten().tolist() == [0]
    with pytest.raises(DataError, match="nothing but NaN"):
        evaluate(IFGSM(eps=0.1), lambda x: network()(x) * torch.nan, split, seed=0)


def test_evaluation_in_batches_and_its_progress() -> None:
    model = TwoClassLinear(torch.float32)
    split = random_split(50, classes=2)
    whole = evaluate(IFGSM(eps=8 / 255), model, split, seed=0, batch_size=50)
    seen = []
    parts = evaluate(IFGSM(eps=8 / 255), model, split, seed=0, batch_size=16, progress=lambda *args: seen.append(args))
    assert torch.equal(whole.clean_correct, parts.clean_correct)
    assert torch.equal(whole.robust_correct, parts.robust_correct)
    assert [done for done, _ in seen] == [16, 32, 48, 50]
    assert seen[-1][1] == int(parts.robust_correct.sum())
    assert parts.clean_correct.shape == parts.robust_correct.shape == (50,)
    assert parts.clean_correct.dtype == parts.robust_correct.dtype == torch.bool
    assert torch.equal(parts.worst_correct, parts.clean_correct & parts.robust_correct)
    assert parts.robust_converged is None
    assert parts.robust_unconverged is None


def test_evaluation_refuses_empty_splits_and_batches() -> None:
    split = random_split()
    with pytest.raises(DataError, match="no samples"):
        evaluate(IFGSM(eps=0.1), network(), Split(split.images[:0], split.labels[:0]), seed=0)
    with pytest.raises(ConfigError, match="batch size 0"):
        evaluate(IFGSM(eps=0.1), network(), split, seed=0, batch_size=0)


def test_unconverged_equilibria_are_counted() -> None:
    split = random_split()
    found = evaluate(PGD(eps=8 / 255), equilibrium_model(), split, seed=0, batch_size=10)
    assert found.clean_unconverged == found.robust_unconverged == 0.0
    lost = evaluate(PGD(eps=8 / 255), equilibrium_model(max_evaluations=2), split, seed=0, batch_size=10)
    assert lost.clean_unconverged == lost.robust_unconverged == 1.0


def test_a_predict_without_a_solution_is_not_used() -> None:
    class Model:
        def __call__(self, x: Tensor) -> Tensor:
            return network()(x)

        def predict(self, x: Tensor) -> Tensor:
            return self(x).argmax(1)

    split = random_split()
    expected = evaluate(IFGSM(eps=0.1), network(), split, seed=0)
    found = evaluate(IFGSM(eps=0.1), Model(), split, seed=0)
    assert torch.equal(found.robust_correct, expected.robust_correct)
    assert found.clean_unconverged is None


# --- a fault, made on purpose ---


def test_clamping_after_normalisation_is_worked_out_by_hand() -> None:
    """Below the mean and one standard deviation above it pixels are lost; between, all stays."""
    images = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.9, 1.0]).view(1, 1, 2, 3)
    faulty = ClampNormalised(attack=PGD(eps=0.0, steps=1), mean=(0.4,), std=(0.5,))
    found = faulty(lambda x: x.flatten(1), images, torch.tensor([0]), generator=generator())
    torch.testing.assert_close(found.images.flatten(), torch.tensor([0.4, 0.4, 0.4, 0.6, 0.9, 0.9]))
    assert faulty.eps == 0
    assert found.broken_by is None


def test_each_channel_is_clamped_by_its_own_normalisation() -> None:
    images, labels = random_batch()
    faulty = ClampNormalised(attack=IFGSM(eps=4 / 255), mean=(0.5, 0.2), std=(0.1, 0.9))
    found = faulty(network(), images, labels, generator=generator()).images
    expected = IFGSM(eps=4 / 255)(network(), images, labels).images.clone()
    expected[:, 0] = expected[:, 0].clamp(0.5, 0.6)
    expected[:, 1] = expected[:, 1].clamp(min=0.2)
    assert distance(found, expected) <= 1e-6


# --- the command ---


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of the digits."""
    data = load_data(DataConfig())
    torch.manual_seed(0)
    config = ModelConfig(
        image_shape=data.image_shape,
        classes=10,
        mean=data.mean,
        std=data.std,
        state_dim=16,
        stability="anchored",
        head="orthogonal",
    )
    path = tmp_path_factory.mktemp("attack") / "checkpoint.safetensors"
    model = StabilisedDEQ(config).eval()
    save_checkpoint(path, Checkpoint(model=model, data=DataConfig(), class_names=data.classes, seed=0, epoch=0))
    return path


def test_the_command_prints_a_table_and_writes_json(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "attack.json"
    attack_command(checkpoint, eps="4/255", restarts=2, limit=30, json_file=file, batch_size=20, seed=3)
    printed = capsys.readouterr()
    for text in ("lyadeq-anchored on digits, pgd (linf), 30 test images", "clean", "eps = 0", "eps = 4/255"):
        assert text in printed.out
    assert "30/30" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["attack.json"]
    result = json.loads(file.read_text())
    assert (result["attack"], result["eps"], result["steps"], result["restarts"]) == ("pgd", 4 / 255, 5, 2)
    assert (result["n"], result["seed"], result["kind"]) == (30, 3, "lyadeq-anchored")
    assert set(result["versions"]) == {"python", "torch", "stabdeq"}
    assert set(result["unconverged"]) == {"clean", "eps_0", "robust"}
    samples = result["samples"]
    assert all(len(values) == 30 for values in samples.values())
    assert samples["eps_0_correct"] == samples["clean_correct"]
    assert result["accuracy"]["clean"] == result["accuracy"]["eps_0"] == sum(samples["clean_correct"]) / 30
    assert result["accuracy"]["robust"] == sum(samples["robust_correct"]) / 30
    assert result["accuracy"]["worst"] <= result["accuracy"]["robust"]
    assert len(set(samples["index"])) == 30
    assert samples["index"] != list(range(30))  # drawn, since splits may be sorted by class


@pytest.mark.parametrize("attack", ["pgd", "honest"])
def test_the_command_makes_the_fault_on_request_and_says_so(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], attack: str
) -> None:
    """The clean row stays as it was; at eps = 0 the accuracy falls, which no sound attack's does."""
    results = {}
    for clamp in (False, True):
        file = tmp_path / f"{clamp}.json"
        attack_command(checkpoint, attack=attack, limit=40, steps=2, json_file=file, clamp_normalised=clamp)  # type: ignore[arg-type]
        results[clamp] = json.loads(file.read_text())
        assert ("FAULTY ON PURPOSE" in capsys.readouterr().out) is clamp
        assert results[clamp]["clamp_normalised"] is clamp
    sound, faulty = results[False], results[True]
    assert faulty["samples"]["clean_correct"] == sound["samples"]["clean_correct"] == sound["samples"]["eps_0_correct"]
    assert faulty["samples"]["eps_0_correct"] != faulty["samples"]["clean_correct"]
    assert "NOT A ROBUST ACCURACY" in faulty["warnings"][0]
    assert "predictions at eps = 0 differ" in faulty["warnings"][1]
    assert faulty["standing"] == {}
    assert sound.keys() == faulty.keys()
    assert [faulty[name] for name in ("eps", "n", "seed")] == [sound[name] for name in ("eps", "n", "seed")]


def test_the_command_repeats_itself_and_takes_all_images_at_most(checkpoint: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("first.json", "second.json")]
    for file in files:
        attack_command(checkpoint, attack="ifgsm", eps="2/255", limit=10**6, json_file=file)
    assert files[0].read_text() == files[1].read_text()
    assert json.loads(files[0].read_text())["samples"]["index"] == list(range(360))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": "8"}, "8/255"),
        ({"eps": "8/0"}, "not a number"),
        ({"eps": "eight"}, "not a number"),
        ({"eps": "nan"}, "from 0 to 1"),
        ({"limit": 0}, "limit 0"),
        ({"seed": -1}, "seed -1"),
        ({"steps": 0}, "steps = 0"),
        ({"restarts": 0}, "restarts = 0"),
        ({"batch_size": 0}, "batch size 0"),
        ({"attack": "ifgsm", "restarts": 2}, "ifgsm has none, only pgd"),
        ({"checkpoint": Path("no/such.safetensors")}, "no/such.safetensors"),
    ],
)
def test_the_command_refuses_bad_input_and_leaves_the_json_alone(
    checkpoint: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    file = tmp_path / "attack.json"
    file.write_text("precious")
    settings: dict[str, Any] = {"checkpoint": checkpoint, "json_file": file, "limit": 2, **arguments}
    with pytest.raises(StabdeqError, match=message) as caught:
        attack_command(**settings)
    assert caught.value.exit_code == 2
    assert file.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["attack.json"]


def test_the_command_refuses_json_paths_that_it_could_not_write(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    for file, message in (
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "attack.json", "there is no directory"),
        (checkpoint, "is the checkpoint itself"),
    ):
        with pytest.raises(ConfigError, match=message):
            attack_command(checkpoint, json_file=file)
    assert checkpoint.read_bytes() == content


def test_doubtful_figures_come_with_a_warning(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def doubtful(attack: SimpleNamespace, model: nn.Module, split: Split, **_: object) -> Outcome:
        yes, no = torch.ones(len(split), dtype=torch.bool), torch.zeros(len(split), dtype=torch.bool)
        return Outcome(yes, no, yes, no if attack.eps == 0 else yes, None, None)

    monkeypatch.setattr("stabdeq.attacks.evaluate", doubtful)
    attack_command(checkpoint, limit=5)
    printed = " ".join(capsys.readouterr().out.split())
    assert "5 predictions at eps = 0 differ from the clean ones" in printed
    assert "gradient of 5 of 5 images was NaN or infinite" in printed
    assert "gradient of 5 of 5 images was zero" in printed


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.03", 0.03), ("0", 0.0), (" 2 / 255 ", 2 / 255)])
def test_eps_is_read_as_a_quotient_or_a_number(text: str, value: float) -> None:
    assert parse_eps(text) == value


def test_the_commands_module_imports_nothing_heavy() -> None:
    code = "import sys, analysis.commands.attack; print({'torch', 'rich', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "torch" not in done.stdout
    assert "numpy" not in done.stdout
