import pytest

from lab.errors import LabError
from lab.evaluation.benchmarks.endpoints import Endpoint, EndpointName
from lab.evaluation.benchmarks.judge import Judge
from lab.evaluation.benchmarks.judged_scores import judged_scores
from lab.evaluation.benchmarks.verdicts import Case, prompts
from tests.evaluation.benchmarks.judge_server import GOOD, JudgeServer, judge_server

CASES = [Case(id=str(i), question=f"q{i}", reference="r", answer=f"a{i}") for i in range(4)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path))


def judge(server: JudgeServer, *, name: str = "m", retries: int = 2, timeout: float = 5.0, prompt: str = "yes_no"):
    endpoint = Endpoint(
        EndpointName(name, server.url), max_new_tokens=9, num_parallel=1, max_retries=retries, timeout_seconds=timeout
    )
    return Judge(endpoint, prompt=prompt)


def test_verdicts_are_kept_and_not_asked_for_again():
    with judge_server() as server:
        first = judge(server).verdicts(CASES)
        assert [(one.correct, one.score) for one in first] == [(True, 4.0)] * 4
        assert judge(server).verdicts(CASES) == first
        assert len(server.requests) == 4


def test_nonsense_is_asked_again_and_then_counted_as_unjudged_never_as_a_zero():
    with judge_server("perhaps", GOOD, "no", "{}", '{"verdict": "yes", "score": 9}') as server:
        found = judge(server).verdicts(CASES[:1]) + judge(server).verdicts(CASES[1:2])
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
        assert judge(server, timeout=0.5).verdicts(CASES[:1])[0].score == 4.0
        assert len(server.requests) == 2
        if "headers" in trouble:
            assert server.times[1] - server.times[0] >= 1.0


def test_a_judge_that_dies_stops_the_run_which_goes_on_where_it_was():
    dead = {"status": 500}
    with judge_server(GOOD, GOOD, dead, dead) as server:
        with pytest.raises(LabError, match=r"at http.* answers 500"):
            judge(server, retries=0).verdicts(CASES)
        server.script.clear()
        before = len(server.requests)
        assert all(one.score == 4.0 for one in judge(server).verdicts(CASES))
        assert len(server.requests) - before == 2


def test_a_refused_answer_is_unjudged():
    with judge_server({"status": 400, "body": '{"error": {"message": "too long"}}'}) as server:
        assert judge(server).verdicts(CASES[:1])[0].unjudged.startswith("refused: 400")


def test_the_key_of_openai_goes_to_no_other_host(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with judge_server() as server:
        judge(server).verdicts(CASES[:1])
        monkeypatch.setenv("OMNI_LAB_API_KEY", "other")
        judge(server, name="n").verdicts(CASES[:1])
        assert server.keys == ["Bearer none", "Bearer other"]


@pytest.mark.parametrize(
    "reply", ["", "yes", "[]", '{"score": true}', '{"score": NaN}', '{"score": 3', '{"score": -1}']
)
def test_anything_but_the_object_asked_for_is_no_verdict(reply):
    assert prompts()["score"].read(reply) is None
    assert prompts()["yes_no"].read(reply) is None
