import pytest
import torch

from lab.errors import LabError
from lab.parts.packed_models import packed_audio_answers, packed_text_answers, packed_vision_answers
from tests.parts.tiny_models import ARCHITECTURES, audio_batch, joined_model, language_model
from tests.parts.tiny_vision import asked, seeing_model, tiny_encoder

TIGHT = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("positions", ["sequential", "time_aligned"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_utterances_have_the_losses_and_gradients_of_the_padded_batch(architecture, positions):
    model = joined_model(architecture, positions)
    features, lengths = audio_batch([9, 4, 13, 2])
    answers = [model.codec.encode(answer) for answer in ("abcd", "", "d", "bbacad")]
    padded, packed = model(features, lengths, answers), packed_audio_answers(model, features, lengths, answers).loss
    torch.testing.assert_close(packed.loss, padded.loss, **TIGHT)
    assert packed.num_tokens.tolist() == padded.num_tokens.tolist()
    parameters = list(model.projector.parameters())
    for a, b in zip(*(torch.autograd.grad(x.loss.sum(), parameters) for x in (packed, padded)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("trained_encoder", [False, True])
def test_packed_pictures_and_videos_have_the_losses_and_gradients_of_the_padded_batch(trained_encoder):
    model = seeing_model(encoder=tiny_encoder() if trained_encoder else None)
    pixels = {"pixels": trained_encoder}
    questions = [
        asked([0, 1], "visual_projector", frames=1, **pixels),
        asked([3], "video_projector", frames=3, seed=5, **pixels),
        asked([], "visual_projector", frames=0, **pixels),
        asked([2, 2, 1], "visual_projector", frames=1, size=(8, 16), **pixels),
    ]
    answers = [[1, 2], [], [0], [3, 3, 3]]
    padded, packed = model(questions, answers), packed_vision_answers(model, questions, answers).loss
    torch.testing.assert_close(packed.loss, padded.loss, **TIGHT)
    parameters = [p for part in model.parts().values() for p in part.parameters() if p.requires_grad]
    gradients = [
        torch.autograd.grad(x.loss.sum(), parameters, allow_unused=True, materialize_grads=True)
        for x in (packed, padded)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_packed_texts_have_the_losses_of_a_slow_reference():
    part = language_model()
    prompts, answers = [[0, 1], [], [3, 3, 3]], [[2], [1, 1], []]
    packed = packed_text_answers(part, prompts, answers)
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        row = torch.tensor([[*prompt, *part.codec.start_ids, *answer]])
        logits = part.model(row, use_cache=False).logits[0].log_softmax(-1)
        targets = [*answer, part.codec.end_id]
        expected = -sum(logits[len(prompt) + k, target] for k, target in enumerate(targets))
        torch.testing.assert_close(packed.loss.loss[index], expected, **TIGHT)
    assert packed.packed.lengths == (4, 3, 4)


def test_backends_are_passed_on():
    with pytest.raises(LabError, match="unknown attention backend 'dense'"):
        packed_text_answers(language_model(), [[0]], [[1]], attention="dense")
