"""The report in any terminal, and the command that draws it."""

import io
import json
import re

import pytest
from rich.console import Console
from sample_report import printed

from analysis.report.report import Report
from analysis.report.terminal import print_verdicts
from stabdeq.__main__ import main


@pytest.mark.parametrize("width", [80, 100, 120, 160])
@pytest.mark.parametrize("force_terminal", [True, False])
def test_terminal_lines_fit(report, width, force_terminal):
    output = printed(report, width, force_terminal=force_terminal, color_system=None)
    assert max(map(len, output.splitlines())) <= width
    assert not any(line != line.rstrip() for line in output.splitlines()) or force_terminal


def test_terminal_explains_in_full_what_is_refuted_or_open(report):
    for width in (80, 120):
        output = printed(report, width)
        # Words in order, whatever columns and line ends stand between.
        for item in report["findings"]:
            if item["verdict"] in ("REFUTED", "INCONCLUSIVE"):
                assert all(word in output for word in item["evidence"].split())
    assert output.index("REFUTED") < output.index("INCONCLUSIVE") < output.index("SUPPORTED") < output.index("PROVED")
    assert "2 ✓ PROVED   2 ◐ SUPPORTED   1 ? INCONCLUSIVE   1 ✗ REFUTED" in output
    assert "convexity: not among the checks asked for" in output


def test_piped_output_is_plain(report):
    output = printed(report, 80)
    assert "\x1b" not in output
    assert not re.search("[\u2500-\u257f]", output)


def test_output_without_unicode_is_still_printed(report):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="cp1252", errors="strict")
    print_verdicts(Report.parse(report), Console(file=file, width=80))
    file.flush()
    assert "x REFUTED" in raw.getvalue().decode("cp1252")


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["report", *map(str, arguments)])
    return int(end.value.code or 0)


def test_the_command_prints_a_path_as_it_stands(report, tmp_path, capsys):
    folder = tmp_path / "[" / "x]"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    main(["report", str(folder / "report.json")])
    assert capsys.readouterr().out == f"wrote {folder / 'report.html'}\n"


def test_the_command_refuses_what_is_no_file_and_its_own_input(report, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(".") == 2
    assert "give the report.json" in capsys.readouterr().err
    (tmp_path / "x.html").write_text(json.dumps(report))
    assert run("x.html") == 2
    assert "x.html: the page would overwrite the report" in capsys.readouterr().err
    assert json.loads((tmp_path / "x.html").read_text()) == report
