import pytest

from lab.data.video.reading import read_video
from lab.errors import LabError
from lab.training.vision_example import Sight
from lab.training.vision_examples import VIDEO_FRAME, Largest, largest_sample, open_examples

SIGHT = Sight(frame_size=96, frames_per_second=1.0, max_frames=48)


def largest(source: str, *, is_video: bool = False, sight: Sight = SIGHT, max_tiles: int = 4) -> Largest:
    return largest_sample(source, sight, is_video=is_video, image_size=384, max_tiles=max_tiles)


def test_a_video_of_the_hub_has_all_frames_at_the_size_that_reading_leaves():
    assert largest("next_qa@hub:lmms-lab/NExTQA:MC", is_video=True) == Largest(48, (384, 768))
    defaults = read_video.__kwdefaults__
    assert (defaults["max_height"], defaults["max_width"]) == VIDEO_FRAME


def test_an_image_of_the_hub_fills_as_many_tiles_as_there_may_be():
    source = "conversation@hub:liuhaotian/LLaVA-Instruct-150K"
    assert largest(source) == Largest(1, (1536, 384))
    assert largest(source, max_tiles=1) == Largest(1, (384, 384))
    assert largest(source, sight=Sight(max_frames=0)).frames == 0


@pytest.mark.parametrize(
    ("source", "frames"), [("scenes", 48), ("scenes:8-12:2-4", 12), ("scenes:2-9", 9), ("stills", 1)]
)
def test_a_scene_has_a_frame_a_second_of_its_longest(source, frames):
    assert largest(source, is_video=True) == Largest(frames, (96, 96))


def test_a_page_is_as_large_as_its_kind_may_be():
    assert largest("pages:reading") == Largest(1, (128, 128))
    assert largest("pages:words") == largest("pages") == Largest(1, (512, 512))


@pytest.mark.parametrize("source", ["pages:easy", "pages:labelled_small", "charts"])
def test_no_example_is_larger(source):
    most = largest(source)
    for example in open_examples(source, "train", 5, SIGHT):
        frames, seconds = example.see()
        assert len(seconds) <= most.frames
        assert all(found <= side for found, side in zip(frames.shape[1:3], most.frame_size, strict=True))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pictures", "unknown source of pictures or video 'pictures'"),
        ("pages:poems", "unknown kind of page 'poems'"),
        ("scenes:long", "'long' is no range of seconds"),
    ],
)
def test_unknown_sources_are_named(source, message):
    with pytest.raises(LabError, match=message):
        largest(source)
