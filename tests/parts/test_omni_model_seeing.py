from dataclasses import replace

import pytest
import torch

from lab.errors import LabError
from lab.parts.media_tokens import VisualTokens
from lab.parts.omni_model import Example, OmniModel
from lab.parts.visual_projectors import build_visual_projector
from lab.training.stages import Stage, apply_stage
from tests.parts.tiny_models import HIDDEN_SIZE, language_model
from tests.parts.tiny_vision import BRANCHES, GRID, IMAGE_SIZE, NUM_CHANNELS, asked, seeing_model, tiny_encoder

WIDE = (IMAGE_SIZE, 2 * IMAGE_SIZE)


def various(*, pixels: bool = False) -> list[Example]:
    """Examples of different lengths and branches; one sees nothing, one tiles, one is asked nothing."""
    return [
        asked([0, 1, 2], "visual_projector", [0, 1, 2], frames=1, size=WIDE, seed=1, pixels=pixels),
        asked([3], "video_projector", frames=3, seed=2, pixels=pixels),
        asked([1, 1], "video_projector", [3], frames=0, seed=3, pixels=pixels),
        asked([], "visual_projector", [2, 2], frames=1, seed=4, pixels=pixels),
    ]


def changed(example: Example, **changes: object) -> Example:
    """The same with something else of what is seen."""
    seen, question = example.content
    return replace(example, content=[replace(seen, **changes), question])


def reference_loss(model: OmniModel, example: Example) -> torch.Tensor:
    """One row without padding, mask or position ids."""
    seen, question = example.content
    (tokens,) = getattr(model, seen.branch)([seen])
    text = torch.tensor([*question, *model.codec.start_ids, *example.answer])
    row = torch.cat([tokens, model.language_model.get_input_embeddings()(text)])
    scores = model.language_model(inputs_embeds=row[None], use_cache=False).logits[0].log_softmax(-1)
    targets = [*example.answer, model.codec.end_id]
    return -sum((scores[len(row) - len(targets) + i, target] for i, target in enumerate(targets)), torch.zeros(()))


def test_loss_of_each_question_is_its_loss_alone_and_that_of_a_slow_reference():
    model = seeing_model()
    together = model(various())
    assert together.num_tokens.tolist() == [4, 1, 2, 3]
    for row, example in enumerate(various()):
        torch.testing.assert_close(together.loss[row], model([example]).loss[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.loss[row], reference_loss(model, example), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trained_encoder", [False, True])
def test_packed_pictures_and_videos_have_the_losses_and_gradients_of_the_padded_batch(trained_encoder):
    model = seeing_model(encoder=tiny_encoder() if trained_encoder else None)
    examples = various(pixels=trained_encoder)
    padded, packed = model(examples), model.packed(examples).loss
    torch.testing.assert_close(packed.loss, padded.loss, rtol=1e-4, atol=1e-5)
    parameters = [p for part in model.parts().values() for p in part.parameters() if p.requires_grad]
    gradients = [
        torch.autograd.grad(x.loss.sum(), parameters, allow_unused=True, materialize_grads=True)
        for x in (packed, padded)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_question_passes_through_the_projector_of_its_branch():
    model = seeing_model()
    before = model(various()).loss
    with torch.no_grad():
        for parameter in model.video_projector.parameters():
            parameter.add_(0.5)
    moved = (model(various()).loss - before).abs() > 1e-4
    assert moved.tolist() == [False, True, False, False]  # the third sees nothing
    for example, read in zip(various(), model.read(various()), strict=True):
        seen = example.content[0]
        tokens = read.content[0].values
        torch.testing.assert_close(tokens, getattr(model, seen.branch)([seen])[0], rtol=1e-4, atol=1e-4)


def test_what_is_asked_and_seen_moves_the_loss():
    model, first = seeing_model(), various()[0]
    (loss,) = model([first]).loss
    other = replace(first, content=[first.content[0], [0, 1, 3]])
    blind = replace(first, content=[various()[2].content[0], first.content[1]])
    for example in (other, blind):
        assert not torch.isclose(model([example]).loss[0], loss, atol=1e-3)


@pytest.mark.parametrize("first", [0, 2])
def test_what_was_read_once_may_stand_in_several_examples(first):
    model = seeing_model()
    examples = various()[first : first + 2]
    choices = [[0], [1, 2, 3], []]
    read = model.read(examples)
    shared = model([replace(one, answer=choice) for one in read for choice in choices])
    whole = model([replace(one, answer=choice) for one in examples for choice in choices])
    torch.testing.assert_close(shared.loss, whole.loss, rtol=1e-4, atol=1e-4)
    assert shared.num_tokens.tolist() == whole.num_tokens.tolist() == [2, 4, 1] * 2


def test_an_encoder_inside_gives_what_features_computed_outside_give():
    encoder = tiny_encoder()
    inside, outside = seeing_model(encoder=encoder), seeing_model()
    examples = various(pixels=True)
    with torch.no_grad():
        computed = [changed(example, views=encoder(example.content[0].views)) for example in examples]
    found = inside(examples)
    torch.testing.assert_close(found.loss, outside(computed).loss, rtol=1e-4, atol=1e-4)
    found.loss.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())


def test_an_encoder_inside_is_not_asked_where_nothing_is_seen():
    model = seeing_model(encoder=tiny_encoder())
    nothing = various(pixels=True)[2:3]
    torch.testing.assert_close(model(nothing).loss, seeing_model()(various()[2:3]).loss)


def test_parts_are_named_as_stages_name_them_and_the_encoder_is_one_only_where_it_is_there():
    stage = Stage(
        name="s",
        paper="none",
        frozen=("language_model", "visual_projector"),
        learning_rates={"video_projector": 1e-3},
        data={"video_text": 1.0},
    )
    model = seeing_model()
    assert set(model.parts()) == {"visual_projector", "video_projector", "language_model"}
    (group,) = apply_stage(model.parts(), stage)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.video_projector.parameters()}
    with_encoder = seeing_model(encoder=tiny_encoder())
    assert set(with_encoder.parts()) == {*model.parts(), "vision_encoder"}
    owned = {id(p) for part in with_encoder.parts().values() for p in part.parameters()}
    assert {id(p) for p in with_encoder.parameters()} == owned


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_grid_of_a_views_tokens_is_the_projectors_of_features_or_of_the_encoders_grid(branch):
    assert seeing_model().view_grid(branch, torch.empty(1, 4, 6, NUM_CHANNELS)) == (2, 3)
    pixels = torch.empty(1, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    assert seeing_model(encoder=tiny_encoder()).view_grid(branch, pixels) == (GRID[0] // 2, GRID[1] // 2)


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_projector_of_another_width_is_refused(branch):
    parts = {
        name: VisualTokens(
            projector=build_visual_projector("mlp", hidden_size=2, output_size=HIDDEN_SIZE + (name == branch)),
            marks_places=False,
        )
        for name in BRANCHES
    }
    name = branch.split("_")[0]
    with pytest.raises(
        LabError, match=f"the {name} projector gives tokens 17 wide; language model 'tiny qwen3' takes 16"
    ):
        OmniModel(**parts, language_model=language_model())
