"""
Three solvers on a known spectrum
=================================

Picard's residual shrinks by the spectral radius of the map with every evaluation. Anderson's and Broyden's methods
remember, and need fewer. Where the spectral radius is above 1, Picard leaves, and they can still arrive.
"""

import matplotlib.pyplot as plt
import torch

from stabdeq.solvers import Anderson, Broyden, Picard, solve

# %%
# The map z -> A z + b of 64 dimensions, its symmetric A with eigenvalues spread evenly between two numbers.
generator = torch.Generator().manual_seed(0)
rotation = torch.linalg.qr(torch.randn(64, 64, generator=generator, dtype=torch.float64)).Q
b = torch.randn(1, 64, generator=generator, dtype=torch.float64)


def residuals(solver, least, largest):
    """Return the residual after each evaluation of the map with eigenvalues from ``least`` to ``largest``."""
    matrix = rotation @ torch.diag(torch.linspace(least, largest, 64, dtype=torch.float64)) @ rotation.T
    solution = solve(
        lambda z: z @ matrix + b, torch.zeros_like(b), solver, tolerance=1e-10, max_evaluations=120, trace=True
    )
    return solution.trace.residual[: int(solution.evaluations), 0]


# %%
# A map that contracts well, one that barely does, and one that expands in some directions.
figure, panels = plt.subplots(1, 3, figsize=(11, 4), sharey=True, layout="constrained")
for axes, (least, largest) in zip(panels, ((-0.5, 0.8), (-0.5, 0.98), (-1.5, 0.5)), strict=True):
    for solver in (Picard(), Anderson(window=5), Broyden()):
        curve = residuals(solver, least, largest)
        axes.semilogy(range(1, len(curve) + 1), curve, label=type(solver).__name__)
    axes.set(title=f"eigenvalues {least:g} to {largest:g}", xlabel="evaluations of the map", ylim=(1e-11, 1e2))
    axes.grid(alpha=0.3)
panels[0].set_ylabel("residual")
panels[0].legend()
