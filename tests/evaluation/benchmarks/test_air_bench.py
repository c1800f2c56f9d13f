import json
import re
from collections.abc import Sequence

import pytest

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Evaluated
from lab.evaluation.benchmarks.lmms_eval_benchmarks import LmmsEvalBenchmark
from lab.evaluation.benchmarks.lmms_eval_results import mean_mark
from lab.evaluation.benchmarks.registry import BENCHMARKS
from tests.evaluation.benchmarks.fakes import silent
from tests.evaluation.benchmarks.lmms_eval_stand_in import StandIn

SPEECH = BENCHMARKS["air_bench_speech"]


@pytest.fixture(autouse=True)
def key(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of the test")


def as_lmms_eval(replies: Sequence[Sequence[str]]) -> float:
    """The mean that lmms-eval 0.7.3 gives: an answer of which it finds no two marks counts as 0."""
    total = 0.0
    for after, before in replies:
        found = [re.findall(r"\b(?:[1-9]|10)\b", one.strip().replace(".", "")) for one in (after, before)]
        if len(found[0]) > 1 and found[1]:
            total += float(found[0][1]) + float(found[1][0])
    return total / (2 * len(replies))


def write(stand_in: StandIn, replies: Sequence[Sequence[str]], given: float | None = None) -> None:
    said = [{"gpt_eval": {"eval_answer": list(one), "model_name": "the judge"}} for one in replies]
    value = as_lmms_eval(replies) if given is None else given
    stand_in.writes({"air_bench_chat_speech": {"gpt_eval": value}}, {"air_bench_chat_speech": said})


def evaluate(model: str, stand_in: StandIn, **more: str) -> Evaluated:
    asked = {"python": str(stand_in.path), "model_class": "qwen2_vl", **more}
    return SPEECH.evaluate(model, options=asked, limit=None, progress=silent)


def test_each_part_of_table_7_is_its_own_task():
    found = {name: one for name, one in BENCHMARKS.items() if name.startswith("air_bench")}
    assert {name: one.tasks for name, one in found.items() if isinstance(one, LmmsEvalBenchmark)} == {
        "air_bench_speech": ("air_bench_chat_speech",),
        "air_bench_sound": ("air_bench_chat_sound",),
        "air_bench_music": ("air_bench_chat_music",),
        "air_bench_mix": ("air_bench_chat_mixed",),
    }
    assert [one.cells[0].place for one in found.values()] == [
        *("AIR-Bench speech", "AIR-Bench sound", "AIR-Bench music", "AIR-Bench mix"),
    ]


def test_an_answer_has_the_mean_of_its_marks_in_both_orders(stand_in: StandIn, model: str):
    # The reference has 9 and 8, then 10 and 7: none of these counts.
    write(stand_in, [("9 6", "7 10"), ("8 4", "1 7")])
    found = evaluate(model, stand_in)
    score, unjudged = found.scores
    assert (score.metric, score.unit, score.num_items) == ("chat_score", "points", 2)
    assert score.value == pytest.approx((6 + 7 + 4 + 1) / 4)
    assert (score.low, score.high) == (2.5, 6.5)  # of two answers a draw may hold one twice
    assert (unjudged.metric, unjudged.value, unjudged.better, unjudged.num_items) == ("unjudged", 0.0, "lower", 2)
    assert list(found.answers["score"]) == [6.5, 2.5]
    assert [json.loads(one)["gpt_eval"]["eval_answer"] for one in found.answers["found"]] == [
        ["9 6", "7 10"],
        ["8 4", "1 7"],
    ]
    assert found.settings["unjudged"] == "0 of 2"


def test_an_answer_that_the_judge_has_not_marked_is_left_out_and_lmms_evals_zero_stands_beside(
    stand_in: StandIn, model: str
):
    write(stand_in, [("9 6", "7 9"), ("8 4", "2 7"), ("9 9", "")])
    found = evaluate(model, stand_in)
    assert [(one.metric, one.num_items) for one in found.scores] == [
        ("chat_score", 2),
        ("unjudged", 3),
        ("chat_score_unjudged_zero", 3),
    ]
    assert [one.value for one in found.scores] == pytest.approx([19 / 4, 1 / 3, 19 / 6])
    assert found.answers["score"].isna().tolist() == [False, False, True]
    assert found.settings["unjudged"] == "1 of 3"


def test_a_judge_that_marks_less_than_half_is_refused_and_asked_again_next_time(stand_in: StandIn, model: str):
    write(stand_in, [("", ""), ("9 6", "7 9"), ("cannot say", "5 5")])
    with pytest.raises(
        LabError, match=r"'air_bench_speech': the judge gave no verdict on 2 of 3 answers, .*replied \['', ''\]"
    ):
        evaluate(model, stand_in)
    write(stand_in, [("9 6", "7 9")])
    assert evaluate(model, stand_in).scores[0].value == 6.5
    assert len(stand_in.asked()) == 2


def test_marks_of_which_lmms_eval_has_made_another_number_are_refused(stand_in: StandIn, model: str):
    write(stand_in, [("9 6", "7 9")], given=0.65)
    with pytest.raises(LabError, match=r"lmms-eval's gpt_eval is 0\.65, and the marks in its samples average 6\.5"):
        evaluate(model, stand_in)


@pytest.mark.parametrize("reply", ["9 6", "9. 6.", " 9  6\n", "9\n6", "9, 6", "10 10", "1 1"])
def test_two_marks_are_read_as_lmms_eval_reads_them(reply: str):
    assert mean_mark([reply, reply]) == pytest.approx(as_lmms_eval([(reply, reply)]))


@pytest.mark.parametrize(
    "reply",
    ["", "9", "9 0", "0 9", "9 11", "8.5 9", "9 8.5", "9 6 7", "96", "1: 9, 2: 6", "nine six"],
)
def test_any_other_reply_marks_nothing(reply: str):
    assert mean_mark([reply, "7 9"]) is None
    assert mean_mark(["9 6", reply]) is None


def test_of_an_answer_the_judge_has_replied_to_once_there_is_no_mark():
    assert mean_mark(["9 6"]) is None
    assert mean_mark([]) is None


def test_the_judge_is_openais_unless_it_is_said_and_lmms_eval_is_told(
    stand_in: StandIn, model: str, monkeypatch: pytest.MonkeyPatch
):
    write(stand_in, [("9 6", "7 9")])
    assert evaluate(model, stand_in).settings["judge"] == "gpt-4o-2024-11-20 (openai) at its default address"
    assert stand_in.api_type() == "openai"
    monkeypatch.setenv("API_TYPE", "azure")
    monkeypatch.setenv("AZURE_API_KEY", "of the test")
    monkeypatch.setenv("MODEL_VERSION", "gpt-4-0125-preview")
    assert evaluate(model, stand_in).settings["judge"] == "gpt-4-0125-preview (azure) at its default address"
    assert stand_in.api_type() == "azure"
    monkeypatch.delenv("AZURE_API_KEY")
    with pytest.raises(LabError, match=r"'air_bench_speech' has its answers read .*AZURE_API_KEY is not set"):
        evaluate(model, stand_in)
