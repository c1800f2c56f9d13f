import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.evaluation.benchmarks import lmms_eval_benchmarks
from lab.evaluation.benchmarks.benchmark import Evaluated
from lab.evaluation.benchmarks.lmms_eval_benchmarks import LmmsEvalBenchmark
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.paths import cache_dir
from tests.evaluation.benchmarks.fakes import silent
from tests.evaluation.benchmarks.lmms_eval_stand_in import DATE, StandIn

LMMS_EVAL_BENCHMARKS = {name: one for name, one in BENCHMARKS.items() if isinstance(one, LmmsEvalBenchmark)}
LEDGER = Path(__file__).parents[3] / "lab" / "paper" / "ledger" / "cells.csv"


def options(stand_in: StandIn, **more: str) -> dict[str, str]:
    return {"python": str(stand_in.path), "model_class": "qwen2_vl", **more}


def evaluate(name: str, model: str, stand_in: StandIn, limit: int | None = None, **more: str) -> Evaluated:
    return BENCHMARKS[name].evaluate(model, options=options(stand_in, **more), limit=limit, progress=silent)


def score(evaluated: Evaluated, name: str = "accuracy"):
    return next(one for one in evaluated.scores if one.metric == name)


def exact(*right: float) -> list[dict[str, object]]:
    return [{"exact_match": one} for one in right]


def test_every_place_of_tables_2_to_4_and_of_air_bench_but_m3gia_has_one_benchmark():
    with LEDGER.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    cells = {
        (one["table"], one["column"], one["metric"]) for one in lines if one["table"] in {f"table_{n}" for n in "234"}
    }
    cells |= {("table_7", one["row"], one["metric"]) for one in lines if one["row"].startswith("AIR-Bench ")}
    filled = [(one.table, one.place, one.metric) for found in LMMS_EVAL_BENCHMARKS.values() for one in found.cells]
    assert len(filled) == len(set(filled))
    assert set(filled) == cells - {("table_2", "M3GIA", "score")}
    assert {one.kind for one in LMMS_EVAL_BENCHMARKS.values()} == {"multimodal"}


def test_what_fills_a_cell_is_a_score_that_the_benchmark_has():
    for name, one in LMMS_EVAL_BENCHMARKS.items():
        [fills] = one.cells
        assert (fills.score in one.metrics) != bool(one.combined), name
        assert len(one.metrics) == 1 or one.combined, name
        first = next(iter(one.metrics.values()))
        assert first.in_points == name.startswith("air_bench"), name
        assert bool(first.full) != (name == "mme" or first.in_points), name


def test_a_run_gives_the_score_with_its_interval_and_every_answer(stand_in: StandIn, model: str):
    right = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    stand_in.writes({"realworldqa": {"exact_match": 0.6, "exact_match_stderr": 0.163}}, {"realworldqa": exact(*right)})
    seen: list[tuple[int, int]] = []
    found = BENCHMARKS["real_world_qa"].evaluate(
        model, options=options(stand_in), limit=None, progress=lambda done, total: seen.append((done, total))
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
    assert found.settings["data"] == (
        "lmms-lab-encoder/RealWorldQA (test) @ commit of lmms-lab-encoder/RealWorldQA None"
    )
    assert found.settings["left_out"] == "nothing"
    assert found.model_key.startswith("folder@")


def test_lmms_eval_is_asked_as_its_command_line_wants_it(stand_in: StandIn, model: str):
    stand_in.writes({"realworldqa": {"exact_match": 1.0}}, {"realworldqa": exact(1.0, 1.0)})
    evaluate(
        "real_world_qa", model, stand_in, 2, model_args="max_pixels=64,use_cache=False", device="cpu", batch_size="4"
    )
    (asked,) = stand_in.asked()
    asked.remove("--log_samples")
    named = dict(zip(asked[::2], asked[1::2], strict=True))
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
        ({"other": {"exact_match": 1.0}}, exact(1.0), "results lack task 'realworldqa'; they have: other"),
        ({"realworldqa": {"acc": 1.0, "acc_stderr": 0.1}}, exact(1.0), "lacks the metric 'exact_match'; it has: acc"),
        ({"realworldqa": {"exact_match": "N/A"}}, exact(1.0), "gives 'exact_match' as 'N/A', which is no number"),
        ({"realworldqa": {"exact_match": math.nan}}, exact(1.0), "gives 'exact_match' as nan, which is no number"),
        (
            {"realworldqa": {"exact_match": 1.0}},
            None,
            f"no samples of task 'realworldqa': expected {DATE}_samples_real",
        ),
    ],
)
def test_results_that_lack_what_was_asked_are_refused(
    stand_in: StandIn, model: str, results: Mapping[str, Mapping[str, object]], samples: list | None, message: str
):
    stand_in.writes(results, {} if samples is None else {"realworldqa": samples})
    with pytest.raises(LabError, match=message):
        evaluate("real_world_qa", model, stand_in)


def test_files_that_are_no_json_are_refused(stand_in: StandIn, model: str):
    stand_in.writes({"realworldqa": {"exact_match": 1.0}}, {"realworldqa": exact(1.0)})
    files = stand_in.told["files"]
    for ending, message in (
        (f"{DATE}_results.json", "results file .* cannot be read"),
        ("jsonl", "samples .* cannot be"),
    ):
        name = next(name for name in files if name.endswith(ending))
        stand_in.tell(files={**files, name: '{"results": '})
        with pytest.raises(LabError, match=message):
            evaluate("real_world_qa", model, stand_in)
    stand_in.tell(files={**files, f"own__model/{DATE}_results.json": json.dumps({"groups": {}})})
    with pytest.raises(LabError, match=r"results file .* cannot be read"):
        evaluate("real_world_qa", model, stand_in)


def test_shares_of_an_item_have_the_interval_of_lmms_evals_standard_error(stand_in: StandIn, model: str):
    stand_in.writes(
        {"textvqa_val": {"exact_match": 0.5, "exact_match_stderr": 0.1}},
        {"textvqa_val": exact(0.3, 0.7, 0.5)},
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


def test_mme_is_points_of_perception_and_cognition_and_its_pairs_stay_together(stand_in: StandIn, model: str):
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
    sample = evaluate("mme", model, stand_in, 3)
    assert [one.metric for one in sample.scores] == ["perception"]
    assert stand_in.asked()[-1][-3] == "2"
    assert sample.settings["left_out"] == "all but the first 2 of 1 task"
    with pytest.raises(LabError, match="limit is 1, and benchmark 'mme' asks at least 2: 1 tasks, 2 items of each"):
        evaluate("mme", model, stand_in, 1)
    with pytest.raises(LabError, match="limit is 0, expected at least 1 item"):
        evaluate("mme", model, stand_in, 0)


def test_a_sample_without_an_item_that_counts_is_refused(stand_in: StandIn, model: str):
    stand_in.writes({"seedbench": {"seed_all": 1.0}}, {"seedbench": [{"seed_all": {"pred": "A", "answer": "A"}}]})
    with pytest.raises(LabError, match="sample of seedbench holds no item that seed_image counts; ask more"):
        evaluate("seed_image", model, stand_in, 1)


def test_mvbench_is_the_mean_of_its_twenty_tasks(stand_in: StandIn, model: str):
    benchmark = BENCHMARKS["mv_bench"]
    assert isinstance(benchmark, LmmsEvalBenchmark)
    tasks = benchmark.tasks
    assert len(tasks) == 20
    right = {task: [float(place < number % 5) for place in range(4)] for number, task in enumerate(tasks)}
    stand_in.writes(
        {task: {"mvbench_accuracy": 25.0 * sum(ones)} for task, ones in right.items()},
        {task: [{"mvbench_accuracy": {"score": int(one)}} for one in ones] for task, ones in right.items()},
    )
    found = evaluate("mv_bench", model, stand_in, 99)
    # 0, 1, 2, 3 and 4 of 4 right, four times each.
    whole = score(found)
    assert whole.value == pytest.approx(0.5)
    assert whole.num_items == 80
    assert whole.low is not None
    assert whole.low < 0.5 < whole.high
    assert [score(found, f"accuracy.mvbench_{name}").value for name in ("action_sequence", "action_antonym")] == [0, 1]
    assert len(found.scores) == 21
    assert found.answers["id"].is_unique
    assert found.answers["id"][0] == "mvbench_action_sequence/0"
    assert stand_in.asked()[0][-3] == "4"
    assert "branch video @ commit of OpenGVLab/MVBench video" in found.settings["data"]
    with pytest.raises(LabError, match="limit is 19, and benchmark 'mv_bench' asks at least 20: 20 tasks"):
        evaluate("mv_bench", model, stand_in, 19)


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
        benchmark.check(model, options=options(stand_in))
    monkeypatch.setenv("API_TYPE", "azure")
    with pytest.raises(LabError, match="AZURE_API_KEY is not set"):
        benchmark.check(model, options=options(stand_in))
    monkeypatch.setenv("API_TYPE", "local")
    with pytest.raises(LabError, match=r"API_TYPE is 'local'.*choose one of: azure, openai"):
        benchmark.check(model, options=options(stand_in))
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
    read = BENCHMARKS["mm_vet"].check(model, options=options(stand_in))
    assert read.settings["judge"] == "gpt-3.5-turbo (openai) at its default address"
    assert "of the test" not in str(read)


def test_an_endpoints_model_is_known_by_its_name_and_takes_another_argument(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
):
    stand_in.writes({"realworldqa": {"exact_match": 1.0}}, {"realworldqa": exact(1.0, 1.0)})
    found = evaluate("real_world_qa", "gpt-4o", stand_in, model_class="openai_compatible")
    assert found.model_key == "openai:gpt-4o"  # however the class is called
    assert "model_version=gpt-4o" in stand_in.asked()[0]
    assert found.settings["endpoint"] == "as in model_args, or the class's default"
    monkeypatch.setenv("OPENAI_API_BASE", "http://localhost:1/v1")
    check = BENCHMARKS["real_world_qa"].check
    settings = check("gpt-4o", options=options(stand_in, model_class="openai")).settings
    assert settings["endpoint"] == "OPENAI_API_BASE=http://localhost:1/v1"


def test_check_says_what_is_wrong_before_anything_is_asked(stand_in: StandIn, model: str):
    check = BENCHMARKS["real_world_qa"].check
    for more, message in (
        ({"batch_size": "0"}, "option batch_size is '0'; expected a whole number from 1"),
        ({"silence_minutes": "soon"}, "option silence_minutes is 'soon'; expected a whole number from 1"),
        ({"model_args": "max_pixels"}, "option model_args is 'max_pixels'; expected NAME=VALUE,NAME=VALUE"),
        ({"model_args": "a=1,api_key=secret"}, "holds an api_key; set the environment variable OPENAI_API_KEY instead"),
        ({"model_class": "qwen2_v"}, r"unknown model class of lmms-eval 0.7.3 'qwen2_v' .did you mean 'qwen2_vl'"),
        ({"modelclass": "vllm"}, "unknown option of benchmark 'real_world_qa' 'modelclass'"),
    ):
        with pytest.raises(LabError, match=message):
            check(model, options=options(stand_in, **more))
    with pytest.raises(LabError, match="has a comma, which parts lmms-eval's arguments"):
        check("own/a,b", options=options(stand_in))
    with pytest.raises(LabError, match="which model class of lmms-eval loads 'own/model' is not known here"):
        check("own/model", options={"python": str(stand_in.path)})
    with pytest.raises(LabError, match="unknown model 'nowhere'"):
        check("nowhere", options=options(stand_in))
    assert stand_in.asked() == []


def test_a_data_set_that_cannot_be_had_is_said_by_check(stand_in: StandIn, model: str, monkeypatch: pytest.MonkeyPatch):
    def gone(name: str, branch: str | None = None) -> str:
        raise LabError(f"data set {name!r} cannot be had")

    monkeypatch.setattr(lmms_eval_benchmarks, "data_revision", gone)
    with pytest.raises(LabError, match="data set 'lmms-lab-encoder/RealWorldQA' cannot be had"):
        BENCHMARKS["real_world_qa"].check(model, options=options(stand_in))
