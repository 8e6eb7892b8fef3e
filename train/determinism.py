"""Training whose every bit depends on the recipe and the data alone, on one machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic() -> Iterator[None]:
    """Let PyTorch use one thread, and kernels that give the same bits at every call, within the block.

    Sums are otherwise ordered by the number of threads, and on a GPU by chance. Another processor, or another version of PyTorch,
    still rounds otherwise. On a GPU, what has no such kernel raises RuntimeError.
    """
    threads = torch.get_num_threads()
    was_on, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first call
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=warned)
        torch.set_num_threads(threads)
