import pytest
import torch

from lab.parts.joined_sequences import answer_loss, pad_left
from tests.parts.tiny_models import ARCHITECTURES, HIDDEN_SIZE, language_model

END = 5


def rows_of(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, HIDDEN_SIZE, generator=generator) for length in lengths]


def test_rows_end_together_and_padding_is_zero_and_masked():
    rows = rows_of(2, 4, 1)
    joined = pad_left(rows, [torch.tensor([3, 7]), torch.arange(4), torch.tensor([9])])
    assert joined.embeddings.shape == (3, 4, HIDDEN_SIZE)
    assert joined.attention_mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]]
    assert joined.position_ids.tolist() == [[0, 0, 3, 7], [0, 1, 2, 3], [0, 0, 0, 9]]
    for row, original in enumerate(rows):
        padding = 4 - len(original)
        assert torch.equal(joined.embeddings[row, padding:], original)
        assert not joined.embeddings[row, :padding].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_alone_are_scored_each_token_by_what_stands_before_it(architecture):
    part = language_model(architecture)
    embed = part.model.get_input_embeddings()
    answers, seen = [[0, 1, 2], [], [3]], rows_of(3, 6, 2)
    rows = [
        torch.cat([before, embed(torch.tensor([*part.codec.start_ids, *answer]))])
        for before, answer in zip(seen, answers, strict=True)
    ]
    joined = pad_left(rows, [torch.arange(len(row)) for row in rows])
    found = answer_loss(part.model, joined, answers, end_id=part.codec.end_id)
    assert found.num_tokens.tolist() == [4, 1, 2]
    for row, before, answer, loss in zip(rows, seen, answers, found.loss, strict=True):
        logits = part.model(inputs_embeds=row[None], use_cache=False).logits[0].log_softmax(-1)
        targets = [*answer, part.codec.end_id]
        expected = -sum(logits[len(before) + i, target] for i, target in enumerate(targets))
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_losses_are_of_single_precision_where_the_model_is_of_half():
    part = language_model()
    half = part.model.to(torch.bfloat16)
    (row,) = rows_of(4)
    joined = pad_left([row.to(torch.bfloat16)], [torch.arange(4)])
    assert answer_loss(half, joined, [[1]], end_id=END).loss.dtype == torch.float32
