"""I-FGSM and PGD against closed forms and an independent library; what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attack_problems import (
    SHAPE,
    TwoClassLinear,
    distance,
    equilibrium_model,
    generator,
    network,
    random_batch,
    random_split,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stabdeq.attacks import IFGSM, PGD, ClampNormalised, build_attack, evaluate, paper_steps, schedule, usual_step_size
from stabdeq.attacks.ball import L2Ball, build_ball
from stabdeq.errors import ConfigError, DataError


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


def test_what_left_the_ball_returns_to_the_nearest_of_it() -> None:
    images = torch.full((3, 1, 1, 2), 0.5, dtype=torch.float64)
    change = torch.tensor([[0.3, 0.4], [0.0, 0.1], [3.0, -4.0]], dtype=torch.float64).view(3, 1, 1, 2)
    found = {
        norm: build_ball(0.25, norm).project(images + change, images).flatten(1).tolist() for norm in ("l2", "linf")
    }
    assert found["l2"] == [pytest.approx(image) for image in ([0.65, 0.7], [0.5, 0.6], [0.65, 0.3])]
    assert found["linf"] == [pytest.approx(image) for image in ([0.75, 0.75], [0.5, 0.6], [0.75, 0.25])]


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


def test_the_usual_steps_cross_the_ball() -> None:
    assert usual_step_size(0.3, 50) == 2.5 * 0.3 / 50
    assert usual_step_size(0.0, 50) > 0
    assert build_attack("pgd", eps=0.3, norm="l2") == PGD(eps=0.3, steps=50, norm="l2")
    assert schedule(0.3, 50, None, "l2") == (50, usual_step_size(0.3, 50))


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
        (lambda x, y: (x, y[:-1]), "the class of each image: an attack turns classes"),
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
