"""``python -m benchmarks.sensitivity CHECKPOINT...``: what turns a change of pixels into a change of margin, factor by factor."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.table import table
from stabdeq.bounds.lipschitz import extractor_matrix
from stabdeq.checkpoint import load_checkpoint
from stabdeq.data import load_data, to_unit
from stabdeq.model import StabilisedDEQ

HEAD = ("checkpoint", "‖E‖", "ρ(J)", "‖D‖", "‖(I-J)⁻¹ D‖", "‖R‖", "margin", "‖∇margin‖₁", "margin / ‖∇margin‖₁")
JACOBIANS = 100  # images whose Jacobians are formed whole


def factors(model: StabilisedDEQ, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return medians over the images (N, C, H, W) that are right: logits move by R (I - J)^-1 D E dx to first order.

    E is the extractor with its normalisation, D = df/dh, J = df/dz, R = dlogits/dz*, all norms spectral. The last is the
    radius, in grey levels, at which a linear model of the margin would be 0 under a change of every pixel.
    """
    model = model.double().eval().requires_grad_(False)
    model.config = replace(model.config, solver=replace(model.config.solver, tolerance=1e-9, max_evaluations=500))
    x = images.double().requires_grad_()
    prediction = model.predict(x)
    own = prediction.logits.gather(1, labels[:, None]).squeeze(1)
    margin = own - prediction.logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    (gradient,) = torch.autograd.grad(margin.sum(), x)
    margin = margin.detach()
    right = (margin > 0) & prediction.solution.converged
    slope = gradient.flatten(1).norm(p=1, dim=1)
    z, h = prediction.solution.z.detach()[right][:JACOBIANS], prediction.h.detach()[right][:JACOBIANS]
    by_z, by_h = torch.func.vmap(torch.func.jacrev(lambda z, h: model.cell(z[None], h[None])[0], argnums=(0, 1)))(z, h)
    gain = torch.linalg.solve(torch.eye(z.shape[1]).to(z) - by_z, by_h)
    read = torch.func.vmap(torch.func.jacrev(lambda z: model.readout(z[None])[0]))(z)
    values = (
        extractor_matrix(model)[None],
        torch.linalg.eigvals(by_z).abs().amax(1),
        by_h,
        gain,
        read,
        margin[right],
        slope[right],
        255 * margin[right] / slope[right],
    )
    medians = [(torch.linalg.matrix_norm(one, 2) if one.dim() == 3 else one).median() for one in values]
    return dict(zip(HEAD[1:], map(float, medians), strict=True))


def main() -> None:
    """Print a row for each checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sensitivity", description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--samples", type=int, default=400)
    options = parser.parse_args()
    rows = []
    for path in options.checkpoints:
        checkpoint = load_checkpoint(path)
        test = load_data(checkpoint.data, data_dir=options.data_dir).test
        chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: options.samples]
        found = factors(checkpoint.model, to_unit(test.images[chosen]), test.labels[chosen])
        rows.append([path.parent.name, *(f"{value:.3g}" for value in found.values())])
    print(table(HEAD, rows))


if __name__ == "__main__":
    main()
