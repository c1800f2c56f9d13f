import csv
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lab.data import hub
from lab.errors import LabError
from lab.evaluation.benchmarks.multimodal import (
    VARIABLE,
    Metric,
    MultimodalBenchmark,
    find_lmms_eval,
    last_lines,
    mean_mark,
    run_lmms_eval,
)
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.paths import cache_dir
from tests.evaluation.benchmarks.fakes import Found, asked, silent
from tests.evaluation.benchmarks.lmms_eval_stand_in import DATE, StandIn

MULTIMODAL = {name: one for name, one in BENCHMARKS.items() if isinstance(one, MultimodalBenchmark)}
LEDGER = Path(__file__).parents[3] / "lab" / "paper" / "ledger" / "cells.csv"


def options(stand_in: StandIn, **more: str) -> dict[str, str]:
    return {"python": str(stand_in.path), "model_class": "qwen2_vl", **more}


def evaluate(name: str, model: str, stand_in: StandIn, limit: int | None = None, **more: str) -> Found:
    return asked(BENCHMARKS[name], model, options(stand_in, **more), limit)


def score(evaluated: Found, name: str = "accuracy"):
    return next(one for one in evaluated.scores if one.metric == name)


def exact(*right: float) -> list[dict[str, object]]:
    return [{"exact_match": one} for one in right]


def test_every_place_of_tables_2_to_5_and_7_but_those_without_a_task_has_one_benchmark():
    with LEDGER.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    cells = {
        (one["table"], one["column"], one["metric"]) for one in lines if one["table"] in {f"table_{n}" for n in "2345"}
    }
    cells |= {("table_7", one["row"], one["metric"]) for one in lines if one["table"] == "table_7"}
    filled = [(one.table, one.place, one.metric) for found in MULTIMODAL.values() for one in found.cells]
    assert len(filled) == len(set(filled))
    without = {("table_2", "M3GIA", "score"), ("table_5", "MSVD-QA", "accuracy"), ("table_5", "MSVD-QA", "score")}
    assert set(filled) == cells - without


def test_what_fills_a_cell_is_a_score_that_the_benchmark_has():
    for name, one in MULTIMODAL.items():
        metrics = {metric: Metric(**fields) for metric, fields in one.metrics.items()}
        for fills in one.cells:
            assert (fills.score in metrics) != bool(one.combined), name
        assert len(metrics) == 1 or one.combined or name == "activitynet_qa", name
        assert all(metric.marked_twice == name.startswith("air_bench") for metric in metrics.values()), name


def test_a_run_gives_the_score_with_its_interval_and_every_answer(stand_in: StandIn, model: str):
    right = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    stand_in.writes({"realworldqa": {"exact_match": 0.6, "exact_match_stderr": 0.163}}, {"realworldqa": exact(*right)})
    seen: list[tuple[int, int]] = []
    found = asked(
        BENCHMARKS["real_world_qa"],
        model,
        options(stand_in),
        progress=lambda done, total: seen.append((done, total)),
    )
    (accuracy,) = found.scores
    assert accuracy.value == pytest.approx(0.6)
    assert accuracy.num_items == 10
    # A mean of ten 0s and 1s: 1.96 sqrt(p (1 - p) / n) is 0.304, and the bootstrap's ends are tenths.
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.low == pytest.approx(0.3, abs=0.11)
    assert accuracy.high == pytest.approx(0.9, abs=0.11)
    assert list(found.answers["score"]) == right
    assert found.answers.iloc[3].to_dict() == {
        "id": "3",
        "asked": "prompt 3",
        "answer": "target 3",
        "given": "answer 3",
        "score": 0.0,
        "task": "realworldqa",
        "found": '{"exact_match": 0.0}',
    }
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (10, 10)]
    assert found.settings["lmms_eval"] == "0.7.3"
    assert found.settings["torch"] == "2.15.0"
    assert found.settings["transformers"] == "5.23.0"
    assert found.settings["data"] == "lmms-lab-encoder/RealWorldQA @ commit of lmms-lab-encoder/RealWorldQA"
    assert found.model_key.startswith("folder@")


def test_lmms_eval_is_asked_as_its_command_line_wants_it(stand_in: StandIn, model: str):
    stand_in.writes({"realworldqa": {"exact_match": 1.0}}, {"realworldqa": exact(1.0, 1.0)})
    evaluate(
        "real_world_qa", model, stand_in, 2, model_args="max_pixels=64,use_cache=False", device="cpu", batch_size="4"
    )
    (given,) = stand_in.asked()
    given.remove("--log_samples")
    named = dict(zip(given[::2], given[1::2], strict=True))
    responses, output = Path(named.pop("--use_cache")), Path(named.pop("--output_path"))
    assert named == {
        "--model": "qwen2_vl",
        "--model_args": f"pretrained={model},max_pixels=64,use_cache=False",
        "--tasks": "realworldqa",
        "--batch_size": "4",
        "--timezone": "UTC",
        "--device": "cpu",
        "--limit": "2",
    }
    assert responses.parent == cache_dir() / "lmms-eval" / "responses"
    assert output.is_relative_to(cache_dir() / "lmms-eval")


def test_what_has_ended_is_not_run_again_and_a_larger_sample_shares_the_responses(stand_in: StandIn, model: str):
    stand_in.writes({"realworldqa": {"exact_match": 0.5}}, {"realworldqa": exact(1.0, 0.0)})
    first, again = (evaluate("real_world_qa", model, stand_in, 2) for _ in range(2))
    assert first.scores == again.scores
    assert first.answers.equals(again.answers)
    assert len(stand_in.asked()) == 1
    evaluate("real_world_qa", model, stand_in)
    evaluate("real_world_qa", model, stand_in, model_args="max_pixels=64")
    caches = [line[line.index("--use_cache") + 1] for line in stand_in.asked()]
    assert len(caches) == 3
    assert caches[0] == caches[1] != caches[2]


def test_a_failed_run_leaves_nothing_and_the_next_one_asks(stand_in: StandIn, model: str):
    bar = "Model Responding:  50%|##   | 1/2 [00:00<00:00, 9.00it/s]"
    stand_in.tell(status=3, says=f"{bar}\n\x1b[31mtorch.OutOfMemoryError: CUDA out of memory\x1b[0m\n{'x' * 500}")
    with pytest.raises(LabError, match=r"ended with status 3: .*torch.OutOfMemoryError: CUDA out of memory \| x{400}"):
        evaluate("real_world_qa", model, stand_in)
    stand_in.tell(status=0, says="Error during evaluation: Unexpected kwargs")
    with pytest.raises(
        LabError, match=r"written no results: .*last lines: .*Error during evaluation: Unexpected kwargs"
    ):
        evaluate("real_world_qa", model, stand_in)
    stand_in.writes({"realworldqa": {"exact_match": 0.5}}, {"realworldqa": exact(1.0, 0.0)})
    assert score(evaluate("real_world_qa", model, stand_in)).value == 0.5
    assert len(stand_in.asked()) == 3


@pytest.mark.parametrize(
    ("results", "samples", "message"),
    [
        ({"other": {"exact_match": 1.0}}, exact(1.0), "task 'realworldqa' has no number 'exact_match'; it has: none"),
        (
            {"realworldqa": {"acc": 1.0, "acc_stderr": 0.1}},
            exact(1.0),
            "'exact_match'; it has: .*'acc,none': 1",
        ),
        ({"realworldqa": {"exact_match": "N/A"}}, exact(1.0), "has no number 'exact_match'; it has: .*'N/A'"),
        ({"realworldqa": {"exact_match": math.nan}}, exact(1.0), "has no number 'exact_match'; it has: .*nan"),
        (
            {"realworldqa": {"exact_match": 1.0}},
            None,
            f"lmms-eval's file {DATE}_samples_realworldqa.jsonl cannot be read: FileNotFound",
        ),
    ],
)
def test_results_that_lack_what_was_asked_are_refused(
    stand_in: StandIn, model: str, results: Mapping[str, Mapping[str, object]], samples: list | None, message: str
):
    stand_in.writes(results, {} if samples is None else {"realworldqa": samples})
    with pytest.raises(LabError, match=message):
        evaluate("real_world_qa", model, stand_in)


def test_half_a_character_or_a_line_separator_in_a_reply_loses_nothing(stand_in: StandIn, model: str):
    replies = ["cut \ud83d", "an emoji in halves \ud83d\ude00", "two\u2028lines"]
    items = [{"exact_match": 1.0, "filtered_resps": [reply], "target": reply} for reply in replies]
    stand_in.writes({"realworldqa": {"exact_match": 1.0}}, {"realworldqa": items})
    files = stand_in.told["files"]
    name = next(name for name in files if name.endswith("jsonl"))
    stand_in.tell(files={**files, name: files[name].replace("\\u2028", "\u2028")})
    found = evaluate("real_world_qa", model, stand_in)
    shown = ["cut \ufffd", "an emoji in halves \U0001f600", "two\u2028lines"]
    assert found.answers["given"].tolist() == found.answers["answer"].tolist() == shown


def test_files_that_are_no_json_are_refused(stand_in: StandIn, model: str):
    stand_in.writes({"realworldqa": {"exact_match": 1.0}}, {"realworldqa": exact(1.0)})
    files = stand_in.told["files"]
    for ending, message in (
        (f"{DATE}_results.json", "results.json cannot be read"),
        ("jsonl", "samples_realworldqa.jsonl cannot be read"),
    ):
        name = next(name for name in files if name.endswith(ending))
        stand_in.tell(files={**files, name: '{"results": '})
        with pytest.raises(LabError, match=message):
            evaluate("real_world_qa", model, stand_in)
    stand_in.tell(files={**files, f"own__model/{DATE}_results.json": json.dumps({"groups": {}})})
    with pytest.raises(LabError, match=r"results.json cannot be read: KeyError"):
        evaluate("real_world_qa", model, stand_in)


def test_items_that_say_nothing_have_the_interval_of_lmms_evals_standard_error(stand_in: StandIn, model: str):
    stand_in.writes(
        {"textvqa_val": {"exact_match": 0.5, "exact_match_stderr": 0.1}},
        {"textvqa_val": exact(0.3, 0.7, 0.8)},  # average to another number
    )
    found = score(evaluate("text_vqa_val", model, stand_in))
    assert (found.low, found.value, found.high) == pytest.approx((0.5 - 0.196, 0.5, 0.5 + 0.196), abs=1e-4)


def test_without_items_or_a_standard_error_there_is_no_interval(stand_in: StandIn, model: str):
    stand_in.writes(
        {"mmbench_en_dev_static": {"gpt_eval_score": 72.5, "gpt_eval_score_stderr": "N/A", "submission": None}},
        {"mmbench_en_dev_static": [{"gpt_eval_score": {"index": 1, "answer": "A", "prediction": "A"}}]},
    )
    evaluated = evaluate("mmbench", model, stand_in)
    found = score(evaluated)
    assert (found.value, found.low, found.high, found.num_items) == (0.725, None, None, 1)
    assert evaluated.answers["score"].isna().all()


def test_an_interval_over_items_needs_them_to_average_to_the_score(stand_in: StandIn, model: str):
    stand_in.writes({"chartqa": {"relaxed_overall": 0.9}}, {"chartqa": [{"relaxed_overall": 1.0}] * 2})
    found = score(evaluate("chart_qa", model, stand_in))
    assert (found.value, found.low) == (0.9, None)


def test_mme_is_points_of_perception_and_cognition(stand_in: StandIn, model: str):
    lines = [{"mme_perception_score": {"score": 1.0}}] * 2 + [{"mme_cognition_score": {"score": 0.0}}] * 2
    stand_in.writes({"mme": {"mme_perception_score": 1500.5, "mme_cognition_score": 300.0}}, {"mme": lines})
    found = evaluate("mme", model, stand_in)
    assert [(one.metric, one.value, one.unit, one.num_items, one.low) for one in found.scores] == [
        ("points", 1800.5, "points", 4, None),
        ("perception", 1500.5, "points", 2, None),
        ("cognition", 300.0, "points", 2, None),
    ]
    assert list(found.answers["score"]) == [1.0, 1.0, 0.0, 0.0]
    stand_in.writes({"mme": {"mme_perception_score": 200.0}}, {"mme": lines[:2]})
    sample = evaluate("mme", model, stand_in, 2)
    assert [one.metric for one in sample.scores] == ["perception"]


def test_a_sample_without_an_item_that_counts_is_refused(stand_in: StandIn, model: str):
    stand_in.writes({"seedbench": {"seed_all": 1.0}}, {"seedbench": [{"seed_all": {"pred": "A", "answer": "A"}}]})
    with pytest.raises(LabError, match="sample of seedbench holds no item that seed_image counts; ask more"):
        evaluate("seed_image", model, stand_in, 1)


def test_mvbench_is_the_mean_of_its_twenty_tasks(stand_in: StandIn, model: str):
    benchmark = BENCHMARKS["mv_bench"]
    assert isinstance(benchmark, MultimodalBenchmark)
    tasks = benchmark.tasks
    assert len(tasks) == 20
    right = {task: [float(place < number % 5) for place in range(4)] for number, task in enumerate(tasks)}
    stand_in.writes(
        {task: {"mvbench_accuracy": 25.0 * sum(ones)} for task, ones in right.items()},
        {task: [{"mvbench_accuracy": {"score": int(one)}} for one in ones] for task, ones in right.items()},
    )
    found = evaluate("mv_bench", model, stand_in, 4)
    # 0, 1, 2, 3 and 4 of 4 right, four times each.
    whole = score(found)
    assert whole.value == pytest.approx(0.5)
    assert whole.num_items == 80
    assert whole.low is not None
    assert whole.low < 0.5 < whole.high
    assert len(found.scores) == 1
    assert found.answers["id"].is_unique
    assert found.answers["id"][0] == "mvbench_action_sequence/0"
    assert found.settings["data"] == "OpenGVLab/MVBench@video @ commit of OpenGVLab/MVBench@video"


def test_right_is_where_the_two_fields_are_equal_or_the_one_is_true(
    stand_in: StandIn, model: str, monkeypatch: pytest.MonkeyPatch
):
    lines = [{"seed_image": {"pred": given, "answer": "B"}, "seed_all": {}} for given in ("b", "A", "B ", "C")]
    video = {"seed_video": {"pred": "A", "answer": "A"}, "seed_all": {}}
    stand_in.writes({"seedbench": {"seed_image": 0.5, "seed_video": 1.0}}, {"seedbench": [*lines, video]})
    found = evaluate("seed_image", model, stand_in)
    assert score(found).value == 0.5
    assert score(found).num_items == 4
    assert score(found).low is not None
    assert list(found.answers["score"])[:4] == [1.0, 0.0, 1.0, 0.0]
    assert math.isnan(found.answers["score"][4])
    monkeypatch.setenv("OPENAI_API_KEY", "of the test")
    stand_in.writes(
        {"mathvista_testmini_format": {"llm_as_judge_eval": "66.67"}},  # a text, with two decimals
        {"mathvista_testmini_format": [{"llm_as_judge_eval": {"true_false": one}} for one in (True, False, True)]},
    )
    found = evaluate("math_vista_mini", model, stand_in)
    assert score(found).value == pytest.approx(2 / 3)
    assert score(found).low is not None


def test_ocrbenchs_sample_is_divided_by_the_sample(stand_in: StandIn, model: str):
    lines = [{"ocrbench_accuracy": {"score": one}} for one in (1, 1, 1, 0)]
    stand_in.writes({"ocrbench": {"ocrbench_accuracy": 3 / 1000}}, {"ocrbench": lines})
    assert score(evaluate("ocr_bench", model, stand_in, 4)).value == pytest.approx(0.75)


def test_questions_of_one_video_are_drawn_together(stand_in: StandIn, model: str):
    def width(videos: list[str]) -> float:
        lines = [
            {"videomme_perception_score": {"score": float(place < 20), "videoID": video}}
            for place, video in enumerate(videos)
        ]
        stand_in.writes({"videomme": {"videomme_perception_score": 50.0}}, {"videomme": lines})
        found = score(evaluate("video_mme", model, stand_in, None, model_args=f"name={len(set(videos))}"))
        assert found.low is not None
        return found.high - found.low

    # Ten equal answers to each video are one witness: the interval is sqrt(10) times as wide.
    alone, together = width([str(one) for one in range(40)]), width([str(one // 10) for one in range(40)])
    assert together / alone == pytest.approx(math.sqrt(10), rel=0.25)


def test_hallusion_bench_is_the_mean_of_its_three_and_needs_its_judge(
    stand_in: StandIn, model: str, monkeypatch: pytest.MonkeyPatch
):
    said = {"aAcc": {"category": "VD"}, "fAcc": {"category": "VD"}, "qAcc": {"category": "VD"}}
    stand_in.writes(
        {"hallusion_bench_image": {"aAcc": 60.0, "qAcc": 30.0, "fAcc": 36.0}}, {"hallusion_bench_image": [said, said]}
    )
    benchmark = BENCHMARKS["hallusion_bench"]
    with pytest.raises(LabError, match=r"read by a judge \(gpt-4 by lmms-eval's default\), and OPENAI_API_KEY is not"):
        benchmark.identify(model, options(stand_in))
    monkeypatch.setenv("API_TYPE", "azure")
    with pytest.raises(LabError, match="AZURE_API_KEY is not set"):
        benchmark.identify(model, options(stand_in))
    monkeypatch.setenv("API_TYPE", "local")
    with pytest.raises(LabError, match=r"API_TYPE is 'local'.*choose one of: azure, openai"):
        benchmark.identify(model, options(stand_in))
    monkeypatch.setenv("API_TYPE", "openai")
    monkeypatch.setenv("OPENAI_API_KEY", "of the test")
    monkeypatch.setenv("MODEL_VERSION", "gpt-3.5-turbo")  # which this task does not read
    found = evaluate("hallusion_bench", model, stand_in)
    assert [(one.metric, one.num_items) for one in found.scores] == [
        ("accuracy", 2),
        ("question_accuracy", 2),
        ("figure_accuracy", 2),
        ("question_pair_accuracy", 2),
    ]
    assert score(found).value == pytest.approx(0.42)
    assert found.settings["judge"] == "gpt-4 (openai) at its default address"
    read = BENCHMARKS["mm_vet"].identify(model, options(stand_in))
    assert read.settings["judge"] == "gpt-3.5-turbo (openai) at its default address"
    assert "of the test" not in str(read)


def test_an_endpoints_model_is_known_by_its_name_and_takes_another_argument(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
):
    stand_in.writes({"realworldqa": {"exact_match": 1.0}}, {"realworldqa": exact(1.0, 1.0)})
    found = evaluate("real_world_qa", "gpt-4o", stand_in, model_class="openai_compatible")
    assert found.model_key == "openai_compatible:gpt-4o"
    assert "model_version=gpt-4o" in stand_in.asked()[0]
    assert found.settings["endpoint"] == "as in model_args, or the class's default"
    assert found.settings["unanswered"] == "0 of 2, counted as wrong"
    monkeypatch.setenv("OPENAI_API_BASE", "http://localhost:1/v1")
    check = BENCHMARKS["real_world_qa"].identify
    settings = check("gpt-4o", options(stand_in, model_class="openai")).settings
    assert settings["endpoint"] == "OPENAI_API_BASE=http://localhost:1/v1"


def test_what_is_wrong_is_said_before_anything_is_asked(stand_in: StandIn, model: str, monkeypatch: pytest.MonkeyPatch):
    check = BENCHMARKS["real_world_qa"].identify
    for more, message in (
        ({"batch_size": "0"}, "option batch_size is '0'; expected a whole number from 1"),
        ({"model_args": "max_pixels"}, "option model_args is 'max_pixels'; expected NAME=VALUE,NAME=VALUE"),
    ):
        with pytest.raises(LabError, match=message):
            check(model, options(stand_in, **more))
    with pytest.raises(LabError, match="has a comma, which parts lmms-eval's arguments"):
        check("own/a,b", options(stand_in))
    with pytest.raises(LabError, match="which model class of lmms-eval loads 'own/model' is not known here"):
        check("own/model", {"python": str(stand_in.path)})
    with pytest.raises(LabError, match="unknown model 'nowhere'"):
        check("nowhere", options(stand_in))

    def gone(name: str) -> str:
        raise LabError(f"data set {name!r} cannot be had")

    monkeypatch.setattr(hub, "data_revision", gone)
    with pytest.raises(LabError, match="data set 'lmms-lab-encoder/RealWorldQA' cannot be had"):
        check(model, options(stand_in))
    assert stand_in.asked() == []


def test_activitynet_has_the_accuracy_and_the_score_of_its_judge(
    stand_in: StandIn, model: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "of the test")
    marks = [("yes", 5.0), ("yes", 4.0), ("no", 0.0), ("no", 1.0)]
    said = [
        {"Correctness": right, "score": mark, "pred": "a", "answer": "b", "video_name": number}
        for number, (right, mark) in enumerate(marks)
    ]
    stand_in.writes(
        {"activitynetqa": {"gpt_eval_score": 2.5, "gpt_eval_accuracy": 50.0}},
        {"activitynetqa": [{"gpt_eval_score": one, "gpt_eval_accuracy": one} for one in said]},
    )
    found = evaluate("activitynet_qa", model, stand_in)
    assert [(one.metric, one.value, one.unit) for one in found.scores] == [
        ("accuracy", 0.5, "fraction"),
        ("judge_score", 2.5, "points"),
    ]
    assert all(one.low < one.value < one.high for one in found.scores)
    assert found.settings["judge"] == "gpt-3.5-turbo-0613 (openai) at its default address"


def test_speech_translation_has_lmms_evals_bleu(stand_in: StandIn, model: str):
    lines = [{"bleu": {"gt": "yes", "pred": "yes"}}, {"bleu": {"gt": "no", "pred": "on"}}]
    stand_in.writes({"covost2_zh_en_test": {"bleu": 23.4, "bleu_stderr": 1.0}}, {"covost2_zh_en_test": lines})
    (bleu,) = evaluate("covost2_zh2en", model, stand_in).scores
    assert (bleu.metric, bleu.value, bleu.unit, bleu.num_items) == ("bleu", 23.4, "points", 2)
    assert (bleu.low, bleu.high) == pytest.approx((21.44, 25.36), abs=1e-3)


def test_what_an_endpoint_leaves_without_a_text_is_counted_and_more_than_half_of_it_is_refused(
    stand_in: StandIn, model: str
):
    replies = [[""], [None], "[LMMS_EVAL_REQUEST_FAILED after 5 retries] max_tokens is not supported", "A", " B ", "C"]
    items = [{"exact_match": 0.0, "filtered_resps": reply} for reply in replies]
    stand_in.writes({"realworldqa": {"exact_match": 0.0}}, {"realworldqa": items})
    found = evaluate("real_world_qa", "gpt-4o", stand_in, model_class="openai")
    assert found.settings["unanswered"] == "3 of 6, counted as wrong"
    assert found.answers["given"].tolist()[:2] == ["", ""]
    assert "unanswered" not in evaluate("real_world_qa", model, stand_in).settings  # weights that say nothing are wrong
    stand_in.writes({"realworldqa": {"exact_match": 0.0}}, {"realworldqa": items[:5]})
    benchmark = BENCHMARKS["real_world_qa"]
    key = benchmark.identify("gpt-5", options(stand_in, model_class="openai")).key(benchmark, None)
    kept = [cache_dir() / "lmms-eval" / "responses" / name for name in (f"{key}/rank0.db", f"{key}_rank0.db", "other")]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(LabError, match=r"the endpoint gave no text for 3 of 5 questions.*content filter"):
        evaluate("real_world_qa", "gpt-5", stand_in, model_class="openai")
    assert [path.exists() for path in kept] == [False, False, True]


def chat(stand_in: StandIn, model: str, replies: Sequence[Sequence[str]], value: float) -> Found:
    said = [{"gpt_eval": {"eval_answer": list(one), "model_name": "the judge"}} for one in replies]
    stand_in.writes({"air_bench_chat_speech": {"gpt_eval": value}}, {"air_bench_chat_speech": said})
    return evaluate("air_bench_speech", model, stand_in)


def test_an_answer_of_air_bench_has_the_mean_of_its_marks_in_both_orders(
    stand_in: StandIn, model: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "of the test")
    # The reference has 9 and 8, then 10 and 7: none of these counts.
    found = chat(stand_in, model, [("9 6", "7 10"), ("8 4", "1 7")], 4.5)
    (mark,) = found.scores
    assert (mark.metric, mark.unit, mark.num_items, mark.value) == ("chat_score", "points", 2, 4.5)
    assert (mark.low, mark.high) == (2.5, 6.5)  # of two answers a draw may hold one twice
    assert list(found.answers["score"]) == [6.5, 2.5]
    assert found.settings["unmarked"] == "0 of 2, counted as 0"
    assert stand_in.api_type() == "openai"


def test_answers_without_a_mark_are_counted_and_more_than_half_of_them_are_refused(
    stand_in: StandIn, model: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "of the test")
    with pytest.raises(LabError, match="'air_bench_speech': the judge gave no mark to 2 of 3 answers, and lmms-eval"):
        chat(stand_in, model, [("", ""), ("9 6", "7 9"), ("cannot say", "5 5")], 13 / 6)
    found = chat(stand_in, model, [("9 6", "7 9"), ("8 4", "2 7"), ("9 9", "")], 19 / 6)
    assert found.scores[0].value == pytest.approx(19 / 6)
    assert found.answers["score"].isna().tolist() == [False, False, True]
    assert found.settings["unmarked"] == "1 of 3, counted as 0"
    assert len(stand_in.asked()) == 2


@pytest.mark.parametrize("reply", ["", "9", "9 0", "0 9", "9 11", "8.5 9", "9 6 7", "96", "1: 9, 2: 6", "nine six"])
def test_a_reply_of_the_judge_without_two_marks_marks_nothing(reply: str):
    assert mean_mark([reply, "7 9"]) is None
    assert mean_mark(["9 6", reply]) is None
    assert mean_mark(["9. 6.", "9\n6"]) == 7.5


def runs(process: Path) -> bool:
    try:
        os.kill(int(process.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def run(stand_in: StandIn, tmp_path: Path, progress=silent) -> None:
    command = [str(stand_in.path), "--output_path", str(tmp_path / "output")]
    run_lmms_eval(command, tmp_path / "logs" / "one.log", progress, {})


def test_the_option_goes_before_the_variable_before_the_path(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = StandIn(tmp_path / "other")
    on_path = StandIn(tmp_path / "bin", "lmms-eval")
    monkeypatch.setenv("PATH", str(on_path.folder))
    assert find_lmms_eval()[0] == [str(on_path.path)]
    monkeypatch.setenv(VARIABLE, str(other.path))
    assert find_lmms_eval()[0] == [str(other.path), "-m", "lmms_eval"]
    command, versions = find_lmms_eval(str(stand_in.path))
    assert command == [str(stand_in.path), "-m", "lmms_eval"]
    assert versions == {"lmms_eval": "0.7.3", "torch": "2.15.0", "transformers": "5.23.0"}


def test_where_there_is_no_lmms_eval_the_error_says_how_to_have_one(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    how = rf"environment of its own .*lmms-eval==0.7.3, then give --option python=.* or set {VARIABLE}"
    with pytest.raises(LabError, match=f"lmms-eval is not installed; install it into an {how}"):
        find_lmms_eval()
    with pytest.raises(LabError, match=f"'/no/python' is no Python that can be run; .*{how}"):
        find_lmms_eval("/no/python")
    with pytest.raises(LabError, match=f"version fails: .*No module named '?lmms_eval.*{how}"):  # a Python without it
        find_lmms_eval(sys.executable)
    stand_in.tell(version="something else")
    with pytest.raises(LabError, match="does not say which lmms-eval it is, but 'something else"):
        find_lmms_eval(str(stand_in.path))
    stand_in.path.write_text("no program")
    with pytest.raises(LabError, match="version fails: "):
        find_lmms_eval(str(stand_in.path))


def test_it_ends_where_who_waits_for_it_is_stopped(stand_in: StandIn, tmp_path: Path):
    stand_in.tell(sleep=60)

    def stop(done: int, total: int) -> None:
        while not (stand_in.folder / "pid").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stand_in, tmp_path, progress=stop)
    assert not runs(stand_in.folder / "pid")


def test_one_that_cannot_be_started_is_said(tmp_path: Path):
    with pytest.raises(LabError, match="lmms-eval cannot be started"):
        run_lmms_eval([str(tmp_path / "none")], tmp_path / "log", silent, {})


def test_all_that_was_said_is_in_the_log_but_keys_and_tokens(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    stand_in.tell(says="Evaluation tracker args: {'token': 'hf_abcdef'}", status=1)
    with pytest.raises(LabError, match=r"ended with status 1: .*tracker args: \{'token': '\[HF_TOKEN\]'\}"):
        run(stand_in, tmp_path)
    said = (tmp_path / "logs" / "one.log").read_text()
    assert "Running generate_until requests" in said
    assert "hf_abcdef" not in said


def test_the_last_lines_are_without_bars_colours_and_lengths():
    said = "\n".join(
        [*(f"line {number}" for number in range(20)), "  50%|##| 1/2 [00:01<00:01]", "", "\x1b[31mred\x1b[0m"]
    )
    assert last_lines(said) == " | ".join([*(f"line {number}" for number in range(13, 20)), "red"])
    assert last_lines("a" * 1000) == "a" * 400 + "..."
    assert last_lines("\n") == "nothing"
