"""
A needle, found
===============

A function that is positive everywhere but in one small pocket. Random samples miss it; the falsifier, which follows
gradients and looks where the function bends, does not. This is what a verdict ``REFUTED`` rests on: a state, shrunk to short
numbers and evaluated anew.
"""

import matplotlib.pyplot as plt
import torch

from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.judge import judge
from analysis.evidence.regions import Ball
from stabdeq.lyapunov import claims

# %%
# A bowl with a pocket of radius 0.03 around (1.2, -0.7). In a disc of radius 2, one state in 4400 lies in it.
pocket = torch.tensor([1.2, -0.7], dtype=torch.float64)


def V(z):
    """(B, 2) -> (B,)."""
    depth = torch.relu(1 - (z - pocket).norm(dim=1) / 0.03)
    return z.square().sum(1) - 3 * depth


claim = Claim(
    check="positivity",
    name="positive",
    sentence="V(z) >= 0 on the disc of radius 2.",
    violation=lambda z: claims.positive(V(z), torch.zeros(len(z), dtype=z.dtype)),
    tolerance=claims.tolerance(torch.float64, 2),
)
disc = Ball(torch.zeros(2, dtype=torch.float64), 2.0)

# %%
# A thousand samples of the disc, then the judgement.
samples = disc.sample(1000, torch.Generator().manual_seed(0))
print(f"least V of 1000 samples: {V(samples).min():.4f}")

finding = judge(claim, disc, seed=0, effort=Effort(samples=1000, starts=16))
print(finding.verdict, finding.witness)

# %%
# The samples, and the witness in its pocket.
axis = torch.linspace(-2, 2, 401, dtype=torch.float64)
energy = V(torch.cartesian_prod(axis, axis)).view(401, 401)
witness = finding.witness["state"]

figure, axes = plt.subplots(figsize=(6, 5.2))
filled = axes.contourf(axis, axis, energy.T, levels=20, cmap="Blues")
figure.colorbar(filled, label="V")
axes.scatter(*samples.T, s=3, color="black", alpha=0.5, label="samples")
axes.plot(*witness, "r*", markersize=14, label="witness, V < 0")
axes.set(xlabel="$z_1$", ylabel="$z_2$", title=f"V >= 0: {finding.verdict}", aspect="equal")
axes.legend(loc="upper left")
