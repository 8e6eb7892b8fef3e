"""``python -m benchmarks.large_states SIDE``: a solve and an audit of a model whose states have C SIDE^2 numbers.

The weights are as they are drawn. Prints CPU seconds of each part and the peak memory of the process; the audit makes the checks that
are named, since some take long on states of a million numbers.
"""

import argparse
import resource
import time

import torch

from analysis.audit import audit
from analysis.findings.catalogue import CHECKS
from stabdeq.config import AndersonConfig, LyapunovConfig, ModelConfig
from stabdeq.lyapunov import stabilised_field
from stabdeq.model import StabilisedDEQ

HIDDEN = {"convolutional": 8, "separable": 64}  # channels, or numbers at a place, of V's network


def model_of(side: int, channels: int, cell: str, network: str) -> StabilisedDEQ:
    """Return the model with states of ``channels`` on ``side`` x ``side`` places, V around the equilibrium."""
    torch.manual_seed(0)
    config = ModelConfig(
        image_shape=(1, side, side),
        classes=10,
        mean=(0.5,),
        std=(0.3,),
        backbone="conv",
        cell=cell,
        state_dim=channels * side**2,
        stability="anchored",
        head="orthogonal",
        solver=AndersonConfig(tolerance=1e-3),
        lyapunov=LyapunovConfig(network=network, hidden=HIDDEN[network]),  # pyrefly: ignore,
    )
    return StabilisedDEQ(config).eval()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", type=int)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cell", default="convolution", choices=["convolution", "multiscale"])
    parser.add_argument("--network", default="convolutional", choices=list(HIDDEN), help="of V")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument(
        "--checks", nargs="*", default=[], choices=list(CHECKS), help="of an audit; by default it is left out"
    )
    options = parser.parse_args()
    images = torch.rand(options.images, 1, options.side, options.side, generator=torch.Generator().manual_seed(0))
    model, last = model_of(options.side, options.channels, options.cell, options.network), time.process_time()

    def tell(what: str) -> None:
        nonlocal last
        now = time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{what}: {now - last:.2f} CPU seconds, peak {peak:.2f} GB", flush=True)
        last = now

    print(f"n = {model.config.state_dim}")
    with torch.no_grad():
        h = model.inject(images)
        solution = model.solve(h)
        tell(
            f"solved in float32, {int(solution.evaluations.max())} evaluations, {solution.describe_failures() or 'converged'}"
        )
        assert model.lyapunov is not None
        z = solution.z + torch.randn(h.shape, generator=torch.Generator().manual_seed(1))
        stabilised_field(model.cell(z, h) - z, z, solution.z, model.lyapunov)
        tell("V, its gradient, the field and its projection at one state of each image")
    if not options.checks:
        return
    names: list[str] = []

    def begin(name: str) -> None:
        tell(names[-1] if names else "equilibria in float64, to 1e-11")
        names.append(f"check {name}")

    labels = torch.arange(options.images) % 10
    report = audit(model, images, labels, checks=options.checks, on_check=begin)
    tell(names[-1])
    for finding in report.findings:
        print(f"{finding.verdict:<13} {finding.check}.{finding.name}: {finding.evidence}")


if __name__ == "__main__":
    main()
