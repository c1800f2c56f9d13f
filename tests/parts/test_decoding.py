import itertools
from dataclasses import replace

import pytest
import torch

from lab.errors import LabError
from lab.parts.decoding import decode
from lab.parts.omni_model import Example, OmniModel
from tests.parts.tiny_models import ARCHITECTURES, heard, hearing_model
from tests.parts.tiny_vision import seeing_model, seen

POSITIONS = ("sequential", "time_aligned")
LENGTHS = [11, 4, 7, 2, 9]


def next_scores(model: OmniModel, example: Example, answer: list[int]) -> torch.Tensor:
    """Log-probabilities behind an answer so far, the whole sequence computed anew, one utterance, no cache."""
    joined = model.embed([replace(example, answer=answer)])
    logits = model.language_model(
        inputs_embeds=joined.embeddings,
        attention_mask=joined.attention_mask,
        position_ids=joined.position_ids,
        use_cache=False,
    ).logits
    return logits[0, -1].log_softmax(-1)


@torch.no_grad()
def slow_greedy(model: OmniModel, example: Example, max_new_tokens: int) -> list[int]:
    answer: list[int] = []
    while len(answer) < max_new_tokens:
        token = int(next_scores(model, example, answer).argmax())
        if token == model.codec.end_id:
            break
        answer.append(token)
    return answer


@torch.no_grad()
def log_probability(model: OmniModel, example: Example, answer: list[int]) -> float:
    ended = [*answer, model.codec.end_id]
    return sum(float(next_scores(model, example, ended[:i])[token]) for i, token in enumerate(ended))


@torch.no_grad()
def slow_beam(model: OmniModel, example: Example, max_new_tokens: int, num_beams: int) -> list[int]:
    """Beam search over one utterance that reads every hypothesis anew at every step."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for step in range(max_new_tokens):
        continued = []
        for total, answer in beams:
            scores = next_scores(model, example, answer)
            continued += [(total + float(score), [*answer, token]) for token, score in enumerate(scores)]
        continued = sorted(continued, key=lambda scored: -scored[0])[: 2 * num_beams]
        beams = []
        for rank, (total, answer) in enumerate(continued):
            if answer[-1] == model.codec.end_id:
                finished += [(total / len(answer), answer[:-1])] if rank < num_beams else []
            elif len(beams) < num_beams:
                beams.append((total, answer))
                finished += [(total / len(answer), answer)] if step == max_new_tokens - 1 and rank < num_beams else []
        best = sorted((score for score, _ in finished), reverse=True)[:num_beams]
        if len(best) == num_beams and best[-1] >= beams[0][0] / (step + 1):
            break
    return max(finished, key=lambda scored: scored[0])[1]


def with_end_bias(model: OmniModel, bias: float) -> OmniModel:
    """Make the end likelier, so that answers of a random model end at different lengths."""
    end = model.codec.end_id
    model.language_model.lm_head.register_forward_hook(
        lambda module, inputs, output: output + bias * torch.nn.functional.one_hot(torch.tensor(end), output.shape[-1])
    )
    return model


def model_with_answers_of_many_lengths(architecture: str, positions: str) -> OmniModel:
    return with_end_bias(hearing_model(architecture, positions, seed=3), 2.0)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_with_cache_and_batch_is_greedy_without(architecture, positions):
    model = model_with_answers_of_many_lengths(architecture, positions)
    examples = heard(LENGTHS)
    expected = [slow_greedy(model, example, 8) for example in examples]
    assert decode(model, examples, max_new_tokens=8) == expected
    assert decode(model, examples, max_new_tokens=8, num_beams=1) == expected


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("num_beams", [2, 3])
def test_beams_that_share_a_cache_find_what_beams_without_one_do(architecture, positions, num_beams):
    model = model_with_answers_of_many_lengths(architecture, positions)
    examples = heard(LENGTHS)
    answers = decode(model, examples, max_new_tokens=9, num_beams=num_beams)
    assert answers == [slow_beam(model, example, 9, num_beams) for example in examples]


def test_the_greedy_cases_end_at_different_lengths():
    """Else the test above would not see a row that leaves the batch."""
    found = set()
    for architecture, positions in itertools.product(ARCHITECTURES, POSITIONS):
        model = model_with_answers_of_many_lengths(architecture, positions)
        found |= {len(answer) for answer in decode(model, heard(LENGTHS), max_new_tokens=8)}
    assert len(found) >= 4
    assert 8 in found


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beam_search_as_wide_as_all_answers_finds_the_best(positions, length_penalty):
    model = with_end_bias(hearing_model(positions=positions, alphabet="ab"), 1.0)
    examples = heard([6, 3])
    longest, vocabulary = 3, model.codec.vocab_size
    found = decode(
        model, examples, max_new_tokens=longest, num_beams=vocabulary**longest, length_penalty=length_penalty
    )
    tokens = [token for token in range(vocabulary) if token != model.codec.end_id]
    for row, example in enumerate(examples):
        scores = {}
        for size in range(longest):
            for answer in itertools.product(tokens, repeat=size):
                total = log_probability(model, example, list(answer))
                scores[answer] = total / (size + 1) ** length_penalty
        assert tuple(found[row]) == max(scores, key=lambda answer: scores[answer])


@pytest.mark.parametrize("num_beams", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_neighbours_do_not_change_an_answer(num_beams, seed):
    model = with_end_bias(hearing_model(positions="time_aligned", seed=seed), 2.0)
    examples = heard(LENGTHS, seed=seed)
    together = decode(model, examples, max_new_tokens=10, num_beams=num_beams)
    alone = [decode(model, [example], max_new_tokens=10, num_beams=num_beams)[0] for example in examples]
    assert together == alone


def test_two_beams_find_an_answer_at_least_as_likely_as_greedy_ones_on_the_whole():
    model = with_end_bias(hearing_model(seed=3), 2.0)
    examples = heard(LENGTHS)
    totals = []
    for num_beams in (1, 8):
        answers = decode(model, examples, max_new_tokens=12, num_beams=num_beams, length_penalty=0.0)
        totals.append(sum(log_probability(model, example, answers[i]) for i, example in enumerate(examples)))
    assert totals[1] >= totals[0] - 1e-4


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("max_new_tokens", [1, 5])
def test_an_answer_that_never_ends_is_cut(num_beams, max_new_tokens):
    model = with_end_bias(hearing_model(), -1000.0)
    answers = decode(model, heard([6, 2]), max_new_tokens=max_new_tokens, num_beams=num_beams)
    assert [len(answer) for answer in answers] == [max_new_tokens] * 2
    assert model.codec.end_id not in itertools.chain(*answers)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_every_utterance_may_have_a_limit_of_its_own(num_beams):
    model = with_end_bias(hearing_model(), -1000.0)
    examples = heard([6, 2, 4])
    answers = decode(model, examples, max_new_tokens=[3, 1, 7], num_beams=num_beams)
    assert [len(answer) for answer in answers] == [3, 1, 7]
    unlimited = decode(model, examples, max_new_tokens=7, num_beams=1)
    if num_beams == 1:
        assert answers == [answer[:limit] for answer, limit in zip(unlimited, [3, 1, 7], strict=True)]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_an_answer_that_ends_at_once_is_empty(num_beams):
    model = with_end_bias(hearing_model(), 1000.0)
    assert decode(model, heard([6, 2]), max_new_tokens=5, num_beams=num_beams) == [[], []]


@pytest.mark.parametrize(("beams", "tokens"), [(0, 5), (1, 0)])
def test_no_beams_or_no_tokens_are_refused(beams, tokens):
    with pytest.raises(LabError, match=f"at least one beam and one new token, not {beams} and {tokens}"):
        decode(hearing_model(), heard([4]), max_new_tokens=tokens, num_beams=beams)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_pictures_videos_and_text_are_decoded_with_cache_as_without(num_beams):
    model = with_end_bias(seeing_model(), 2.0)
    examples = [
        Example(content=[[0, 1], seen(1, seed=1), [2], seen(3, branch="video_projector", seed=2)]),
        Example(content=[[3, 1, 0]]),
        Example(content=[seen(1, (8, 16), seed=4), [1]]),
    ]
    expected = [
        slow_beam(model, one, 7, num_beams) if num_beams > 1 else slow_greedy(model, one, 7) for one in examples
    ]
    assert decode(model, examples, max_new_tokens=7, num_beams=num_beams) == expected
    # What was read once is not read again, and a reference is not looked at.
    read = [replace(one, answer=[0, 1]) for one in model.read(examples)]
    assert decode(model, read, max_new_tokens=7, num_beams=num_beams) == expected


@torch.no_grad()
@pytest.mark.parametrize("num_beams", [2, 3, 5])
@pytest.mark.parametrize(("bias", "length_penalty"), [(-2.0, 1.0), (0.0, 1.0), (2.0, 0.5), (1.0, 2.0), (-8.0, 1.0)])
def test_beam_search_is_that_of_transformers(num_beams, bias, length_penalty):
    """70 prompts a setting, 1,050 in all; of one length, so that transformers' own positions are the model's."""
    model = with_end_bias(hearing_model("qwen3", "sequential", alphabet="abcdefgh"), bias)
    examples = heard([8] * 70)
    ours = decode(model, examples, max_new_tokens=6, num_beams=num_beams, length_penalty=length_penalty)
    joined = model.embed([replace(example, answer=()) for example in examples])
    theirs = model.language_model.generate(
        inputs_embeds=joined.embeddings,
        attention_mask=joined.attention_mask,
        num_beams=num_beams,
        length_penalty=length_penalty,
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=model.codec.end_id,
        pad_token_id=model.codec.end_id,
        early_stopping=False,
    )
    ended = [list(itertools.takewhile(lambda token: token != model.codec.end_id, row)) for row in theirs.tolist()]
    assert ours == ended
