"""Which seeds there are: those of PyTorch's generators."""

from stabdeq.errors import ConfigError


def require_seed(seed: int) -> None:
    """Raise ConfigError where ``seed`` is no whole number from 0 to 2^63 - 1."""
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ConfigError(f"seed = {seed}: expected a whole number from 0 to 2^63 - 1")
