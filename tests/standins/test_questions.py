from pathlib import Path

import numpy as np
import pytest

from lab.data.splits import SPLITS
from lab.errors import LabError
from lab.training.vision_examples import EXAMPLES, Sight, VisionExample, open_examples
from standins.pages.page_settings import PAGES
from standins.questions import FIRST_SEED
from standins.scenes import casts as scene_casts
from standins.scenes import questions as scene_questions
from standins.scenes.casts import cast_of
from standins.scenes.rendering import frame
from tests.standins.scene_pictures import stand_ins

SIGHT = Sight(frame_size=16)
SOURCES = (*EXAMPLES, "pages:easy", "scenes:8-12:2-3")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list:
    folder: Path = tmp_path_factory.mktemp("things")
    return stand_ins(folder)


@pytest.fixture(autouse=True)
def cast(pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scene_casts, scene_questions):
        monkeypatch.setattr(module, "standard_cast", lambda split: cast_of(pictures, split))


def facts(example: VisionExample) -> tuple:
    return example.id, example.group, example.kind, example.question, example.choices, example.answer


@pytest.mark.parametrize("source", SOURCES)
def test_examples_are_the_same_again_have_ids_of_their_own_and_begin_alike(source):
    for split in SPLITS:
        found = open_examples(source, split, 24, SIGHT)
        assert [facts(one) for one in found] == [facts(one) for one in open_examples(source, split, 24, SIGHT)]
        assert [facts(one) for one in found[:5]] == [facts(one) for one in open_examples(source, split, 5, SIGHT)]
        assert len({one.id for one in found}) == 24
        for one in found:
            assert one.answer in one.choices
            assert len(set(one.choices)) == len(one.choices)


@pytest.mark.parametrize("source", SOURCES)
def test_no_example_of_one_side_is_one_of_another(source):
    train, dev, test = ({one.group for one in open_examples(source, split, 24, SIGHT)} for split in SPLITS)
    assert len(train | dev | test) == len(train) + len(dev) + len(test)


@pytest.mark.parametrize("source", ["scenes", "stills"])
def test_twins_are_of_one_group_with_the_same_words_and_different_answers(source):
    by_group: dict[str, list[VisionExample]] = {}
    for one in open_examples(source, "train", 108, SIGHT):
        by_group.setdefault(one.group, []).append(one)
    assert max(map(len, by_group.values())) > 1
    for group in by_group.values():
        assert len({(one.kind, one.question, one.choices) for one in group}) == 1
        assert len({one.answer for one in group}) == len(group)


def test_one_frame_is_that_of_the_middle_and_none_is_nothing():
    (scene,) = [scene_questions.video_scene(0, seed=FIRST_SEED["test"], split="test")]
    ((one,), (none,)) = (open_examples("scenes", "test", 1, Sight(frame_size=16, max_frames=n)) for n in (1, 0))
    pixels, seconds = one.see()
    assert seconds == (scene.seconds / 2,)
    np.testing.assert_array_equal(pixels, frame(scene, scene.seconds / 2, 16)[None])
    pixels, seconds = none.see()
    assert (pixels.shape, pixels.dtype, seconds) == ((0, 16, 16, 3), np.uint8, ())
    assert facts(one) == facts(none)


@pytest.mark.parametrize(("rate", "most"), [(1.0, 4), (0.25, 48), (0.5, 8)])
def test_frames_are_evenly_spread_no_more_than_asked_for_and_each_of_its_moment(rate, most):
    sight = Sight(frame_size=16, frames_per_second=rate, max_frames=most)
    (example,) = open_examples("scenes:20-20", "train", 1, sight)
    scene = scene_questions.video_scene(
        0, seed=1, split="train", options=scene_questions.SceneOptions(seconds=(20.0, 20.0))
    )
    pixels, seconds = example.see()
    assert len(pixels) == len(seconds) == min(most, round(rate * scene.seconds))
    np.testing.assert_allclose(np.diff(seconds), np.diff(seconds)[0], atol=2e-3)
    for image, moment in zip(pixels, seconds, strict=True):
        np.testing.assert_array_equal(image, frame(scene, moment, 16))


@pytest.mark.parametrize("max_frames", [0, 1, 8])
def test_a_still_and_a_page_are_one_frame_whatever_is_seen_of_video(max_frames):
    sight = Sight(frame_size=24, max_frames=max_frames)
    for one in open_examples("stills", "dev", 4, sight):
        pixels, seconds = one.see()
        assert (pixels.shape, seconds) == ((1, 24, 24, 3), (0.0,))
    for one in open_examples("pages:labelled_small", "dev", 4, sight):
        pixels, seconds = one.see()
        (low, high) = PAGES["labelled_small"].width
        assert pixels.shape[0] == 1
        assert low <= pixels.shape[2] <= high
        assert seconds == (0.0,)


def test_options_stand_behind_colons_in_their_order():
    lengths = [scene_seconds(one) for one in open_examples("scenes:10-12:2-2", "train", 9, sight_of_all())]
    assert max(lengths) <= 40  # raised for kinds whose events would not fit
    assert min(lengths) >= 9
    longer = [scene_seconds(one) for one in open_examples("scenes:40-48", "train", 9, sight_of_all())]
    assert min(longer) >= 38
    assert {one.kind for one in open_examples("pages:easy", "train", 4, SIGHT)} == {"page"}
    assert {one.kind for one in open_examples("pages", "train", 4, SIGHT)} == {"beside"}


def sight_of_all() -> Sight:
    return Sight(frame_size=8, max_frames=200)


def scene_seconds(example: VisionExample) -> float:
    return example.see()[1][-1]


def test_questions_of_pages_ask_for_more_than_the_first_entry():
    assert len({one.question for one in open_examples("pages:lines", "train", 24, SIGHT)}) > 2


def test_every_kind_of_chart_is_asked_every_kind_of_question():
    found = open_examples("charts", "train", 6 * 6 * 2, SIGHT)
    assert {one.kind for one in found} >= {"reading", "largest", "smallest", "difference", "count", "comparison"}
    of_bars = open_examples("charts:bar", "train", 6, SIGHT)
    assert len({one.kind for one in of_bars}) == 6
    pixels, seconds = of_bars[0].see()
    assert (pixels.shape[0], pixels.shape[3], seconds) == (1, 3, (0.0,))


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"frame_size": 7}, "frame_size 7, frames_per_second 1.0 and max_frames 8"),
        ({"max_frames": -1}, "frame_size 128, frames_per_second 1.0 and max_frames -1"),
        ({"frames_per_second": 0.0}, "frame_size 128, frames_per_second 0.0 and max_frames 8"),
        ({"frames_per_second": float("nan")}, "frames_per_second nan"),
    ],
)
def test_sight_out_of_range_is_refused(changes, numbers):
    with pytest.raises(LabError, match=f"{numbers}.*expected at least 8, above 0 and at least 0"):
        Sight(**changes)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("scene", r"unknown source of pictures or video 'scene' \(did you mean 'scenes'\?\)"),
        ("stills:1", "'stills:1' has 1 options; source 'stills' takes at most 0"),
        ("scenes:8-9:2-3:moves:5", "has 4 options; source 'scenes' takes at most 3"),
        ("scenes:8-9:2-3:jumps", "unknown kind of question 'jumps'; choose one of: before, "),
        ("charts:radar", "unknown kind of chart 'radar'"),
        ("pages:hard", "unknown kind of page 'hard'.*labelled"),
        ("scenes:8", "'8' is no range of seconds; expected two numbers as in '8-48'"),
        ("scenes:8-9:a-b", "'a-b' is no range of seconds"),
        ("scenes:1-2-3", "'1-2-3' is no range of seconds"),
        ("scenes:9-8", "scene option seconds is .*low end first"),
    ],
)
def test_unknown_sources_and_options_are_refused(source, message):
    with pytest.raises(LabError, match=message):
        open_examples(source, "train", 1, SIGHT)


@pytest.mark.parametrize("source", EXAMPLES)
def test_an_unknown_split_is_refused(source):
    with pytest.raises(LabError, match="unknown split 'tset'"):
        open_examples(source, "tset", 1, SIGHT)
