"""The contract of an attack: where its images lie, what it leaves as it was, and what its result depends on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stabdeq.attacks import Adversarial, Attack
from stabdeq.attacks.ball import build_ball
from stabdeq.attacks.threat_model import STANDS, check_batch
from stabdeq.errors import ConfigError
from stabdeq.radius import NormName

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line

COUNT, SHAPE, CLASSES = 6, (3, 6, 6), 5
SEED = 0
ROUNDING = 16  # units of the dtype's rounding that a distance may exceed eps by, relative to 1 + eps


def assert_attack(
    attack: Callable[[float], Attack], *, eps: float = 8 / 255, norm: NormName = "linf", model: nn.Module | None = None
) -> None:
    """Assert that ``attack(radius)``, the attack with a radius in pixels of [0, 1], does what every attack must, at ``eps`` and 0.

    Its images stay within the ball in ``norm`` and within [0, 1], and at 0 are the given ones. Its flags are (B,) bool. It leaves
    the images and labels, the model's modes, weights and gradients, PyTorch's grad mode and its global generator as they were.
    Equal generators give equal images, and a sample's image does not depend on the others in its batch.

    ``model`` is a classifier of images (B, 3, 6, 6) in 5 classes, in evaluation mode, that predicts class 0 of all of them whatever
    an attack does, since of samples that are broken and left out the others may get other random numbers; by default a small
    network. Raises AssertionError, which says what the attack did, where it does not keep to this; ConfigError for ``eps`` <= 0.

        assert_attack(lambda eps: MyAttack(eps=eps, steps=5))
    """
    build_ball(eps, norm)
    if eps == 0:
        raise ConfigError("eps = 0: expected a radius above 0, at which the attack moves images; 0 is tried as well")
    images, labels = _batch()
    decided = model or _network(lead=100.0)
    check_batch(decided, images, labels)
    for victim in [decided] if model else [decided, _network(lead=0.0)]:  # of the second, samples are broken on the way
        found = _run(attack, eps, victim, images, labels)
        _check_result(found, images)
        _check_ball(found.images, images, eps, norm)
        _check_same(found, _run(attack, eps, victim, images, labels))
        still = _run(attack, 0.0, victim, images, labels)
        _check_result(still, images)
        if not torch.equal(still.images, images):
            raise AssertionError(
                f"at eps = 0 the attack changes an image by {_largest(still.images - images):.3g}: expected none"
            )
    _check_independence(attack, eps, decided, images, labels)


def _batch() -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) that touch both ends of [0, 1], and labels (B,), the last of which is wrong from the start."""
    generator = torch.Generator().manual_seed(SEED)
    images = (1.5 * torch.rand(COUNT, *SHAPE, generator=generator) - 0.25).clamp(0, 1)
    labels = torch.zeros(COUNT, dtype=torch.int64)
    labels[-1] = 1
    return images, labels


def _network(lead: float) -> nn.Module:
    """A small network in evaluation mode whose logit of class 0 is ahead by about ``lead``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        last = nn.Linear(16, CLASSES)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 6 * 6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.1), last
        )
    with torch.no_grad():
        last.bias[0] += lead
    return network.eval()


def _run(
    attack: Callable[[float], Attack], eps: float, model: nn.Module, images: Tensor, labels: Tensor
) -> Adversarial:
    """Attack copies, and raise AssertionError where anything but the result is not as it was."""
    made = attack(eps)
    if made.eps != eps:
        raise AssertionError(f"the attack made for eps = {eps:g} says that its eps is {made.eps!r}")
    given, given_labels = images.clone(), labels.clone()
    with _unchanged(model):
        found = made(model, given, given_labels, generator=torch.Generator().manual_seed(SEED))
    if not torch.equal(given, images) or given.requires_grad or given.grad is not None:
        raise AssertionError(
            "the attack changes the images that it is given, or their gradient: expected it to work on a copy"
        )
    if not torch.equal(given_labels, labels):
        raise AssertionError("the attack changes the labels that it is given: expected it to work on a copy")
    return found


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    modes = {name: module.training for name, module in model.named_modules()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    wanted = {name: value.requires_grad for name, value in parameters.items()}
    kept = {name: value.grad for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = torch.ones_like(value)
    globally = torch.get_rng_state()
    grad = torch.is_grad_enabled()
    try:
        yield
        gradients = [value.grad for value in parameters.values()]
    finally:
        for name, value in parameters.items():
            value.grad = kept[name]
    changed = [name or "the model" for name, module in model.named_modules() if module.training != modes[name]]
    if changed:
        raise AssertionError(
            f"the attack leaves {', '.join(changed)} in another mode: expected training mode or not as before"
        )
    if any(gradient is None or not bool((gradient == 1).all()) for gradient in gradients):
        raise AssertionError("the attack changes the gradients of the model's parameters: use torch.autograd.grad")
    if any(value.requires_grad != wanted[name] for name, value in parameters.items()):
        raise AssertionError(
            "the attack changes which of the model's parameters require gradients: expected them as before"
        )
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, weights[name])]
    if changed:
        raise AssertionError(
            f"the attack changes the model's {', '.join(changed)}: expected weights and buffers as before"
        )
    if torch.is_grad_enabled() != grad:
        raise AssertionError("the attack leaves PyTorch's grad mode changed: use torch.enable_grad as a context")
    if not torch.equal(torch.get_rng_state(), globally):
        raise AssertionError("the attack draws from PyTorch's global generator: draw from the one that it is given")


def _check_result(found: Adversarial, images: Tensor) -> None:
    made = found.images
    if made.shape != images.shape or made.dtype != images.dtype:
        raise AssertionError(
            f"the attack returns images {tuple(made.shape)} of {made.dtype}: expected {tuple(images.shape)} of {images.dtype}"
        )
    if made.requires_grad:
        raise AssertionError("the attack returns images that require gradients: detach them")
    if not bool(made.isfinite().all()):
        raise AssertionError("the attack returns pixels that are NaN or infinite")
    flags = [("nonfinite", found.nonfinite, torch.bool), ("zero", found.zero, torch.bool)]
    if found.broken_by is not None:
        flags.append(("broken_by", found.broken_by, torch.int64))
    for name, flag, dtype in flags:
        if flag.shape != images.shape[:1] or flag.dtype != dtype:
            raise AssertionError(
                f"the flags {name} are {tuple(flag.shape)} of {flag.dtype}: expected ({len(images)},) of {dtype}"
            )
    if found.broken_by is not None and int(found.broken_by.min()) < STANDS:
        raise AssertionError(f"broken_by holds {int(found.broken_by.min())}: expected runs from 0 up, or {STANDS}")


def _check_ball(made: Tensor, images: Tensor, eps: float, norm: NormName) -> None:
    if float(made.min()) < 0 or float(made.max()) > 1:
        raise AssertionError(
            f"the attack leaves [0, 1]: its pixels lie between {float(made.min()):.6g} and {float(made.max()):.6g}"
        )
    change = (made - images).double().flatten(1)
    distance = float(torch.linalg.vector_norm(change, ord=torch.inf if norm == "linf" else 2, dim=1).max())
    if distance > eps + ROUNDING * torch.finfo(images.dtype).eps * (1 + eps):
        raise AssertionError(
            f"the attack leaves its ball: it moves an image by {distance:.6g} in {norm}, and eps is {eps:.6g}"
        )


def _check_same(found: Adversarial, again: Adversarial) -> None:
    if not torch.equal(found.images, again.images):
        raise AssertionError(
            f"two runs with equal generators differ by {_largest(found.images - again.images):.3g}: expected equal images; "
            "draw from the generator that is given alone, and keep nothing from run to run"
        )


def _check_independence(
    attack: Callable[[float], Attack], eps: float, model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    others = images.flip(3)
    others[0] = images[0]
    alone, among = (_run(attack, eps, model, batch, labels).images[0] for batch in (images, others))
    # Batches of one shape run the same kernels: what the network makes of a sample is equal to the last bit.
    if not torch.equal(alone, among):
        raise AssertionError(
            f"the image found for a sample changes by {_largest(alone - among):.3g} with the others in its batch: expected each "
            "sample to be attacked by itself"
        )


def _largest(change: Tensor) -> float:
    return float(change.abs().max())
