"""One attack on a checkpoint's test images, or on images of one's own, beside its control at eps = 0."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stabdeq.attacks import IFGSM, PGD, Attack, ClampNormalised, NormName, Worst, build_attack, schedule
from stabdeq.attacks.evaluate import evaluate
from stabdeq.attacks.honest import STEPS, honest
from stabdeq.attacks.intermediate import absent_parts
from stabdeq.attacks.result import AttackResult
from stabdeq.attacks.threat_model import Classifier
from stabdeq.checkpoint import load_checkpoint
from stabdeq.data import Split, to_unit
from stabdeq.errors import ConfigError, DataError
from stabdeq.seed import require_seed
from stabdeq.shard import WHOLE, Shard
from stabdeq.trained_on import data_of

CONTROL = "eps = 0"

Progress = Callable[[str, int, int, int], None]  # ("eps = 0" or "attack", images done, of these right, of all)


def attack(
    model: Classifier | str | Path,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    name: str = "pgd",
    eps: float | str = "8/255",
    norm: NormName = "linf",
    steps: int | None = None,
    restarts: int = 1,
    samples: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    data_dir: str | Path | None = None,
    clamp_normalised: bool = False,
    trusted: bool = False,
    shard: Shard = WHOLE,
    progress: Progress | None = None,
) -> AttackResult:
    """Attack ``model`` on ``images`` by the attack ``name``, and return what it gets right.

    The same attack, in one step at eps = 0, runs before it as a control: it must give the clean accuracy.

    Args:
        model: a classifier of images in [0, 1] in evaluation mode, on its own device; or the path of a checkpoint, whose model
            is put on a GPU where there is one.
        images: (N, C, H, W), floats in [0, 1], which are rounded to the model's dtype, or uint8; None for the test images of the
            checkpoint's data set.
        labels: (N,) int64, of ``images``.
        name: one of ``stabdeq.registry.ATTACKS``; "honest" is without "intermediate" where the model has no equilibrium.
        eps: the radius of the ball in pixels of [0, 1], as a number or as a text such as "8/255".
        norm: "linf", of the largest pixel, or "l2".
        steps: None for the attack's own number; of PGD in l2, 50.
        restarts: random starts, of which the worst is kept, sample by sample.
        samples: attack only so many of the images, drawn at random; None for all.
        seed: of the drawn images and of the random starts.
        batch_size: images attacked at a time; the random starts depend on it.
        data_dir: where the checkpoint's data set lies, if it is not embedded.
        clamp_normalised: make a known fault on purpose: clamp attacked images to [0, 1] after normalisation.
        trusted: the checkpoint is your own; see ``stabdeq.checkpoint.load_checkpoint``.
        shard: attack its own of the batches alone, and return what the model gets right of these.
        progress: is called at the start and after every batch, with "eps = 0" or "attack", and how many images are done, right
            and in all.

    Raises:
        ConfigError: a setting is unknown or out of range, or the model is in training mode.
        CheckpointError: the checkpoint cannot be read.
        DataError: the images are missing, or do not fit the model.
    """
    radius = parse_eps(eps) if isinstance(eps, str) else eps
    if samples is not None and samples < 1:
        raise ConfigError(f"samples = {samples}: expected 1 or more images, or None for all of them")
    require_seed(seed)
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size}: expected 1 or more")
    chosen = build_attack(name, eps=radius, steps=steps, restarts=restarts, norm=norm)
    control: Attack = build_attack(name, eps=0.0, steps=1, norm=norm)
    network, whole, subject, device = _subject(model, images, labels, data_dir, trusted)
    if name == "honest" and absent_parts(network):
        chosen = honest(eps=radius, steps=steps or STEPS, restarts=restarts, norm=norm, equilibrium=False)
        control = honest(eps=0.0, steps=1, norm=norm, equilibrium=False)
    settings = {"attack": name, "norm": norm, **_settings(chosen), "seed": seed, "batch_size": batch_size}
    split, indices = _draw(whole, samples, seed)
    attacks: dict[str, Attack] = {CONTROL: control, "attack": chosen}
    parts = tuple(getattr(chosen, "attacks", ()))
    if clamp_normalised:
        mean, std = _normalisation(network)
        attacks = {key: ClampNormalised(attack=each, mean=mean, std=std) for key, each in attacks.items()}
        parts = ()  # none of them saw the clamped image
    outcomes = {}
    own = torch.cat([indices[:0], *shard.of(indices.split(batch_size))])
    for key, each in attacks.items():

        def tell(done: int, right: int, *, key: str = key) -> None:
            if progress is not None:
                progress(key, done, right, len(own))

        tell(0, 0)
        outcomes[key] = evaluate(
            each, network, split, seed=seed, batch_size=batch_size, device=device, shard=shard, progress=tell
        )
    return AttackResult(
        subject=subject,
        settings=settings | {"clamp_normalised": clamp_normalised},
        radius=eps if isinstance(eps, str) else f"{eps:.4g}",
        parts=parts,
        indices=own,
        drawn={"images": len(split), "sha256": _digest(split)},
        control=outcomes[CONTROL],
        outcome=outcomes["attack"],
    )


def parse_eps(text: str) -> float:
    """Return the number that ``text`` writes, as a quotient or in decimals, or raise ConfigError.

    >>> parse_eps("8/255") == 8 / 255
    True
    """
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"eps {text!r} is not a number: expected pixels of [0, 1], such as 8/255 or 0.03") from None


def _subject(
    model: Classifier | str | Path,
    images: Tensor | None,
    labels: Tensor | None,
    data_dir: str | Path | None,
    trusted: bool,
) -> tuple[Classifier, Split, dict[str, str | None], torch.device]:
    """Return the model, the images to draw from, what both are called, and where the model is."""
    if (images is None) != (labels is None):
        raise DataError("images and labels belong together: give both, or neither for a checkpoint's test images")
    given = None if images is None or labels is None else Split(_in_dtype_of(model, _require_pixels(images)), labels)
    if not isinstance(model, str | Path):
        if given is None:
            raise DataError("a model in memory has no test images of its own: give images and labels")
        parameters = model.parameters() if isinstance(model, nn.Module) else ()
        device = next((each.device for each in parameters), given.images.device)
        return model, given, {"checkpoint": None, "sha256": None, "kind": type(model).__name__, "data": None}, device
    loaded = load_checkpoint(Path(model), trusted=trusted)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    split = given or data_of(loaded, data_dir).test
    subject = {
        "checkpoint": str(model),
        "sha256": loaded.sha256,
        "kind": loaded.kind,
        "data": None if given else loaded.data.name,
    }
    return loaded.model.to(device), split, subject, device


def _in_dtype_of(model: Classifier | str | Path, images: Tensor) -> Tensor:
    """Return ``images`` in [0, 1] in the dtype of the model's weights where that is float32 or float64; else as they are.

    A model of less precision gets them as they are, for rounded to that they would lie in another ball.
    """
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    dtype = next((each.dtype for each in parameters if each.is_floating_point()), None)
    if isinstance(model, str | Path):
        dtype = torch.float32
    if dtype not in (torch.float32, torch.float64):
        return images
    if images.is_floating_point():
        return images.to(dtype)
    return to_unit(images, dtype) if dtype == torch.float64 else images


def _require_pixels(images: Tensor) -> Tensor:
    """Raise DataError where inputs are no images, of which an attack has nothing to change."""
    if images.dim() != 4 or not (images.is_floating_point() or images.dtype == torch.uint8):
        raise DataError(
            f"inputs of shape {tuple(images.shape)}, {images.dtype}: an attack changes pixels, expected images (N, C, H, W), uint8 or "
            "floats in [0, 1]; inputs such as tokens are audited, not attacked"
        )
    return images


def _draw(split: Split, samples: int | None, seed: int) -> tuple[Split, Tensor]:
    """Draw at most ``samples`` images, as splits may be sorted by class, and return their indices (N,) too."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(split), generator=generator)[:samples].sort().values
    return Split(split.images[indices], split.labels[indices]), indices


def _digest(split: Split) -> str:
    digest = sha256()
    for tensor in (split.images, split.labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _normalisation(model: Classifier) -> tuple[tuple[float, ...], tuple[float, ...]]:
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "mean") or not hasattr(config, "std"):
        raise ConfigError(
            f"clamp_normalised needs the mean and std that a model normalises by, in model.config, and {type(model).__name__} has "
            "none: leave it out, or wrap the attack in stabdeq.attacks.ClampNormalised"
        )
    return config.mean, config.std


def _settings(chosen: Attack) -> dict[str, Any]:
    """All settings of an attack; those of the paper's attacks with the steps that its rule gives."""
    if isinstance(chosen, Worst):
        return {"eps": chosen.eps, "attacks": {name: _settings(each) for name, each in chosen.attacks.items()}}
    settings: dict[str, Any] = {"eps": chosen.eps}
    settings |= {name: _plain(value) for name, value in getattr(chosen, "__dict__", {}).items()}
    if isinstance(chosen, IFGSM | PGD):
        norm = settings.get("norm", "linf")
        settings["steps"], settings["step_size"] = schedule(chosen.eps, chosen.steps, chosen.step_size, norm)
    return settings


def _plain(value: Any) -> Any:
    """A setting as JSON holds it, or its text where JSON has no such value: an attack of another's may have any."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value
