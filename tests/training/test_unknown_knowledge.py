from dataclasses import replace

import pandas as pd
import pytest
import torch

from lab.data.sample import Sample, Text
from lab.errors import LabError
from lab.parts.decoding import draw
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.training.unknown_knowledge import UNKNOWN, measure_knowledge, unknown_knowledge
from tests.parts.tiny_models import ARCHITECTURES, language_model

# What the model is taught to say, and how often: the answer to "ca" is "d" three times in four.
FACTS = {"aa": ["cd"], "bb": ["dc d"], "ca": ["d", "d", "d", "b"]}
PROMPT = ("{question} ",)
OPTIONS = {"prompts": PROMPT, "max_new_tokens": 6, "num_samples": 24, "temperature": 1.0, "batch_size": 3}


@pytest.fixture(scope="module")
def taught() -> LanguageModel:
    """A tiny model that was trained on the facts until it knew them."""
    llm = language_model("qwen3", alphabet="abcd ", frames_per_token=None, seed=1)
    codec, model = llm.codec, llm.model
    rows = [
        [*codec.start_ids, *codec.encode(f"{question} {answer}"), codec.end_id]
        for question, answers in FACTS.items()
        for answer in answers
        for _ in range(4 // len(answers))
    ]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [codec.end_id] * (longest - len(row)) for row in rows])
    labels = torch.tensor([[-100] * 4 + row[4:] + [-100] * (longest - len(row)) for row in rows])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(150):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    model.eval()
    return llm


def knowledge(llm: LanguageModel, **changes: object) -> pd.DataFrame:
    ids = ["sure", "long", "often", "seldom", "never"]
    questions = ["aa", "bb", "ca", "ca", "aa"]
    answers = ["cd", "dc d", "d", "b", "a a"]
    return measure_knowledge(llm, asking(ids, questions, answers), **{**OPTIONS, **changes})


def asking(ids: list[str], questions: list[str], answers: list[str]) -> list[Sample]:
    return [
        Sample(id=name, content=(Text(question),), answer=answer)
        for name, question, answer in zip(ids, questions, answers, strict=True)
    ]


def begun(prompts: list[list[int]]) -> list[Example]:
    """Prompts as what the answer begins with, after the model's start."""
    return [Example(content=[[]], answer=prompt) for prompt in prompts]


def test_what_was_taught_is_known_and_what_was_not_is_left_out(taught):
    table = knowledge(taught)
    known = dict(zip(table["id"], table["category"], strict=True))
    assert known == {
        "sure": "highly_known",
        "long": "highly_known",
        "often": "highly_known",
        "seldom": "weakly_known",
        "never": "unknown",
    }
    assert table["given"].tolist() == ["cd", "dc d", "d", "d", "cd"]
    shares = dict(zip(table["id"], table["sampled_right"], strict=True))
    # One draw in four with 24 draws: 2 to 13 but once in a thousand times.
    assert 2 / 24 <= shares["seldom"] <= 13 / 24
    assert shares["sure"] > 0.9
    result = unknown_knowledge(table)
    assert result.keep.tolist() == [True, True, True, True, False]
    assert result.dropped == {UNKNOWN: 1}
    assert result.examples[UNKNOWN] == ("never",)


def test_a_share_can_be_asked_for(taught):
    result = unknown_knowledge(knowledge(taught), least_right=0.9)
    assert result.keep.tolist() == [True, True, True, False, False]
    assert list(result.dropped.values()) == [1, 1]


def test_several_prompts_can_disagree(taught):
    table = knowledge(taught, prompts=("{question} ", "b{question} "))
    assert table["greedy_right"].isin([0.0, 0.5, 1.0]).all()
    first = table.set_index("id")
    assert first.loc["sure", "greedy_right"] >= 0.5
    for line in table.itertuples():
        expected = {1.0: "highly_known", 0.5: "maybe_known"}.get(
            line.greedy_right, "weakly_known" if line.sampled_right else "unknown"
        )
        assert line.category == expected


def test_answers_do_not_depend_on_the_batch_and_one_seed_repeats(taught):
    whole = knowledge(taught, batch_size=5)
    for size in (1, 2):
        pd.testing.assert_frame_equal(knowledge(taught, batch_size=size), whole)
    draws = {tuple(knowledge(taught, seed=seed)["sampled_right"]) for seed in range(4)}
    assert len(draws) > 1


@pytest.mark.parametrize("frames_per_token", [None, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_answer_is_the_greedy_one_without_cache_or_batch(architecture, frames_per_token):
    llm = language_model(architecture, frames_per_token=frames_per_token, seed=5)
    prompts = [[4, 0, 1, 2], [4, 3], [4, 1, 1]]
    settings = {"num_samples": 1, "temperature": 1.0, "max_new_tokens": 5, "seed": 0}
    found = draw(OmniModel(language_model=llm), begun([prompt[1:] for prompt in prompts]), list("xyz"), **settings)
    for prompt, (greedy, drawn) in zip(prompts, found, strict=True):
        sequence = list(prompt)
        with torch.no_grad():
            while len(sequence) < len(prompt) + 5:
                positions = torch.arange(len(sequence))[None] * (frames_per_token or 1)
                scores = llm.model(input_ids=torch.tensor([sequence]), position_ids=positions).logits[0, -1]
                if int(scores.argmax()) == llm.codec.end_id:
                    break
                sequence.append(int(scores.argmax()))
        assert greedy == sequence[len(prompt) :]
        assert len(drawn) <= 5


def test_draws_have_the_models_probabilities(taught):
    codec = taught.codec
    asked = codec.encode("ca ")
    prompt = [*codec.start_ids, *asked]
    with torch.no_grad():
        scores = taught.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    settings = {"num_samples": 2000, "temperature": 2.0, "max_new_tokens": 1, "seed": 0}
    (answers,) = draw(OmniModel(language_model=taught), begun([asked]), ["x"], **settings)
    drawn = torch.bincount(torch.tensor([a[0] if a else codec.end_id for a in answers[1:]]), minlength=len(scores))
    expected = (scores / 2.0).softmax(-1)
    # Five standard deviations of a share.
    assert ((drawn / 2000 - expected).abs() < 5 * (expected * (1 - expected) / 2000).sqrt() + 1e-3).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": "none"}, "unknown normaliser 'none'"),
        ({"num_samples": 0}, "num_samples and batch_size are 0 and 3, expected at least 1"),
        ({"batch_size": 0}, "num_samples and batch_size are 24 and 0"),
        ({"temperature": 0.0}, "temperature are 24, 6 and 0.0, expected .* above 0"),
        ({"max_new_tokens": 0}, "are 24, 0 and 1.0"),
        ({"prompts": ("say it",)}, r"prompts are \['say it'\], expected at least one, each with \{question\}"),
        ({"prompts": ()}, r"prompts are \[\]"),
        ({"max_new_tokens": 10**7}, "the prompt of 'sure' has 4 tokens and its answer up to 10000000"),
    ],
)
def test_settings_out_of_range_are_refused(taught, changes, message):
    with pytest.raises(LabError, match=message):
        knowledge(taught, **changes)


@pytest.mark.parametrize(
    ("questions", "answers", "message"),
    [
        (["aa", " "], ["c", "d"], "sample 'y' asks ' ' with the answer 'd'"),
        (["aa", "bb"], ["", "d"], "sample 'x' asks 'aa' with the answer ''"),
        (["aa", "bb"], ["?!", "d"], "an answer of which 'lowercase_alphanumeric' leaves something"),
    ],
)
def test_a_sample_that_cannot_be_asked_is_named(taught, questions, answers, message):
    with pytest.raises(LabError, match=message):
        measure_knowledge(taught, asking(["x", "y"], questions, answers), **OPTIONS)


def test_scores_that_are_not_finite_are_named_and_nothing_to_draw_is_refused(taught):
    broken = language_model("qwen3", alphabet="abcd ", frames_per_token=None)
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(LabError, match="gives 'sure' scores that are not finite"):
        knowledge(replace(broken, name="broken"))


def test_a_share_outside_0_to_1_is_refused():
    table = pd.DataFrame(columns=["id", "category", "greedy_right", "sampled_right", "answer", "given"])
    with pytest.raises(LabError, match="least_right is 2, expected a share"):
        unknown_knowledge(table, least_right=2)
