"""The pages: every block of Python on them runs, every command line parses, every link leads somewhere."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cyclopts import CoercionError, CycloptsError, MissingArgumentError

from analysis.findings.catalogue import CHECKS
from stabdeq import __version__
from stabdeq.__main__ import build_app
from stabdeq.registry import ATTACKS, BACKBONES, CELLS, DATA_SETS, SOLVERS

REPOSITORY = Path(__file__).resolve().parents[1]
TEXTS = sorted(
    page for folder in (".", "docs", "docs/how-to", "docs/theory") for page in (REPOSITORY / folder).glob("*.md")
)
# Pages are readable without a network: what they lean on besides is named by author, title and arXiv number.
HOSTS = {"hypothesis.readthedocs.io"}

BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.*?) -->\n\n?)?^```(?P<language>[\w{}]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
INLINE = re.compile(r"`stabdeq ([^`]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,3} (.+)$", re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [
        block["text"] for block in BLOCK.finditer(read(page)) if block["language"] == language and not block["reason"]
    ]


def prose(page: Path) -> str:
    return BLOCK.sub("", read(page))


def command_lines(page: Path) -> list[list[str]]:
    """The words after ``stabdeq`` on the lines of the page's shell blocks."""
    lines = [shlex.split(line, comments=True) for block in blocks(page, "sh") for line in block.splitlines()]
    lines = [words[: words.index(">")] if ">" in words else words for words in lines]
    return [
        [word for word in words if word != "&"][words.index("stabdeq") + 1 :] for words in lines if "stabdeq" in words
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page in TEXTS if blocks(page, "python")], ids=named)
def test_python_on_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # What a page registers is unknown to the tests after it.
    for registry in (ATTACKS, BACKBONES, CELLS, CHECKS, DATA_SETS, SOLVERS):
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    scope: dict[str, object] = {"__name__": "page"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for block in blocks(page, "python"):
            exec(compile(block, named(page), "exec"), scope)


@pytest.mark.parametrize("page", [page for page in TEXTS if command_lines(page)], ids=named)
def test_command_lines_on_a_page_parse(page: Path) -> None:
    for words in command_lines(page):
        build_app().parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", [page for page in TEXTS if INLINE.search(prose(page))], ids=named)
def test_commands_named_on_a_page_exist(page: Path) -> None:
    """A command that is named in a sentence may lack arguments, or have SEED for a number, but none of its options is unknown."""
    for text in INLINE.findall(prose(page)):
        try:
            build_app().parse_args(shlex.split(text), exit_on_error=False, print_error=False)
        except (CoercionError, MissingArgumentError):
            continue


def test_an_unknown_option_would_be_found() -> None:
    for words in (["audit", "file", "--chekcs", "decay"], ["audi", "file"]):
        with pytest.raises(CycloptsError):
            build_app().parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_what_shell_blocks_call_exists(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", read(REPOSITORY / "Makefile"), re.MULTILINE)
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert words[1] in targets, line
        for word in words:
            if word.startswith(("examples/", "tests/", ".ci/")):
                assert (REPOSITORY / word).exists(), line


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        if path == "auto_gallery/index":  # made from docs/gallery when the site is built
            continue
        aim = (page.parent / path).resolve() if path else page
        assert aim.is_file(), f"{named(page)}: {target} leads to no file"
        if anchor:
            assert anchor in anchors(aim), f"{named(page)}: {target}: the page has {sorted(anchors(aim))}"


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_pages_name_no_other_host(page: Path) -> None:
    assert set(re.findall(r"https?://([^/\s)`]+)", read(page))) <= HOSTS


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_blocks_that_are_not_run_say_why(page: Path) -> None:
    assert "<!-- not run: -->" not in read(page)
    for block in BLOCK.finditer(read(page)):
        assert block["language"] in {"python", "sh", "text", "toml", "yaml", "{toctree}", "{include}"}, block[
            "language"
        ]


def test_pages_that_the_code_names_exist() -> None:
    sources = [path for folder in ("stabdeq", "analysis", "train") for path in (REPOSITORY / folder).rglob("*.py")]
    for path in sources:
        for page in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
            assert (REPOSITORY / page).is_file(), f"{path} names {page}"


def test_the_citation_is_of_this_version() -> None:
    assert f"version: {__version__}\n" in (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")


def test_the_property_test_on_its_page_is_the_example_and_passes() -> None:
    path = REPOSITORY / "examples" / "test_my_lyapunov.py"
    assert blocks(REPOSITORY / "docs/how-to/property-test.md", "python")[0] == path.read_text(encoding="utf-8")
    load(path).test_my_energy_decays()


def test_the_failure_on_the_page_of_property_tests_is_a_real_one() -> None:
    page = REPOSITORY / "docs/how-to/property-test.md"
    scope: dict[str, object] = {}
    exec("".join(blocks(page, "python")), scope)
    test = scope["test_the_rate_is_not_too_high"]
    assert callable(test)
    with pytest.raises(AssertionError) as caught:
        test()
    shown = "\n".join(f"E       {line}" for line in f"AssertionError: {caught.value}".splitlines())
    assert shown in read(page)


def bare(source: str, name: str) -> str:
    """The class or function ``name`` in ``source`` without docstrings, comments and annotations."""
    (found,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
    )
    for node in ast.walk(found):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(found)


@pytest.mark.parametrize("name", ["DigitsDEQ", "adapted"])
def test_the_adapter_on_its_page_is_the_example(name: str) -> None:
    shown = "".join(blocks(REPOSITORY / "docs/how-to/torchdeq.md", "python"))
    assert bare(shown, name) == bare(read(REPOSITORY / "examples/torchdeq_adapter.py"), name)


def test_the_adapter_passes_its_audit(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng(devices=[]):
        assert load(REPOSITORY / "examples/torchdeq_adapter.py").main(epochs=1) == 0
    assert "3 ◐ SUPPORTED" in capsys.readouterr().out
