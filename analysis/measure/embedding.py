"""What the head of a model reads of images, clean and under attack, and the t-SNE map of it in two dimensions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from analysis.measure.rounding import rounded
from analysis.measure.subject import Subject
from stabdeq.attacks import build_attack
from stabdeq.attacks.threat_model import is_correct
from stabdeq.errors import ConfigError, DataError
from stabdeq.lyapunov import stabilise
from stabdeq.model import EquilibriumModel, StabilisedDEQ

if TYPE_CHECKING:
    from numpy.typing import NDArray

EPS = 8  # of the PGD attack, in grey levels
BATCH = 250
NUMBERS = 2**22  # in the states of a batch of an audit: of large ones fewer are attacked at once
IMAGES = 128  # of an audit
PERPLEXITY = 30.0  # scikit-learn's, and that of van der Maaten & Hinton 2008


@dataclass(frozen=True, eq=False)
class States:
    """What the head reads of N images, and after them of the same under PGD at 8/255: M is 2N, or N without an attack.

    ``before`` and ``after`` (M, n): before and after the orthogonal layer, the same where there is none; ``labels`` (N,);
    ``right`` (M,) bool: whose prediction was right; ``unattacked`` says why there was no attack, and is empty where there was.
    """

    before: Tensor
    after: Tensor
    labels: Tensor
    right: Tensor
    unattacked: str

    @property
    def distortion(self) -> float:
        """The largest change of a distance between two states by the layer, as a fraction of the largest distance."""
        distances, rotated = (torch.pdist(states.double()) for states in (self.before, self.after))
        return float((distances - rotated).abs().max() / distances.max())


def has_orthogonal_layer(model: EquilibriumModel) -> bool:
    """Return whether ``model`` is of this library's and its head has the square orthogonal layer."""
    return isinstance(model, StabilisedDEQ) and model.head.rotation is not None


@torch.no_grad()
def read_by_head(model: EquilibriumModel, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features (B, m) that the head reads of equilibria ``z`` (B, *), pooled, and what its orthogonal layer makes of them."""
    if not isinstance(model, StabilisedDEQ):
        return z.flatten(1), z.flatten(1)
    before = model.head.pool(stabilise(z, model.config.stability, model.lyapunov))
    return before, model.head.rotate(before)


def gather_states(
    model: EquilibriumModel, images: Tensor, labels: Tensor, *, generator: torch.Generator, batch: int = BATCH
) -> States:
    """Return the states of ``images`` (N, C, H, W) with ``labels`` (N,), and of the same under PGD, by the model's own solver.

    ``batch`` of them are taken at once.

    A model that cannot be attacked, for want of a gradient or of logits for all labels, is read on clean images alone.
    """
    attack = build_attack("pgd", eps=EPS / 255)
    parts, unattacked = list(zip(images.split(batch), labels.split(batch), strict=True)), ""
    try:
        found = [
            (
                attack(lambda x: model.readout(model.solve(model.inject(x)).z), part, targets, generator=generator),
                targets,
            )
            for part, targets in parts
        ]
        parts += [(adversarial.images, targets) for adversarial, targets in found]
    except (ConfigError, DataError, RuntimeError) as error:
        # torch raises RuntimeError where somebody's model cuts the graph; of ours it would be a fault that must be seen.
        if isinstance(model, StabilisedDEQ) and not isinstance(error, ConfigError | DataError):
            raise
        unattacked = str(error).partition("\n")[0]
    rows = []
    with torch.no_grad():
        for part, targets in parts:
            z = model.solve(model.inject(part)).z
            rows.append((*read_by_head(model, z), is_correct(model.readout(z), targets)))
    before, after, right = (torch.cat(column) for column in zip(*rows, strict=True))
    return States(before, after, labels, right, unattacked)


def embed(states: Tensor, seed: int) -> "NDArray[Any]":
    """Return the t-SNE map (N, 2) of ``states`` (N, n), n >= 2, which are finite and not all the same."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(states) - 1) / 3)
    scaled = states.double() / states.double().abs().max()  # t-SNE follows any scale, its arithmetic does not
    return TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(scaled.numpy())


def embedding(subject: Subject) -> dict[str, Any]:
    """Return, as a plain series, the maps of the first images whose equilibrium was found, or why there is none."""
    if subject.dim < 2:
        return {"not_drawn": "a state of one component needs no map"}
    shown = subject.found[:IMAGES]
    images, labels = subject.images[shown], subject.labels[shown]
    batch = min(BATCH, max(1, NUMBERS // subject.dim))
    states = gather_states(subject.model, images, labels, generator=subject.generator(), batch=batch)
    layered = has_orthogonal_layer(subject.model)
    maps = {"before": states.before} | ({"after": states.after} if layered else {})
    for name, values in maps.items():
        where = " after the orthogonal layer" if name == "after" else ""
        if not bool(values.isfinite().all()):
            return {"not_drawn": f"a state that the model's own solver returned is not finite{where}"}
        if bool((values == values[0]).all()):
            return {"not_drawn": f"all states are the same{where}"}
    return {
        "labels": labels.tolist(),
        "right": states.right.tolist(),
        "maps": {name: rounded(embed(values, subject.seed).tolist()) for name, values in maps.items()},
        "distortion": states.distortion if layered else None,
        "eps": EPS / 255,
        "unattacked": states.unattacked,
    }
