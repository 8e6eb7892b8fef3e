"""The region as a picture: what it names, in every format, and what it refuses."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from barrier_problems import prajna_barrier, prajna_flow, prajna_initial, prajna_unsafe
from check_runs import run
from torch import Tensor
from zoo import sink, square

import stabdeq
from stabdeq.errors import ConfigError

pytestmark = pytest.mark.usefixtures("short_hunts")

SMALL: dict[str, Any] = {"samples": 256, "starts": 4}


def drawn(path: Path, *functions: Any, **options: Any) -> str:
    """Return the text of the SVG file that a check of ``functions`` draws."""
    stabdeq.check(*functions, dim=2, figure=path / "region.svg", **SMALL | options)
    return (path / "region.svg").read_text(encoding="utf-8")


def test_the_title_has_the_verdicts_and_the_legend_what_is_shown(tmp_path: Path) -> None:
    svg = drawn(tmp_path, square, sink, sublevel=0.5, from_level=0.01, radius=1.0, claims=["positive", "decrease"])
    for words in (
        "square along sink, on the set",
        "PROVED: positive, decrease",
        "{V ≤ 0.5}, seen along rays from the centre",
        "{V &lt; 0.01}, left out",
        "the ball of radius 1 around the centre",
        "level sets of V",
        "velocity",
        "centre",
    ):
        assert f">{words}" in svg
    assert "REFUTED" not in svg
    assert "refutes" not in svg


def test_a_state_that_refutes_claims_is_marked_once(tmp_path: Path) -> None:
    svg = drawn(tmp_path, square, lambda states: states, box=(-1, 1), claims=["decrease", "equilibrium"])
    assert ">REFUTED: decrease<" in svg
    assert ">PROVED: equilibrium<" in svg
    assert svg.count(">refutes decrease<") == 1
    assert ">the box [−1, 1]^2<" in svg


def test_a_set_that_is_small_in_its_ball_is_shown_larger(tmp_path: Path) -> None:
    svg = drawn(tmp_path, square, sink, sublevel=0.01, radius=5.0, claims=["decrease"])
    assert ">0.1<" in svg  # a tick of the axes
    assert ">the ball of radius 5" not in svg  # it lies beyond what is shown


def test_parts_of_the_set_that_are_not_judged_stay_white(tmp_path: Path) -> None:
    def pits(states: Tensor) -> Tensor:
        x, y = states.unbind(1)
        return x**2 * (x - 1) ** 2 + y**2

    fill = "fill: #0b6bb8"
    svg = drawn(tmp_path, pits, sublevel=0.05, box=[(-1, 2), (-1, 1)], claims=["zero"])
    area = next(part for part in svg.split("<path d=")[1:] if fill in part and "stroke" not in part)
    across = [float(word) for word in re.findall(r"[ML] ([\d.]+) ", area)]
    axes = re.search(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)
    assert axes is not None
    left, width = float(axes[1]), float(axes[2])
    # The pit around x = 1 is cut off by the ridge at 1/2: x = -1 and 2 are the ends of the axes but for a margin.
    assert max(across) < left + width * (0.5 + 1.09) / 3.18 + 1


def test_steps_are_arrows_of_a_length_that_is_said(tmp_path: Path) -> None:
    svg = drawn(tmp_path, square, step=lambda states: 0.99 * states, claims=["decrease"], inner_radius=0.1)
    assert ">z to z+, drawn at 20 times their length<" in svg
    assert ">within 0.1 of the centre, left out<" in svg


def test_disturbances_are_shown_at_their_middle(tmp_path: Path) -> None:
    def push(states: Tensor, force: Tensor) -> Tensor:
        return -states + force

    options = {"uncertain": push, "disturbance": (-0.1, 0.1), "box": (-1, 1), "claims": ["decrease"]}
    assert ">velocity, the middle disturbance<" in drawn(tmp_path, square, from_level=0.1, **options)


def pendulum(states: Tensor) -> Tensor:
    return torch.stack([states[:, 1], -torch.sin(states[:, 0]) - states[:, 1]], 1)


@pytest.mark.parametrize(
    ("velocity", "options"),
    [(pendulum, {"box": (-4, 4)}), (sink, {"radius": 1.0})],  # refuted at some level, and at none
)
def test_the_largest_level_is_drawn(tmp_path: Path, velocity: Any, options: dict[str, Any]) -> None:
    def energy(states: Tensor) -> Tensor:
        return states[:, 0] ** 2 + states[:, 0] * states[:, 1] + states[:, 1] ** 2

    svg = drawn(tmp_path, energy, velocity, sublevel="max", claims=["decrease"], boxes=100, **options)
    assert ">{V ≤ " in svg


def test_a_barrier_is_drawn_with_its_sets(tmp_path: Path) -> None:
    sets = {"initial": prajna_initial, "unsafe": prajna_unsafe}
    svg = drawn(tmp_path, prajna_barrier, prajna_flow, box=(-3, 3), boxes=100, **sets)
    for words in ("{B ≤ 0}", "initial set", "unsafe set", "level sets of B"):
        assert f">{words}<" in svg


def test_states_beyond_the_region_are_not_asked_for(tmp_path: Path) -> None:
    def within(states: Tensor) -> Tensor:
        if bool((states.norm(dim=1) > 1.001).any()):
            raise ValueError("outside")
        return states.square().sum(1)

    assert "not finite" not in drawn(tmp_path, within, sink, radius=1.0, claims=["positive"])


def test_states_at_which_v_raises_are_left_blank_and_counted(tmp_path: Path) -> None:
    def torn(states: Tensor) -> Tensor:
        if bool((states[:, 0] > 0.995).any()):
            raise ValueError("too far")
        return states.square().sum(1)

    assert ">V is not finite at 161 of 25921 points<" in drawn(tmp_path, torn, sink, box=(-1, 1), claims=["zero"])


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_every_format_is_written_the_same_each_time(tmp_path: Path, suffix: str, begins: bytes) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in ("first", "second")]
    for file in files:
        stabdeq.check(square, sink, dim=2, claims=["zero"], figure=file)
    first, second = (file.read_bytes() for file in files)
    assert first.startswith(begins)
    assert first == second


@pytest.mark.parametrize(("dim", "name", "words"), [(3, "a.svg", "2 coordinates"), (2, "a.gif", "a.gif")])
def test_what_cannot_be_drawn_is_refused_before_the_work(tmp_path: Path, dim: int, name: str, words: str) -> None:
    def told(_: str) -> None:
        raise AssertionError("judged all the same")

    with pytest.raises(ConfigError, match=words):
        stabdeq.check(square, dim=dim, figure=tmp_path / name, on_claim=told)


@pytest.mark.usefixtures("zoo_on_path")
def test_the_command_draws(tmp_path: Path) -> None:
    file = tmp_path / "region.svg"
    code, _ = run(["zoo:square", "--dim", "2", "--claims", "zero", "--figure", str(file)], tmp_path)
    assert code == 0
    assert ">PROVED: zero<" in file.read_text(encoding="utf-8")


@pytest.mark.usefixtures("zoo_on_path")
def test_the_command_refuses_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--figure"):
        run(["zoo:square", "--dim", "2", "--figure", str(tmp_path / "no" / "a.svg")], tmp_path)


def test_centre_and_units_of_other_sizes(tmp_path: Path) -> None:
    options = {"centre": (100.0, 0.0), "box": [(99, 101), (-100, 100)], "claims": ["zero"]}

    def around(states: Tensor) -> Tensor:
        return (states - torch.tensor([100.0, 0.0], dtype=torch.float64)).square().sum(1)

    assert ">the box [99, 101] × [−100, 100]<" in drawn(tmp_path, around, **options)
