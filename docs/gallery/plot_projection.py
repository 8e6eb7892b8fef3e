"""
The projection of a field
=========================

A field that spirals outwards, and the field nearest to it along which V falls at the promised rate. Where the field
already falls fast enough, nothing is changed.
"""

import matplotlib.pyplot as plt
import torch

from stabdeq.lyapunov import project

# %%
# V is the squared distance from the origin. The field turns, and grows on one side of the plane alone.
alpha = 1.0
axis = torch.linspace(-2, 2, 17)
z = torch.cartesian_prod(axis, axis)  # (B, 2)
growth = torch.where(z[:, :1] > 0, 0.5, -1.0)
field = torch.stack([-z[:, 1], z[:, 0]], 1) + growth * z

value, gradient = z.square().sum(1), 2 * z
projected = project(field, gradient, value, alpha)


def derivative(velocity):
    """V-dot, the slope of V along ``velocity`` (B, 2)."""
    return (gradient * velocity).sum(1)


print(f"largest V-dot + alpha V before: {(derivative(field) + alpha * value).max():.3f}")
print(f"largest V-dot + alpha V after:  {(derivative(projected) + alpha * value).max():.1e}")

# %%
# Red arrows were changed. Projected, they keep their turn and lose their growth.
changed = (projected - field).norm(dim=1) > 1e-6
figure, panels = plt.subplots(1, 2, figsize=(10, 5), sharey=True, layout="constrained")
for axes, velocity, title in zip(panels, (field, projected), ("The field F", "Its projection"), strict=True):
    axes.contour(axis, axis, value.view(17, 17).T, levels=6, colors="lightgrey", linewidths=0.8)
    colours = ["tab:red" if one else "tab:blue" for one in changed]
    axes.quiver(*z.T, *velocity.T, color=colours, angles="xy", scale=45)
    axes.set(title=title, xlabel="$z_1$", aspect="equal")
panels[0].set_ylabel("$z_2$")
