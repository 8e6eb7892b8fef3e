"""Whether a module still computes what its class and weights say: proofs from the weights hold of no other."""

from torch import nn


def is_altered(module: nn.Module, *methods: str) -> bool:
    """Return whether ``forward`` or one of ``methods`` was replaced on ``module`` itself, or a hook changes what it computes."""
    replaced = {"forward", *methods} & vars(module).keys()
    return bool(replaced or module._forward_hooks or module._forward_pre_hooks)
