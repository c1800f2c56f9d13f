import json
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from lab import paths
from lab.errors import LabError
from lab.study import store
from lab.study.evaluations import Recorded, evaluate, evaluations_path, read_evaluations
from tests.evaluation.benchmarks.fakes import NUM_ITEMS, Guessing, silent


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_maker: Callable[[], None]) -> Path:
    store_maker()
    root = tmp_path / "checkout"
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    return root


def ask(benchmark: Guessing, model: str = "m", limit: int | None = None, as_row: str = "", **options: str) -> Recorded:
    return evaluate(benchmark, model, options=options, limit=limit, as_row=as_row, progress=silent)


def test_an_evaluation_is_a_run_with_its_answers_and_a_line_a_score() -> None:
    done = ask(Guessing(), as_row="GPT-4o")
    accuracy, points = read_evaluations()
    assert done.lines == (accuracy, points)
    assert not done.was_there
    assert (accuracy.benchmark, accuracy.model, accuracy.model_key, accuracy.limit) == ("guessing", "m", "m@1", None)
    assert (accuracy.value, accuracy.low, accuracy.high, accuracy.num_items) == (0.75, 0.5, 0.9, NUM_ITEMS)
    assert (points.value, points.low, points.high, points.unit) == (2.5, None, None, "points")
    assert json.loads(accuracy.settings) == {"mood": "good", "signature": "x|y"}
    assert accuracy.as_row == points.as_row == "GPT-4o"
    (run,) = store.read_runs()
    assert (run.run_id, run.status, run.tags["kind"]) == (accuracy.run_id, "FINISHED", "evaluation")
    assert run.results == {"accuracy": 0.75, "accuracy.low": 0.5, "accuracy.high": 0.9, "points": 2.5}
    assert len(pandas.read_parquet(run.artifact("answers.parquet"))) == NUM_ITEMS
    assert json.loads(run.artifact("settings.json").read_text()) == {"mood": "good", "signature": "x|y"}


def test_what_was_evaluated_is_not_asked_again() -> None:
    benchmark = Guessing()
    first = ask(benchmark)
    again = ask(benchmark)
    assert again == Recorded(lines=first.lines, was_there=True)
    assert benchmark.asked == ["m"]
    assert len(store.read_runs()) == 1


def test_another_limit_model_setting_or_version_is_another_evaluation_and_none_is_written_over() -> None:
    first = ask(Guessing()).lines
    more = [ask(Guessing(), limit=8), ask(Guessing(), "n"), ask(Guessing(), mood="bad"), ask(Guessing(version=2))]
    lines = read_evaluations()
    assert tuple(lines[:2]) == first
    assert lines[2:] == [line for done in more for line in done.lines]
    assert len({line.key for line in lines}) == 5
    assert [line.limit for line in lines[2:4]] == [8, 8]


def test_a_row_can_be_given_later_but_not_changed() -> None:
    first = ask(Guessing())
    named = ask(Guessing(), as_row="GPT-4o")
    assert named.was_there
    assert {line.as_row for line in read_evaluations()} == {"GPT-4o"}
    assert [line.value for line in named.lines] == [line.value for line in first.lines]
    assert ask(Guessing()).lines == named.lines  # asked without, it keeps its row
    with pytest.raises(LabError, match=r"'m' on 'guessing' stands for 'GPT-4o' .* so not for 'OLMo 7B'"):
        ask(Guessing(), as_row="OLMo 7B")


def test_a_file_changed_by_hand_is_refused_and_left() -> None:
    ask(Guessing())
    changed = evaluations_path().read_text().replace("0.75", "0.95")
    evaluations_path().write_text(changed)
    benchmark = Guessing()
    with pytest.raises(LabError, match=r"ablations/results/evaluations\.csv was changed by hand"):
        ask(benchmark, "n")
    assert evaluations_path().read_text() == changed
    assert benchmark.asked == []


def test_what_breaks_leaves_a_failed_run_and_no_line() -> None:
    with pytest.raises(LabError, match="the model broke"):
        ask(Guessing(), "broken")
    (run,) = store.read_runs()
    assert (run.status, run.tags["error"]) == ("FAILED", "LabError: the model broke")
    assert read_evaluations() == []


def test_what_is_refused_leaves_no_run() -> None:
    with pytest.raises(LabError, match="unknown model"):
        ask(Guessing(), "unknown")
    assert store.read_runs() == []
