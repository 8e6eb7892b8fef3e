"""A report as an audit writes it, and what its page and the terminal show."""

import io
import math
import random
from html.parser import HTMLParser

from rich.console import Console

from analysis.report.page import render_html
from analysis.report.report import Report
from analysis.report.terminal import print_verdicts

# Without one of these a report says that it lacks it.
EXPECTED_KEYS = (
    "schema",
    "checkpoint",
    "environment",
    "exit_code",
    "findings",
    "measurements",
    "skipped",
    "series",
)
VOID_ELEMENTS = {"meta", "img", "br", "hr", "input", "link"}


def finding(check, name, claim, verdict, margin, evidence, *, witness=None, samples=4096):
    return {
        "check": check,
        "name": name,
        "claim": claim,
        "verdict": verdict,
        "margin": margin,
        "evidence": evidence,
        "samples": samples,
        "tolerance": 1.21e-13,
        "dtype": "float64",
        "seed": 0,
        "seconds": 0.84,
        "witness": witness,
    }


def sample_findings():
    return [
        finding(
            "equilibrium",
            "converged",
            "The cell has an equilibrium for every image examined.",
            "SUPPORTED",
            8.7e-10,
            "Anderson reached a residual below 1e-9 on 360 of 360 images. "
            "The violation rate is below 0.83 % with 95 % confidence.",
            samples=360,
        ),
        finding(
            "equilibrium",
            "preserved",
            "The stabilised field keeps the equilibrium.",
            "PROVED",
            None,
            "V is centred at the equilibrium, where the projection is the identity: F^(z*) = F(z*) = 0.",
            samples=0,
        ),
        finding(
            "positivity",
            "positive",
            "V is zero at its centre and positive everywhere else.",
            "PROVED",
            0.01,
            "The weights that must not be negative are not: the smallest is 0.00031. "
            "V >= eta ||z - c||^2 with eta = 0.01.",
            samples=0,
        ),
        finding(
            "decay",
            "raw_field",
            "The raw field decays at rate 0.1 within distance 10 of the equilibrium.",
            "REFUTED",
            -0.0372,
            "At distance 9.41 from the centre V grows: V-dot + alpha V = 0.0372 relative to its terms, "
            "3.1e11 times the tolerance. The state was found by gradient ascent from 64 starts, shrunk, "
            "and replayed in float64 by differentiating V automatically.",
            witness={
                "image_index": 1204,
                "distance": 9.41,
                "excess": 0.0372,
                "replayed": True,
                "state": [math.sin(index) for index in range(64)],
            },
        ),
        finding(
            "decay",
            "stabilised",
            "The stabilised field decays at rate 0.1 in every state.",
            "SUPPORTED",
            2.3e-14,
            "No violation among 4096 states and 64 ascents of the falsifier. "
            "The violation rate is below 0.073 % with 95 % confidence.",
        ),
        finding(
            "spectrum",
            "stable",
            "The flow is locally stable at every equilibrium examined.",
            "INCONCLUSIVE",
            None,
            "The eigenvalues of 3 of 32 Jacobians have condition numbers up to 4e9, which forbids a verdict "
            "in float64. Examine fewer, better conditioned states, or certify with the GES matrix inequality instead.",
            samples=32,
        ),
    ]


def sample_series():
    steps = list(range(1, 41))
    source = random.Random(0)
    solvers = {}
    for name, rate, share in (("anderson", 0.55, 1.0), ("broyden", 0.68, 1.0), ("picard", 0.9, 0.04)):
        median = [12 * rate**step * (1 + 0.2 * math.sin(step)) + 3e-15 for step in steps]
        lower, upper = [0.3 * value for value in median], [4 * value for value in median]
        solvers[name] = {
            "evaluations": steps,
            "median": median,
            "lower": lower,
            "upper": upper,
            "converged": share,
        }
    turns = [(0.72 * math.sqrt(source.random()), 2 * math.pi * source.random()) for _ in range(128)]
    times = [index / 4 for index in range(81)]
    classes = [str(digit) for digit in range(10)]
    before = [[0.0 if i == j else 4 + 3 * math.sin(i * j + i + j) for j in range(10)] for i in range(10)]
    return {
        "convergence": {"tolerance": 1e-9, "solvers": solvers},
        "spectrum": {"eigenvalues": [[radius * math.cos(turn), radius * math.sin(turn)] for radius, turn in turns]},
        "decay": {
            "flow": {
                "times": times,
                "median": [math.exp(-0.9 * time) for time in times],
                "maximum": [math.exp(-0.13 * time) for time in times],
                "bound": [math.exp(-0.1 * time) for time in times],
            },
            "raw": {
                "radii": [0.01, 0.1, 1.0, 10.0],
                "violation_rate": [0.0, 0.0, 0.002, 0.041],
                "upper": [0.003, 0.003, 0.006, 0.052],
            },
        },
        "separation": {
            "classes": classes,
            "before": before,
            "after": [[0.93 * value for value in row] for row in before],
        },
        "robustness": {
            "eps": [0.0, 1 / 16 / 255, 8 / 255, 1.0],
            "accuracy": [0.97, 0.97, 0.6, 0.0],
            "lower": [0.9, 0.9, 0.5, 0.0],
            "upper": [1.0, 1.0, 0.7, 0.03],
            "clean": 0.97,
            "compared_at": 8 / 255,
            "worst": 0.55,
        },
    }


def sample_report():
    """Return decoded JSON as an audit writes it, with every verdict, a witness, a skipped check and all series."""
    return {
        "schema": 1,
        "checkpoint": {
            "path": "runs/demo/checkpoint.safetensors",
            "sha256": "9f2c1e6a" * 8,
            "kind": "lyadeq-anchored",
            "model": {
                "dim": 64,
                "hidden": 128,
                "alpha": 0.1,
                "eta": 0.01,
                "stability": "anchored",
                "head": "orthogonal",
            },
            "data": {"name": "digits", "classes": [str(digit) for digit in range(10)]},
            "epoch": 40,
            "seed": 0,
        },
        "environment": {
            "python": "3.11.2",
            "torch": "2.15.0",
            "stabdeq": "0.1.0",
            "platform": "Linux x86_64",
            "date": "2025-03-01",
        },
        "exit_code": 1,
        "findings": sample_findings(),
        "measurements": [
            {
                "check": "spectrum",
                "name": "abscissa",
                "value": 0.7134,
                "text": "Largest real part of the Jacobian's eigenvalues, median over images",
            },
            {
                "check": "decay",
                "name": "largest_step",
                "value": 0.25,
                "text": "Largest Euler step that still lowers V on every trajectory",
            },
            {
                "check": "separation",
                "name": "ratio",
                "value": 0.93,
                "text": "Mean class distance after the orthogonal map, relative to before",
            },
            {
                "check": "convergence",
                "name": "anderson",
                "value": 19.0,
                "text": "Evaluations that Anderson needs for 1e-9, median",
            },
        ],
        "skipped": [{"check": "convexity", "reason": "not among the checks asked for"}],
        "series": sample_series(),
    }


class Page(HTMLParser):
    """Collects what a page holds, and fails where elements are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.text = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        assert not any(name.startswith("on") for name in names)
        self.ids += [value for name, value in attrs if name == "id"]
        self.references += [value for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(plain):
    """Return the page of the report that ``plain``, decoded JSON, holds."""
    return render_html(Report.parse(plain))


def printed(plain, width, **options):
    """Return what the terminal shows of it at ``width``."""
    file = io.StringIO()
    print_verdicts(Report.parse(plain), Console(file=file, width=width, **options))
    return file.getvalue()
