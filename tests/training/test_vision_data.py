import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.parts.any_resolution import image_views, num_views, token_order
from lab.parts.vision_language_model import VisionLanguageModel
from lab.training.stages import Stage
from lab.training.vision_data import StageBatches, Tiling, VisionSplit
from tests.parts.tiny_vision import BRANCHES, GRID, IMAGE_SIZE, NUM_CHANNELS, seeing_model, tiny_encoder
from tests.training.vision_splits import SQUARE, example, split_of, various

TOKENS_A_VIEW = 4
SIZES = {"square": SQUARE, "wide": (8, 16), "tall": (24, 8), "small": (4, 4), "narrow": (8, 9), "large": (16, 16)}
TILINGS = {
    "fixed": Tiling(),
    "tiles": Tiling(max_tiles=4),
    "newline": Tiling(max_tiles=4, newline=True),
    "unpad": Tiling(max_tiles=3, unpad=True, newline=True),
    "stretch": Tiling(max_tiles=2, fit="stretch"),
}


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return seeing_model()


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("tiling", TILINGS)
def test_a_question_sees_what_its_example_does_cut_and_encoded(model, tiling, features):
    chosen, encoder = TILINGS[tiling], tiny_encoder()
    examples = [example(name, frames=2, size=size, question="ba") for name, size in SIZES.items()]
    split = split_of(examples, tiling=chosen, features=features)
    assert len(split) == len(examples)
    asks = model if features else seeing_model(encoder=encoder)
    for index, one in enumerate(examples):
        question = split.question(index, asks)
        pixels, seconds = one.see()
        cuts = {"image_size": IMAGE_SIZE, "max_tiles": chosen.max_tiles, "fit": chosen.fit}
        cut = [image_views(frame, **cuts) for frame in pixels]
        views = torch.from_numpy(np.concatenate([view.pixels for view in cut]))
        expected = encoder(views).detach().half().float() if features else views
        torch.testing.assert_close(question.seen.views, expected, rtol=2e-3, atol=2e-3)
        assert question.seen.views.dtype == (torch.float32 if features else torch.uint8)
        assert (question.seen.seconds, question.seen.grid) == (seconds, cut[0].grid)
        assert question.question_ids == [1, 0]
        assert question.branch == "video_projector"
        if num_views(cut[0].grid) == 1:
            assert question.seen.order is None
        else:
            laid = {"unpad": chosen.unpad, "newline": chosen.newline, "view_grid": (2, 2)}
            np.testing.assert_array_equal(question.seen.order, token_order(*pixels.shape[1:3], **cuts, **laid))


def test_unpadding_leaves_out_tokens_of_padding(model):
    # 8 x 9 pixels in two tiles of 8 x 8: of four columns of tokens the last shows columns 12 to 15, all padding.
    counts = {}
    for unpad in (False, True):
        split = split_of([example("x", size=(8, 9))], tiling=Tiling(max_tiles=2, unpad=unpad))
        counts[unpad] = split.num_tokens(0, model)
        assert len(split.question(0, model).seen.order) == 4 + 2 * (3 if unpad else 4)
    assert counts[False] - counts[True] == 2


@pytest.mark.parametrize("frames", [0, 1, 3])
@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("trained", [False, True])
def test_num_tokens_is_the_length_of_the_joined_row_and_the_end(tiling, frames, branch, trained):
    model = seeing_model(encoder=tiny_encoder() if trained else None)
    examples = [
        example(name, frames=frames, size=size, question="ab" * n, answer="c" * n, choices=["c" * n])
        for n, (name, size) in enumerate(SIZES.items())
    ]
    split = split_of(examples, tiling=TILINGS[tiling], branch=branch, features=not trained)
    for index, one in enumerate(examples):
        (tokens,) = model.visual_tokens([split.question(index, model)])
        row = len(tokens) + len(one.question) + len(model.codec.start_ids) + len(one.answer)
        assert split.num_tokens(index, model) == row + 1
        if frames and tiling == "fixed":
            assert len(tokens) == frames * TOKENS_A_VIEW


@pytest.mark.parametrize("features", [True, False])
def test_a_split_of_which_nothing_is_seen_is_text_alone(features):
    model = seeing_model(encoder=None if features else tiny_encoder())
    split = split_of([example(name, frames=0) for name in "xy"], features=features)
    assert split.store.view_shape == ((*GRID, NUM_CHANNELS) if features else (IMAGE_SIZE, IMAGE_SIZE, 3))
    found = model([split.question(i, model) for i in range(2)], [split.answer_ids("c", model)] * 2)
    torch.testing.assert_close(found.loss[0], found.loss[1])


def test_views_are_computed_once_and_anew_for_what_they_hang_on():
    examples, seen = various("e", 3, size=(8, 16)), []

    def open_split(**options) -> VisionSplit:
        return split_of(examples, progress=lambda done, of: seen.append(done), **options)

    open_split()
    assert seen == [3]
    open_split(branch="visual_projector", write=str.upper)
    open_split(tiling=Tiling(unpad=True, newline=True))
    assert seen == [3]  # how tokens are laid out is no matter of views
    for options in ({"tiling": Tiling(max_tiles=2)}, {"tiling": Tiling(fit="stretch")}, {"features": False}):
        open_split(**options)
    assert seen == [3] * 4


def test_questions_and_answers_are_written_as_the_language_model_writes():
    model = seeing_model()
    split = split_of([example("x", question=" AB", answer="D")], write=lambda text: text.strip().lower())
    assert split.question(0, model).question_ids == [0, 1]
    assert split.answer_ids("D ", model) == [3]


def stage(steps: int, **weights: float) -> Stage:
    return Stage(
        name="s",
        paper="none",
        trained=("video_projector",),
        learning_rates={"video_projector": 1e-3},
        data=weights,
        steps=steps,
    )


@pytest.fixture
def sources() -> dict[str, VisionSplit]:
    return {
        "image_text": split_of(various("i", 13, frames=1), name="i", branch="visual_projector"),
        "video_text": split_of(various("v", 17), name="v"),
        "other": split_of(various("o", 5), name="o"),
    }


def batches(sources, model, steps: int = 12, seed: int = 1, **options) -> StageBatches:
    weights = options.pop("weights", {"image_text": 0.3, "video_text": 0.7})
    given = {"batch_tokens": 60, **options}
    return StageBatches(sources=sources, model=model, stage=stage(steps, **weights), seed=seed, **given)


@pytest.mark.parametrize("order", [range(11, -1, -1), [5, 5, 2, 11, 6, 7, 0, 3], [7, 8, 9, 10, 11]])
def test_a_steps_batch_is_the_same_in_whatever_order_steps_are_asked_for(sources, model, order):
    whole = batches(sources, model)
    expected = [whole.indices(step) for step in range(12)]
    other = batches(sources, model)
    assert [other.indices(step) for step in order] == [expected[step] for step in order]
    other.costs()
    other.padding_share()
    assert [other.indices(step) for step in order] == [expected[step] for step in order]
    assert [batches(sources, model, seed=2).indices(step) for step in range(12)] != expected


@pytest.mark.parametrize(
    ("steps", "weights", "expected"),
    [
        (12, {"image_text": 0.3, "video_text": 0.7}, {"image_text": 4, "video_text": 8}),
        (10, {"image_text": 3.0, "video_text": 7.0}, {"image_text": 3, "video_text": 7}),
        (3, {"image_text": 1.0, "video_text": 1.0}, {"image_text": 2, "video_text": 1}),
        (1, {"image_text": 0.3, "video_text": 0.7}, {"video_text": 1}),
        (4, {"video_text": 0.2}, {"video_text": 4}),
        (8, {"image_text": 1.0, "video_text": 1.0, "other": 1.0}, {"image_text": 3, "video_text": 3, "other": 2}),
        (10, {"image_text": 0.45, "video_text": 0.45, "other": 0.1}, {"image_text": 5, "video_text": 4, "other": 1}),
        (10, {"image_text": 0.44, "video_text": 0.43, "other": 0.13}, {"image_text": 5, "video_text": 4, "other": 1}),
    ],
)
def test_every_kind_has_its_share_of_the_steps(sources, model, steps, weights, expected):
    found = batches(sources, model, steps, weights=weights)
    assert Counter(found.kinds) == expected
    assert Counter(found.indices(step)[0] for step in range(steps)) == expected


def test_kinds_are_mixed_and_not_one_after_the_other(sources, model):
    kinds = batches(sources, model, 40, weights={"image_text": 1.0, "video_text": 1.0}).kinds
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    assert changes > 10


def test_no_example_stands_twice_in_an_epoch_and_all_have_their_turn(sources, model):
    found = batches(sources, model, 60, weights={"video_text": 1.0})
    size, count = found._sizes["video_text"], len(sources["video_text"])
    per_epoch = count // size
    chosen = [found.indices(step)[1] for step in range(60)]
    assert {len(batch) for batch in chosen} == {size}
    for start in range(0, 60 - per_epoch, per_epoch):
        epoch = [i for batch in chosen[start : start + per_epoch] for i in batch]
        assert len(set(epoch)) == len(epoch) == per_epoch * size
    assert {i for batch in chosen for i in batch} == set(range(count))


def test_a_batch_holds_about_its_tokens_whatever_the_kind(sources, model):
    found = batches(sources, model, 30, batch_tokens=80)
    for kind in ("image_text", "video_text"):
        held = [
            sum(found.lengths[kind][i] for i in batch)
            for of, batch in (found.indices(step) for step in range(30))
            if of == kind
        ]
        assert np.mean(held) == pytest.approx(80, rel=0.25)


def test_a_later_stage_goes_on_where_the_earlier_ones_stopped(sources, model):
    long = batches(sources, model, 20, weights={"image_text": 1.0})
    first = batches(sources, model, 5, weights={"image_text": 1.0})
    second = batches(sources, model, 12, earlier=[first])
    third = batches(sources, model, 4, weights={"image_text": 1.0}, earlier=[first, second])
    images = [
        batch
        for part in (first, second, third)
        for kind, batch in map(part.indices, range(len(part.kinds)))
        if kind == "image_text"
    ]
    assert images == [long.indices(step)[1] for step in range(len(images))]
    assert len(images) == 5 + 4 + 4


@pytest.mark.parametrize("other", [{"seed": 2}, {"batch_tokens": 61}])
def test_a_later_stage_of_other_batches_cannot_go_on(sources, model, other):
    with pytest.raises(LabError, match="stage 's' has batch_tokens 60 and seed 1, and a stage before it has others"):
        batches(sources, model, earlier=[batches(sources, model, **other)])


def test_costs_and_padding_are_those_counted_one_by_one(sources, model):
    found = batches(sources, model)
    tokens = frames = 0
    padded = []
    for step in range(12):
        kind, chosen = found.indices(step)
        split, rows = sources[kind], []
        for i in chosen:
            (seen,) = model.visual_tokens([split.question(i, model)])
            rows.append(len(seen) + len(split.examples[i].question) + 1 + len(split.examples[i].answer) + 1)
            frames += len(split.examples[i].see()[0])
        tokens += sum(rows)
        padded.append(1 - sum(rows) / (len(rows) * max(rows)))
    assert found.costs() == (tokens, frames)
    assert found.padding_share() == pytest.approx(np.mean(padded))


def test_loss_of_a_step_is_that_of_its_examples_one_by_one(sources, model):
    found = batches(sources, model)
    for step in (3, 0):
        kind, chosen = found.indices(step)
        split = sources[kind]
        batch = found.loss(step)
        for row, i in enumerate(chosen):
            ids = model.codec.encode(split.examples[i].answer)
            alone = model([split.question(i, model)], [ids])
            torch.testing.assert_close(batch.loss[row], alone.loss[0], rtol=1e-4, atol=1e-4)
            assert batch.num_tokens[row] == len(ids) + 1


def test_missing_kinds_and_examples_that_are_too_long_are_refused(sources, model):
    with pytest.raises(LabError, match=r"unknown kind of data 'audio_text'.*; choose one of: image_text"):
        batches(sources, model, weights={"audio_text": 1.0})
    longest = max(sources["video_text"].num_tokens(i, model) for i in range(17))
    assert batches(sources, model, batch_tokens=longest)
    with pytest.raises(
        LabError, match=rf"an example of 'video_text' takes {longest} tokens, more than batch_tokens \({longest - 1}\)"
    ):
        batches(sources, model, batch_tokens=longest - 1)
