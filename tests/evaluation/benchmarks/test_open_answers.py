import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from lab import cli, paths
from lab.errors import LabError
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.study.evaluations import read_evaluations
from tests.data.films import film
from tests.evaluation.benchmarks.fakes import silent
from tests.evaluation.benchmarks.judge_server import judge_server
from tests.vision import write_rows

# Question -> reference, the model's answer, what the judge says of it.
TOLD = {
    "capital of France?": ("Paris", "Paris, of course", '{"verdict": "yes", "score": 5}'),
    "7 times 6?": ("42", "41", '{"verdict": "no", "score": 1}'),
    "largest planet?": ("Jupiter", "Jupiter", '```json\n{"verdict": "yes", "score": 4}\n```'),
    "who wrote Emma?": ("Jane Austen", "", '{"verdict": "no", "score": 0}'),
}


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


def question_in(text: str) -> str:
    return next(question for question in TOLD if question in text)


def answering(messages: list[Any]) -> str:
    question = question_in(text_of(messages[-1]))
    assert text_of(messages[-1]) == f"{question}\nAnswer the question in a single word or short phrase."
    return TOLD[question][1]


def judging(messages: list[Any]) -> str:
    asks = text_of(messages[1])
    reference, answer, verdict = TOLD[question_in(asks)]
    assert f"nswer: {reference}\n" in asks
    assert f"Candidate's answer: {answer}\n" in asks
    return verdict


def judging_but(*nonsense: str) -> Callable[[list[Any]], str]:
    return lambda said: "I cannot tell." if question_in(text_of(said[1])) in nonsense else judging(said)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    path = tmp_path / "questions.jsonl"
    lines = [{"id": f"q{n}", "question": q, "reference": told[0]} for n, (q, told) in enumerate(TOLD.items())]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def evaluated(model: Any, judge: Any, questions: str, *, limit: int | None = None, progress: Any = silent, **more: str):
    options = {"data": questions, "judge": f"openai:j@{judge.url}", **more}
    return BENCHMARKS["open_questions"].evaluate(
        f"openai:m@{model.url}", options=options, limit=limit, progress=progress
    )


def test_yes_or_no_gives_accuracy_and_the_score_stands_beside(questions):
    seen = []
    with judge_server(answer=answering) as model, judge_server(answer=judging) as judge:
        found = evaluated(
            model, judge, questions, judge_prompt="yes_no", progress=lambda done, total: seen.append((done, total))
        )
        assert (len(model.requests), len(judge.requests)) == (4, 4)
        assert {(r["max_tokens"], r["temperature"]) for r in model.requests + judge.requests} == {(64, 0)}
    by_name = {score.metric: score for score in found.scores}
    assert (by_name["accuracy"].value, by_name["accuracy"].unit) == (0.5, "fraction")
    assert (by_name["judge_score"].value, by_name["judge_score"].unit) == (2.5, "points")  # 5, 1, 4, 0
    assert by_name["unjudged"].value == 0.0
    assert by_name["accuracy"].low < 0.5 < by_name["accuracy"].high
    assert by_name["judge_score"].low < 2.5 < by_name["judge_score"].high
    assert found.answers["score"].tolist() == [5.0, 1.0, 4.0, 0.0]
    assert found.answers["correct"].tolist() == [True, False, True, False]
    assert found.answers["given"].tolist() == [told[1] for told in TOLD.values()]
    assert found.answers["times_asked"].tolist() == [1, 1, 1, 1]
    assert found.settings["judge"] == f"openai:j@{judge.url}, temperature 0, seed 0"
    assert found.settings["judge_prompt"] == "yes_no 1, ours: the paper's is not found"
    assert found.settings["unjudged"] == "0 of 4"
    assert (seen[0], seen[-1]) == ((0, 8), (8, 8))
    assert seen == sorted(seen)


def test_the_score_alone_has_no_accuracy(questions):
    with judge_server(answer=answering) as model, judge_server(answer=judging) as judge:
        found = evaluated(model, judge, questions)
    assert {score.metric: score.value for score in found.scores} == {"unjudged": 0.0, "judge_score": 2.5}
    assert found.answers["correct"].isna().all()
    assert found.settings["judge_prompt"].startswith("score 1, ")


def test_answers_without_a_verdict_are_counted_and_never_a_zero(questions):
    with judge_server(answer=answering) as model, judge_server(answer=judging_but("largest planet?")) as judge:
        found = evaluated(model, judge, questions, judge_prompt="yes_no")
        assert len(judge.requests) == 3 + 3
    by_name = {score.metric: score for score in found.scores}
    assert (by_name["judge_score"].value, by_name["judge_score"].num_items) == (2.0, 3)  # 5, 1, 0
    assert (by_name["accuracy"].value, by_name["accuracy"].num_items) == (pytest.approx(1 / 3), 3)
    assert (by_name["unjudged"].value, by_name["accuracy_unjudged_wrong"].value) == (0.25, 0.25)
    third = found.answers.iloc[2]
    assert (third["unjudged"], third["times_asked"]) == ("no verdict in 'I cannot tell.'", 3)
    assert found.answers["score"].isna().tolist() == [False, False, True, False]
    assert found.settings["unjudged"] == "1 of 4"


def test_a_judge_of_fewer_than_half_is_an_error_and_nothing_is_recorded(questions, tmp_path, monkeypatch, store_maker):
    store_maker()
    (tmp_path / "checkout" / "ablations").mkdir(parents=True)
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path / "checkout")

    def command(model: Any, judge: Any) -> Any:
        given = [f"data={questions}", f"judge=openai:j@{judge.url}", "judge_prompt=yes_no"]
        options = [word for option in given for word in ("--option", option)]
        return CliRunner().invoke(cli.app, ["evaluate", f"openai:m@{model.url}", "open_questions", *options])

    with judge_server(answer=answering) as model:
        with judge_server(answer=judging_but(*list(TOLD)[1:])) as judge:
            done = command(model, judge)
        assert isinstance(done.exception, LabError)
        assert "no verdict on 3 of 4 answers, and a score over the other 1 would" in str(done.exception)
        assert "100" not in done.output
        assert read_evaluations() == []
        with judge_server(answer=judging) as judge:
            done = command(model, judge)
        assert done.exit_code == 0, done.output
        assert "50.0%" in done.output
        # The answers were there already.
        assert len(model.requests) == 4
    assert {line.metric: line.value for line in read_evaluations()}["accuracy"] == 0.5


def test_a_run_that_stopped_goes_on_with_what_is_left(questions):
    down = {"status": 401, "body": '{"error": {"message": "no key"}}'}
    with judge_server(answer=answering) as model:
        judge_says = {"now": lambda said: down if "France" not in text_of(said[1]) else judging(said)}
        with judge_server(answer=lambda said: judge_says["now"](said)) as judge:
            with pytest.raises(LabError, match=r"endpoint 'j' at .* answers 401"):
                evaluated(model, judge, questions)
            judge_says["now"] = judging
            before = len(judge.requests)
            evaluated(model, judge, questions)
            assert (len(model.requests), len(judge.requests) - before) == (4, 3)
            # Another prompt is another verdict; the answers hold.
            evaluated(model, judge, questions, judge_prompt="yes_no")
            assert (len(model.requests), len(judge.requests) - before) == (4, 7)
            sample = evaluated(model, judge, questions, limit=2)
            assert (len(model.requests), len(judge.requests) - before, len(sample.answers)) == (4, 7, 2)
            evaluated(model, judge, questions, max_new_tokens="9")
            assert (len(model.requests), model.requests[-1]["max_tokens"]) == (8, 9)


def test_a_question_that_the_model_refuses_is_an_error(questions):
    def refusing(messages: list[Any]) -> Any:
        return {"status": 400, "body": "{}"} if "Emma" in text_of(messages[-1]) else answering(messages)

    with judge_server(answer=refusing) as model, judge_server(answer=judging) as judge:
        with pytest.raises(LabError, match=r"refused 1 of 4 samples, the first is 'q3'"):
            evaluated(model, judge, questions)
        assert judge.requests == []


def test_a_video_goes_to_the_model_as_frames_and_to_the_judge_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    root = tmp_path / "ActivityNetQA"
    row = {"video_name": "a", "question": "capital of France?", "answer": "Paris", "question_id": "a_1"}
    write_rows(root, {"test": [row]})
    film(root / "v_a.mp4", 25)
    benchmark = BENCHMARKS["activitynet_qa"]
    with judge_server(answer=answering) as model, judge_server(answer=judging) as judge:
        options = {"data": f"hub:{root}:default:test", "judge": f"openai:j@{judge.url}"}
        found = benchmark.evaluate(f"openai:m@{model.url}", options=options, limit=None, progress=silent)
    parts = model.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url"] * 3 + ["text"]  # 2.5 seconds
    picture = base64.b64decode(parts[0]["image_url"]["url"].partition(";base64,")[2])
    assert Image.open(io.BytesIO(picture)).size == (48, 32)
    assert all(isinstance(message["content"], str) for message in judge.requests[0]["messages"])
    assert {score.metric: score.value for score in found.scores} == {
        "accuracy": 1.0,
        "judge_score": 5.0,
        "unjudged": 0.0,
    }
    assert found.settings["frames"] == "1 frame a second, at most 48, within 384 x 768"


def test_another_judge_prompt_or_length_is_another_evaluation(questions):
    benchmark = BENCHMARKS["open_questions"]

    def key(**more: str) -> str:
        options = {"data": questions, "judge": "openai:j", **more}
        return benchmark.check("openai:m", options=options).key(benchmark, None)

    others = [key(), key(judge="openai:k"), key(judge_prompt="yes_no"), key(max_new_tokens="8")]
    assert len(set(others)) == 4
    assert key() == key(judge_prompt="score", max_new_tokens="64")


def test_bad_input_is_refused_before_anything_is_asked(questions):
    asks, watches = BENCHMARKS["open_questions"], BENCHMARKS["msvd_qa"]
    good = {"data": questions, "judge": "openai:j@http://127.0.0.1:1/v1"}
    for benchmark, options, message in [
        (asks, {"judge": "openai:j"}, "'open_questions' needs its questions: --option data="),
        (asks, {"data": questions}, "'open_questions' needs a judge: --option judge="),
        (asks, {**good, "judge": "nobody"}, "unknown model 'nobody'"),
        (
            asks,
            {**good, "judge": "openai:j@localhost"},
            "endpoint 'openai:j@localhost' is not of the form openai:MODEL",
        ),
        (asks, {**good, "judge_prompt": "yes"}, r"unknown judge's prompt 'yes' .* choose one of: score, yes_no"),
        (asks, {**good, "max_new_tokens": "0"}, "option max_new_tokens is '0'; expected a whole number from 1"),
        (asks, {**good, "max_new_tokens": "many"}, "option max_new_tokens is 'many'"),
        (asks, {**good, "data": "none.jsonl"}, "data file none.jsonl cannot be read"),
        (asks, {**good, "jugde": "x"}, r"unknown option of benchmark 'open_questions' 'jugde' \(did you mean 'judge'"),
        (watches, good, r"'msvd_qa' asks about videos, and 'smollm2_135m' is .* openai:MODEL@URL"),
    ]:
        with pytest.raises(LabError, match=message):
            benchmark.check("smollm2_135m", options=options)
    with pytest.raises(LabError, match="limit is 0"):
        asks.evaluate("smollm2_135m", options=good, limit=0, progress=silent)


def test_openais_own_address_wants_its_key_before_the_first_question(questions, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with judge_server(answer=answering) as model, pytest.raises(LabError, match="set the environment variable OPENAI_"):
        BENCHMARKS["open_questions"].evaluate(
            f"openai:m@{model.url}",
            options={"data": questions, "judge": "openai:gpt-3.5-turbo"},
            limit=None,
            progress=silent,
        )
    assert model.requests == []
