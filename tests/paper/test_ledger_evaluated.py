import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from lab import cli, paths
from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Fills, Options
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.paper.evaluating import options_of, print_benchmarks
from lab.paper.ledger import ours as evaluated
from lab.paper.ledger.cells import table
from lab.paper.ledger.formats import as_json, latex, markdown, print_terminal
from lab.paper.ledger.pages import pages
from lab.paper.report import write_report
from lab.study.evaluations import evaluate
from tests.evaluation.benchmarks.fakes import Guessing, silent

MMLU = Fills(table="table_1", place="MMLU", metric="accuracy", score="accuracy")
KEY = "table_1 / Baichuan-Omni 7B / MMLU / accuracy"  # printed as 65.3
NAME = "Baichuan-Omni 7B"


@pytest.fixture
def guessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_maker: Callable[[], None]) -> Guessing:
    """A benchmark that fills Table 1's MMLU and scores 75%; a checkout without studies."""
    store_maker()
    (tmp_path / "checkout" / "ablations").mkdir(parents=True)
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path / "checkout")
    benchmark = Guessing(cells=(MMLU,))
    monkeypatch.setitem(BENCHMARKS, "guessing", benchmark)
    return benchmark


class Optionless(Guessing):
    options: ClassVar[Options] = {}


def ask(benchmark: Guessing, model: str = "m", **more: object) -> None:
    evaluate(benchmark, model, options={}, progress=silent, **more)  # type: ignore[arg-type]


def test_every_benchmark_fills_cells_that_there_are() -> None:
    for benchmark in BENCHMARKS.values():
        for fills in benchmark.cells:
            for row in evaluated.rows_of(fills):
                assert evaluated.cells_of(fills, row), (benchmark.name, row)


def test_models_stand_in_rows_or_in_columns() -> None:
    (cell,) = evaluated.cells_of(MMLU, NAME)
    assert cell.key == KEY
    fleurs = Fills(table="table_6", place="Fleurs test-en", metric="WER", score="word_error_rate")
    (other,) = evaluated.cells_of(fleurs, NAME)
    assert (other.row, other.column, other.printed) == ("Fleurs test-en", NAME, "4.7")
    video = Fills(table="table_4", place="MVBench", metric="top-1 accuracy", score="accuracy")
    assert [cell.printed for cell in evaluated.cells_of(video, "Qwen2-VL 7B")] == ["67.0", "64.4"]


def test_a_named_row_fills_its_cell_and_no_other(guessing: Guessing) -> None:
    ask(guessing, as_row=NAME)
    (page,) = pages([table("table_1")])
    judged = {one.cell.key: one for one in page.judged}
    (ours,) = judged[KEY].ours
    assert (ours.value, ours.low, ours.high, ours.rung) == (75.0, 50.0, 90.0, "paper")
    assert judged[KEY].verdict == "not reproduced"  # 75.0 is not within 1% of 65.3
    assert {one.verdict for key, one in judged.items() if key != KEY} == {"not attempted"}
    (line,) = page.measured
    assert line[:3] == [f"{NAME}, MMLU", "65.3", "75.0 (50.0 to 90.0)"]
    assert any("guessing on m: accuracy of m@1" in note and "mood good" in note for note in page.notes)


@pytest.mark.parametrize(("value", "verdict"), [(65.9, "reproduced"), (66.0, "not reproduced")])
def test_a_checkpoint_reproduces_by_tolerance_alone(guessing: Guessing, value: float, verdict: str) -> None:
    from lab.paper.ledger.pages import judge_one

    ask(guessing, as_row=NAME)
    (ours,) = evaluated.filling([KEY])[KEY]
    (cell,) = evaluated.cells_of(MMLU, NAME)
    assert judge_one(cell, type(ours)(**{**vars(ours), "value": value, "low": 65.0, "high": 66.5})) == verdict


def test_a_sample_an_unnamed_model_and_an_old_version_fill_nothing(
    guessing: Guessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(guessing, "a", limit=8, as_row=NAME)
    ask(guessing, "b")
    assert evaluated.filling([KEY]) == {}
    ask(guessing, "c", as_row=NAME)
    assert [ours.row for ours in evaluated.filling([KEY])[KEY]] == ["c"]
    monkeypatch.setitem(BENCHMARKS, "guessing", Guessing(cells=(MMLU,), version=2))
    assert evaluated.filling([KEY]) == {}


def test_a_row_that_can_stand_for_no_cell_is_refused() -> None:
    evaluated.check_row([Guessing()], "", 5)
    with pytest.raises(LabError, match="a sample of 5 items fills none"):
        evaluated.check_row([Guessing(cells=(MMLU,))], NAME, 5)
    with pytest.raises(LabError, match="'guessing' fills no cell of the paper's tables; leave --as out"):
        evaluated.check_row([Guessing()], NAME, None)
    with pytest.raises(LabError, match=r"unknown model in Table 1: 'Baichuan-Omni' \(did you mean 'Baichuan-Omni 7B'"):
        evaluated.check_row([Guessing(cells=(MMLU,))], "Baichuan-Omni", None)


def test_what_was_evaluated_is_shown_in_every_format(guessing: Guessing, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Evaluated here" not in markdown(pages([table("table_1")]), evaluated.grid())
    ask(guessing, "a&b", limit=8)
    lines = evaluated.grid()
    assert lines[0][:3] == ["guessing", "a&b", "accuracy"]
    assert lines[0][4:6] == ["8 (a sample)", "–"]
    assert lines[1][3] == "2.5"
    shown = pages([table("table_1")])
    assert "### Evaluated here" in markdown(shown, lines)
    assert r"a\&b & accuracy" in latex(shown, lines)
    last = json.loads(as_json(shown, lines))[-1]
    assert (last["table"], last["lines"][0]["Model"]) == ("evaluated_here", "a&b")
    print_terminal(shown, lines)
    assert "Evaluated here" in capsys.readouterr().out
    page = write_report().read_text(encoding="utf-8")
    assert "Evaluated here" in page
    assert "a&amp;b" in page


def test_options_are_read_and_refused_early() -> None:
    one, other = Guessing(), Optionless(name="other")
    assert options_of([one, other], ["mood=bad=ly"]) == {"guessing": {"mood": "bad=ly"}, "other": {}}
    for given, message in [
        (["mood"], "--option is 'mood'; expected NAME=VALUE"),
        (["mood="], "expected NAME=VALUE"),
        (["mood=a", "mood=b"], "--option mood is given twice"),
        (["moood=a"], "unknown option 'moood' of guessing, other; choose one of: mood"),
    ]:
        with pytest.raises(LabError, match=message):
            options_of([one, other], given)


def test_the_command_evaluates_once_and_then_shows_what_is_there(guessing: Guessing) -> None:
    runner = CliRunner()
    first = runner.invoke(cli.app, ["evaluate", "m", "guessing", "--as", NAME])
    assert first.exit_code == 0, first.output
    assert "75.0% (50.0 to 90.0)" in first.output
    assert "evaluated now" in first.output
    again = runner.invoke(cli.app, ["evaluate", "m", "guessing"])
    assert "there already" in again.output
    assert f"stands for {NAME}" in again.output
    assert guessing.asked == ["m"]


def test_the_list_has_every_name_whole_where_the_terminal_is_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    print_benchmarks()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) == 80
    first = [line.split()[0] for line in lines if line.split()]
    for name, benchmark in BENCHMARKS.items():
        assert name in first
        assert all(f"{option}=" in "\n".join(lines) for option in benchmark.options)
    assert sum("as above" in line for line in lines) == 8  # of KeSpeech's nine, whose data are one
    assert any("ActivityNet-QA, " in line for line in lines)
    assert any("accuracy and score" in line for line in lines)


def test_the_command_lists_benchmarks_and_refuses_early(guessing: Guessing) -> None:
    runner = CliRunner()
    listed = runner.invoke(cli.app, ["evaluate", "--list"])
    assert listed.exit_code == 0
    for name in BENCHMARKS:
        assert name in listed.output
    assert "--option model_class=" in listed.output
    for arguments, message in [
        ([], "name a model and benchmarks"),
        (["m", "guesing"], "unknown benchmark 'guesing' (did you mean 'guessing'?)"),
        (["m", "guessing", "--as", "Nobody"], "unknown model in Table 1: 'Nobody'"),
        (["unknown", "guessing"], "unknown model 'unknown'"),
        (["m", "guessing", "--option", "tempo=3"], "unknown option 'tempo'"),
    ]:
        done = runner.invoke(cli.app, ["evaluate", *arguments])
        assert isinstance(done.exception, LabError)
        assert message in str(done.exception)
    assert guessing.asked == []
