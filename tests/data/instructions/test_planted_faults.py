from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data.instructions.instructions import instruction
from lab.data.instructions.planted_faults import FAULTS, plant_faults
from lab.data.sample import Image, Sample, Text
from lab.errors import LabError


def clean(count):
    return [
        instruction(id=f"i{n}", prompt=f"what is number {n}", answer=f"it is {n}", source=f"s{n % 2}", group=f"g{n}")
        for n in range(count)
    ]


@given(st.integers(2, 40), st.floats(0, 0.99), st.integers(0, 5))
def test_the_share_is_met_kinds_take_turns_and_the_rest_is_left_alone(count, share, seed):
    before = clean(count)
    planted = plant_faults(before, share=share, seed=seed)
    kinds = Counter(fault for fault in planted.faults if fault)
    assert sum(kinds.values()) == round(share * count)
    assert max(kinds.values(), default=0) - min((kinds[name] for name in FAULTS), default=0) <= 1
    for one, made, fault in zip(before, planted.samples, planted.faults, strict=True):
        assert made.id == one.id
        assert (made == one) == (fault is None)


def test_each_kind_is_what_it_says():
    before = clean(30)
    for kind in FAULTS:
        planted = plant_faults(before, share=0.5, seed=1, kinds=[kind])
        for one, made, fault in zip(before, planted.samples, planted.faults, strict=True):
            if fault is None:
                continue
            if kind == "repeated_prompt":
                assert made.question == one.question
                # One word of the prompt is missing.
                assert len(made.answer.split()) == len(one.question.split()) - 1
                assert set(made.answer.split()) < set(one.question.split())
            elif kind == "swapped":
                assert (made.question, made.answer) == (one.answer, one.question)
            else:
                assert made.question == one.question
                assert made.answer in {other.answer for other in before if other.source == one.source} - {one.answer}


def test_media_and_earlier_turns_stay_and_the_choices_go():
    earlier = (Text("Hi"), Text("Hello", "assistant"), Image(b"png"))
    asked = [
        Sample(id=f"i{n}", content=(*earlier, Text(f"is it {n}")), answer=f"a{n}", choices=("no", f"a{n}"), source="s")
        for n in range(8)
    ]
    for kind in FAULTS:
        planted = plant_faults(asked, share=0.9, seed=0, kinds=[kind])
        for one, made, fault in zip(asked, planted.samples, planted.faults, strict=True):
            assert made.content[:3] == earlier
            assert made.choices == (() if fault else one.choices)


def test_a_prompt_of_one_word_is_repeated_whole():
    words = [instruction(id=str(n), prompt="cat", answer=f"a{n}", source="s") for n in range(4)]
    planted = plant_faults(words, share=0.5, seed=0, kinds=["repeated_prompt"])
    assert [i.answer for i, fault in zip(planted.samples, planted.faults, strict=True) if fault] == ["cat", "cat"]


def test_the_seed_alone_decides():
    assert plant_faults(clean(20), share=0.4, seed=3) == plant_faults(clean(20), share=0.4, seed=3)
    assert plant_faults(clean(20), share=0.4, seed=3) != plant_faults(clean(20), share=0.4, seed=4)


def test_bad_input_is_named():
    with pytest.raises(LabError, match="faults are planted among at least two samples, not 1"):
        plant_faults(clean(1), share=0.5, seed=0)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(LabError, match="the share of planted faults is"):
            plant_faults(clean(4), share=share, seed=0)
    with pytest.raises(LabError, match="unknown kind of planted fault 'typo'; choose one of: other_answer"):
        plant_faults(clean(4), share=0.5, seed=0, kinds=["typo"])
    same = [instruction(id=str(n), prompt=f"p{n}", answer="yes", source="s") for n in range(4)]
    with pytest.raises(LabError, match=r"sample '\d' has the answer of all others, 'yes'"):
        plant_faults(same, share=0.5, seed=0, kinds=["other_answer"])


def test_another_answer_is_of_the_same_kind_where_there_is_one():
    rng = np.random.default_rng(0)
    asked = [
        instruction(id=str(i), prompt=f"p{i}", answer=str(rng.integers(4)), source=f"s{rng.integers(3)}")
        for i in range(60)
    ]
    lone = instruction(id="lone", prompt="p", answer="0", source="alone")
    drawn = set()
    for seed in range(20):
        planted = plant_faults([*asked, lone], share=0.9, seed=seed, kinds=["other_answer"])
        for one, made, fault in zip([*asked, lone], planted.samples, planted.faults, strict=True):
            others = {o.answer for o in asked if one is lone or o.kind == one.kind} - {one.answer}
            assert made.answer in (others if fault else {one.answer})
            drawn.add((one.kind, made.answer))
    assert len(drawn) == 16
