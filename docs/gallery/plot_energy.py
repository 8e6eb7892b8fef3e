"""
An energy around an equilibrium
===============================

A cell of two dimensions whose own flow never comes to rest: its equilibrium is unstable, and states end on a cycle around
it. With V centred at the equilibrium, as in the kind ``lyadeq-anchored``, the nearest field along which V falls carries
every state there, through the level sets of V, one after the other.
"""

import matplotlib.pyplot as plt
import torch

from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import InputConvexLyapunov, stabilised_field
from stabdeq.solvers import Anderson, solve

# %%
# The cell turns and stretches. Anderson's method finds its equilibrium all the same: it solves, it does not flow.
weight = torch.tensor([[1.6, 1.2], [-1.2, 1.6]])
h = torch.tensor([[0.4, -0.2]])


def cell(z):
    """The map z -> f(z, h), (B, 2) -> (B, 2)."""
    return torch.tanh(z @ weight + h)


equilibrium = solve(cell, torch.zeros(1, 2), Anderson(), tolerance=1e-6, max_evaluations=50, throw=True).z
print(f"equilibrium: {equilibrium[0].tolist()}")

# %%
# V as it is before training, its input-convex network drawn at random.
torch.manual_seed(1)
lyapunov = InputConvexLyapunov(2, LyapunovConfig(alpha=0.5, eta=0.05, smoothing=0.3), "equilibrium")


def own_field(z):
    """The cell's own field F(z, h) = f(z, h) - z, (B, 2)."""
    return cell(z) - z


def stabilised(z):
    """The field nearest to it along which V falls at the rate alpha, (B, 2)."""
    return stabilised_field(own_field(z), z, equilibrium.expand_as(z), lyapunov)


step, steps = 0.01, 1000
angles = torch.linspace(0, 2 * torch.pi, 9)[:-1]
start = equilibrium + 1.1 * torch.stack([angles.cos(), angles.sin()], 1)


def flow(field, z):
    """Return the states (steps + 1, B, 2) along ``field`` from ``z`` (B, 2), by Euler's method."""
    states = [z]
    with torch.no_grad():
        for _ in range(steps):
            states.append(states[-1] + step * field(states[-1]))
    return torch.stack(states)


# %%
# Left the cell's own flow, right the stabilised one, from the same eight states.
axis = torch.linspace(-1.5, 1.5, 121)
with torch.no_grad():
    energy = lyapunov(torch.cartesian_prod(axis, axis) - equilibrium)[0].view(121, 121)

figure, panels = plt.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
for axes, field, title in zip(panels, (own_field, stabilised), ("The cell's own field", "Stabilised"), strict=True):
    levels = axes.contourf(axis, axis, energy.T, levels=14, cmap="Blues")
    axes.plot(*flow(field, start).permute(2, 0, 1), color="tab:red", linewidth=1)
    axes.plot(*start.T, "o", color="tab:red", markersize=4)
    axes.plot(*equilibrium[0], "k*", markersize=12, label="equilibrium")
    axes.set(xlabel="$z_1$", title=title, aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5))
panels[0].set_ylabel("$z_2$")
panels[0].legend(loc="upper left")
figure.colorbar(levels, ax=panels, label="V")

# %%
# V falls as fast as was promised: V(t) is at most exp(-alpha t) V(0), and what is above 1 here is Euler's error.
states = flow(stabilised, start)
with torch.no_grad():
    energies = torch.stack([lyapunov(z - equilibrium)[0] for z in states])
promised = torch.exp(-lyapunov.alpha * step * torch.arange(steps + 1))[:, None] * energies[0]
print(f"largest V over what was promised, up to time 5: {(energies / promised)[:500].max():.4f}")
