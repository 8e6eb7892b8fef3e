"""The benchmark of published Lyapunov functions states each as its paper does; no test here judges a time."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.field import COLUMNS, LEVELS, STEPS, formulas, main
from benchmarks.results_page import FIELDS
from stabdeq import testing

SYSTEMS = """
from types import SimpleNamespace


def V(z):
    return z.square().sum(1)


def get(name):
    shared = {"V": V, "box": (2, 3)}
    if name == "van":
        return SimpleNamespace(f=lambda z: -z.sin(), c1=0.25, c2=1.0, **shared)
    if name in ("double", "pend_big", "path_big"):
        return SimpleNamespace(f=lambda z: z.sin(), c1=0.25, c2=1.0, **shared)
    return SimpleNamespace(step=lambda z: 0.5 * z.sin(), rho=1.5, kappa=0.5, **shared)
"""


def test_each_claim_gets_a_row_that_the_results_page_can_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "systems.py").write_text(SYSTEMS, encoding="utf-8")
    out = tmp_path / "field.json"
    asked = ["van", "double", "path_quad"]
    main(["--field", str(tmp_path), "--systems", *asked, "--boxes", "4000", "--out", str(out)])
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record.keys() == FIELDS
    assert record["columns"] == COLUMNS
    falls = "V(z+) <= (1 - 0.5) V(z) on the sublevel set {V <= 1.5} within the box [-2, 2] x [-3, 3]"
    between = "V-dot < 0 on the set {0.25 <= V <= 1} within the box [-2, 2] x [-3, 3]"
    expected = [
        ("van", between, "PROVED"),
        ("double", between, "REFUTED"),
        ("path_quad", falls, "PROVED"),
        ("path_quad", "No step leaves the sublevel set {V <= 1.5}", "PROVED"),
        ("path_quad", "Every trajectory from the sublevel set {V <= 1.5}", "PROVED"),
    ]
    for row, (name, claim, verdict) in zip(record["rows"], expected, strict=True):
        assert (row[0], row[1], row[3]) == (name, "2", verdict)
        assert row[2].startswith(claim)
        assert (int(row[4]) > 0) == (verdict == "PROVED")
    assert len(capsys.readouterr().out.splitlines()) == len(expected) + 2


def test_the_formulas_keep_their_sublevel_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    for case in formulas():
        motion, level = case.stated["f"], case.stated["sublevel"]
        rays = torch.randn(4096, case.dim, generator=generator, dtype=torch.float64)
        rays /= rays.norm(dim=1, keepdim=True)
        testing.assert_equilibrium(motion, torch.zeros(case.dim, dtype=torch.float64))
        for fraction in (1e-6, 0.1, 1.0):
            testing.assert_invariant(case.V, motion, rays, level=fraction * level)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected a folder with systems\.py"):
        main(["--field", str(tmp_path)])
    (tmp_path / "systems.py").write_text(SYSTEMS, encoding="utf-8")
    with pytest.raises(SystemExit, match=f"unknown systems: cart.*{', '.join([*LEVELS, *STEPS])}"):
        main(["--field", str(tmp_path), "--systems", "cart"])
