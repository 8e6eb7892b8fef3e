"""Hypothesis profiles, chosen by the environment variable HYPOTHESIS_PROFILE, and one thread for small tensors."""

import os

import torch
from hypothesis import settings

settings.register_profile("dev", max_examples=10, deadline=None)
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("thorough", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# The tensors are small: threads would cost more than they bring, and may change the order of sums.
torch.set_num_threads(1)
