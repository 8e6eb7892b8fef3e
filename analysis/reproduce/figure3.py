"""The paper's Figure 3: t-SNE of the states before and after the orthogonal layer, on clean and on attacked images.

The layer is square and orthogonal, so that it keeps all distances, which t-SNE alone depends on: the figure says how well.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from analysis import drawing
from analysis.drawing import MUTED, PAPER
from stabdeq.attacks import build_attack
from stabdeq.attacks.threat_model import is_correct
from stabdeq.checkpoint import load_checkpoint
from stabdeq.errors import ConfigError
from stabdeq.stability import stabilise

if TYPE_CHECKING:
    from numpy.typing import NDArray

EPS = 8
IMAGES = 1000
BATCH = 250
PERPLEXITY = 30.0  # scikit-learn's, and that of van der Maaten & Hinton 2008
# Okabe & Ito 2008, told apart by every kind of colour vision, with two more for ten classes.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1d2229", "#b8a800", "#7b3f9e", "#9aa0a6",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class States:
    """What the head reads of the same N images: ``before`` and ``after`` are (2N, n), the clean ones first.

    ``labels`` (N,); ``right`` (2N,) bool: whose prediction was right.
    """

    before: Tensor
    after: Tensor
    labels: Tensor
    right: Tensor
    class_names: tuple[str, ...]

    @property
    def distortion(self) -> float:
        """The largest change of a distance between two states by the layer, as a fraction of the largest distance."""
        distances, rotated = (torch.cdist(states.double(), states.double()) for states in (self.before, self.after))
        return float((distances - rotated).abs().max() / distances.max())


def gather_states(checkpoint: Path, data_dir: Path | None, *, limit: int = IMAGES, seed: int) -> States:
    """Return the states of at most ``limit`` test images, drawn by ``seed``, and of the same under PGD at 8/255.

    Raises ConfigError where the model has no square orthogonal layer.
    """
    from analysis.audit_command import draw_images

    loaded = load_checkpoint(checkpoint)
    model = loaded.model
    if model.head.rotation is None:
        raise ConfigError(
            f"{checkpoint}: a {loaded.kind} has no orthogonal layer: choose lyadeq, lyadeq-anchored or deq-orth"
        )
    images, labels, _ = draw_images(loaded, data_dir, limit, seed)
    images = images.float()
    attack = build_attack("pgd", eps=EPS / 255)
    generator = torch.Generator().manual_seed(seed)
    attacked = torch.cat(
        [
            attack(model, part, targets, generator=generator).images
            for part, targets in zip(images.split(BATCH), labels.split(BATCH), strict=True)
        ]
    )
    before, after, right = [], [], []
    with torch.no_grad():
        for part, targets in zip(
            torch.cat([images, attacked]).split(BATCH), labels.repeat(2).split(BATCH), strict=True
        ):
            equilibria = model.solve(model.inject(part)).z
            features = stabilise(equilibria, model.config.stability, model.lyapunov)
            before.append(features)
            after.append(model.head.rotate(features))
            right.append(is_correct(model.head(features), targets))
    return States(torch.cat(before), torch.cat(after), labels, torch.cat(right), loaded.class_names)


def embed(states: Tensor, seed: int) -> "NDArray[Any]":
    """Return the t-SNE (N, 2) of ``states`` (N, n)."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(states) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(states.double().numpy())


def draw_states(states: States, title: str, *, seed: int) -> dict[str, bytes]:
    """Return the figure as the contents of files, by suffix.

    Clean and attacked states share one map for each layer; a cross is a state whose prediction is wrong.
    """
    from matplotlib.figure import Figure

    count = len(states.labels)
    with drawing.page_style(PAPER):
        figure = Figure(figsize=(8.4, 9.0), layout="constrained")
        panels = figure.subplots(2, 2, sharex="row", sharey="row")
        for row, (layer, values) in zip(panels, (("before", states.before), ("after", states.after)), strict=True):
            points = embed(values, seed)
            for axes, name, part in zip(row, ("clean", "PGD, 8/255"), (slice(count), slice(count, None)), strict=True):
                right = states.right[part]
                _scatter(axes, points[part], states.labels, right, states.class_names)
                axes.set_title(f"{layer}, {name}: {100 * float(right.float().mean()):.1f} % right", fontsize=12)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set(visible=True, color=PAPER[MUTED])
        figure.suptitle(
            f"{title}: t-SNE of {count} states before and after the orthogonal layer\n"
            f"× wrong; the layer changes distances by at most {states.distortion:.0e} of the largest",
            fontsize=12,
        )
        if len(states.class_names) <= len(COLOURS):
            handles, names = panels[0, 0].get_legend_handles_labels()
            figure.legend(
                handles, names, loc="outside lower center", ncols=5, frameon=False, markerscale=2, handletextpad=0.2
            )
        return {suffix: drawing.file_content(figure, suffix) for suffix in (".png", ".svg")}


def _scatter(axes: Any, points: "NDArray[Any]", labels: Tensor, right: Tensor, names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        colour = COLOURS[index % len(COLOURS)]
        for chosen, marker, label in (((labels == index) & right, "o", name), ((labels == index) & ~right, "x", None)):
            x, y = points[chosen.numpy()].T
            size = 10 if marker == "o" else 26
            axes.scatter(x, y, s=size, marker=marker, color=colour, linewidths=1.0 if marker == "x" else 0, label=label)
