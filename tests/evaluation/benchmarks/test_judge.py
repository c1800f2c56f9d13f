import hashlib
import tomllib
from pathlib import Path

import pytest

from lab.data.sample import Sample, Text
from lab.errors import LabError
from lab.evaluation.benchmarks import judge, open_answers, translation
from lab.evaluation.benchmarks.endpoints import Endpoint
from lab.evaluation.benchmarks.judge import Mark, find_prompt, marks_of, prompts
from lab.evaluation.benchmarks.scores import judged_scores
from tests.evaluation.benchmarks.judge_server import GOOD, JudgeServer, judge_server

ITEMS = [Sample(id=str(i), content=(Text(f"q{i}"),), answer="r") for i in range(4)]
# Name and version -> the text's SHA-256. A changed word is another measure: raise its version, and add a line.
PINNED = {
    "yes_no 1": "38932e0e03120054",
    "score 1": "0b03197ff5cd48e1",
    "question ours, 1": "47f1887165b514ec",
    "translation ours, 1": "d9fab4b19a313c53",
}
CASE = Sample(id="1", content=(Text("what {is} it?"),), answer="a cat")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path))


def marks(
    server: JudgeServer,
    items: list[Sample] = ITEMS,
    *,
    name: str = "m",
    retries: int = 2,
    timeout: float = 5.0,
    prompt: str = "yes_no",
) -> list[Mark]:
    endpoint = Endpoint(
        f"openai:{name}@{server.url}", max_new_tokens=9, num_parallel=1, max_retries=retries, timeout_seconds=timeout
    )
    return marks_of(endpoint, items, [f"a{item.id}" for item in items], prompt=prompt)


def test_marks_are_kept_and_not_asked_for_again():
    with judge_server() as server:
        first = marks(server)
        assert [(one.correct, one.score) for one in first] == [(True, 4.0)] * 4
        assert marks(server) == first
        assert len(server.requests) == 4


def test_nonsense_is_asked_again_and_then_counted_as_unjudged_never_as_a_zero():
    with judge_server("perhaps", GOOD, "no", "{}", '{"verdict": "yes", "score": 9}') as server:
        found = marks(server, ITEMS[:1]) + marks(server, ITEMS[1:2])
    assert (found[0].score, found[0].num_asked) == (4.0, 2)
    assert (found[1].score, found[1].correct, found[1].num_asked) == (None, None, 3)
    by_name = {score.metric: score for score in judged_scores(found)}
    assert by_name["accuracy"].value == 1.0
    assert by_name["accuracy"].num_items == 1
    assert by_name["unjudged"].value == 0.5
    assert by_name["accuracy_unjudged_wrong"].value == 0.5


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 500},
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"body": '{"choices": [{"mess'},
        {"body": '{"choices": []}'},
        {"sleep": 1.0, "body": "{}"},
    ],
)
def test_a_judge_in_trouble_is_asked_again(trouble):
    with judge_server(trouble) as server:
        assert marks(server, ITEMS[:1], timeout=0.5)[0].score == 4.0
        assert len(server.requests) == 2
        if "headers" in trouble:
            assert server.times[1] - server.times[0] >= 1.0


def test_a_judge_that_dies_stops_the_run_which_goes_on_where_it_was():
    dead = {"status": 500}
    with judge_server(GOOD, GOOD, dead, dead) as server:
        with pytest.raises(LabError, match=r"at http.* answers 500"):
            marks(server, retries=0)
        server.script.clear()
        before = len(server.requests)
        assert all(one.score == 4.0 for one in marks(server))
        assert len(server.requests) - before == 2


def test_a_refused_answer_is_unjudged():
    with judge_server({"status": 400, "body": '{"error": {"message": "too long"}}'}) as server:
        assert marks(server, ITEMS[:1])[0].unjudged.startswith("refused: 400")


def test_the_key_of_openai_goes_to_no_other_host(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with judge_server() as server:
        marks(server, ITEMS[:1])
        monkeypatch.setenv("OMNI_LAB_API_KEY", "other")
        marks(server, ITEMS[:1], name="n")
        assert server.keys == ["Bearer none", "Bearer other"]


@pytest.mark.parametrize(
    "reply", ["", "yes", "[]", '{"score": true}', '{"score": NaN}', '{"score": 3', '{"score": -1}']
)
def test_anything_but_the_object_asked_for_is_no_verdict(reply):
    assert prompts()["score"].read(reply) is None
    assert prompts()["yes_no"].read(reply) is None


def sha256_of(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def test_every_prompts_text_is_pinned_to_its_version():
    tables = tomllib.loads(Path(judge.__file__).with_name("judge_prompts.toml").read_text(encoding="utf-8"))
    found = {
        f"{name} {one['version']}": sha256_of(one["system"], one["user"], one["again"]) for name, one in tables.items()
    }
    found[f"question {open_answers.QUESTION_PROMPT_VERSION}"] = sha256_of(open_answers.QUESTION_PROMPT)
    found[f"translation {translation.PROMPT_VERSION}"] = sha256_of(translation.SPEECH_PROMPT, translation.TEXT_PROMPT)
    assert found == PINNED


def test_a_prompt_holds_the_case_and_braces_in_it_are_text():
    for prompt in prompts().values():
        opening = prompt.opening(CASE, 'say {"verdict": "yes"}')
        system, user = opening.content
        assert (system.role, user.role) == ("system", "user")
        assert "Question: what {is} it?\n" in user.text
        assert "answer: a cat\n" in user.text
        assert """Candidate's answer: say {"verdict": "yes"}\n""" in user.text
        assert "{{" not in system.text + user.text
        again = prompt.asked_again(opening, "hm").content
        assert [turn.role for turn in again] == ["system", "user", "assistant", "user"]
        assert (again[2].text, "{{" in again[3].text) == ("hm", False)


@pytest.mark.parametrize(
    ("reply", "correct", "score"),
    [
        ('{"verdict": "yes", "score": 5}', True, 5.0),
        (' {"verdict": "No", "score": 0}\n', False, 0.0),
        ('```json\n{"verdict": "yes", "score": 4}\n```', True, 4.0),
        ('```\n{"verdict": "no", "score": 3}```', False, 3.0),
        ('{"why": "the same {thing}", "verdict": "yes", "score": 2.0}', True, 2.0),
        ('{"verdict": "no", "score": 5}', False, 5.0),  # said so, and let be
    ],
)
def test_the_object_that_was_asked_for_is_a_verdict(reply, correct, score):
    assert prompts()["yes_no"].read(reply) == Mark(correct=correct, score=score)
    assert prompts()["score"].read(reply) == Mark(correct=None, score=score)


@pytest.mark.parametrize(
    "reply",
    [
        'The candidate says {"verdict": "yes", "score": 5}, which is wrong.',
        'My verdict: {"verdict": "yes", "score": 5}',
        '{"verdict": "yes", "score": 5} {"verdict": "no", "score": 0}',
        '{"verdict": "yes", "score": 5, "score": 0}',
        '```json\n{"verdict": "yes", "score": 5}\n``` as I said',
        '{"verdict": "yes", "score": 3.5}',
        '{"verdict": "yes", "score": "4"}',
        '{"verdict": "yes", "score": 6}',
        '{"verdict": "yes", "score": Infinity}',
        '{"verdict": "yes", "score": ' + "9" * 400 + "}",
        '{"verdict": "yes", "score": ' + "9" * 5000 + "}",
        '{"verdict": "yes", "score": null}',
        '{"verdict": "yes", "score": ' + "[" * 100_000,
        '[{"verdict": "yes", "score": 4}]',
        "```",
    ],
)
def test_everything_else_is_none(reply):
    assert prompts()["yes_no"].read(reply) is None
    assert prompts()["score"].read(reply) is None


@pytest.mark.parametrize("said", ['"maybe"', "true", "null", '"yes, mostly"', '["yes"]'])
def test_yes_or_no_is_said_in_so_many_words(said):
    assert prompts()["yes_no"].read(f'{{"verdict": {said}, "score": 4}}') is None
    assert prompts()["yes_no"].read('{"score": 4}') is None


def test_an_unknown_prompt_is_refused():
    with pytest.raises(LabError, match=r"unknown judge's prompt 'yesno' .*choose one of: score, yes_no"):
        find_prompt("yesno")


def judged(*found: tuple[bool | None, float | None]) -> list[Mark]:
    return [
        Mark(correct=correct, score=score, unjudged="no verdict in 'hm'" if score is None else "")
        for correct, score in found
    ]


def test_scores_are_means_over_the_judged_with_the_unjudged_beside():
    by_name = {
        score.metric: score for score in judged_scores(judged((True, 5.0), (False, 1.0), (True, 3.0), (None, None)))
    }
    assert (by_name["accuracy"].value, by_name["accuracy"].num_items) == (pytest.approx(2 / 3), 3)
    assert (by_name["judge_score"].value, by_name["judge_score"].num_items) == (3.0, 3)
    assert (by_name["judge_score"].unit, by_name["judge_score"].low, by_name["judge_score"].high) == (
        "points",
        1.0,
        5.0,
    )
    assert (by_name["unjudged"].value, by_name["unjudged"].num_items) == (0.25, 4)
    assert (by_name["accuracy_unjudged_wrong"].value, by_name["accuracy_unjudged_wrong"].num_items) == (0.5, 4)
    scores = {score.metric: score.value for score in judged_scores(judged((None, 4.0), (None, 1.0)))}
    assert scores == {"unjudged": 0.0, "judge_score": 2.5}


def test_more_unjudged_than_judged_is_an_error_with_the_counts_and_no_score():
    half = judged((True, 4.0), (None, None))
    assert {score.metric for score in judged_scores(half)} >= {"accuracy", "judge_score"}
    with pytest.raises(
        LabError,
        match=r"no verdict on 2 of 3 answers, .* the other 1 .*\(the first: no verdict in 'hm'\)",
    ):
        judged_scores([*half, *judged((None, None))])
    with pytest.raises(LabError, match="no verdict on 2 of 2 answers, and a score over the other 0"):
        judged_scores(judged((None, None), (None, None)))
    with pytest.raises(LabError, match="no answer was judged"):
        judged_scores([])


def test_what_the_tests_server_says_is_a_verdict():
    assert prompts()["yes_no"].read(GOOD) == Mark(correct=True, score=4.0)
