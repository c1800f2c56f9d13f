import pytest

from lab.errors import LabError
from lab.evaluation.benchmarks import language
from lab.evaluation.benchmarks.benchmark import Fills, Identity, model_arguments, reply_text, sampled
from lab.evaluation.benchmarks.registry import BENCHMARKS, KINDS
from lab.paper.evaluating import model_and_benchmarks
from tests.evaluation.benchmarks.fakes import Guessing


def test_an_evaluation_is_another_where_anything_it_depends_on_is():
    identity = Identity(model_key="k", settings={"prompt": "1", "normalizer": "a"})
    keys = {
        identity.key(Guessing(), None),
        identity.key(Guessing(), 5),
        identity.key(Guessing(version=2), None),
        identity.key(Guessing(name="dice"), None),
        Identity(model_key="l", settings=identity.settings).key(Guessing(), None),
        Identity(model_key="k", settings={"prompt": "2", "normalizer": "a"}).key(Guessing(), None),
    }
    assert len(keys) == 6
    swapped = Identity(model_key="k", settings={"normalizer": "a", "prompt": "1"})
    assert swapped.key(Guessing(source="elsewhere"), None) == identity.key(Guessing(), None)


def test_a_limit_takes_the_same_items_every_time_and_never_one_twice():
    assert sampled(4, None) == [0, 1, 2, 3] == sampled(4, 9)
    chosen_items = sampled(1000, 30)
    assert chosen_items == sampled(1000, 30) == sorted(set(chosen_items))
    assert len(chosen_items) == 30
    assert min(chosen_items) < 200 < 800 < max(chosen_items)  # spread, not the first ones


def test_model_arguments_are_pairs_and_hold_no_key():
    assert model_arguments({}) == ""
    assert model_arguments({"model_args": "a=1,b=x=y"}) == "a=1,b=x=y"
    with pytest.raises(LabError, match="option model_args is 'max_pixels'; expected NAME=VALUE,NAME=VALUE"):
        model_arguments({"model_args": "max_pixels"})
    with pytest.raises(LabError, match="holds an api_key; set the environment variable OPENAI_API_KEY instead"):
        model_arguments({"model_args": "a=1,api_key=secret"})


def test_an_unknown_benchmark_lists_the_choices():
    with pytest.raises(LabError, match="unknown benchmark 'no_such'; choose one of"):
        model_and_benchmarks("owner/model", "no_such")
    with pytest.raises(LabError, match="no benchmark was named; choose from"):
        model_and_benchmarks("owner/model", " , ")


def test_every_benchmark_says_what_it_is_asked_of_and_where_its_data_are():
    assert {one.kind for one in BENCHMARKS.values()} == set(KINDS)
    for name, benchmark in BENCHMARKS.items():
        assert name == benchmark.name
        assert benchmark.models
        assert benchmark.source
    assert BENCHMARKS["mmlu"].cells == (Fills("table_1", "MMLU", "accuracy", "accuracy"),)


def test_a_reply_is_text_that_a_file_can_hold_whatever_it_was_cut_in():
    replies = (None, 3.5, ["a", "b"], "cut \ud83d", "\ud83d\ude00 \ud83dx")
    assert [reply_text(one) for one in replies] == ["", "3.5", "a\nb", "cut \ufffd", "\U0001f600 \ufffdx"]
    sample = {"arguments": [["asked \ud83d"]], "filtered_resps": ["\ude00"], "doc_id": 1, "target": "a", "acc": 0.0}
    told = language._line("task", sample)
    assert (told["asked"], told["given"]) == ("asked \ufffd", "\ufffd")
