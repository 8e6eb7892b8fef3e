"""The benchmark for a GPU, run whole on a pretended one with tiny settings, so that a GPU's few minutes are not lost to a slip."""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pretended_gpu import pretended_gpu

pytest.importorskip("torchdeq")
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")

from benchmarks import contest, results_page  # noqa: E402
from benchmarks.gpu import page, table  # noqa: E402
from benchmarks.gpu.__main__ import main  # noqa: E402
from benchmarks.gpu.training import COMPILED  # noqa: E402


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three classes of 8 x 8 colours."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 4)):
        for label in range(3):
            folder = tmp_path / "images" / part / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(80 * label, 80 * label + 80, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "images"


def test_every_measurement_runs_and_is_written(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "EPS", (2,))
    monkeypatch.setattr(contest, "ROUNDS", (1, 1))
    monkeypatch.setattr(import_module("stabdeq.attacks.honest"), "STEPS", 2)
    out = tmp_path / "out"
    with pretended_gpu():
        assert main(["--tiny", "--data-dir", str(images), "--out", str(out)]) == 0
    results = json.loads((out / "gpu.json").read_text())
    assert results["failed"] == {}
    for precision in ("float32", "bfloat16"):
        assert all(value > 0 for value in results["training"]["epoch_seconds"][precision].values())
    for record in results["solving"]:
        for found in record["contestants"].values():
            assert found["true_residual"] <= record["tolerance"]
    assert results["tests"]["code"] == 0, results["tests"]["output"]
    assert [row["kind"] for row in results["table"]] == ["lyadeq-anchored", "deq", "lyadeq"]
    for row in results["table"]:
        assert row["attacks"].keys() == {"pgd-2", "ifgsm-2", "honest-2"}
        for attack in row["attacks"].values():
            assert attack["robust"] <= attack["clean"] <= 1
    compiled = {"training_compiled": {"epoch_seconds": {"float32": {COMPILED: 2.0}}}}
    rows = page.epochs(results | compiled)["rows"]
    assert rows[4] == [COMPILED, "2.00", "not measured"]
    plain = results["training"]["epoch_seconds"]["float32"]["resnet20"]
    assert [row[1:] for row in rows if row[0].startswith(f"**{COMPILED}")] == [[f"{2 / plain:.2f}", "not measured"]]
    assert len(rows) == 8  # five contestants and three goals
    for record in (page.epochs(results), page.epochs(results | compiled), page.table(results)):
        assert record.keys() == results_page.FIELDS
        assert all(len(row) == len(record["columns"]) for row in record["rows"])
        assert record["machine"].startswith("a pretended GPU, 32 GiB")


def test_a_measurement_that_fails_costs_only_itself(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.gpu import __main__ as script

    def broken(*_: object) -> None:
        raise RuntimeError("no such kernel")

    def broken_later(*_: object) -> Iterator[list[int]]:
        yield [1]
        assert json.loads((tmp_path / "out" / "gpu.json").read_text())["table"] == [
            1
        ]  # also where this process is killed
        broken()

    monkeypatch.setattr(
        script, "MEASURES", {"training": broken, "solving": lambda *_: [[1], [1, 2]], "table": broken_later}
    )
    assert main(["--tiny", "--data-dir", str(images), "--out", str(tmp_path / "out")]) == 1
    results = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert results["solving"] == [1, 2]
    assert results["table"] == [1]
    assert set(results["failed"]) == {"training", "table"}
    assert results["failed"]["table"] == "RuntimeError: no such kernel"


def test_what_the_time_does_not_allow_is_left_out(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["--tiny", "--minutes", "0.00001", "--data-dir", str(images), "--out", str(out)]) == 0
    results = json.loads((out / "gpu.json").read_text())
    assert list(results["training"]["epoch_seconds"]) == ["float32"]
    assert results["solving"] == results["table"] == []


def test_results_are_never_written_over(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--tiny", "--data-dir", str(images), "--out", str(images)])
    assert "name a new folder" in capsys.readouterr().err
