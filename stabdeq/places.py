"""States on places: C numbers at each of H x W places, held as vectors of C H W numbers in the order of (C, H, W)."""

from stabdeq.errors import ConfigError
from stabdeq.sizes import require_sizes

Shape = tuple[int, int, int]
Places = tuple[int, int]


def places_after(stride: int, image_shape: Shape) -> Places:
    """Return the places (H, W) of every ``stride``-th pixel of images (C, H, W), in each row and column from the first on."""
    _, height, width = image_shape
    return -(-height // stride), -(-width // stride)


def shape_of(state_dim: int, places: Places) -> Shape:
    """Return the shape (C, H, W) of states of ``state_dim`` numbers on H W ``places``; raise ConfigError where there is none."""
    height, width = places
    require_sizes("states on places", state_dim=state_dim, height=height, width=width)
    channels, left = divmod(state_dim, height * width)
    if left or not channels:
        least = height * width
        raise ConfigError(
            f"model.state_dim = {state_dim} on {height} x {width} places: expected a multiple of {least}, such as {16 * least} for 16 "
            "channels"
        )
    return channels, height, width
