"""Hypothesis strategies and properties to test a Lyapunov function, a vector field or a projection in one's own suite.

A property takes the functions and a batch of states, and raises AssertionError where its claim fails at one of them, with
a line to paste as a regression test. Hypothesis shrinks the states first::

    from hypothesis import given
    from stabdeq.testing import assert_decay, states_in_ball

    @given(states_in_ball(2, radius=3.0))
    def test_my_energy_decays(states):
        assert_decay(my_energy, my_dynamics, states, alpha=0.1)
"""

from stabdeq.testing.attack import assert_attack
from stabdeq.testing.cells import KnownCell, contracting_cells, expanding_cells
from stabdeq.testing.contraction import assert_contraction
from stabdeq.testing.descent import assert_decay, assert_decrease, assert_equilibrium, assert_invariant
from stabdeq.testing.dynamics import (
    CubicDynamics,
    LinearDynamics,
    stable_cubic,
    stable_linear,
    stable_nonnormal,
    unstable_cubic,
    unstable_linear,
)
from stabdeq.testing.flow import assert_flow_decays
from stabdeq.testing.functions import Field, Step, Value
from stabdeq.testing.half_space import Projection, assert_projection
from stabdeq.testing.networks import input_convex_networks, lyapunov_functions
from stabdeq.testing.proof import assert_proved
from stabdeq.testing.shape import assert_convex, assert_positive_definite, assert_zero_at_centre
from stabdeq.testing.solver import assert_solver
from stabdeq.testing.states import (
    states_along_trajectories,
    states_between_levels,
    states_in_ball,
    states_in_box,
    states_near_centre,
    states_on_set,
    states_on_shells,
)
from stabdeq.testing.steps import assert_step_decrease, assert_step_invariant, assert_step_rests

__all__ = [
    "CubicDynamics",
    "Field",
    "KnownCell",
    "LinearDynamics",
    "Projection",
    "Step",
    "Value",
    "assert_attack",
    "assert_contraction",
    "assert_convex",
    "assert_decay",
    "assert_decrease",
    "assert_equilibrium",
    "assert_flow_decays",
    "assert_invariant",
    "assert_positive_definite",
    "assert_projection",
    "assert_proved",
    "assert_solver",
    "assert_step_decrease",
    "assert_step_invariant",
    "assert_step_rests",
    "assert_zero_at_centre",
    "contracting_cells",
    "expanding_cells",
    "input_convex_networks",
    "lyapunov_functions",
    "stable_cubic",
    "stable_linear",
    "stable_nonnormal",
    "states_along_trajectories",
    "states_between_levels",
    "states_in_ball",
    "states_in_box",
    "states_near_centre",
    "states_on_set",
    "states_on_shells",
    "unstable_cubic",
    "unstable_linear",
]
