import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lab import cli
from lab.paper.ledger.cells import chosen, table
from lab.paper.ledger.formats import as_json, latex, markdown, print_terminal
from lab.paper.ledger.pages import Judged, Page, place
from tests.paper.test_ledger_pages import OURS

SMALL = replace(OURS, ablation="video_pretraining", row="staged", rung="cpu", value=52.07, low=50.1, high=54.0)


def page(name: str) -> Page:
    """A page without runs, but for one of the video study's rows."""
    of = table(name)
    mine = ("With video pretraining, fixed 384 px, 64 frames", "Average")
    judged = (Judged(cell=cell, ours=[SMALL] if (cell.row, cell.column) == mine else []) for cell in of.cells)
    return Page(table=of, judged=tuple(judged))


EVERY = [page(of.name) for of in chosen([])]


def test_a_page_has_the_papers_layout() -> None:
    head, *lines = page("table_4").grid
    assert head == ["Model", "Frames", "MVBench", "EgoSchema", "VideoMME (w/o subs)", "Perception-Test"]
    assert lines[3] == [
        "Qwen2-VL 7B",
        "2 fps (max 768)",
        "67.0* | 64.4",
        "66.7* | 66.6",
        "63.3* | 59.0",
        "62.3* | 60.3",
    ]
    assert page("table_6").grid[3] == ["WenetSpeech test_net", "17.5 / 18.5", "11.0 / 11.3", "– / 12.2*", "6.9 / 7.1"]


def test_dashes_alone_are_one_dash() -> None:
    assert place(table("table_5").at("GPT-4o", "MSVD-QA")) == "–"
    assert place(table("table_5").at("GPT-4o", "ActivityNet-QA")) == "61.9* / –"


def test_what_is_measured_has_a_line_with_its_runs_and_verdict() -> None:
    assert page("table_10").measured == [
        [
            "With video pretraining, fixed 384 px, 64 frames, Average",
            "54.7",
            "52.1 (50.1 to 54.0)",
            "video_pretraining",
            "cpu",
            "aaaaaaaa +2",
            "other scale (holds)",
        ]
    ]
    assert page("table_10").summary.startswith("12 cells: 11 not attempted, 1 other scale. In brackets: ")


def test_lines_name_their_columns() -> None:
    of = table("table_9")
    several = Page(table=of, judged=tuple(Judged(cell=cell, ours=[OURS]) for cell in of.cells))
    assert several.measured[0][0] == "Baseline, DocVQA"


def test_a_dash_is_counted_apart() -> None:
    assert page("table_2").summary == "42 cells: 37 not attempted, 5 with a dash in the paper."


def test_inconsistencies_stand_with_their_table_alone() -> None:
    noted = {of.table.name for of in EVERY if any("Inconsistent in the paper" in note for note in of.notes)}
    assert noted == {"table_6", "table_7"}


def test_markdown_has_a_row_of_as_many_cells_everywhere() -> None:
    for block in re.findall(r"(?:^\|.*\n?)+", markdown(EVERY), re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1
    text = markdown([page("table_4")])
    assert text.startswith("### Table 4. General video question answering")
    assert "| 67.0* \\| 64.4 |" in text
    assert "\n- \\* officially reported" in text


def test_latex_is_balanced_and_every_row_has_its_columns() -> None:
    text = latex(EVERY)
    open_environments = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert not open_environments
    tabulars = re.findall(r"\\begin\{tabular\}\{([^\n]*)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tabulars) == 2 * len(EVERY) + 1  # with notes, and what was measured for one
    for columns, body in tabulars:
        count = len(re.sub(r"p\{.*?\}", "l", columns))
        for line in (line for line in body.splitlines() if line.endswith(r"\\")):
            assert len(re.findall(r"(?<!\\)&", line)) == count - 1
        assert [rule in body for rule in (r"\toprule", r"\bottomrule")] == [True] * 2


def test_latex_escapes_what_is_special() -> None:
    for line in latex(EVERY).splitlines():
        if not line.startswith(("%", "\\")):
            assert not re.search(r"(?<!\\)[%#_~]", line), line
            assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    packages = "\\usepackage{booktabs}\n\\usepackage[T1]{fontenc}\n\\extrafloats{50}\n"
    head = f"\\documentclass{{article}}\n{packages}\\begin{{document}}\n"
    (tmp_path / "page.tex").write_text(f"{head}{latex(EVERY)}\\end{{document}}\n")
    subprocess.run(["pdflatex", "-halt-on-error", "page.tex"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "page.pdf").stat().st_size


def _cells_of(records: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    (found,) = [record["cells"] for record in records if record["table"] == name]
    return found


def test_json_has_every_cell_with_its_verdict() -> None:
    records = json.loads(as_json(EVERY))
    assert [record["table"] for record in records] == [of.table.name for of in EVERY]
    for record, of in zip(records, EVERY, strict=True):
        assert len(record["cells"]) == len(of.table.cells)
    cells = {(cell["row"], cell["column"]): cell for cell in _cells_of(records, "table_10")}
    cell = cells["With video pretraining, fixed 384 px, 64 frames", "Average"]
    assert (cell["value"], cell["trust"], cell["verdict"]) == (54.7, "secondary", "other scale")
    (ours,) = cell["ours"]
    assert (ours["low"], ours["high"]) == (50.1, 54.0)
    assert ours["run_ids"] == list(SMALL.run_ids)
    assert ours["claim"]["outcome"] == "holds"
    assert cells["Every other row", "Average"]["value"] is None


def test_a_terminal_that_is_none_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_terminal([page("table_10"), page("table_7")])
    shown = capsys.readouterr().out
    assert any(line.rstrip().endswith("other scale (holds)") for line in shown.splitlines())
    assert shown.splitlines()[-1].startswith("All 2 tables: 30 cells: ")


def test_a_narrow_terminal_folds_numbers_and_cuts_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_terminal([page("table_2"), page("table_10")])
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in shown.splitlines()) <= 60


def test_the_command_prints_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    shown = runner.invoke(cli.app, ["paper", "table_9", "table_1"])
    assert shown.exit_code == 0
    assert shown.output.index("Table 9. Ablation: AnyRes") < shown.output.index("Table 1. Comprehensive")
    starts = {"markdown": "### Table 9", "latex": "% Written by", "json": "[\n"}
    for form, start in starts.items():
        assert runner.invoke(cli.app, ["paper", "table_9", "--format", form]).output.startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table_0"], "error: unknown table of the paper 'table_0' (did you mean 'table_"),
        (["--format", "markdwon"], "error: unknown format 'markdwon' (did you mean 'markdown'?)"),
    ],
)
def test_a_users_mistake_is_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lab", "paper", *arguments])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 2
    assert capsys.readouterr().err.startswith(message)
