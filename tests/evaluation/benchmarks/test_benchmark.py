import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import pytest

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import (
    Benchmark,
    Evaluated,
    Fills,
    Identity,
    Progress,
    Score,
    sampled,
)
from lab.evaluation.benchmarks.registry import BENCHMARKS, chosen


@dataclass(frozen=True, kw_only=True)
class Coin(Benchmark):
    def identify(self, model: str, options: Mapping[str, str]) -> Identity:
        return Identity(model_key=model, settings=options)

    def ask(
        self, model: str, identity: Identity, options: Mapping[str, str], limit: int | None, progress: Progress
    ) -> tuple[tuple[Score, ...], pd.DataFrame, Mapping[str, str]]:
        return (Score(metric="heads", value=0.5, better="higher", num_items=1),), ANSWERS, {"tosses": "1"}


def coin(**more: object) -> Coin:
    return Coin(**{"name": "coin", "kind": "open", "models": "any", "source": "none", **more})  # type: ignore[arg-type]


ANSWERS = pd.DataFrame({name: ["a"] for name in ("id", "asked", "answer", "given", "score")})


def test_a_score_lies_within_its_interval_or_has_none():
    Score(metric="accuracy", value=0.5, better="higher", num_items=4)
    Score(metric="accuracy", value=0.5, low=0.1, high=0.9, better="higher", num_items=4)
    with pytest.raises(LabError, match=r"'accuracy' is 0\.5, outside its interval 0.6 to 0.9"):
        Score(metric="accuracy", value=0.5, low=0.6, high=0.9, better="higher", num_items=4)
    with pytest.raises(LabError, match="one end of an interval only"):
        Score(metric="accuracy", value=0.5, low=0.1, better="higher", num_items=4)
    with pytest.raises(LabError, match="'accuracy' is nan, which is no finite number"):
        Score(metric="accuracy", value=math.nan, better="higher", num_items=4)


def test_evaluated_needs_the_columns_of_answers_and_scores_of_different_names():
    one = Score(metric="accuracy", value=0.5, better="higher", num_items=4)
    named = {"benchmark": "coin", "model": "m", "model_key": "k", "settings": {}}
    with pytest.raises(LabError, match="lack the columns answer, score"):
        Evaluated(scores=(one,), answers=ANSWERS.drop(columns=["answer", "score"]), **named)
    with pytest.raises(LabError, match="two scores called accuracy"):
        Evaluated(scores=(one, one), answers=ANSWERS, **named)


def test_an_evaluation_is_another_where_anything_it_depends_on_is():
    identity = Identity(model_key="k", settings={"prompt": "1", "normalizer": "a"})
    keys = {
        identity.key(coin(), None),
        identity.key(coin(), 5),
        identity.key(coin(version=2), None),
        identity.key(coin(name="dice"), None),
        Identity(model_key="l", settings=identity.settings).key(coin(), None),
        Identity(model_key="k", settings={"prompt": "2", "normalizer": "a"}).key(coin(), None),
    }
    assert len(keys) == 6
    swapped = Identity(model_key="k", settings={"normalizer": "a", "prompt": "1"})
    assert swapped.key(coin(source="elsewhere"), None) == identity.key(coin(), None)


def test_a_limit_takes_the_same_items_every_time_and_never_one_twice():
    assert sampled(4, None) == [0, 1, 2, 3] == sampled(4, 9)
    chosen_items = sampled(1000, 30)
    assert chosen_items == sampled(1000, 30) == sorted(set(chosen_items))
    assert len(chosen_items) == 30
    assert min(chosen_items) < 200 < 800 < max(chosen_items)  # spread, not the first ones
    with pytest.raises(LabError, match="limit is 0, expected at least 1 item"):
        sampled(4, 0)


def test_unknown_options_list_those_there_are():
    coin(options={"judge": "an endpoint"}).check("m", options={"judge": "x"})
    with pytest.raises(LabError, match="has no options, and 'judge' was given"):
        coin().check("m", options={"judge": "x"})
    with pytest.raises(LabError, match=r"unknown option of benchmark 'coin' 'juge' .did you mean 'judge'"):
        coin(options={"judge": "an endpoint"}).check("m", options={"juge": "x"})


def test_what_is_evaluated_has_the_identitys_settings_and_those_that_the_run_told():
    found = coin(options={"judge": ""}).evaluate("m", options={"judge": "x"}, limit=None, progress=lambda *_: None)
    assert (found.benchmark, found.model, found.model_key) == ("coin", "m", "m")
    assert found.settings == {"judge": "x", "tosses": "1"}
    with pytest.raises(LabError, match="limit is 0, expected at least 1 item"):
        coin().evaluate("m", options={}, limit=0, progress=lambda *_: None)


def test_an_unknown_kind_or_benchmark_lists_the_choices():
    with pytest.raises(LabError, match="of kind 'taste'; expected language, speech, translation, open, multimodal"):
        coin(kind="taste")
    with pytest.raises(LabError, match="unknown benchmark 'no_such'; choose one of"):
        chosen("no_such")
    with pytest.raises(LabError, match="no benchmark was named; choose from"):
        chosen(" , ")


def test_names_and_what_they_fill_are_sound():
    for name, benchmark in BENCHMARKS.items():
        assert name == benchmark.name
        assert benchmark.models
        assert benchmark.source


def test_a_table_gives_the_fields_the_places_that_it_fills_and_options_by_name():
    table = {"kind": "open", "models": "any", "source": "a pocket", "fills": [["table_5", "MSVD-QA", "score", "heads"]]}
    made = Coin.from_table("coin", table)
    assert (made.name, made.source, made.options) == ("coin", "a pocket", {})
    assert made.cells == (Fills("table_5", "MSVD-QA", "score", "heads"),)
    assert list(BENCHMARKS["mmlu"].options) == ["data", "device", "precision", "batch_size"]
    assert list(BENCHMARKS["mmlu_few_shot_questions"].options) == ["device", "precision", "batch_size"]
