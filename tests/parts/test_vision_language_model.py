from dataclasses import replace

import pytest
import torch

from lab.errors import LabError
from lab.parts.vision_language_model import Question, VisionLanguageModel
from lab.parts.visual_projectors import build_visual_projector
from lab.parts.visual_tokens import VisualTokens
from lab.training.stages import Stage, apply_stage
from tests.parts.tiny_models import HIDDEN_SIZE, language_model
from tests.parts.tiny_vision import BRANCHES, GRID, IMAGE_SIZE, NUM_CHANNELS, asked, seeing_model, tiny_encoder

WIDE = (IMAGE_SIZE, 2 * IMAGE_SIZE)


def various(*, pixels: bool = False) -> tuple[list[Question], list[list[int]]]:
    """Questions and answers of different lengths and branches; one sees nothing, one tiles, one is asked nothing."""
    options = {"pixels": pixels}
    questions = [
        asked([0, 1, 2], "visual_projector", frames=1, size=WIDE, seed=1, **options),
        asked([3], "video_projector", frames=3, seed=2, **options),
        asked([1, 1], "video_projector", frames=0, seed=3, **options),
        asked([], "visual_projector", frames=1, seed=4, **options),
    ]
    return questions, [[0, 1, 2], [], [3], [2, 2]]


def reference_loss(model: VisionLanguageModel, question: Question, answer: list[int]) -> torch.Tensor:
    """One row without padding, mask or position ids."""
    (tokens,) = getattr(model, question.branch)([question.seen])
    text = torch.tensor([*question.question_ids, *model.codec.start_ids, *answer])
    row = torch.cat([tokens, model.language_model.get_input_embeddings()(text)])
    scores = model.language_model(inputs_embeds=row[None], use_cache=False).logits[0].log_softmax(-1)
    targets = [*answer, model.codec.end_id]
    return -sum((scores[len(row) - len(targets) + i, target] for i, target in enumerate(targets)), torch.zeros(()))


def test_loss_of_each_question_is_its_loss_alone_and_that_of_a_slow_reference():
    model = seeing_model()
    questions, answers = various()
    together = model(questions, answers)
    assert together.num_tokens.tolist() == [4, 1, 2, 3]
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        alone = model([question], [answer])
        torch.testing.assert_close(together.loss[row], alone.loss[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.loss[row], reference_loss(model, question, answer), rtol=1e-4, atol=1e-4)


def test_a_question_passes_through_the_projector_of_its_branch():
    model = seeing_model()
    questions, answers = various()
    before = model(questions, answers).loss
    with torch.no_grad():
        for parameter in model.video_projector.parameters():
            parameter.add_(0.5)
    changed = (model(questions, answers).loss - before).abs() > 1e-4
    assert changed.tolist() == [False, True, False, False]  # the third sees nothing
    for question, tokens in zip(questions, model.visual_tokens(questions), strict=True):
        torch.testing.assert_close(tokens, getattr(model, question.branch)([question.seen])[0], rtol=1e-4, atol=1e-4)


def test_what_is_asked_and_seen_moves_the_loss():
    model = seeing_model()
    questions, answers = various()
    (loss,) = model(questions[:1], answers[:1]).loss
    other = replace(questions[0], question_ids=[0, 1, 3])
    blind = replace(questions[0], seen=various()[0][2].seen)
    for question in (other, blind):
        assert not torch.isclose(model([question], answers[:1]).loss[0], loss, atol=1e-3)


@pytest.mark.parametrize("first", [0, 2])
def test_visual_tokens_at_hand_may_stand_in_several_rows(first):
    model = seeing_model()
    questions, _ = various()
    choices = [[0], [1, 2, 3], []]
    tokens = model.visual_tokens(questions[first : first + 2])
    rows = [(at, choice) for at in range(2) for choice in choices]
    asked_again = [questions[first + at] for at, _ in rows]
    answers = [choice for _, choice in rows]
    shared = model.losses([tokens[at] for at, _ in rows], asked_again, answers)
    whole = model(asked_again, answers)
    torch.testing.assert_close(shared.loss, whole.loss, rtol=1e-4, atol=1e-4)
    assert shared.num_tokens.tolist() == whole.num_tokens.tolist() == [2, 4, 1] * 2


def test_an_encoder_inside_gives_what_features_computed_outside_give():
    encoder = tiny_encoder()
    inside, outside = seeing_model(encoder=encoder), seeing_model()
    questions, answers = various(pixels=True)
    with torch.no_grad():
        computed = [
            replace(question, seen=replace(question.seen, views=encoder(question.seen.views))) for question in questions
        ]
    found = inside(questions, answers)
    torch.testing.assert_close(found.loss, outside(computed, answers).loss, rtol=1e-4, atol=1e-4)
    found.loss.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())


def test_an_encoder_inside_is_not_asked_where_nothing_is_seen():
    model = seeing_model(encoder=tiny_encoder())
    questions, answers = various(pixels=True)
    torch.testing.assert_close(
        model(questions[2:3], answers[2:3]).loss, seeing_model()(questions[2:3], answers[2:3]).loss
    )


def test_parts_are_named_as_stages_name_them_and_the_encoder_is_one_only_where_it_is_there():
    stage = Stage(
        name="s",
        paper="none",
        trained=("video_projector",),
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


def test_the_video_projector_may_start_as_the_image_projector_and_goes_its_own_way():
    model = seeing_model()
    (question,), (answer,) = [part[:1] for part in various()]
    as_video = replace(question, branch="video_projector")
    assert not torch.isclose(model([as_video], [answer]).loss, model([question], [answer]).loss, atol=1e-3)
    model.start_video_projector_from_image()
    torch.testing.assert_close(model([as_video], [answer]).loss, model([question], [answer]).loss)
    before = model([question], [answer]).loss
    with torch.no_grad():
        for parameter in model.video_projector.parameters():
            parameter.add_(0.5)
    torch.testing.assert_close(model([question], [answer]).loss, before)


def test_a_video_projector_of_another_make_cannot_start_as_the_image_projector():
    model = seeing_model()
    model.video_projector = VisualTokens(
        projector=build_visual_projector("mlp", hidden_size=NUM_CHANNELS, output_size=HIDDEN_SIZE), marks_places=True
    )
    with pytest.raises(LabError, match=r"cannot start from the image projector's weights: .*newline"):
        model.start_video_projector_from_image()


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_grid_of_a_views_tokens_is_the_projectors_of_features_or_of_the_encoders_grid(branch):
    assert seeing_model().view_grid(branch, (4, 6, NUM_CHANNELS)) == (2, 3)
    assert seeing_model(encoder=tiny_encoder()).view_grid(branch, (IMAGE_SIZE, IMAGE_SIZE, 3)) == (
        GRID[0] // 2,
        GRID[1] // 2,
    )


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
        VisionLanguageModel(**parts, language_model=language_model())


def test_answers_must_be_as_many_as_questions():
    questions, answers = various()
    with pytest.raises(ValueError, match="shorter"):
        seeing_model()(questions, answers[:1])
