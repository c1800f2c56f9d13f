import numpy as np
import pytest
import torch

from lab.parts.any_resolution import image_views, num_views, token_order
from lab.parts.omni_model import OmniModel
from lab.training.vision_data import Tiling, VisionSplit
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
def model() -> OmniModel:
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
        seen, question = split.example(index, asks).content
        pixels, seconds = one.see()
        cuts = {"image_size": IMAGE_SIZE, "max_tiles": chosen.max_tiles, "fit": chosen.fit}
        cut = [image_views(frame, **cuts) for frame in pixels]
        views = torch.from_numpy(np.concatenate([view.pixels for view in cut]))
        expected = encoder(views).detach().half().float() if features else views
        torch.testing.assert_close(seen.views, expected, rtol=2e-3, atol=2e-3)
        assert seen.views.dtype == (torch.float32 if features else torch.uint8)
        assert (seen.seconds, seen.grid) == (seconds, cut[0].grid)
        assert question == [1, 0]
        assert seen.branch == "video_projector"
        if num_views(cut[0].grid) == 1:
            assert seen.order is None
        else:
            laid = {"unpad": chosen.unpad, "newline": chosen.newline, "view_grid": (2, 2)}
            np.testing.assert_array_equal(seen.order, token_order(*pixels.shape[1:3], **cuts, **laid))


def test_unpadding_leaves_out_tokens_of_padding(model):
    # 8 x 9 pixels in two tiles of 8 x 8: of four columns of tokens the last shows columns 12 to 15, all padding.
    counts = {}
    for unpad in (False, True):
        split = split_of([example("x", size=(8, 9))], tiling=Tiling(max_tiles=2, unpad=unpad))
        counts[unpad] = split.num_tokens(0, model)
        assert len(split.example(0, model).content[0].order) == 4 + 2 * (3 if unpad else 4)
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
        (read,) = model.read([split.example(index, model)])
        tokens = read.content[0].values
        assert split.num_visual_tokens(index, model) == len(tokens)
        assert split.shown_frames(index) == frames
        row = len(tokens) + len(one.question) + len(model.codec.start_ids) + len(one.answer)
        assert split.num_tokens(index, model) == row + 1
        if frames and tiling == "fixed":
            assert len(tokens) == frames * TOKENS_A_VIEW


@pytest.mark.parametrize("features", [True, False])
def test_a_split_of_which_nothing_is_seen_is_text_alone(features):
    model = seeing_model(encoder=None if features else tiny_encoder())
    split = split_of([example(name, frames=0) for name in "xy"], features=features)
    assert split.store.view_shape == ((*GRID, NUM_CHANNELS) if features else (IMAGE_SIZE, IMAGE_SIZE, 3))
    found = model([split.example(i, model) for i in range(2)])
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
    assert split.example(0, model).content[1] == [0, 1]
    assert split.example(0, model).answer == [3]
    assert split.answer_ids("D ", model) == [3]
