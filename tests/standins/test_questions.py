from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lab.data.sample import Sample
from lab.data.sources import SAMPLE_SOURCES, open_samples
from lab.data.splits import SPLITS
from lab.data.video import Sight
from lab.errors import LabError
from standins.pages.charts import make_chart
from standins.pages.rendered_text import PAGES, make_page, render, transcript
from standins.questions import FIRST_SEED
from standins.scenes import casts as scene_casts
from standins.scenes import questions as scene_questions
from standins.scenes.casts import cast_of
from standins.scenes.scene import frame
from standins.texts import in_words
from tests.standins.scene_pictures import stand_ins

SIGHT = Sight(frame_size=16)
SOURCES = (*SAMPLE_SOURCES, "pages:easy", "scenes:8-12:2-3")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list:
    folder: Path = tmp_path_factory.mktemp("things")
    return stand_ins(folder)


@pytest.fixture(autouse=True)
def cast(pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scene_casts, scene_questions):
        monkeypatch.setattr(module, "standard_cast", lambda split: cast_of(pictures, split))


def opened(source: str, split: str, count: int) -> list[Sample]:
    samples, left_out = open_samples(source, split, count)
    assert left_out == {}
    return samples


@pytest.mark.parametrize("source", SOURCES)
def test_examples_are_the_same_again_have_ids_of_their_own_and_begin_alike(source):
    for split in SPLITS:
        found = opened(source, split, 24)
        assert found == opened(source, split, 24)
        assert found[:5] == opened(source, split, 5)
        assert len({one.id for one in found}) == 24
        for one in found:
            assert one.choices or source in ("transcripts", "descriptions")
            assert len(set(one.choices)) == len(one.choices)


@pytest.mark.parametrize("source", SOURCES)
def test_no_example_of_one_side_is_one_of_another(source):
    train, dev, test = ({one.group for one in opened(source, split, 24)} for split in SPLITS)
    assert len(train | dev | test) == len(train) + len(dev) + len(test)


@pytest.mark.parametrize("source", ["scenes", "stills"])
def test_twins_are_of_one_group_with_the_same_words_and_different_answers(source):
    by_group: dict[str, list[Sample]] = {}
    for one in opened(source, "train", 108):
        by_group.setdefault(one.group, []).append(one)
    assert max(map(len, by_group.values())) > 1
    for group in by_group.values():
        assert len({(one.task, one.question, one.choices) for one in group}) == 1
        assert len({one.answer for one in group}) == len(group)


def test_one_frame_is_that_of_the_middle_and_none_is_nothing():
    (scene,) = [scene_questions.video_scene(0, seed=FIRST_SEED["test"], split="test")]
    (sample,) = opened("scenes", "test", 1)
    one, none = (sample.content[0].read(Sight(frame_size=16, max_frames=n)) for n in (1, 0))
    assert one.seconds.tolist() == [scene.seconds / 2]
    np.testing.assert_array_equal(one.frames, frame(scene, scene.seconds / 2, 16)[None])
    assert (none.frames.shape, none.frames.dtype, len(none.seconds)) == ((0, 16, 16, 3), np.uint8, 0)


@pytest.mark.parametrize(("rate", "most"), [(1.0, 4), (0.25, 48), (0.5, 8)])
def test_frames_are_evenly_spread_no_more_than_asked_for_and_each_of_its_moment(rate, most):
    sight = Sight(frame_size=16, frames_per_second=rate, max_frames=most)
    (example,) = opened("scenes:20-20", "train", 1)
    scene = scene_questions.video_scene(
        0, seed=1, split="train", options=scene_questions.SceneOptions(seconds=(20.0, 20.0))
    )
    video = example.content[0].read(sight)
    pixels, seconds = video.frames, video.seconds.tolist()
    assert len(pixels) == len(seconds) == min(most, round(rate * scene.seconds))
    np.testing.assert_allclose(np.diff(seconds), np.diff(seconds)[0], atol=2e-3)
    for image, moment in zip(pixels, seconds, strict=True):
        np.testing.assert_array_equal(image, frame(scene, moment, 16))


@pytest.mark.parametrize("max_frames", [0, 1, 8])
def test_a_still_and_a_page_are_seen_whatever_is_seen_of_video(max_frames):
    sight = Sight(frame_size=24, max_frames=max_frames)
    for one in opened("stills", "dev", 4):
        assert one.content[0].read(sight).shape == (24, 24, 3)
    for one in opened("pages:labelled_small", "dev", 4):
        (low, high) = PAGES["labelled_small"].width
        assert low <= one.content[0].read(sight).shape[1] <= high


def test_options_stand_behind_colons_in_their_order():
    lengths = [scene_seconds(one) for one in opened("scenes:10-12:2-2", "train", 9)]
    assert max(lengths) <= 40  # raised for kinds whose events would not fit
    assert min(lengths) >= 9
    longer = [scene_seconds(one) for one in opened("scenes:40-48", "train", 9)]
    assert min(longer) >= 38
    assert {one.task for one in opened("pages:easy", "train", 4)} == {"page"}
    assert {one.task for one in opened("pages", "train", 4)} == {"beside"}


def sight_of_all() -> Sight:
    return Sight(frame_size=8, max_frames=200)


def scene_seconds(example: Sample) -> float:
    return example.content[0].read(sight_of_all()).seconds[-1]


def test_questions_of_pages_ask_for_more_than_the_first_entry():
    assert len({one.question for one in opened("pages:lines", "train", 24)}) > 2


def test_every_kind_of_chart_is_asked_every_kind_of_question():
    found = opened("charts", "train", 6 * 6 * 2)
    assert {one.task for one in found} >= {"reading", "largest", "smallest", "difference", "count", "comparison"}
    of_bars = opened("charts:bar", "train", 6)
    assert len({one.task for one in of_bars}) == 6
    assert of_bars[0].content[0].read().shape[2] == 3


def test_of_charts_the_kinds_of_question_can_be_named_and_a_trend_is_none_of_those_asked_otherwise():
    named = opened("charts:bar,pie:comparison,reading", "train", 12)
    assert {one.task for one in named} == {"comparison", "reading"}
    assert "trend" not in {one.task for one in opened("charts:line", "train", 24)}
    for number, one in enumerate(opened("charts:line:trend", "train", 12)):
        chart = make_chart(["line"], seed=FIRST_SEED["train"], index=number, split="train")
        name = one.question.partition(":")[0].removeprefix("For ")
        row = chart.values[chart.series.index(name) if name in chart.series else 0]
        assert (one.answer, sorted(one.choices)) == ("rise" if row[-1] > row[0] else "fall", ["fall", "rise"])


def test_a_box_holds_the_thing_that_is_asked_for_and_nothing_of_it_lies_outside():
    for one in opened("grounding:1000", "train", 8):
        (scene,) = one.content[0].source.given
        size = 250
        alone, empty = (
            frame(replace(scene, actors=actors), 0.0, size).astype(int) for actors in (scene.actors[-1:], ())
        )
        rows, columns = np.nonzero((alone != empty).any(axis=2))
        ink = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / size
        box = np.array([int(place) for place in one.answer.split()]) / 1000
        np.testing.assert_allclose(box, ink, atol=3 / size)
        assert scene.actors[-1].word in one.question


def test_where_a_thing_stands_is_at_chance_without_the_picture():
    answers: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for one in opened("grounding", "train", 24):
        answers.setdefault((one.question, one.choices), []).append(one.answer)
    assert all(sorted(found) == sorted(choices) for (_, choices), found in answers.items())


@pytest.mark.parametrize("grid", ["9", "1001", "ten", "-10", "²"])
def test_a_grid_that_is_none_is_refused(grid):
    with pytest.raises(LabError, match=r"the grid of a box is .*; expected a whole number from 10 to 1000"):
        opened(f"grounding:{grid}", "train", 1)


def test_what_a_sum_a_difference_or_a_product_comes_to_is_the_answer():
    found = opened("maths", "test", 60)
    assert {one.task for one in found} == {"sum", "difference", "product"}
    for one in found:
        page = one.content[0].source.given[-1]
        assert int(one.answer) == eval(page.entries[0].value.replace("×", "*")) >= 0
        assert len(one.choices) == 4


def test_numbers_are_written_in_words_and_nothing_else_is_changed():
    for source in ("maths", "grounding:10", "charts:pie:reading", "stills"):
        for one, worded in zip(opened(source, "dev", 6), opened(f"worded:{source}", "dev", 6), strict=True):
            assert (worded.id, worded.group, worded.content[0]) == (one.id, one.group, one.content[0])
            told = " ".join([worded.question, worded.answer, *worded.choices])
            assert not any(sign.isdigit() for sign in told)
            assert len(set(worded.choices)) == len(one.choices)
            if source == "stills":
                assert (worded.question, worded.answer) == (one.question, one.answer)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("0", "zero"),
        ("13", "thirteen"),
        ("20", "twenty"),
        ("99", "ninety nine"),
        ("100", "one hundred"),
        ("512", "five hundred twelve"),
        ("3040", "three thousand forty"),
        ("1000001", "one million one"),
        ("007", "zero zero seven"),
        ("-5", "-5"),
        ("2.5", "2.5"),
        ("1,000", "1,000"),
        ("2nd", "2nd"),
    ],
)
def test_a_whole_number_that_stands_alone_is_told_in_words(number, words):
    assert in_words(f"({number}?)") == f"({words}?)"


def test_a_page_is_written_down_line_by_line():
    for number, one in enumerate(opened("transcripts", "train", 4)):
        page = make_page(PAGES["labelled"], seed=FIRST_SEED["train"], index=number, split="train")
        assert one.answer.split("\n") == [f"{entry.label} {entry.value}" for entry in page.entries]
        np.testing.assert_array_equal(one.content[0].read(), render(page))
    page = make_page(PAGES["lines"], seed=0, index=0, split="train")
    assert transcript(page) == "\n".join(entry.value for entry in page.entries)


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"frame_size": 7}, "frame_size 7, frames_per_second 1.0 and max_frames 48"),
        ({"max_frames": -1}, "frame_size 128, frames_per_second 1.0 and max_frames -1"),
        ({"frames_per_second": 0.0}, "frame_size 128, frames_per_second 0.0 and max_frames 48"),
        ({"frames_per_second": float("nan")}, "frames_per_second nan"),
    ],
)
def test_sight_out_of_range_is_refused(changes, numbers):
    with pytest.raises(LabError, match=f"{numbers}.*expected at least 8, above 0 and at least 0"):
        Sight(**changes)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("scene", r"unknown source of samples 'scene' \(did you mean 'scenes'\?\)"),
        ("stills:1", "'stills:1' has 1 options; source 'stills' takes at most 0"),
        ("scenes:8-9:2-3:moves:5", "has 4 options; source 'scenes' takes at most 3"),
        ("scenes:8-9:2-3:jumps", "unknown kind of question 'jumps'; choose one of: before, "),
        ("charts:radar", "unknown kind of chart 'radar'"),
        ("charts:bar:colour", "unknown kind of question about a chart 'colour'"),
        ("charts:pie:trend", "a chart of kind 'pie' has no question of kind 'trend'"),
        ("worded", "'worded' names no data; expected worded:DATA"),
        ("pages:hard", "unknown kind of page 'hard'.*labelled"),
        ("scenes:8", "'8' is no range of seconds; expected two numbers as in '8-48'"),
        ("scenes:8-9:a-b", "'a-b' is no range of seconds"),
        ("scenes:1-2-3", "'1-2-3' is no range of seconds"),
        ("scenes:9-8", "scene option seconds is .*low end first"),
    ],
)
def test_unknown_sources_and_options_are_refused(source, message):
    with pytest.raises(LabError, match=message):
        opened(source, "train", 1)


@pytest.mark.parametrize("source", SAMPLE_SOURCES)
def test_an_unknown_split_is_refused(source):
    with pytest.raises(LabError, match="unknown split 'tset'"):
        opened(source, "tset", 1)
