"""Objects with a known truth: V, dynamics, and the verdict that each claim about them must get.

A case names functions of this module, so that the command line can be given them too. The numbers are those of the zoo of
known answers. What cases 12 to 16 and 18 say of a V and a flow is here; what they say of models and solvers is elsewhere:

- 12, Euler steps: test_audit, an expanding field;
- 13, no equilibrium, separation 0: test_audit, a cell that ignores its state; test_projection, the origin;
- 14, Picard cycles: test_solvers, and test_audit where the flow is stable all the same;
- 15, well-posed at norm ten: test_solvers and test_audit;
- 16, a continuum and three roots: test_solvers and test_audit;
- 17, g(0) stored: here; recomputed while training: test_lyapunov;
- 18, the spectral radius of a rotation: test_audit and test_solvers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import InputConvexLyapunov, project
from stabdeq.lyapunov.input_convex import smooth_relu


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


def sink(z: Tensor) -> Tensor:
    return -z


SHEAR = torch.tensor([[-1.0, 10.0], [0.0, -1.0]], dtype=torch.float64)
SOLUTION = torch.tensor([[0.5, 2.5], [2.5, 25.5]], dtype=torch.float64)


def shear(z: Tensor) -> Tensor:
    return z @ SHEAR.T


def solved(z: Tensor) -> Tensor:
    return ((z @ SOLUTION) * z).sum(1)


def pocket(z: Tensor) -> Tensor:
    """Negative within 0.022 of (0.6, 0.8)."""
    dent = z - torch.tensor([0.6, 0.8], dtype=torch.float64)
    return square(z) - 500 * (0.05**2 - square(dent)).clamp(min=0)


def saddle_shaped(z: Tensor) -> Tensor:
    x, y = z.unbind(1)
    return x**2 * y**2 + 0.1 * (x**2 + y**2)


def clipped(z: Tensor) -> Tensor:
    x = z[:, 0]
    g = x.clamp(min=0) - (x - 1).clamp(min=0)
    return g.clamp(0, 1) ** 2 / 2 + (g - 1).clamp(min=0) + 0.01 * x**2


def nothing(z: Tensor) -> Tensor:
    return z.new_zeros(len(z))


def lifted(z: Tensor) -> Tensor:
    return square(z) + 1


def cubic(z: Tensor) -> Tensor:
    return -(z**3)


def square_root(z: Tensor) -> Tensor:
    return -z.sign() * z.abs().sqrt()


def logarithm(z: Tensor) -> Tensor:
    return torch.log(1 + z[:, 0] ** 2) + z[:, 1] ** 2


def coupled(z: Tensor) -> Tensor:
    x, y = z.unbind(1)
    return torch.stack([-x + x * y, -y], 1)


def van_der_pol(z: Tensor) -> Tensor:
    x, y = z.unbind(1)
    return torch.stack([-y, x + (x**2 - 1) * y], 1)


def van_der_pol_energy(z: Tensor) -> Tensor:
    x, y = z.unbind(1)
    return 1.5 * x**2 - x * y + y**2


def pendulum(z: Tensor) -> Tensor:
    angle, speed = z.unbind(1)
    return torch.stack([speed, -angle.sin() - 0.5 * speed], 1)


def pendulum_energy(z: Tensor) -> Tensor:
    return 1 - z[:, 0].cos() + z[:, 1] ** 2 / 2


def projected(z: Tensor) -> Tensor:
    """F = z made to decay at rate 1: V-dot = -V to rounding."""
    return project(z, 2 * z, square(z), 1.0)


FEATURES = torch.tensor([1.0, 0.5], dtype=torch.float64)


def projected_at_origin(z: Tensor) -> Tensor:
    """Case 13: a cell that ignores its state, with V centred at 0: the field never rests, and jumps at the origin."""
    return project(FEATURES - z, 2 * z, square(z), 1.0)


def clipped_cell(z: Tensor) -> Tensor:
    """Case 14: the flow is stable at 1, where Picard's iteration cycles."""
    return (4 - 3 * z).relu() - z


ROTATION = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


def tenfold_rotation(z: Tensor) -> Tensor:
    """Case 15: z* = (0, 2) for h = (1, 2)."""
    return (10 * z @ ROTATION.T + torch.tensor([1.0, 2.0], dtype=torch.float64)).relu() - z


def solved_at_rest(z: Tensor) -> Tensor:
    """The quadratic V of case 15 around (0, 2): A'P + PA = -I with A = [[-1, 0], [10, -1]] of the active side."""
    offset = (z - torch.tensor([0.0, 2.0], dtype=torch.float64)).flip(1)
    return solved(offset)


def continuum(z: Tensor) -> Tensor:
    return z.relu() - z


def three_roots(z: Tensor) -> Tensor:
    return 3 * (z - 1).relu() - 3 * (z - 2).relu() - z


def turning(z: Tensor) -> Tensor:
    """Case 18: 0.99 times a rotation by 90 degrees, less the state."""
    return 0.99 * z @ ROTATION.T - z


def around_one(z: Tensor) -> Tensor:
    return square(z - 1)


def around_three_halves(z: Tensor) -> Tensor:
    return square(z - 1.5)


def around_three(z: Tensor) -> Tensor:
    return square(z - 3)


def square_of_array(z: np.ndarray) -> np.ndarray:
    return np.einsum("bi,bi->b", z, z)


def pendulum_energy_of_array(z: np.ndarray) -> np.ndarray:
    return 1 - np.cos(np.asarray(z)[:, 0]) + np.asarray(z)[:, 1] ** 2 / 2


class FrozenLyapunov(nn.Module):
    """Case 17: g(0) is stored at construction, and then the weights move, here so that V rises."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.skip = nn.Linear(3, 8), nn.Linear(3, 1)
        with torch.no_grad():
            self.register_buffer("stored", self.g(torch.zeros(1, 3)))
        above = self.skip.weight.detach().clone()
        for _ in range(5):
            self.zero_grad()
            self(above).sum().backward()
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter += 0.1 * parameter.grad

    def g(self, z: Tensor) -> Tensor:
        return smooth_relu(self.inner(z), 1.0).sum(1) + self.skip(z).squeeze(1)

    def forward(self, z: Tensor) -> Tensor:
        return smooth_relu(self.g(z) - self.stored, 1.0) + 0.1 * square(z)


class Structured(InputConvexLyapunov):
    """Of the library's own class but in name: a subclass may change anything, so its structure proves nothing."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(3, LyapunovConfig(hidden=8), "origin")


def structured() -> InputConvexLyapunov:
    """Case 17: V of the library's own class, as a user has it, which returns grad V too."""
    torch.manual_seed(0)
    return InputConvexLyapunov(3, LyapunovConfig(hidden=8), "origin")


class Learned(nn.Module):
    """The paper's V, as it should be: g(0) is recomputed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lyapunov = InputConvexLyapunov(3, LyapunovConfig(hidden=8), "origin")

    def forward(self, z: Tensor) -> Tensor:
        return self.lyapunov(z)[0]


@dataclass(frozen=True)
class Case:
    """One row of the table of known answers: options of ``stabdeq check`` and the truth of one claim."""

    number: int
    value: str
    claim: str
    is_valid: bool
    dim: int = 2
    dynamics: str | None = None
    alpha: float | None = None
    radius: float | None = None
    sublevel: float | None = None
    centre: float | str | None = None

    def arguments(self) -> list[str]:
        """The command line that judges this claim."""
        options = [f"zoo:{self.value}", "--dim", str(self.dim), "--claims", self.claim]
        options += ["--dynamics", f"zoo:{self.dynamics}"] if self.dynamics else []
        for name in ("alpha", "radius", "sublevel", "centre"):
            given = getattr(self, name)
            options += [f"--{name}", str(given)] if given is not None else []
        return options

    def __str__(self) -> str:
        given = (self.dynamics, self.alpha, self.sublevel, self.radius, self.centre)
        details = "".join(f"-{option}" for option in given if option is not None)
        return f"{self.number}-{self.value}-{self.claim}{details}-{'valid' if self.is_valid else 'invalid'}"


CASES = [
    Case(1, "square", "decay", True, dynamics="sink", alpha=2),
    Case(1, "square", "decay", False, dynamics="sink", alpha=2.001),
    Case(1, "square_of_array", "decay", True, dynamics="sink", alpha=2),
    Case(1, "square_of_array", "decay", False, dynamics="sink", alpha=2.001),
    Case(1, "square", "equilibrium", True, dynamics="sink"),
    Case(1, "square", "invariant", True, dynamics="sink", sublevel=3),
    Case(2, "square", "decrease", False, dynamics="shear"),
    Case(2, "square", "invariant", False, dynamics="shear", sublevel=1),
    Case(2, "solved", "decrease", True, dynamics="shear"),
    Case(2, "solved", "positive", True),
    Case(3, "pocket", "positive", False, radius=2),
    Case(3, "pocket", "zero", True, radius=2),
    Case(4, "saddle_shaped", "positive", True, radius=3),
    Case(4, "saddle_shaped", "convex", False, radius=3),
    Case(5, "clipped", "convex", False, dim=1, radius=3),
    Case(5, "clipped", "positive", True, dim=1, radius=3),
    Case(6, "nothing", "zero", True),
    Case(6, "nothing", "positive", False),
    Case(6, "lifted", "zero", False),
    Case(6, "lifted", "positive", True),
    Case(7, "square", "decrease", True, dim=1, dynamics="cubic"),
    Case(7, "square", "decay", False, dim=1, dynamics="cubic", alpha=0.5),
    Case(7, "square", "decay", False, dim=1, dynamics="cubic", alpha=1e-4),
    Case(8, "square", "decay", True, dim=1, dynamics="square_root", alpha=2, radius=0.999),
    Case(8, "square", "decay", False, dim=1, dynamics="square_root", alpha=2, radius=1.001),
    Case(9, "logarithm", "decrease", True, dynamics="coupled"),
    Case(9, "logarithm", "decrease", True, dynamics="coupled", radius=1000),
    Case(9, "logarithm", "decay", False, dynamics="coupled", alpha=0.5, radius=10),
    Case(9, "logarithm", "decay", False, dynamics="coupled", alpha=0.1, radius=1e5),
    Case(9, "logarithm", "positive", True),
    Case(9, "logarithm", "proper", True),
    Case(10, "van_der_pol_energy", "decrease", True, dynamics="van_der_pol", sublevel=2.3),
    Case(10, "van_der_pol_energy", "decrease", False, dynamics="van_der_pol", sublevel=2.31),
    Case(10, "van_der_pol_energy", "invariant", True, dynamics="van_der_pol", sublevel=2.3),
    Case(10, "van_der_pol_energy", "invariant", False, dynamics="van_der_pol", sublevel=2.31),
    Case(11, "pendulum_energy", "positive", True),
    Case(11, "pendulum_energy", "decrease", False, dynamics="pendulum"),
    Case(11, "pendulum_energy_of_array", "decrease", False, dynamics="pendulum"),
    Case(11, "pendulum_energy_of_array", "positive", True),
    Case(11, "pendulum_energy", "decay", False, dynamics="pendulum", alpha=0.1),
    Case(12, "square", "decay", True, dynamics="projected", alpha=1, radius=10),
    Case(13, "square", "equilibrium", False, dynamics="projected_at_origin"),
    Case(14, "around_one", "equilibrium", True, dim=1, dynamics="clipped_cell", centre=1),
    Case(14, "around_one", "decay", True, dim=1, dynamics="clipped_cell", alpha=2, radius=100, centre=1),
    Case(14, "around_one", "decay", False, dim=1, dynamics="clipped_cell", alpha=8.01, centre=1),
    Case(15, "solved_at_rest", "equilibrium", True, dynamics="tenfold_rotation", centre="0,2"),
    Case(15, "solved_at_rest", "decrease", True, dynamics="tenfold_rotation", radius=0.18, centre="0,2"),
    Case(15, "solved_at_rest", "positive", True, centre="0,2"),
    Case(16, "square", "decrease", False, dim=1, dynamics="continuum"),
    Case(16, "square", "decrease", True, dim=1, dynamics="three_roots", radius=1.4),
    Case(16, "square", "decrease", False, dim=1, dynamics="three_roots", radius=1.6),
    Case(16, "around_three_halves", "equilibrium", True, dim=1, dynamics="three_roots", centre=1.5),
    Case(16, "around_three_halves", "decrease", False, dim=1, dynamics="three_roots", radius=0.4, centre=1.5),
    Case(16, "around_three", "decrease", True, dim=1, dynamics="three_roots", radius=1.4, centre=3),
    Case(18, "square", "decay", True, dynamics="turning", alpha=2),
    Case(18, "square", "decay", False, dynamics="turning", alpha=2.01),
    Case(17, "FrozenLyapunov", "zero", False, dim=3),
    Case(17, "structured", "zero", True, dim=3),
    Case(17, "structured", "positive", True, dim=3),
    Case(17, "structured", "convex", True, dim=3),
    Case(17, "structured", "proper", True, dim=3),
    Case(17, "Learned", "zero", True, dim=3),
    Case(17, "Learned", "convex", True, dim=3),
    Case(17, "Learned", "positive", True, dim=3),
]
