"""The figures of an audit against known answers: planes through V's centre, decay margins, maps of the states."""

import copy
import json
import math
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from analysis.audit import audit
from analysis.checks import decay, separation
from analysis.findings.catalogue import CHECKS
from analysis.measure import phase_plane, trajectories
from analysis.measure.embedding import embed, embedding
from analysis.measure.phase_plane import planes
from analysis.measure.subject import Subject, prepare
from analysis.report import figures
from analysis.report.drawing import Drawing
from stabdeq.config import ArchitectureConfig, LyapunovConfig
from stabdeq.config.kinds import model_config
from stabdeq.files import strict_json
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, Solution, solve

pytestmark = pytest.mark.usefixtures("short_hunts")

HORIZON = 5.0


class Weighted:
    """V = sum of weight_i offset_i^2, NaN beyond ``limit``."""

    def __init__(
        self, weight: list[float], centre: str = "equilibrium", alpha: float = 1.0, limit: float = 1e9
    ) -> None:
        self.weight, self.limit = torch.tensor(weight, dtype=torch.float64), limit
        self.centre, self.alpha = centre, alpha

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        value = (self.weight * offset.square()).sum(1)
        return torch.where(offset.norm(dim=1) > self.limit, torch.nan, value), 2 * self.weight * offset


class Foreign:
    """Somebody's model: the image's first pixels are the features, the state is the logits."""

    def __init__(self, cell: Callable[[Tensor, Tensor], Tensor], dim: int, lyapunov: Any = None) -> None:
        self.cell, self.dim, self.lyapunov = cell, dim, lyapunov

    def inject(self, x: Tensor) -> Tensor:
        return 4 * x.flatten(1)[:, : self.dim]

    def readout(self, z: Tensor) -> Tensor:
        return z

    def solve(self, h: Tensor) -> Solution:
        return solve(lambda z: self.cell(z, h), torch.zeros_like(h), Anderson(), tolerance=1e-8, max_evaluations=100)


class Smooth(Foreign):
    """One whose equilibria are the features themselves, so that gradients reach the image."""

    def solve(self, h: Tensor) -> Solution:
        zeros = torch.zeros(len(h), dtype=torch.int64)
        return Solution(h / 0.5, torch.zeros(len(h), dtype=h.dtype), zeros, zeros)


def halved(z: Tensor, h: Tensor) -> Tensor:
    """z* = 2h, and F = -(z - z*) / 2."""
    return 0.5 * z + h


def subject_of(model: Any, count: int = 12, classes: int = 3) -> Subject:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64)
    return prepare(model, images, torch.arange(count) % classes, seed=1)


def our_model(kind: str) -> StabilisedDEQ:
    torch.manual_seed(0)
    architecture = ArchitectureConfig(state_dim=12, lyapunov=LyapunovConfig(hidden=8))
    return StabilisedDEQ(model_config(kind, architecture, image_shape=(1, 8, 8), classes=3, mean=(0.5,), std=(0.3,)))


def drawn(check: str, series: dict[str, Any]) -> dict[str, Drawing]:
    """Return the figures by name, drawn as the page draws them: from JSON."""
    return {item.name: item for item in figures.draw(check, json.loads(strict_json(series)))[0]}


# Planes.


def test_the_plane_of_a_quadratic_has_its_values_arrows_and_trajectories() -> None:
    found = planes(subject_of(Foreign(halved, 3, Weighted([1, 1, 1]))), HORIZON)
    for name in ("growth", "classes"):
        shown = found[name]
        axis = torch.tensor(shown["axis"])
        square = axis.square()
        assert torch.allclose(torch.tensor(shown["value"]), square[:, None] + square, rtol=2e-3, atol=1e-6)
        arrow_axis = torch.tensor(shown["arrow_axis"])
        assert torch.allclose(torch.tensor(shown["arrows"])[..., 0], (-arrow_axis / 2).expand(17, 17), atol=1e-2)
        assert torch.allclose(
            torch.tensor(shown["arrows"])[..., 1], (-arrow_axis / 2)[:, None].expand(17, 17), atol=1e-2
        )
        # The field is linear, so that a trajectory is straight and shrinks as exp(-t / 2).
        for path, end in zip(shown["paths"], shown["ends"], strict=True):
            start = math.hypot(*path[0])
            assert end == pytest.approx(start * math.exp(-HORIZON / 2), rel=2e-3)
            assert all(abs(x * path[0][1] - y * path[0][0]) <= 2e-3 * start**2 for x, y in path)
        assert shown["until"] == HORIZON
    assert found["speed_at_equilibrium"] < 1e-10
    assert found["growth"]["marks"] == []


def test_the_second_plane_goes_through_the_nearest_equilibria_of_two_other_classes() -> None:
    subject = subject_of(Foreign(halved, 5, Weighted([1] * 5)), count=20, classes=4)
    shown = planes(subject, HORIZON)["classes"]
    distance = (subject.equilibria - subject.equilibria[0]).norm(dim=1)
    nearest = sorted((float(distance[subject.labels == label].min()), label) for label in (1, 2, 3))[:2]
    assert [mark["class"] for mark in shown["marks"]] == [label for _, label in nearest]
    for mark, (length, _) in zip(shown["marks"], nearest, strict=True):
        assert math.hypot(*mark["position"]) == pytest.approx(length, rel=1e-3)
        assert mark["off"] < 1e-10 * length
        assert not mark["own"]
        assert any(path[0] == pytest.approx(mark["position"], abs=1e-3 * length) for path in shown["paths"])


def test_the_first_plane_has_the_axes_of_the_hessian() -> None:
    found = planes(subject_of(Foreign(halved, 4, Weighted([1, 9, 3, 0.5]))), HORIZON)["growth"]
    width = found["axis"][-1]
    assert found["value"][20][40] == pytest.approx(9 * width**2, rel=1e-3)
    assert found["value"][40][20] == pytest.approx(0.5 * width**2, rel=1e-2)


def test_a_v_centred_at_the_origin_is_shown_to_leave_the_equilibrium() -> None:
    subject = subject_of(Foreign(halved, 3, Weighted([1, 1, 1], centre="origin")))
    found = planes(subject, HORIZON)
    own = subject.equilibria[0]
    # At the equilibrium F = 0, so that F^ is alpha V / ||grad V|| down the gradient: ||z*|| / 2.
    assert found["speed_at_equilibrium"] == pytest.approx(float(own.norm()) / 2)
    mark = found["classes"]["marks"][0]
    assert mark["own"]
    assert mark["position"] == pytest.approx([float(own.norm()), 0], rel=1e-3, abs=1e-9)
    assert found["growth"]["marks"][0]["off"] > 0
    page = drawn("decay", {"planes": found})
    assert "V is centred at the origin" in page["plane-growth"].caption
    assert "hollow mark" in page["plane-growth"].caption
    assert "hollow mark" not in page["plane-classes"].caption


@pytest.mark.parametrize("classes", [1, 2])
def test_the_second_plane_needs_no_two_other_classes(classes: int) -> None:
    found = planes(subject_of(Foreign(halved, 3, Weighted([1, 2, 3])), classes=classes), HORIZON)
    assert len(found["classes"]["marks"]) == classes - 1
    expected = {"plane-growth", "plane-classes"} if classes > 1 else {"plane-growth"}
    assert set(drawn("decay", {"planes": found})) == expected


def test_equilibria_that_are_all_the_same_leave_the_plane_its_size() -> None:
    model = Foreign(lambda z, h: 0.5 * z + 1 + 1e-13 * h, 3, Weighted([1, 2, 3]))
    subject = subject_of(model)
    found = planes(subject, HORIZON)
    assert found["classes"]["axis"][-1] == pytest.approx(subject.radius / 2, rel=1e-3)
    assert found["classes"]["marks"] == []


def test_a_state_of_one_component_spans_no_plane_and_the_page_says_so() -> None:
    found = planes(subject_of(Foreign(halved, 1, Weighted([1])), classes=1), HORIZON)
    _, missing = figures.draw("decay", {"planes": found})
    assert sum("not drawn: a state of one component spans no plane." in sentence for sentence in missing) == 2


def test_where_v_is_not_finite_the_plane_is_blank_and_trajectories_stand_still() -> None:
    found = planes(subject_of(Foreign(halved, 3, Weighted([1, 1, 1], limit=1.0))), HORIZON)
    shown = found["growth"]
    lost = sum(math.isnan(value) for row in shown["value"] for value in row)
    assert 0 < lost < 41**2
    assert all(path[0] == path[-1] for path in shown["paths"])
    caption = drawn("decay", {"planes": found})["plane-growth"].caption
    assert f"V is not finite at {lost} points" in caption


def test_trajectories_that_cost_too_much_are_cut_and_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectories, "EVALUATIONS", 10)
    found = planes(subject_of(Foreign(halved, 3, Weighted([1, 1, 1]))), HORIZON)
    assert found["growth"]["until"] < HORIZON
    assert "were followed to t = " in drawn("decay", {"planes": found})["plane-growth"].caption


# Margins.


@pytest.mark.parametrize(
    ("cell", "alpha", "unprojected", "stabilised"),
    [(halved, 0.5, 1 / 3, 1 / 3), (halved, 1.0, 0.0, 0.0), (lambda z, h: 2 * z + h, 1.0, -1.0, 0.0)],
)
def test_the_margin_is_that_of_the_linear_field(cell: Any, alpha: float, unprojected: float, stabilised: float) -> None:
    margin = decay._raw(subject_of(Foreign(cell, 3, Weighted([1, 1, 1], alpha=alpha))))[2]
    for name, expected in (("unprojected", unprojected), ("stabilised", stabilised)):
        for spread in margin[name]:
            assert [spread[key] for key in ("worst", "lower", "median", "upper")] == pytest.approx(
                [expected] * 4, abs=1e-9
            )
            assert spread["not_finite"] == 0
    assert len(margin["stabilised"]) == len(margin["radii"]) == decay.RADII
    assert "gave no number" not in drawn("decay", {"margin": margin})["margin"].caption


def test_states_without_a_margin_are_counted() -> None:
    _, _, margin = decay._raw(subject_of(Foreign(halved, 3, Weighted([1, 1, 1], limit=0.5))))
    assert margin["unprojected"][0]["not_finite"] == 0
    assert margin["unprojected"][-1]["not_finite"] == margin["states"]
    assert math.isnan(margin["unprojected"][-1]["worst"])
    assert "states gave no number" in drawn("decay", {"margin": margin})["margin"].caption


# Maps of the states.


def test_the_map_of_an_orthogonal_kind_is_drawn_once_where_the_layer_keeps_distances() -> None:
    series = separation.check(subject_of(our_model("lyadeq-anchored"))).series
    found = series["embedding"]
    assert list(found["maps"]) == ["before", "after"]
    assert {len(points) for points in found["maps"].values()} == {len(found["right"])} == {24}
    assert found["distortion"] < 1e-12
    assert found["unattacked"] == ""
    page = drawn("separation", series)["states"]
    assert page.svg.count("% right</text>") == 2
    for title in (">clean: ", ">PGD, 8/255: "):
        assert title in page.svg
    assert "After the orthogonal layer the map is the same" in page.caption
    series["embedding"] |= {"distortion": 0.1}
    svg = drawn("separation", series)["states"].svg
    for title in ("before, clean: ", "before, PGD, 8/255: ", "after, clean: ", "after, PGD, 8/255: "):
        assert title in svg


def test_the_map_of_a_model_without_the_layer_has_two_panels() -> None:
    series = {"embedding": embedding(subject_of(our_model("deq")))}
    page = drawn("separation", series)["states"]
    assert list(series["embedding"]["maps"]) == ["before"]
    assert ">clean: " in page.svg
    assert "orthogonal" not in page.caption


def test_a_model_that_cannot_be_attacked_is_drawn_clean_and_the_page_says_why() -> None:
    class Cut(Foreign):
        def solve(self, h: Tensor) -> Solution:
            h.numpy()  # raises RuntimeError on what requires a gradient
            return super().solve(h)

    for model in (Foreign(halved, 3), Cut(halved, 3)):
        found = embedding(subject_of(model))
        assert len(found["right"]) == len(found["labels"]) == 12
        assert "The attacked half is left out: " in drawn("separation", {"embedding": found})["states"].caption
    assert not embedding(subject_of(Smooth(halved, 3)))["unattacked"]


def test_what_has_no_map_says_so() -> None:
    class Wrong(Foreign):
        def solve(self, h: Tensor) -> Solution:
            solution = super().solve(h)
            return Solution(solution.z * torch.inf, solution.residual, solution.status, solution.evaluations)

    constant = Foreign(lambda z, h: 0 * z + 1, 3)
    for model, reason in (
        (Foreign(halved, 1), "one component"),
        (constant, "the same"),
        (Wrong(halved, 3), "not finite"),
    ):
        _, missing = figures.draw("separation", {"embedding": embedding(subject_of(model, classes=model.dim))})
        assert any(reason in sentence for sentence in missing)


def test_the_map_keeps_islands_apart_whatever_their_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    states[30:] += 40
    for scale in (1e-30, 1.0, 1e30):
        points = torch.from_numpy(embed(scale * states, seed=0))
        distance = torch.cdist(points, points)
        first = torch.arange(60) < 30
        assert distance[first][:, first].max() < distance[first][:, ~first].min()


def many_classes(classes: int) -> dict[str, Any]:
    points = [[float(index % 7), float(index // 7)] for index in range(classes)]
    right = [index % 3 > 0 for index in range(classes)]
    return {"labels": list(range(classes)), "right": right, "maps": {"before": points}, "unattacked": "no gradient"}


def test_more_classes_than_colours_have_marks_of_their_own() -> None:
    captions = {}
    for classes in (10, 23, 60):
        page = drawn("separation", {"embedding": many_classes(classes)})["states"]
        captions[classes] = page.caption
        assert len(page.table.rows) == classes
    assert "Colours repeat" not in captions[10]
    assert "Colours repeat every ten classes" in captions[23]
    assert "Marks repeat" in captions[60]
    # As many marks as there are pairs of a colour and a shape: each class looks unlike every other.
    svg = drawn("separation", {"embedding": many_classes(23) | {"right": [True] * 23}})["states"].svg
    shapes = {(use.get("href"), use.get("style")) for use in ElementTree.fromstring(svg).iter("use")}
    assert len(shapes) >= 23


# All of them on one page.


@pytest.fixture(scope="module")
def series() -> dict[str, dict[str, Any]]:
    """The series of an audit of a small model."""
    model = our_model("lyadeq-anchored")
    subject = subject_of(model)
    return audit(model, subject.images, subject.labels, checks=["decay", "separation"]).series


@pytest.fixture(scope="module")
def small() -> dict[str, dict[str, Any]]:
    """What a spoilt series is made from: as an audit's, with fewer numbers, so that each of them is hit."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"GRID": 5, "ARROWS": 3, "PATHS": 1}.items():
            patch.setattr(phase_plane, name, value)
        subject = subject_of(Foreign(halved, 3, Weighted([1, 2, 3])), count=3)
        shown = planes(subject, HORIZON)
    spread = {"worst": -1.0, "lower": 0.0, "median": 0.1, "upper": 0.2, "not_finite": 0}
    margin = {"radii": [0.1, 10.0], "unprojected": [spread, spread], "stabilised": [spread, spread]}
    states = {
        "labels": [0, 1],
        "right": [True, False] * 2,
        "maps": {"before": [[0.0, 1.0], [1.0, 2.0]] * 2},
        "eps": 8 / 255,
    }
    return {"decay": {"planes": shown, "margin": margin}, "separation": {"embedding": states}}


def test_ids_are_unique_and_the_scheme_of_the_page_is_followed(series: dict[str, dict[str, Any]]) -> None:
    pages = [page for check in ("decay", "separation") for page in drawn(check, series[check]).values()]
    assert {"plane-growth", "plane-classes", "margin", "states"} <= {page.name for page in pages}
    ids = [node.get("id") for page in pages for node in ElementTree.fromstring(page.svg).iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    for page in pages:
        assert "var(--" in page.svg
        assert "#0101" not in page.svg
        assert page.caption
        assert page.alternative
        assert page.table.rows
        assert len(page.svg) < 300_000


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(),
    st.sampled_from(["nan", "inf", "-inf", "</svg><script>", "$\\frac", "\x1b[31m"]),
    st.just([]),
    st.just({}),
    st.lists(st.lists(st.floats(), max_size=3), max_size=3),
)


@given(data=st.data())
def test_a_spoilt_series_costs_its_own_figure_at_most(data: st.DataObject, small: dict[str, dict[str, Any]]) -> None:
    check, name = data.draw(st.sampled_from([("decay", "planes"), ("decay", "margin"), ("separation", "embedding")]))
    spoilt = {name: copy.deepcopy(small[check][name])}
    for _ in range(data.draw(st.integers(1, 2))):
        node: Any = spoilt
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = data.draw(st.sampled_from(keys))
            below = node[key]
            if isinstance(below, dict | list) and below and data.draw(st.integers(0, 9)):
                node = below
                continue
            node[key] = data.draw(HOSTILE)
            break
    drawings, missing = figures.draw(check, json.loads(strict_json(spoilt)))
    assert len(drawings) + len(missing) == len(CHECKS[check].figures)
    for page in drawings:
        ElementTree.fromstring(page.svg)
        assert "script" not in page.svg


@pytest.mark.parametrize("value", [0.0, 5.0, -1e99, 1e-300])
def test_a_v_that_is_the_same_everywhere_is_drawn(value: float, small: dict[str, dict[str, Any]]) -> None:
    flat = copy.deepcopy(small["decay"]["planes"])
    flat["growth"]["value"] = [[value] * 5 for _ in range(5)]
    assert "plane-growth" in drawn("decay", {"planes": flat})


def test_a_picture_that_would_make_the_page_too_large_is_left_out(
    series: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "MAX_SVG", 1000)
    drawings, missing = figures.draw("separation", {"embedding": series["separation"]["embedding"]})
    assert not drawings
    assert any("too large" in sentence for sentence in missing)
