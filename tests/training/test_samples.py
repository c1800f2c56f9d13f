from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.data.sample import Drawn, Image, Sample, Text, Video
from lab.data.video import Sight
from lab.errors import LabError
from lab.parts.any_resolution import image_views, num_views, token_order
from lab.parts.media_tokens import Seen
from lab.parts.omni_model import OmniModel
from lab.training.samples import SampleExamples, Tiling
from tests.parts.tiny_vision import BRANCHES, GRID, IMAGE_SIZE, NUM_CHANNELS, seeing_model, tiny_encoder
from tests.training.vision_splits import SQUARE, example, noise, split_of, various

TOKENS_A_VIEW = 4
SIZES = {"square": SQUARE, "wide": (8, 16), "tall": (24, 8), "small": (4, 4), "narrow": (8, 9), "large": (16, 16)}
TILINGS = {
    "fixed": Tiling(),
    "tiles": Tiling(max_tiles=4),
    "unpad": Tiling(max_tiles=3, unpad=True),
    "stretch": Tiling(max_tiles=2, fit="stretch"),
}


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return seeing_model()


@pytest.mark.parametrize("newline", [True, False])
@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("tiling", TILINGS)
def test_a_question_sees_what_its_sample_holds_cut_and_encoded(tiling, features, newline):
    chosen, encoder = TILINGS[tiling], tiny_encoder()
    examples = [example(name, frames=2, size=size, question="ba") for name, size in SIZES.items()]
    split = split_of(examples, tiling=chosen, features=features)
    assert len(split) == len(examples)
    asks = seeing_model(encoder=None if features else encoder, newline=newline)
    for index, one in enumerate(examples):
        seen, question = split.example(index, asks).content
        video = one.content[0].read()
        pixels, seconds = video.frames, tuple(video.seconds)
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
            laid = {"unpad": chosen.unpad, "newline": newline, "view_grid": (2, 2)}
            np.testing.assert_array_equal(seen.order, token_order(*pixels.shape[1:3], **cuts, **laid))


def test_unpadding_leaves_out_tokens_of_padding():
    model = seeing_model(newline=False)
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
    assert split.store.row_shape == ((*GRID, NUM_CHANNELS) if features else (IMAGE_SIZE, IMAGE_SIZE, 3))
    found = model([split.example(i, model) for i in range(2)])
    torch.testing.assert_close(found.loss[0], found.loss[1])


def test_views_are_computed_once_and_anew_for_what_they_hang_on():
    examples, seen = various("e", 3, size=(8, 16)), []

    def open_split(**options) -> SampleExamples:
        return split_of(examples, progress=lambda done, of: seen.append(done), **options)

    open_split()
    assert seen == [3]
    open_split(branch="visual_projector", write=str.upper)
    open_split(tiling=Tiling(unpad=True))
    assert seen == [3]  # how tokens are laid out is no matter of views
    for options in ({"tiling": Tiling(max_tiles=2)}, {"tiling": Tiling(fit="stretch")}):
        open_split(**options)
    assert seen == [3] * 3
    open_split(features=False)
    assert seen == [3, 3, 3, 1, 2, 3]  # pixels are kept by sample


def test_questions_and_answers_are_written_as_the_language_model_writes():
    model = seeing_model()
    split = split_of([example("x", question=" AB", answer="D")], write=lambda text: text.strip().lower())
    assert split.example(0, model).content[1] == [0, 1]
    assert split.example(0, model).answer == [3]
    assert split.answer_ids("D ", model) == [3]


def noted(name: str, sight: Sight) -> np.ndarray:
    return noise(name, 1, SQUARE, sight).frames[0]


MIXED = Sample(
    id="mixed",
    source="a test",
    content=(
        Text("ab"),
        Image(Drawn(noted, ("first",))),
        Text("c"),
        Video(Drawn(noise, ("film", 2, SQUARE))),
        Image(Drawn(noted, ("second",))),
        Text("d"),
    ),
    answer="a",
)


@pytest.mark.parametrize("features", [True, False])
def test_several_pictures_and_videos_between_texts_are_kept_and_read_in_their_order(features):
    encoder = tiny_encoder()
    model = seeing_model(encoder=encoder)
    plain = SampleExamples(samples=[MIXED, example("x")], name="mixed")
    kept = plain.kept_by(encoder, key="k", features=features)
    read, stored = (examples.example(0, model) for examples in (plain, kept))
    assert [type(segment).__name__ for segment in stored.content] == ["list", "Seen", "list", "Seen", "Seen", "list"]
    assert [s.branch for s in stored.content if isinstance(s, Seen)] == [BRANCHES[0], BRANCHES[1], BRANCHES[0]]
    torch.testing.assert_close(model([read]).loss, model([stored]).loss, rtol=2e-3, atol=2e-3)
    assert plain.num_tokens(0, model) == kept.num_tokens(0, model) == 5 + 4 * TOKENS_A_VIEW + 1 + 1
    assert plain.num_visual_tokens(0, model) == kept.num_visual_tokens(0, model) == 4 * TOKENS_A_VIEW
    assert plain.shown_frames(0) == kept.shown_frames(0) == 4
    assert [kept.shown_frames(i) for i in range(2)] == [4, 1]


def test_media_that_cannot_be_read_are_named_with_their_sample_and_source(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = Sample(id="s7", source="a corpus", content=(Image(tmp_path / "broken.png"), Text("ab")))
    examples = SampleExamples(samples=[example("x"), broken], name="broken")
    message = r"sample 's7' of 'a corpus': .*broken\.png is not an image that can be read"
    with pytest.raises(LabError, match=message):
        replace(examples, samples=[broken]).kept_by(tiny_encoder(), key="k")
    with pytest.raises(LabError, match=message):
        examples.example(1, seeing_model(encoder=tiny_encoder()))


@pytest.mark.parametrize("features", [True, False])
def test_samples_with_media_that_cannot_be_read_are_left_out_of_what_is_kept_and_named(tmp_path, features):
    asked = (Image(tmp_path / "gone.png"), Text("ab"))
    gone, half = (
        Sample(id=id, source="s", content=content) for id, content in (("g", asked), ("h", MIXED.content + asked))
    )
    encoder = tiny_encoder()
    examples = SampleExamples(samples=[gone, MIXED, half, example("x")], name="some", left_out={"empty": ["e"]})
    for _ in range(2):  # the second time from the store
        kept = examples.kept_by(encoder, key="k", features=features)
        assert [sample.id for sample in kept.samples] == [MIXED.id, "x"]
        before, told = kept.left_out.items()
        assert before == ("empty", ["e"])
        assert told[0] == f"with media that cannot be read; delete {kept.store.folder} to try again"
        assert told[1] == [f"sample {id!r} of 's': {tmp_path}/gone.png is not there" for id in "gh"]
    alone = SampleExamples(samples=[MIXED, example("x")], name="alone").kept_by(encoder, key="k", features=features)
    model = seeing_model(encoder=None if features else encoder)
    losses = [one.example(i, model) for one in (kept, alone) for i in range(2)]
    torch.testing.assert_close(model(losses[:2]).loss, model(losses[2:]).loss)
    with pytest.raises(LabError, match=r"sample 'h' of 's': .*gone\.png is not there"):
        replace(examples, samples=[half]).kept_by(encoder, key="k", features=features)


def test_a_part_that_the_model_lacks_is_named_with_the_sample():
    model = seeing_model(encoder=tiny_encoder())
    model.video_projector = None
    lacking = SampleExamples(samples=[example("x", size=(8, 16))], tiling=Tiling(max_tiles=2))
    with pytest.raises(LabError, match=r"sample 'x': an example holds .*videos, for which this model lacks its video_"):
        lacking.example(0, model)
