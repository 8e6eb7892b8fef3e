"""The rounding noise of a function near a centre, which from the outside only its values can tell.

ln(1 + x^2) is computed to an absolute 1e-16, not to a relative one, so V > 0 or V-dot <= -alpha V seem to fail next to 0.
"""

from collections.abc import Callable
from math import comb

import torch
from torch import Tensor

from analysis.evidence.sampling import directions

ORDER = 6
RAYS = 16
# So small a spacing that differences of this order are rounding alone, for anything smooth along a ray.
SPACING = 2.0**-10
# A violation has to stand this far above the noise that was measured.
NOISE_MARGIN = 64


def rounding_noise(
    function: Callable[[Tensor], Tensor], centre: Tensor, radius: float, generator: torch.Generator
) -> float:
    """Return the noise level of ``function``, (B, n) -> (B,) or (B, m), within a thousandth of ``radius`` of ``centre``.

    It is the largest over 13 radii of the median over 16 rays of a sixth difference (Moré and Wild, Estimating
    computational noise, SIAM J. Sci. Comput. 2011, section 3). A value that is not finite counts as no noise.
    """
    rays = directions(RAYS, centre.shape[0], generator)
    radii = torch.logspace(-9, -3, 13, dtype=torch.float64, device=centre.device) * radius
    steps = 1 + SPACING * torch.arange(ORDER + 1, dtype=torch.float64, device=centre.device)
    lengths = (radii[:, None] * steps)[:, None, :, None]  # (13, 1, 7, 1)
    with torch.no_grad():  # radius by radius, for a state may be large
        parts = [function((centre + length * rays[:, None]).flatten(0, 1)) for length in lengths]
    values = torch.stack(parts).reshape(len(radii), RAYS, ORDER + 1, -1)
    difference = values.diff(n=ORDER, dim=2).squeeze(2).norm(dim=2)
    level = difference.median(dim=1).values / comb(2 * ORDER, ORDER) ** 0.5
    return float(level.nan_to_num(nan=0.0, posinf=0.0).max())
