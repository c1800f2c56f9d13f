import json

import pytest

from lab.data.instructions.instruction import Instruction
from lab.errors import LabError
from lab.evaluation.benchmarks.multiple_choice import as_row, few_shot_questions
from standins.instructions import mmlu

ASKED = "Why is Mars red? (A) Rust. (B) Heat (of the sun). (C) Lava. (D) Ice."


def instruction(key: str, prompt: str, answer: str) -> Instruction:
    return Instruction(id=f"mmlu/{key}", prompt=prompt, answer=answer, source="mmlu", group=key)


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


def test_the_file_is_made_once(monkeypatch):
    made = [instruction("astronomy-0", ASKED, "Rust."), instruction("astronomy-1", "What?", "That.")]
    monkeypatch.setattr(mmlu, "instructions", lambda option, skipped: iter(made))
    path = few_shot_questions()
    assert [json.loads(line)["answer"] for line in path.read_text().splitlines()] == [0]
    monkeypatch.setattr(mmlu, "instructions", lambda option, skipped: iter(()))
    assert few_shot_questions() == path


def test_a_package_of_another_form_is_named(monkeypatch):
    monkeypatch.setattr(mmlu, "instructions", lambda option, skipped: iter(()))
    with pytest.raises(LabError, match=r"no question of lm-eval 0\.4\.13 could be read"):
        few_shot_questions()
