"""Functions exported to ONNX, and the VNN-LIB instances: their meaning on states, and the files as VNN-COMP wants them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from analysis.user_function.onnx_files import load_onnx
from benchmarks.onnx_export import export_onnx
from benchmarks.vnnlib import Instance, around, exact, instances, main, outputs
from stabdeq.errors import ConfigError

BOX = [(-1.0, 2.0), (-1.5, 1.0)]
LEVEL = 4.0


def V(z: Tensor) -> Tensor:
    return 1.5 * z[:, 0] ** 2 - z[:, 0] * z[:, 1] + z[:, 1] ** 2


def f(z: Tensor) -> Tensor:
    """The reversed Van der Pol oscillator."""
    return torch.stack([-z[:, 1], z[:, 0] + (z[:, 0] ** 2 - 1) * z[:, 1]], 1)


def step(z: Tensor) -> Tensor:
    return z + 0.5 * f(z)


def draw(count: int, box: list[tuple[float, float]], seed: int = 0) -> Tensor:
    ends = torch.tensor(box, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return ends[:, 0] + (ends[:, 1] - ends[:, 0]) * torch.rand(
        count, len(box), generator=generator, dtype=torch.float64
    )


def network(*layers: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    return nn.Sequential(*layers).double().requires_grad_(False)


def mixed(z: Tensor) -> Tensor:
    """Many operations at once, with their edges where states lie."""
    a, b = z.unbind(1)
    steps = torch.where((a > 0.1) & ~(b >= 0.3), a, b.sign()) + torch.clamp(a, -0.5) + torch.clamp(b, max=0.4)
    smooth = torch.exp(a) + torch.log1p(b * b) + torch.expm1(b) + torch.atan(a) + torch.sqrt(2 + a) - torch.rsqrt(2 + b)
    moved = torch.stack([z.T[0], z[:, [1, 0]].amax(1)], -1).mean(1)
    powers = 2 - a**3 + 1 / (3 + b)
    return torch.stack([steps, smooth + moved, powers + torch.tan(a / 2), torch.square(a).add(b, alpha=0.3)], 1)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": network(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)),
    "relu": network(nn.Linear(2, 5, bias=False), nn.ReLU(), nn.Linear(5, 3), nn.Sigmoid()),
    "leaky": network(nn.Linear(2, 5), nn.LeakyReLU(0.1), nn.Linear(5, 3), nn.Softplus()),
    "elu": network(nn.Linear(2, 5), nn.ELU(), nn.Hardtanh(-0.3, 0.4), nn.Linear(5, 3)),
    "mixed": mixed,
    "slices": lambda z: torch.cat([z[:, ::2], z[:, 1:], z.T.mT[:, -2:-1]], 1),
    "f": f,
    "Lie derivative": outputs(V, f, None, 0.0),
    "Lie derivative of a network": outputs(
        lambda z: FUNCTIONS["leaky"](z).square().sum(1) + FUNCTIONS["relu"](z)[:, 0].abs(), f, None, 0.0
    ),
    "next state": outputs(V, None, step, 0.25),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exported_function_has_the_same_values(name: str, tmp_path: Path) -> None:
    export_onnx(FUNCTIONS[name], draw(64, BOX), tmp_path / "g.onnx")
    states = draw(500, BOX, seed=1)
    found, expected = load_onnx(tmp_path / "g.onnx")(states), FUNCTIONS[name](states).detach()
    assert torch.allclose(found, expected, rtol=1e-13, atol=1e-14)


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"aten.special_bessel_j0.default has no form in ONNX here; known: aten"):
        export_onnx(lambda z: torch.special.bessel_j0(z), draw(8, BOX), tmp_path / "g.onnx")
    with pytest.raises(ConfigError, match="are not those on another"):
        export_onnx(lambda z: z if float(z.shape[0]) == 1 else z + 1, draw(8, BOX), tmp_path / "g.onnx")
    assert not list(tmp_path.iterdir())


def test_derivative_along_the_flow() -> None:
    states = draw(100, BOX)
    x, y = states.unbind(1)
    found = outputs(V, f, None, 0.0)(states)
    velocity = f(states)
    expected = (3 * x - y) * velocity[:, 0] + (2 * y - x) * velocity[:, 1]
    assert torch.allclose(found, torch.stack([V(states), expected], 1), rtol=1e-13)


def satisfied(text: str, states: Tensor, found: Tensor) -> Tensor:
    """Whether each state and what the function gives there satisfy a VNN-LIB file, read by its own words."""

    def holds(expression: str) -> Tensor:
        sign, name, place, bound = re.fullmatch(r"\((<=|>=) ([XY])_(\d+) (-?\d+(?:\.\d+)?)\)", expression).groups()  # type: ignore
        number = (states if name == "X" else found)[:, int(place)]
        return number <= float(bound) if sign == "<=" else number >= float(bound)

    result = torch.ones(len(states), dtype=torch.bool)
    for line in re.findall(r"^\(assert (\([<>].*\))\)$", text, re.MULTILINE):
        result &= holds(line)
    (alternatives,) = re.findall(r"\(assert \(or\n(.*)\n\)\)", text, re.DOTALL)
    parts = [holds(one) for one in re.findall(r"\(and (.*)\)", alternatives)]
    return result & torch.stack(parts).any(0)


@pytest.mark.parametrize("is_discrete", [False, True])
def test_the_states_that_satisfy_a_file_are_those_that_violate_the_claim(is_discrete: bool) -> None:
    """By formulas of this test; also on the edges, which random states miss."""
    function = outputs(V, None, step, 0.25) if is_discrete else outputs(V, f, None, 0.0)
    hole, centre = 0.25, [0.25, 0.0]
    grid = torch.cartesian_prod(*(torch.linspace(low - 0.5, high + 0.5, 33, dtype=torch.float64) for low, high in BOX))
    states = torch.cat([draw(2000, [(-1.2, 2.2), (-1.7, 1.2)]), grid, torch.tensor([[0.5, 0.0], [0.0, 0.25]]).double()])
    found = function(states)
    ends = torch.tensor(BOX).double()
    in_box = ((states >= ends[:, 0]) & (states <= ends[:, 1])).all(1)
    off_centre = ((states - torch.tensor(centre).double()).abs() >= hole).any(1)
    value, below = V(states), V(states) <= LEVEL
    rise = V(step(states)) - 0.75 * value if is_discrete else found[:, 1]
    violates = {"positive": in_box & off_centre & (value <= 0), "decrease": in_box & off_centre & below & (rise >= 0)}
    if is_discrete:
        after = step(states)
        violates["inside"] = in_box & below & ~((after > ends[:, 0]) & (after < ends[:, 1])).all(1)
    else:
        on_faces = ((states == ends[:, 0]) | (states == ends[:, 1])).any(1)
        violates["closed"] = in_box & on_faces & below
    satisfies = {name: torch.zeros(len(states), dtype=torch.bool) for name in violates}
    for one in instances(BOX, centre, hole, LEVEL, is_discrete=is_discrete):
        satisfies[one.claim] |= satisfied(one.text(found.shape[1]), states, found)
    for name, expected in violates.items():
        assert torch.equal(satisfies[name], expected), name
    assert bool(violates["decrease"].any())


def test_boxes_around_the_centre_cover_all_but_the_hole() -> None:
    box, centre = [(-1.0, 1.0)] * 3, [0.0, 0.1, 0.0]
    parts = around(box, centre, 0.1)
    assert len(parts) == 6
    states = draw(5000, box)
    inside = [((states >= torch.tensor(part)[:, 0]) & (states <= torch.tensor(part)[:, 1])).all(1) for part in parts]
    covered = torch.stack(inside).any(0)
    in_hole = ((states - torch.tensor(centre).double()).abs() < 0.1).all(1)
    assert torch.equal(covered, ~in_hole)
    assert around(box, centre, 0.0) == [box]


def test_numbers_are_exact() -> None:
    for number in (0.1, -1e-9, 3.0, 1e22, -0.75):
        text = exact(number)
        assert re.fullmatch(r"-?\d+(\.\d+)?", text)
        assert float(text) == number


def test_text_of_an_instance() -> None:
    assert Instance("inside", [(-1.0, 2.0)], ["(<= Y_0 0.5)"], ["(<= Y_2 -1.0)", "(>= Y_2 2.0)"]).text(3) == (
        "; The negation of the claim 'inside' on a box of states.\n\n"
        "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n(declare-const Y_2 Real)\n"
        "(assert (>= X_0 -1))\n(assert (<= X_0 2))\n(assert (<= Y_0 0.5))\n"
        "(assert (or\n    (and (<= Y_2 -1.0))\n    (and (>= Y_2 2.0))\n))\n"
    )


def test_command_writes_what_vnn_comp_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    region = ["--low", "-1", "--high", "2", "1.5", "--hole", "0.1", "--level", "0.5", "--timeout", "60"]
    where = ["--dim", "2", "--out", str(tmp_path / "out"), "--name", "vdp"]
    main(["test_vnnlib:V", "--step", "test_vnnlib:step", "--kappa", "0.25", *region, *where])
    rows = [row.split(",") for row in (tmp_path / "out" / "instances.csv").read_text().splitlines()]
    assert capsys.readouterr().out.startswith(f"{len(rows)} instances")
    assert [Path(row[1]).stem.split("_")[1] for row in rows] == ["positive"] * 4 + ["decrease"] * 4 + ["inside"]
    assert {row[0] for row in rows} == {"onnx/vdp.onnx"}
    assert {row[2] for row in rows} == {"60"}
    states = draw(20, [(-1.0, 2.0), (-1.0, 1.5)])
    found = load_onnx(tmp_path / "out" / "onnx" / "vdp.onnx")(states)
    assert torch.allclose(found, outputs(V, None, step, 0.25)(states), rtol=1e-13, atol=1e-15)
    for row in rows:
        satisfied((tmp_path / "out" / row[1]).read_text(), states, found)
    with pytest.raises(ConfigError, match="low < centre - hole"):
        main(["test_vnnlib:V", "--step", "test_vnnlib:step", *region, *where, "--centre", "2"])
