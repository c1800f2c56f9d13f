import json
import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from lab.data.filters.loss_filters import LOSS_COLUMNS, SUMMARY, read_losses
from lab.data.instructions.instructions import instruction, table_of
from lab.errors import LabError
from lab.evaluation.answering import Choose, answer
from lab.parts.joined_sequences import answer_loss, pad_left
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.training import scored_sources, scoring
from lab.training.samples import NOT_READABLE, TOO_LONG, SampleExamples
from lab.training.scored_sources import score_source
from lab.training.scoring import Scorer, ScoringOptions, text_model
from tests.parts.tiny_models import ARCHITECTURES, chunked, language_model, windowed

FLOAT32 = {"precision": "float32"}
TEXTS = st.text("abcd", min_size=1, max_size=9)


def some(count=7):
    rng = np.random.default_rng(0)
    return [
        instruction(
            id=f"i{n}",
            prompt="".join(rng.choice(list("abcd"), 1 + n % 5)),
            answer="".join(rng.choice(list("abcd"), 1 + n % 3)),
            source="s",
        )
        for n in range(count)
    ]


def score_instructions(instructions, language_model, folder, *, write=str.strip, **rest):
    reads = SampleExamples(samples=(), write=write)
    scorer = Scorer(text_model(language_model), language_model.name, language_model.sha256, reads)
    return scoring.score(scorer, instructions, folder, **rest)


def alone(llm: LanguageModel, prompt: str, answer: str) -> float:
    """The mean loss of one sample by itself, in a padded batch of one."""
    ids = [*llm.codec.encode(prompt), *llm.codec.start_ids, *llm.codec.encode(answer)]
    row = llm.model.get_input_embeddings()(torch.tensor(ids))
    with torch.no_grad():
        joined = pad_left([row], [torch.arange(len(row))])
        found = answer_loss(llm.model, joined, [llm.codec.encode(answer)], end_id=llm.codec.end_id)
    return float(found.loss / found.num_tokens)


def scored(folder):
    return {row["id"]: row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_loss_is_what_the_sample_has_alone_with_and_without_its_prompt(tmp_path, architecture):
    llm = language_model(architecture)
    options = ScoringOptions(budget_tokens=20, part_samples=3, without_prompt=True, **FLOAT32)
    summary = score_instructions(some(), llm, tmp_path / "s", options=options)
    found = scored(tmp_path / "s")
    for one in some():
        row = found[one.id]
        assert row["loss"] == pytest.approx(alone(llm, one.question, one.answer), rel=1e-4)
        assert row["loss_without_prompt"] == pytest.approx(alone(llm, "", one.answer), rel=1e-4)
        assert (row["num_tokens"], row["prompt_tokens"]) == (len(one.answer) + 1, len(one.question))
    assert (summary.num_scored, summary.parts_made, summary.parts_found) == (7, 3, 0)
    assert summary.num_tokens == sum(len(one.answer) + 1 for one in some())
    read = read_losses(tmp_path / "s")
    assert list(read.losses) == [found[f"i{n}"]["loss"] for n in range(7)]


def test_a_sample_longer_than_the_model_looks_back_is_refused_by_its_name(tmp_path):
    llm = LanguageModel("short sight", windowed(6), CharacterCodec(alphabet="abcd"), "0")
    with pytest.raises(LabError, match="sample 'i4' has 8 tokens, and MistralForCausalLM looks back 6 tokens"):
        score_instructions(some(), llm, tmp_path / "s", options=ScoringOptions(**FLOAT32))
    assert not list(tmp_path.glob("s/*.parquet"))


def test_a_model_whose_losses_depend_on_the_pack_is_refused_where_samples_are_packed(tmp_path):
    torch.manual_seed(0)
    # Scaled by the place in the pack, in steps of 24 tokens; the few tokens of the first trial do not reach so far.
    network = chunked(64, no_rope_layers=[1, 0], floor_scale=24, attn_scale=1.0)
    llm = LanguageModel("scaled", network, CharacterCodec(alphabet="abcd"), "0")
    refused = r"packed samples are not kept apart with attention 'per_sample' in float32: pack of \d+ tokens"
    with pytest.raises(LabError, match=refused):
        score_instructions(some(), llm, tmp_path / "s", options=ScoringOptions(budget_tokens=64, **FLOAT32))
    assert not list(tmp_path.glob("s/*.parquet"))
    asked = [replace(one, choices=(one.answer, "dddd")) for one in some()]
    reads = SampleExamples(samples=asked, write=str.strip)
    with pytest.raises(LabError, match=refused):
        answer(text_model(llm), reads, Choose(pack_tokens=64))
    assert len(answer(text_model(llm), reads, Choose())) == len(asked)


@how(max_examples=15, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.integers(19, 60))
def test_the_budget_of_a_pack_does_not_change_a_loss(texts, budget):
    llm = language_model()
    given_ones = [instruction(id=str(n), prompt=p, answer=a, source="s") for n, (p, a) in enumerate(texts)]
    examples, model = SampleExamples(samples=given_ones, write=str.strip), text_model(llm)
    options = ScoringOptions(budget_tokens=budget, **FLOAT32)
    lengths = [examples.num_tokens(index, model) - 1 for index in range(len(examples))]
    found = scoring.answer_losses(
        model,
        lambda places: [examples.example(place, model) for place in places],
        lengths,
        options,
        examples.ids,
        scorer="tiny",
    )
    np.testing.assert_allclose(found, [alone(llm, p, a) for p, a in texts], rtol=1e-4)


def test_model_hash_options_and_what_was_skipped_stand_in_the_files(tmp_path):
    bad = [
        instruction(id="empty", prompt="ab", answer="  ", source="s"),
        instruction(id="nothing asked", prompt="", answer="ab", source="s"),
        instruction(id="long prompt", prompt="a" * 30, answer="b", source="s"),
        instruction(id="long", prompt="a" * 10, answer="b" * 20, source="s"),
        instruction(id="digits", prompt="ab", answer="a1", source="s"),
    ]
    options = ScoringOptions(budget_tokens=20, **FLOAT32)
    summary = score_instructions([*bad, *some(2)], language_model(), tmp_path / "s", options=options)
    assert summary.num_scored == 2
    assert dict(summary.skipped) == {
        "empty answer": 1,
        "empty prompt": 1,
        TOO_LONG: 2,
        NOT_READABLE: 1,
    }
    schema = pq.read_schema(tmp_path / "s" / "part-000000.parquet")
    assert schema.remove_metadata() == LOSS_COLUMNS
    assert json.loads(schema.metadata[b"omni_lab_model"]) == {"name": "tiny qwen3", "sha256": "0"}
    told = json.loads((tmp_path / "s" / SUMMARY).read_text())
    assert (told["num_scored"], told["model_sha256"], told["skipped"]["empty answer"]) == (2, "0", 1)


def test_a_killed_scoring_goes_on_behind_its_last_whole_part_and_ends_the_same(tmp_path, monkeypatch):
    options = ScoringOptions(part_samples=2, **FLOAT32)
    score_instructions(some(), language_model(), tmp_path / "whole", options=options)
    real, calls = scoring.answer_losses, []

    def killed(*arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(scoring, "answer_losses", killed)
    with pytest.raises(KeyboardInterrupt):
        score_instructions(some(), language_model(), tmp_path / "s", options=options)
    assert sorted(path.name for path in (tmp_path / "s").glob("*.parquet")) == [
        "part-000000.parquet",
        "part-000001.parquet",
    ]
    with pytest.raises(LabError, match="is not finished"):
        read_losses(tmp_path / "s")
    summary = score_instructions(some(), language_model(), tmp_path / "s", options=options)
    assert (summary.parts_found, summary.parts_made, summary.num_scored) == (2, 2, 7)
    assert scored(tmp_path / "s") == scored(tmp_path / "whole")
    assert not list((tmp_path / "s").glob(".part*"))


def test_parts_of_another_model_or_of_other_samples_are_not_gone_on_with(tmp_path):
    options = ScoringOptions(**FLOAT32)
    llm = language_model()
    plain = {"instructions": some(), "language_model": llm, "folder": tmp_path, "options": options}
    score_instructions(**plain)
    for changed in (
        {"instructions": some(6)},
        {"options": ScoringOptions(without_prompt=True, **FLOAT32)},
        {"language_model": LanguageModel(llm.name, llm.model, llm.codec, "1")},
    ):
        with pytest.raises(LabError, match="was scored by another model, with other options or of other samples"):
            score_instructions(**{**plain, **changed})


def test_a_loss_that_is_not_finite_is_named_and_nothing_is_written(tmp_path):
    llm = language_model()
    with torch.no_grad():
        llm.model.get_input_embeddings().weight[llm.codec.encode("d")[0]] = math.nan
    given_ones = [instruction(id=text, prompt=text, answer="a", source="s") for text in ("ab", "ad", "c")]
    with pytest.raises(LabError, match="the loss of sample 'ad' by 'tiny qwen3' is nan; try precision float32"):
        score_instructions(given_ones, llm, tmp_path, options=ScoringOptions(**FLOAT32))
    assert not list(tmp_path.glob("*.parquet"))


def test_nothing_to_score_and_numbers_out_of_range_are_refused(tmp_path):
    with pytest.raises(LabError, match="no sample can be scored by 'tiny qwen3': there are none"):
        score_instructions([], language_model(), tmp_path / "a")
    silent = [instruction(id="a", prompt="b", answer="", source="s")]
    with pytest.raises(LabError, match="no sample can be scored by 'tiny qwen3': 1 empty answer"):
        score_instructions(silent, language_model(), tmp_path / "b")
    for wrong in ({"budget_tokens": 3}, {"part_samples": 0}):
        with pytest.raises(LabError, match="budget_tokens and part_samples are"):
            ScoringOptions(**wrong)


def test_the_command_scores_a_table_says_what_it_left_out_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(scored_sources, "open_language_model", lambda name: language_model())
    table = tmp_path / "some.parquet"
    pq.write_table(table_of([*some(), instruction(id="x", prompt="a", answer="", source="s")]), table)
    for expected in ("0 of 1 parts were there", "1 of 1 parts were there"):
        said = []
        score_source(
            str(table), tmp_path / "out", model="smollm2_135m", options=ScoringOptions(**FLOAT32), say=said.append
        )
        assert expected in said[-3]
        assert said[-2] == "left out: 1 empty answer"
        assert "from the Gaussian" in said[-1]
    with pytest.raises(LabError, match="limit is 0"):
        score_source(str(table), tmp_path / "out", model="smollm2_135m", limit=0)
