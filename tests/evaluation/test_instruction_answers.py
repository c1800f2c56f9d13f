import numpy as np
import pytest

from lab.data.filters.filtering import Filtered
from lab.data.instructions.instructions import with_choices
from lab.errors import LabError
from lab.evaluation.answering import Choose, answer
from lab.evaluation.fault_removal import removal_scores, training_losses
from lab.evaluation.items import scores as item_scores
from lab.training.samples import SampleExamples
from lab.training.scoring import text_model
from lab.training.tuning import text_tuning
from tests.training.instructions import numbered, offline_models, tiny_model, tiny_parameters
from tests.training.test_scoring import alone

__all__ = ["offline_models"]


def test_choices_are_different_answers_of_the_same_source_with_the_right_one_first():
    asked = numbered(40)
    for one, question in zip(asked, with_choices(asked, str.strip, num_choices=4), strict=True):
        own = question.choices
        assert own[0] == one.answer
        assert len(set(own)) == 4
        assert set(own) <= {other.answer for other in asked if other.source == one.source}
        # Among 20 of a source the 16 nearest in length are asked about.
        assert max(abs(len(text) - len(own[0])) for text in own) < 40
    again = [with_choices(asked, str.strip, num_choices=4) for _ in range(2)]
    assert again[0] == again[1]


def test_the_likeliest_choice_a_token_is_chosen_as_single_samples_say():
    model, asked = tiny_model(), numbered(12)
    questions = with_choices(asked, str.strip, num_choices=3)
    table = answer(text_model(model), SampleExamples(samples=questions), Choose(per_token=True, pack_tokens=4096))
    for one, question, (_, line) in zip(asked, questions, table.iterrows(), strict=True):
        own = question.choices
        losses = [alone(model, one.question, text) for text in own]
        assert line["given"] == own[int(np.argmin(losses))]
        assert line["wrong_answers"] == int(np.argmin(losses) != 0)
        assert line["num_tokens"] == len(one.answer) + 1
        assert line["loss"] == pytest.approx(losses[0] * line["num_tokens"], rel=1e-4)
    assert set(table["task"]) == {"s0", "s1"}
    assert item_scores(table, "test")["test_chance"] == pytest.approx(1 / 3)


def test_too_few_answers_and_choices_are_refused():
    with pytest.raises(LabError, match="num_choices is 1; expected at least 2"):
        with_choices(numbered(4), str.strip, num_choices=1)
    with pytest.raises(LabError, match="3 instructions have 3 different answers, too few for 4 choices"):
        with_choices(numbered(3), str.strip, num_choices=4)
    questions = with_choices(numbered(4), str.strip, num_choices=2)
    with pytest.raises(LabError, match=r"sample .i3. has 20 tokens, more than the budget of 5"):
        answer(text_model(tiny_model()), SampleExamples(samples=questions), Choose(per_token=True, pack_tokens=5))


@pytest.mark.usefixtures("offline_models")
def test_what_was_removed_is_scored_and_shown_by_fault():
    data = text_tuning(tiny_parameters())
    reasons = ["high" if number < 10 else None for number in range(40)]
    kept = Filtered(data.train.ids, reasons, name="first")
    found = sum(fault is not None for fault in data.faults[:10])
    scores = removal_scores(kept, data.faults)
    assert scores["removal_precision"] == pytest.approx(found / 10)
    assert scores["removal_recall"] == pytest.approx(found / 12)
    assert (scores["share_removed"], scores["num_kept"]) == (0.25, 30)
    table = training_losses(kept, data, name="made up")
    assert table["kept"].tolist() == [reason is None for reason in reasons]
    assert (table["fault"] == "clean").sum() == 28
    assert table["loss"].gt(0).all()


def judged(removed: list[bool], faults: tuple[str | None, ...]) -> dict[str, float]:
    ids = [str(number) for number in range(len(removed))]
    kept = Filtered(ids, ["bad" if one else None for one in removed], name="made up")
    return removal_scores(kept, faults)


def test_precision_and_recall_are_counted_by_hand():
    scores = judged([True, True, False, False, True], ("swapped", None, None, "other_answer", "swapped"))
    assert scores == {
        "removal_precision": pytest.approx(2 / 3),
        "removal_recall": pytest.approx(2 / 3),
        "share_removed": pytest.approx(3 / 5),
        "share_faulty_left": pytest.approx(1 / 2),
        "num_kept": 2,
        "removal_recall_other_answer": 0.0,
        "removal_recall_swapped": 1.0,
    }


def test_nothing_removed_and_nothing_faulty_are_zero_not_an_error():
    none = {"removal_precision": 0, "removal_recall": 0, "share_removed": 0, "share_faulty_left": 0, "num_kept": 2}
    assert judged([False, False], (None, None)) == none
    assert judged([True], ("swapped",))["share_faulty_left"] == 0
    with pytest.raises(LabError, match="a filter judged 2 samples of 3"):
        judged([True, False], (None, None, None))
