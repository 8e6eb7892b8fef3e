"""What a reader finds on the page: the answer first, formulas typeset, numbers for people, words for what a witness holds."""

import copy
import re

import pytest
from sample_report import Page, page_of

from analysis.checks.spectrum import SHOWN, worst_of
from analysis.findings.rows import CERTIFIED, OF_A_FUNCTION
from analysis.measure.spectrum import UNKNOWN, Spectrum
from analysis.report import drawing, figures
from analysis.report.figures import separation
from analysis.report.formulas import MAX_FORMULA, typeset
from analysis.report.header import facts
from analysis.report.next_steps import next_steps
from analysis.report.report import Report
from analysis.report.witness_words import WORDS, key_in_words, value_in_words


def shown(text):
    """Return what a reader sees of the HTML that a text is typeset as, each formula in ⟦⟧."""
    marked = re.sub(r"<math[^>]*>", "⟦", typeset(text)).replace("</math>", "⟧")
    return re.sub(r"<[^>]+>", "", marked)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("V falls: V-dot <= -1 V.", "⟦V⟧ falls: ⟦V˙≤−V⟧."),
        ("V >= 0.1 ||z - c||^2 for all states", "⟦V≥0.1‖z−c‖2⟧ for all states"),
        ("an equilibrium f(z, h) = z, found from z = 0.", "an equilibrium ⟦f(z,h)=z⟧, found from ⟦z=0⟧."),
        ("grad V · F^ <= -alpha V < 0", "⟦∇V·F^⟧ ⟦≤−αV⟧ ⟦&lt;0⟧"),
        ("stable under z' = f(z, h) - z", "stable under ⟦z′=f(z,h)−z⟧"),
        ("||Q'Q - I|| = 2.5e-14 for the 64 x 64 map", "⟦‖Q′Q−I‖=2.5 × 10⁻¹⁴⟧ for the ⟦64×64⟧ map"),
        ("V(z+) <= (1 - 0.1) V(z) on the box [-1, 1]^2", "⟦V(z+)≤(1−0.1)V(z)⟧ on the box ⟦[−1,1]2⟧"),
        ("{V <= 30.21643448307345} of V's region", "⟦{V≤30.2164…}⟧ of ⟦V⟧'s region".replace("'", "&#x27;")),
        ("stand at eps = 16/255", "stand at ⟦ε=16/255⟧"),
        ("||grad V(c)|| = 0", "⟦‖∇V(c)‖=0⟧"),
        ("from distance 9.4e-03 to -1.2e+07", "from distance 0.0094 to −1.2 × 10⁷"),
        # Words and names are none.
        ("I saw a t-SNE of CIFAR-10 on 2026-11-28", "I saw a t-SNE of CIFAR-10 on 2026-11-28"),
        ("each has a V, took 0.3 s, by my_module:V", "each has a ⟦V⟧, took 0.3 s, by my_module:V"),
        ("torch 2.15.0+cu132", "torch 2.15.0+cu132"),
    ],
)
def test_formulas_are_typeset_and_words_left_alone(text, expected):
    assert shown(text) == expected.replace(" × ", "\u2009×\u2009")


def test_every_formula_that_claims_are_made_of_is_well_formed_and_keeps_its_source():
    sentences = [row.holds for row in (*CERTIFIED, *OF_A_FUNCTION)]
    for text in [*sentences, "B(z+) <= 0 wherever B(z) <= 0", "||dz*|| <= gamma ||dh||.", "(p = 5.4e-16);"]:
        Page(typeset(text))
    assert 'alttext="||dz*|| &lt;= gamma ||dh||"' in typeset("||dz*|| <= gamma ||dh||.")


@pytest.mark.parametrize(
    "text",
    ["(" * 20_000, "V <= " * 4000, "[[[[1, " * 3000, "^-" * 9000, "<b>V = 1</b>" * 900, "1." * 9000, f"1e{'9' * 5000}"],
)
def test_hostile_sentences_are_read_in_bounded_time_and_escaped(text):
    html = typeset(text)
    Page(html)
    assert "<b>" not in html
    assert all(len(source) <= 8 * MAX_FORMULA for source in re.findall(r'alttext="([^"]*)"', html))


def test_the_head_says_the_outcome_and_what_was_judged(report):
    report["sample"] = {"images": list(range(128)), "right": 126, "seed": 0}
    report["series"] = {}
    report["command"] = {"name": "audit", "subject": "model.safetensors", "options": {"images": 128}}
    report["environment"]["date"] = "2026-11-28T18:16:24+00:00"
    html = page_of(report)
    head = "".join(Page(html.split("<header")[1].split("</header>")[0].partition(">")[2]).text)
    for words in (
        "One claim is refuted, and one could not be settled.".replace("one could", "1 could"),
        "2 are proved and 2 are supported by a search without a counterexample.",
        "98.44 %, 126 of 128 images",
        "digits, 128 images of its test split",
        "2026-11-28, 18:16 UTC",
        "decay: raw field",
        "small pushes die out without stabilising",
        "stabdeq replay report.json",
    ):
        assert words in head
    assert f'title="{report["checkpoint"]["sha256"]}">{report["checkpoint"]["sha256"][:12]}<' in html
    assert "Exit code" not in html


def test_what_a_report_does_not_hold_is_no_fact(report):
    for right in (None, "3", -1, 5):
        named = {fact.name for fact in facts(Report.parse(report | {"sample": {"images": [1, 2], "right": right}}))}
        assert "Accuracy" not in named
    assert facts(Report()) == []


def test_what_to_do_next_is_a_command_that_the_report_allows(report):
    report["command"] = {"name": "audit", "subject": "a.safetensors", "options": {"checks": ["decay"], "seed": 1}}
    report["skipped"] = [{"check": "spectrum", "reason": "not among those asked for", "asked_for": False}]
    commands = [step.command for step in next_steps(Report.parse(report))]
    assert commands == [
        "stabdeq replay report.json",
        "",
        "stabdeq audit a.safetensors --seed 1",
        "stabdeq certify runs/demo/checkpoint.safetensors",
        "stabdeq verify runs/demo/checkpoint.safetensors report.json",
    ]
    assert next_steps(Report()) == []


def test_what_does_not_hold_is_open_and_the_rest_folds(report):
    html = page_of(report)
    folded = re.findall(r'<details class="claim (\w+)"( open)?>', html)
    assert [word for word, is_open in folded if is_open] == ["refuted", "inconclusive"]
    assert len(folded) == len(report["findings"])
    assert html.count('<details class="part">') == len(re.findall(r'id="check-\d+"', html)) == 5


def test_a_measured_number_is_said_once(report):
    texts = {
        "spectral radius at 64 equilibria: largest 9.71": (9.712, ""),
        "picard reaches 1e-09 on 96.9% of images": (0.96875, ""),
        "product of the norms: below 1 the cell contracts": (397.53, ": 397.5"),
        "rank correlation": (None, ": —"),
    }
    report["series"] = {}
    report["measurements"] = [
        {"check": "x", "name": "", "text": text, "value": value} for text, (value, _) in texts.items()
    ]
    items = re.findall(r"<li>([^<]*)</li>", page_of(report).split('class="measured"')[1])
    assert items == [typeset(text + more) for text, (_, more) in texts.items()]


def test_the_fields_of_a_witness_have_words_and_classes_names(report):
    report["series"] = {}
    report["checkpoint"]["data"]["classes"] = ["cat", "dog", "owl"]
    report["findings"][3]["witness"] = {"label": 2, "prediction_attacked": 7, "eps": 8 / 255, "distance": 9.41}
    html = page_of(report)
    for name, value in (
        ("Class", "owl"),
        ("Answer for the changed image", "7"),
        ("Change allowed of a pixel", "8 of 255 grey levels"),
        ("Distance from the centre", "9.41"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in html
    assert all("_" not in words for words in WORDS.values())
    assert key_in_words("distance", {"other_image": 3}) != key_in_words("distance", {})
    assert value_in_words("status", "max_steps", []) == "max steps"
    assert value_in_words("replayed_by", "ball arithmetic, in which the sign is certain,", [])[-1] == "n"


def test_the_spectrum_shows_the_worst_images_and_says_how_many():
    def spectrum(abscissa, radius):
        return Spectrum([complex(abscissa + 1, 0)], abscissa, 0.0, radius, abscissa)

    spectra = [spectrum(-0.5 - place / 1000, 0.5) for place in range(60)] + [spectrum(5.5, 6.5), spectrum(-9.0, 8.0)]
    spectra.append(UNKNOWN)
    worst = worst_of(spectra)
    assert len(worst) == SHOWN
    assert {60, 61, 62} <= set(worst)
    assert worst_of(spectra[:5]) == [0, 1, 2, 3, 4]
    series = {"eigenvalues": [[6.5, 0.0], [0.5, 0.1]], "shown": 16, "of": 64}
    (page,), _ = figures.draw("spectrum", series)
    assert "Of the 16 worst of 64 images" in page.caption
    assert "unstable: 1" in page.svg
    (old,), _ = figures.draw("spectrum", {"eigenvalues": [[0.5, 0.1]]})
    assert old.caption.startswith("The flow is locally stable")
    assert "unstable" not in old.svg


def test_no_figure_is_drawn_twice_and_none_that_shows_nothing(report):
    series = report["series"]["separation"]
    same = series | {"after": [[value * (1 + 1e-12) for value in row] for row in series["before"]]}
    drawings, _ = figures.draw("separation", same)
    assert [item.title for item in drawings] == ["Class distances"]
    assert "one matrix shows both" in drawings[0].caption
    assert separation.distances_after("after", same) is None
    with drawing.page_style():
        assert separation.distances_after("after", series) is not None
    decay = copy.deepcopy(report["series"]["decay"])
    del decay["flow"]
    decay["raw"]["violation_rate"] = [0.0] * 4
    drawings, missing = figures.draw("decay", decay)
    assert drawings == []
    assert not any("Violations" in sentence for sentence in missing)


def test_legends_name_classes(report):
    report["series"]["separation"]["classes"] = [2, 0, 1]
    series = {
        key: value if key == "classes" else [row[:3] for row in value[:3]]
        for key, value in report["series"]["separation"].items()
    }
    drawings, _ = figures.draw("separation", series, ["cat", "dog", "owl"])
    assert drawings[0].table.columns == ["class", "owl", "cat", "dog"]


def test_ticks_are_numbers_and_no_differences_from_another():
    for x, y in (([1 + 1e-13, 1 + 3e-13], [123456.0, 123456.1]), ([1e-9, 7e-9], [2e8, 9e8])):
        with drawing.page_style():
            figure, axes = drawing.new_axes("x", "y")
            axes.plot(x, y)
            svg = drawing.inline_svg(figure, "ticks", "")
        labels = re.findall(r">([^<>]*)</text>", svg)
        assert not any("e" in label or "+" in label for label in labels)
        assert len(labels) == len(set(labels))
