"""The paper's Figure 3: t-SNE of the states before and after the orthogonal layer, on clean and on attacked images.

The layer is square and orthogonal, so that it keeps all distances, which t-SNE alone depends on: the figure says how well.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from analysis.measure import embedding
from analysis.report import drawing
from analysis.report.drawing import PAPER
from analysis.report.figures.embedding import draw_maps
from stabdeq.checkpoint import load_checkpoint
from stabdeq.errors import ConfigError

IMAGES = 1000


@dataclass(frozen=True, eq=False)
class States(embedding.States):
    """The states of a checkpoint's images, clean and attacked, with the names of its classes."""

    class_names: tuple[str, ...]


def gather_states(checkpoint: Path, data_dir: Path | None, *, limit: int = IMAGES, seed: int) -> States:
    """Return the states of at most ``limit`` test images, drawn by ``seed``, and of the same under PGD at 8/255.

    Raises ConfigError where the model has no square orthogonal layer, or cannot be attacked.
    """
    from analysis.measure.sample import draw_images

    loaded = load_checkpoint(checkpoint)
    if not embedding.has_orthogonal_layer(loaded.model):
        raise ConfigError(
            f"{checkpoint}: a {loaded.kind} has no orthogonal layer: choose lyadeq, lyadeq-anchored or deq-orth"
        )
    images, labels, _ = draw_images(loaded, data_dir, limit, seed)
    generator = torch.Generator().manual_seed(seed)
    states = embedding.gather_states(loaded.model, images.float(), labels, generator=generator)
    if states.unattacked:
        raise ConfigError(f"{checkpoint}: {states.unattacked}")
    return States(**vars(states), class_names=loaded.class_names)


def draw_states(states: States, title: str, *, seed: int) -> dict[str, bytes]:
    """Return the figure as the contents of files, by suffix: clean and attacked states share one map for each layer."""
    from matplotlib.figure import Figure

    maps = {
        name: embedding.embed(values, seed).tolist()
        for name, values in (("before", states.before), ("after", states.after))
    }
    with drawing.page_style(PAPER):
        figure = Figure(figsize=(8.4, 9.0), layout="constrained")
        draw_maps(figure, maps, states.labels.tolist(), states.right.tolist(), states.class_names, PAPER)
        figure.suptitle(
            f"{title}: t-SNE of {len(states.labels)} states before and after the orthogonal layer\n"
            f"crosses: wrong; the layer changes distances by at most {states.distortion:.0e} of the largest",
            fontsize=12,
        )
        return {suffix: drawing.file_content(figure, suffix) for suffix in (".png", ".svg")}
