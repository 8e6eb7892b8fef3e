"""A link that leads to itself: in the place of a file to be written it is replaced, and of one to be read it is none."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_runs import run
from sample_report import sample_report

from analysis.commands import audit, solvers
from analysis.report.report import Report
from stabdeq.arguments import require_files


@pytest.fixture
def loop(folder: Path) -> Path:
    path = Path("loop.svg")
    path.symlink_to(path)
    return path


def test_a_link_to_itself_may_be_written_over(loop: Path) -> None:
    require_files({"--json": loop, "--sarif": Path("other")}, Path("model.safetensors"))
    audit._require_files(Path("model.safetensors"), Path("out"), {"--junit": loop})
    solvers._require_files(Path("model.safetensors"), loop, Path("file.json"))
    for name in ("a.json", "b.json"):
        Path(name).write_text(Report.parse(sample_report()).to_json())
    assert run("compare", "a.json", "b.json", "--out", loop) == 0
    assert loop.is_file()
    assert not loop.is_symlink()


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "loop.svg", "--card", "card.md"),
        ("compare", "loop.svg", "loop.svg", "--out", "out.html"),
        ("audit", "loop.svg", "--junit", "junit.xml"),
        ("audit", "model.safetensors", "--images", "loop.svg"),
        ("verify", "loop.svg", "loop.svg"),
        ("check", "loop.onnx", "--dim", "2", "--json", "out.json"),
        ("merge", "loop.svg", "--out", "out"),
        ("train", "digits", "--out", "loop.svg"),
    ],
)
def test_a_link_to_itself_is_no_file(arguments: tuple[str, ...], loop: Path, refusal: Callable[..., str]) -> None:
    Path("loop.onnx").symlink_to("loop.onnx")
    refusal(*arguments)
