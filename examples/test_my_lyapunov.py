import torch
from hypothesis import given

from stabdeq.testing import assert_decay, assert_positive_definite, states_in_ball


def V(z):  # states (B, 2) -> (B,)
    return z[:, 0] ** 2 + z[:, 0] * z[:, 1] + z[:, 1] ** 2


def F(z):  # states (B, 2) -> velocities (B, 2): a damped oscillator
    return torch.stack([z[:, 1], -z[:, 0] - z[:, 1]], 1)


@given(states_in_ball(2, radius=3.0))
def test_my_energy_decays(states):
    assert_positive_definite(V, states)
    assert_decay(V, F, states, alpha=1.0)
