"""A cell of several resolutions at once, each fed by all (Bai, Koltun and Kolter 2020), on states that are held as vectors."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.cells.batchnorm import INNER_GAIN
from stabdeq.cells.convolution import ConvolutionCell
from stabdeq.cells.equilibrium import EquilibriumCell
from stabdeq.errors import ConfigError
from stabdeq.places import Places
from stabdeq.sizes import require_sizes

RESOLUTIONS = 3
SIDE = 2 ** (RESOLUTIONS - 1)  # places of the finest resolution, in height and in width, to one of the coarsest
# So many channels at the finest places hold as many numbers as 16 channels at each resolution: 16 + 4 + 1.
LAID_OUT, CHANNELS = sum(4**r for r in range(RESOLUTIONS)), SIDE**2


class MultiscaleCell(EquilibriumCell):
    """f_r(z, h) = N(relu(h_r + sum over s of T_rs N(relu(W_s * z_s + b_s)))), r = 0, 1, 2, for states (B, n) of three resolutions.

    z_r has C channels at H / 2^r x W / 2^r places; W_s are 3 x 3 convolutions and N GroupNorms as in ``ConvolutionCell``. T_rs is a
    3 x 3 convolution where r = s, to coarser places one of the 2^(r-s) x 2^(r-s) patches, to finer ones a 1 x 1 convolution whose
    numbers are repeated. A state is a vector of n = 21/16 C H W numbers in the order of ``shape`` (21/16 C, H, W): the C channels
    of z_0, then C/4 and C/16 channels, in which the 4^r channels at a place of z_r lie beside each other as 2^r x 2^r places. So
    features, V and the head have places for all resolutions. Nothing proves that there is an equilibrium: an audit looks for it.

    Raises ConfigError where H or W is no multiple of 4, or n none of 21 H W.
    """

    reads_places = True

    def __init__(self, state_dim: int, places: Places) -> None:
        super().__init__()
        self.state_dim, self.places = state_dim, places
        self.shape = _laid_out(state_dim, places)
        channels = self.channels = self.shape[0] // LAID_OUT * CHANNELS
        every = range(RESOLUTIONS)
        self.inner = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in every)
        self.inner_norm = nn.ModuleList(ConvolutionCell.norm(channels, INNER_GAIN) for _ in every)
        self.fusion = nn.ModuleList(_Fusion(channels, r) for r in every)
        self.outer_norm = nn.ModuleList(ConvolutionCell.norm(channels, 1.0) for _ in every)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n)."""
        hidden = [
            norm(functional.relu(convolution(part)))
            for part, convolution, norm in zip(self.parts(z), self.inner, self.inner_norm, strict=True)
        ]
        fused = [
            norm(functional.relu(features + fusion(hidden)))
            for features, fusion, norm in zip(self.parts(h), self.fusion, self.outer_norm, strict=True)
        ]
        return self.joined(fused)

    def parts(self, z: Tensor) -> list[Tensor]:
        """Return the resolutions (B, C, H / 2^r, W / 2^r) of states ``z`` (B, n), the finest first."""
        sizes = [self.channels // 4**r for r in range(RESOLUTIONS)]
        laid_out = z.reshape(-1, *self.shape).split(sizes, 1)
        return [_unshuffled(part, 2**r) for r, part in enumerate(laid_out)]

    def joined(self, parts: list[Tensor]) -> Tensor:
        """Return the states (B, n) of which ``parts`` are the resolutions."""
        return torch.cat([functional.pixel_shuffle(part, 2**r) for r, part in enumerate(parts)], 1).flatten(1)


def _unshuffled(laid_out: Tensor, factor: int) -> Tensor:
    """Return the places (B, C, H, W) of a resolution as its channels (B, C factor^2, H / factor, W / factor)."""
    if not len(laid_out):  # of no samples PyTorch returns the shape as it was
        _, channels, height, width = laid_out.shape
        return laid_out.reshape(0, channels * factor**2, height // factor, width // factor)
    return functional.pixel_unshuffle(laid_out, factor)


class _Fusion(nn.ModuleList):
    """What a resolution, the ``target``, reads of all: of each a linear map, summed."""

    def __init__(self, channels: int, target: int) -> None:
        super().__init__(_between(channels, source, target) for source in range(RESOLUTIONS))

    def forward(self, hidden: list[Tensor]) -> Tensor:
        """Return the sum (B, C, h, w) over the resolutions ``hidden``."""
        return torch.stack([carry(one) for one, carry in zip(hidden, self, strict=True)]).sum(0)


def _between(channels: int, source: int, target: int) -> nn.Module:
    """Return the linear map from resolution ``source`` to resolution ``target``."""
    if source == target:
        return nn.Conv2d(channels, channels, 3, padding=1)
    factor = 2 ** abs(target - source)
    if source < target:
        return nn.Conv2d(channels, channels, factor, stride=factor)
    return nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Upsample(scale_factor=factor))


def _laid_out(state_dim: int, places: Places) -> tuple[int, int, int]:
    """Return the shape (21/16 C, H, W) of states of ``state_dim`` numbers; raise ConfigError where there is none."""
    height, width = places
    require_sizes("cell multiscale", state_dim=state_dim, height=height, width=width)
    if height % SIDE or width % SIDE:
        raise ConfigError(
            f"cell multiscale halves its places twice, and {height} x {width} do not halve so: expected multiples of {SIDE}; set "
            "another model.backbone, such as conv, or data.resize for images of your own"
        )
    least = LAID_OUT * height * width
    if state_dim % least:
        raise ConfigError(
            f"model.state_dim = {state_dim} in cell multiscale on {height} x {width} places: expected a multiple of {least}, which is "
            f"{CHANNELS} channels at each of {RESOLUTIONS} resolutions"
        )
    return state_dim // (height * width), height, width
