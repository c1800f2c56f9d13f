import pytest

from lab.data.instructions.instructions import instruction
from lab.data.sample import Sample
from lab.errors import LabError
from standins.instructions import mmlu as mmlu_source
from standins.instructions.mmlu import as_row, few_shot_questions

ASKED = "Why is Mars red? (A) Rust. (B) Heat (of the sun). (C) Lava. (D) Ice."


def asked(key: str, prompt: str, answer: str) -> Sample:
    return instruction(id=f"mmlu/{key}", prompt=prompt, answer=answer, source="mmlu", group=key)


def test_a_question_is_cut_from_its_choices():
    assert as_row("high_school_physics-3", ASKED, "Lava.") == {
        "id": "high_school_physics-3",
        "subject": "high school physics",
        "question": "Why is Mars red?",
        "choices": ["Rust.", "Heat (of the sun).", "Lava.", "Ice."],
        "answer": 2,
    }


@pytest.mark.parametrize(
    ("text", "right"), [("Why? (A) a (B) b (C) c", "a"), ("Why? (B) b (A) a (C) c (D) d", "a"), (ASKED, "Dust.")]
)
def test_what_is_no_question_with_four_choices_is_left_out(text, right):
    assert as_row("astronomy-0", text, right) is None


def test_questions_are_those_of_the_package_that_can_be_cut(monkeypatch):
    made = [asked("astronomy-0", ASKED, "Rust."), asked("astronomy-1", "What?", "That.")]
    monkeypatch.setattr(mmlu_source, "instructions", lambda option, skipped: iter(made))
    assert few_shot_questions()["test"]["answer"][:] == [0]


def test_a_package_of_another_form_is_named(monkeypatch):
    monkeypatch.setattr(mmlu_source, "instructions", lambda option, skipped: iter(()))
    with pytest.raises(LabError, match=r"no question of lm-eval 0\.4\.13 could be read"):
        few_shot_questions()
