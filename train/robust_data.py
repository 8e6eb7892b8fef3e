"""Making a robust data set from a robust model (Ilyas et al. 2019, arXiv 1905.02175, Sec. 3.1 and Appendix C)."""

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stabdeq.attacks.ball import unit
from stabdeq.data import Split, to_unit
from stabdeq.data.robust import IMAGES_NAME, LABELS_NAME
from stabdeq.errors import ConfigError, SolverError
from stabdeq.files import make_folder, replace_file
from stabdeq.locks import alone_in
from stabdeq.lyapunov import stabilise
from stabdeq.model import StabilisedDEQ

PARTS_NAME = ".robust-parts"  # hidden: in a folder of classes it is none

Progress = Callable[[int], None]  # images times steps that were done since the last call


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides a robust data set, beside the training images; ``model`` is the check sum of the checkpoint."""

    model: str
    count: int
    steps: int = 1000
    step_size: float = 0.1
    seed: int = 0
    batch_size: int = 256


@dataclass(frozen=True, eq=False)
class Matched:
    """Images (B, C, H, W) in [0, 1], how far their features are from the targets', (B,), and how far they were at first."""

    images: Tensor
    before: Tensor
    after: Tensor
    unconverged: Tensor  # (B,) bool: no equilibrium was found for the image that was returned


def build_robust_data(
    model: StabilisedDEQ, split: Split, out: Path, settings: Settings, progress: Progress = lambda _: None
) -> Matched:
    """Write a robust data set of ``settings.count`` images of ``split`` into ``out``, and return its images.

    For each drawn image x with its label, another image of ``split``, drawn at random whatever its label, is moved until its
    features are those of x; it then has the label of x. Every batch is kept in ``out`` when it is done, and is not made again
    by a later call with the same settings. Raises ConfigError where ``out`` holds a set, or parts of one with other settings, or
    where another call is at work in it; FileError where it cannot be written.
    """
    if not 1 <= settings.count <= len(split) or len(split) < 2:
        raise ConfigError(f"{settings.count} images of {len(split)}: expected 1 to {len(split)}, of two or more")
    make_folder(out)
    with alone_in(out):
        return _build(model, split, out, settings, progress)


def _build(model: StabilisedDEQ, split: Split, out: Path, settings: Settings, progress: Progress) -> Matched:
    parts = out / PARTS_NAME
    for name in (IMAGES_NAME, LABELS_NAME):
        if (out / name).exists() and not parts.exists():
            raise ConfigError(f"{out} already holds {name}: choose another --out")
    make_folder(parts)
    generator = torch.Generator().manual_seed(settings.seed)
    chosen = torch.randperm(len(split), generator=generator)[: settings.count].sort().values
    others = (chosen + torch.randint(1, len(split), chosen.shape, generator=generator)) % len(split)
    device = model.mean.device
    found = []
    for start in range(0, settings.count, settings.batch_size):
        path = parts / f"{start:08}.safetensors"
        rows = slice(start, start + settings.batch_size)
        if path.exists():
            found.append(_load_part(path, settings))
            progress(settings.steps * len(chosen[rows]))
            continue
        targets, starts = (to_unit(split.images[each[rows]].to(device)) for each in (chosen, others))
        found.append(match_features(model, starts, targets, settings.steps, settings.step_size, progress))
        _save_part(path, found[-1], settings)
    matched = Matched(*(torch.cat([getattr(one, name) for one in found]) for name in Matched.__dataclass_fields__))
    _save_tensor(out / IMAGES_NAME, matched.images)
    _save_tensor(out / LABELS_NAME, split.labels[chosen].cpu())
    for path in parts.iterdir():
        path.unlink()
    parts.rmdir()
    return matched


def match_features(
    model: StabilisedDEQ,
    starts: Tensor,
    targets: Tensor,
    steps: int,
    step_size: float,
    progress: Progress = lambda _: None,
) -> Matched:
    """Move ``starts`` until their features are near those of ``targets``, both (B, C, H, W) in [0, 1].

    Each of the ``steps`` goes ``step_size`` (l2, pixels of [0, 1]) down the gradient of the features' distance, scaled to
    length 1, and back into [0, 1]. ``model`` is in evaluation mode. The result is on the CPU.
    Raises SolverError where a gradient is not finite.
    """
    with torch.no_grad():
        wanted = features(model, targets)[0]
        before = (features(model, starts)[0] - wanted).norm(dim=1)
    images = starts
    for step in range(steps):
        leaf = images.detach().requires_grad_()
        distance = (features(model, leaf)[0] - wanted).square().sum()  # downhill as the distance is, and smooth at 0
        (gradient,) = torch.autograd.grad(distance, leaf)
        broken = int((~gradient.isfinite().flatten(1).all(1)).sum())
        if broken:
            raise SolverError(
                f"the gradient of the features of {broken} of {len(starts)} images is NaN or infinite in step {step + 1}: "
                "look at the model with `stabdeq audit`, or take another checkpoint"
            )
        images = (images - step_size * unit(gradient)).clamp(0, 1)
        progress(len(starts))
    with torch.no_grad():
        reached, unconverged = features(model, images)
    after = (reached - wanted).norm(dim=1)
    return Matched(images.cpu(), before.cpu(), after.cpu(), unconverged.cpu())


def features(model: StabilisedDEQ, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the head of ``model`` reads, (B, n), and whose equilibrium was not found, (B,) bool."""
    solution = model.solve(model.inject(images))
    return stabilise(solution.z, model.config.stability, model.lyapunov), ~solution.converged


def _save_part(path: Path, matched: Matched, settings: Settings) -> None:
    metadata = {name: str(value) for name, value in asdict(settings).items()}
    replace_file(path, save({name: value.contiguous() for name, value in vars(matched).items()}, metadata))


def _load_part(path: Path, settings: Settings) -> Matched:
    if not path.is_file():
        raise ConfigError(f"{path} is no regular file: delete it")
    try:
        with safe_open(path, "pt") as file:
            theirs = file.metadata() or {}
            for name, value in asdict(settings).items():
                if theirs.get(name) != str(value):
                    raise ConfigError(
                        f"{path.parent} was begun with {name} = {theirs.get(name)}, not {value}: "
                        "go on with the same settings, or choose another --out"
                    )
            return Matched(*(file.get_tensor(name) for name in Matched.__dataclass_fields__))
    except SafetensorError as error:
        raise ConfigError(f"{path} is not a whole part ({error}): delete it") from None


def _save_tensor(path: Path, tensor: Tensor) -> None:
    content = io.BytesIO()  # of a file that it cannot write whole, torch.save does not say why
    torch.save(tensor, content)
    replace_file(path, content.getbuffer())
