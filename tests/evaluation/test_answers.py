from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lab.data.normalizers import NORMALIZERS
from lab.errors import LabError
from lab.evaluation.answering import Choose, Write, answer
from lab.evaluation.items import scores
from lab.evaluation.statistics import resampled
from lab.parts.decoding import decode
from tests.parts.tiny_vision import seeing_model
from tests.training.vision_splits import example, split_of, various

CHOICES = ("a", "bdca", "cc", "")


def examples(count: int = 9) -> list:
    """Questions with two to four choices of different lengths."""
    plain = various("e", count)
    made = []
    for i, one in enumerate(plain):
        choices = CHOICES[: 2 + i % 3]
        facts = {"group": f"g{i // 2}", "task": "even" if i % 2 == 0 else "odd"}
        made.append(
            example(
                one.id, frames=i % 4, question=one.question, choices=choices, answer=choices[i % len(choices)], **facts
            )
        )
    return made


@pytest.mark.parametrize("batch_tokens", [1, 60, 8192])
def test_the_likeliest_choice_is_taken_as_each_scored_alone_says(batch_tokens):
    model, split = seeing_model(), split_of(examples())
    table = answer(model, split, Choose(batch_tokens=batch_tokens))
    assert table["id"].tolist() == [one.id for one in split.samples]
    for index, line in enumerate(table.to_dict("records")):
        one = split.samples[index]
        asked, encode = split.example(index, model), model.codec.encode
        with torch.no_grad():
            alone = {choice: model([replace(asked, answer=encode(choice))]).loss.item() for choice in one.choices}
        chosen = sorted(alone, key=lambda choice: alone[choice])[0]
        assert line == {
            "source": "s",
            "id": one.id,
            "group": one.group,
            "task": one.task,
            "asked": one.question,
            "answer": one.answer,
            "given": chosen,
            "answer_normalized": one.answer,
            "given_normalized": chosen,
            **dict.fromkeys(("character_errors", "num_characters", "word_errors", "num_words"), 0),
            "wrong_answers": int(chosen != one.answer),
            "num_questions": 1,
            "num_choices": len(one.choices),
            "finish_reason": "",
            "loss": pytest.approx(alone[one.answer], rel=1e-4),
            "num_tokens": len(one.answer) + 1,
        }
    assert 0 < table["wrong_answers"].sum() < len(table)


def test_of_equally_likely_choices_the_first_is_taken():
    model = seeing_model()
    with torch.no_grad():
        model.language_model.lm_head.weight.zero_()
    choices = [("a", "b", "c"), ("c", "b", "a")]
    split = split_of([example(f"x{i}", choices=c, answer="a") for i, c in enumerate(choices)])
    table = answer(model, split, Choose())
    assert table["given"].tolist() == ["a", "c"]
    assert table["wrong_answers"].tolist() == [0, 1]
    assert table["loss"].tolist() == pytest.approx([2 * np.log(6)] * 2)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_an_answer_that_is_cut_at_its_limit_is_told_from_one_that_ends(num_beams):
    model, split = seeing_model(), split_of(various("e", 12))
    how = Write(normalizer=NORMALIZERS["lowercase_alphanumeric"], num_beams=num_beams, max_new_tokens=2)
    table = answer(model, split, how)
    asked = [split.example(index, model) for index in range(len(split))]
    lengths = [len(tokens) for tokens in decode(model, asked, max_new_tokens=2, num_beams=num_beams)]
    assert table["finish_reason"].tolist() == ["length" if length == 2 else "stop" for length in lengths]


def test_measuring_neither_trains_nor_drops_out():
    model, split = seeing_model(), split_of(examples())
    model.video_projector.projector.mlp.append(torch.nn.Dropout(0.5))
    before = answer(model, split, Choose())
    model.train()
    pd.testing.assert_frame_equal(answer(model, split, Choose()), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_question_without_choices_is_refused():
    split = split_of([example("x", choices=(), answer="c")])
    with pytest.raises(LabError, match="sample 'x' of 's' has none: name a source whose questions have choices"):
        answer(seeing_model(), split, Choose())


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": ["moves", "moves", "turns", "moves"],
            "wrong_answers": [0, 1, 1, 0],
            "num_choices": [2, 4, 2, 4],
            "loss": [1.0, 2.0, 3.0, 6.0],
            "num_tokens": [1, 2, 3, 2],
        }
    )


def test_scores_are_named_by_split_and_kind_and_are_fractions():
    assert scores(table(), "test") == {
        "test_accuracy": 0.5,
        "test_chance": pytest.approx((0.5 + 0.25 + 0.5 + 0.25) / 4),
        "test_loss": pytest.approx(12 / 8),
        "test_accuracy_moves": pytest.approx(2 / 3),
        "test_accuracy_turns": 0.0,
    }
    names = {name.replace("test", "dev") for name in scores(table(), "test")}
    assert set(scores(table(), "dev")) == names


def test_the_table_is_what_an_error_rate_is_counted_from():
    found = answer(seeing_model(), split_of(examples()), Choose())
    crossed = resampled(found.assign(row="r", seed=0), "error_rate", 10)
    assert crossed.rates.item() == pytest.approx(found["wrong_answers"].mean())
    assert 1 - crossed.rates.item() == pytest.approx(scores(found, "test")["test_accuracy"])
    assert crossed.num_sentences == found["group"].nunique()
