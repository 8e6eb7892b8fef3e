"""The pages in a real browser: no console message, no request, no sideways scrolling, readable in both schemes, by keyboard too."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, sync_playwright
from torch import Tensor

from analysis.audit import audit
from analysis.compare import compare_reports, render_comparison
from analysis.findings.catalogue import default_checks
from analysis.report.curves import render_curves
from analysis.report.training_log import read_training
from stabdeq.config import ArchitectureConfig, LyapunovConfig
from stabdeq.config.kinds import model_config
from stabdeq.metrics_lines import METRICS_NAME
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Picard, Solution, solve

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is on PATH to open the pages in"
)
PAGES = ("demo", "refuted", "inconclusive", "comparison", "training")
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (400, 1600)


class Restless:
    """A model that never comes to rest, so that nothing about it can be settled."""

    lyapunov = None

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        return z + 1 + h

    def readout(self, z: Tensor) -> Tensor:
        return z

    def solve(self, h: Tensor) -> Solution:
        return solve(lambda z: self.cell(z, h), torch.zeros_like(h), Picard(), tolerance=1e-8, max_evaluations=20)


def our_model(kind: str) -> StabilisedDEQ:
    architecture = ArchitectureConfig(state_dim=6, lyapunov=LyapunovConfig(hidden=4))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return StabilisedDEQ(
            model_config(kind, architecture, image_shape=(1, 4, 4), classes=3, mean=(0.5,), std=(0.3,))
        )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, short_hunts: None) -> dict[str, Path]:
    """The page of a model that holds, of one that is refuted, of one that could not be judged, of all three, and of a training."""
    folder = tmp_path_factory.mktemp("pages")
    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(6) % 3
    paths, reports = {}, []
    models = {
        "demo": (our_model("lyadeq-anchored"), default_checks()),
        "refuted": (our_model("lyadeq"), ("equilibrium", "separation", "spectrum")),
        "inconclusive": (Restless(), ("equilibrium", "positivity", "spectrum")),
    }
    for name, (model, checks) in models.items():
        report = audit(model, images, labels, checks=checks)
        reports.append(report)
        paths[name] = report.save(folder / name)[1]
    assert [report.exit_code for report in reports] == [0, 1, 3]
    paths["comparison"] = folder / "compare.html"
    long = {
        "name": "audit",
        "subject": "runs/of_a_model/checkpoint.safetensors",
        "options": {"checks": default_checks()},
    }
    named = [
        replace(report, command=long, checkpoint={"kind": name}) for name, report in zip(models, reports, strict=True)
    ]
    paths["comparison"].write_text(render_comparison(compare_reports(named, list(models))), encoding="utf-8")
    (folder / METRICS_NAME).write_text('{"epoch": 1, "loss": 2, "a_name_of_my_own": 3}\n{"epoch": 3, "loss": "nan"}\n')
    paths["training"] = folder / "training.html"
    paths["training"].write_text(render_curves(read_training(folder)), encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, pages: dict[str, Path]) -> Iterator[Callable[[str], Page]]:
    """Opens a page by its name, and fails at the end where it said something or asked for anything but its own file."""
    page = browser.new_page()
    said: list[str] = []
    requests: list[Request] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requests.append(request))

    def open_page(name: str) -> Page:
        page.goto(pages[name].as_uri())
        return page

    yield open_page
    page.close()
    assert said == []
    assert all(request.url.startswith("data:") or request.is_navigation_request() for request in requests)
    assert len([request for request in requests if request.is_navigation_request()]) == 1


@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways(name: str, opened: Callable[[str], Page]) -> None:
    page = opened(name)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            wide, shown = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert wide <= shown, (width, scheme)


def test_what_is_long_leaves_room_for_the_model_s_name(opened: Callable[[str], Page]) -> None:
    page = opened("comparison")
    page.set_viewport_size({"width": 400, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    widths = page.evaluate(
        "[...document.querySelectorAll('td > .model')].map(one => one.getBoundingClientRect().width)"
    )
    assert len(widths) > 30
    assert min(widths) > 100


@pytest.mark.parametrize(("scheme", "width"), list(zip(SCHEMES, WIDTHS, strict=True)))
@pytest.mark.parametrize("name", PAGES)
def test_contrast_and_structure_are_accessible(
    name: str, scheme: Literal["light", "dark"], width: int, opened: Callable[[str], Page]
) -> None:
    page = opened(name)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    if name != "demo":  # whose figures' data are long
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_faults_would_be_seen(opened: Callable[[str], Page]) -> None:
    page = opened("inconclusive")
    page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('beforeend', '<h6 style=\"color: #ddd\">Pale</h6>')"
    )
    page.evaluate("document.querySelector('main').style.width = '3000px'")
    assert page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    found = {violation["id"] for violation in Axe().run(page).response["violations"]}
    assert {"color-contrast", "heading-order"} <= found


@pytest.mark.parametrize("name", PAGES)
def test_tab_goes_through_the_page_in_its_order_and_shows_where_it_is(name: str, opened: Callable[[str], Page]) -> None:
    page = opened(name)
    page.set_viewport_size({"width": 1600, "height": 900})
    expected = page.evaluate(
        """[...document.querySelectorAll("a[href], summary, [tabindex='0']")]
        .filter(one => one.checkVisibility({contentVisibilityAuto: true}))
        .map((one, place) => { one.dataset.place = place; return place; })"""
    )
    visited = []
    for _ in expected:
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """(() => { const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
            return {place: Number(one.dataset.place), text: one.textContent, outline: parseFloat(style.outlineWidth),
                    style: style.outlineStyle, shown: box.width > 0 && box.height > 0 && box.left >= 0 && box.top < innerHeight}; })()"""
        )
        assert seen["style"] != "none", seen
        assert seen["outline"] >= 2, seen
        assert seen["shown"], seen
        visited.append(seen)
    assert [seen["place"] for seen in visited] == expected
    assert visited[0]["text"].startswith("Skip to the ")
    assert name == "training" or visited[1]["text"] == "Verdicts"


def test_the_skip_link_leads_to_the_verdicts(opened: Callable[[str], Page]) -> None:
    page = opened("demo")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#verdicts"
    assert page.evaluate("Math.abs(document.querySelector('#verdicts').getBoundingClientRect().top)") < 60


def test_what_is_folded_is_open_on_paper(opened: Callable[[str], Page]) -> None:
    page = opened("demo")
    folded = """[...document.querySelectorAll(".claim:not([open]) > .body, .part > .body")]
        .map(one => one.checkVisibility({contentVisibilityAuto: true}) && one.getBoundingClientRect().height > 0)"""
    assert not any(page.evaluate(folded))
    page.emulate_media(media="print")
    page.wait_for_function(f"{folded}.every(shown => shown)")  # a busy browser lays it out a little later
    assert page.evaluate(folded)
