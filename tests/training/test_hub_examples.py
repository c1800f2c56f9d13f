import numpy as np
import pytest

from lab.errors import LabError
from lab.training.hub_examples import hub_examples
from lab.training.vision_example import Sight
from lab.training.vision_examples import open_examples
from tests.data.films import film, number_of
from tests.vision import coloured, write_image_set, write_rows, write_video_set

SIGHT = Sight(frames_per_second=1.0, max_frames=8)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


def captions(folder, *texts):
    return [{"id": n, "image": coloured(folder, "red"), "caption": text} for n, text in enumerate(texts)]


def test_questions_about_pictures_keep_their_choices_and_show_the_whole_picture(tmp_path):
    examples = hub_examples("image_choices", write_image_set(tmp_path / "set"), "train", 6, SIGHT)
    assert len(examples) == 6
    assert [example.answer for example in examples] == ["red", "green", "blue", "white", "red", "green"]
    second = examples[1]
    assert second.choices == ("red", "green", "blue", "white")
    assert (second.kind, second.question) == ("image_choices", "which colour")
    pixels, seconds = second.see()
    assert pixels.shape == (1, 30, 40, 3)
    assert pixels[0, 0, 0].tolist() == [0, 128, 0]
    assert seconds == (0.0,)


def test_a_video_is_seen_as_often_as_asked(tmp_path):
    # 10 frames a second: films of 3 and of 6 seconds.
    name = write_video_set(tmp_path / "set")
    first, *_, last = hub_examples("next_qa", name, "train", 4, SIGHT)
    pixels, seconds = first.see()
    assert pixels.shape == (3, 32, 48, 3)
    assert seconds == (0.0, 1.0, 2.0)
    assert [number_of(frame) for frame in pixels] == [0, 10, 20]
    assert last.see()[1] == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    (few, *_) = hub_examples("next_qa", name, "train", 1, Sight(frames_per_second=2.0, max_frames=3))
    assert few.see()[1] == pytest.approx((0.0, 1.2, 2.5), abs=0.06)
    assert first.question == "what happens"
    assert first.choices[0] == first.answer == "it grows"


def test_nothing_is_seen_where_no_frame_is_asked_for(tmp_path):
    (example,) = hub_examples("next_qa", write_video_set(tmp_path / "set"), "test", 1, Sight(max_frames=0))
    pixels, seconds = example.see()
    assert (len(pixels), seconds) == (0, ())
    assert pixels.dtype == np.uint8


def test_a_single_frame_is_the_one_in_the_middle(tmp_path):
    (example,) = hub_examples("next_qa", write_video_set(tmp_path / "set"), "test", 1, Sight(max_frames=1))
    pixels, seconds = example.see()
    assert seconds == pytest.approx((1.5,))
    assert [number_of(frame) for frame in pixels] == [15]


def test_files_that_rows_name_are_looked_for_in_the_media_folder_of_the_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_LAB_MEDIA", str(tmp_path / "media"))
    name = write_rows(tmp_path / "set", {"train": [{"id": 1, "image": "nested/red-40.png", "caption": "red"}]})
    monkeypatch.setattr("lab.training.hub_examples.parse_name", lambda dataset: ("owner/name", None, None))
    (example,) = hub_examples("image_caption", name, "train", 1, SIGHT)
    with pytest.raises(LabError, match=r"owner/name/nested/red-40.png is not there; .*OMNI_LAB_MEDIA"):
        example.see()
    (tmp_path / "media/owner/name").mkdir(parents=True)
    coloured(tmp_path / "media/owner/name/nested", "red")
    assert example.see()[0][0, 0, 0].tolist() == [255, 0, 0]


def test_the_split_is_the_one_in_the_name_or_the_one_asked_for(tmp_path):
    rows = {split: captions(tmp_path / "p", split) for split in ("train", "test", "validation")}
    name = write_rows(tmp_path / "set", rows)
    for named, split, expected in (
        (name, "train", "train"),
        (name, "test", "test"),
        (f"{name}:default", "test", "test"),
        (f"{name}:default:validation", "test", "validation"),
        (f"{name}::validation", "train", "validation"),
    ):
        (example,) = hub_examples("image_caption", named, split, 5, SIGHT)
        assert example.answer == expected
    with pytest.raises(LabError, match=r"has no split 'dev'; choose one of: train, validation, test"):
        hub_examples("image_caption", name, "dev", 5, SIGHT)


def test_rows_without_one_picture_do_not_count(tmp_path):
    red, blue = coloured(tmp_path / "p", "red"), coloured(tmp_path / "p", "blue")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    text = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "Text."}]
    both = [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "The first."}]
    rows = [
        {"id": "text", "conversations": text},
        {"id": "both", "conversations": both, "images": [red, blue]},
        {"id": "first", "conversations": turns, "images": [red]},
        {"id": "second", "conversations": turns, "images": [blue]},
        {"id": "third", "conversations": turns, "images": [blue]},
    ]
    name = write_rows(tmp_path / "set", {"train": rows})
    assert [e.id for e in hub_examples("conversation", name, "train", 2, SIGHT)] == [
        "conversation-first",
        "conversation-second",
    ]
    assert [e.question for e in hub_examples("conversation", name, "train", 9, SIGHT)] == ["What?"] * 3
    none = write_rows(tmp_path / "none", {"train": rows[:2]})
    with pytest.raises(LabError, match=r"none' has no row of form 'conversation' with one picture or a video"):
        hub_examples("conversation", none, "train", 2, SIGHT)


def test_several_questions_under_one_id_are_told_apart_and_are_one_group(tmp_path):
    rows = [{**row, "id": "000000033471"} for row in captions(tmp_path / "p", "red", "a square", "paint")]
    name = write_rows(tmp_path / "set", {"train": rows})
    examples = hub_examples("image_caption", name, "train", 3, SIGHT)
    assert len({example.id for example in examples}) == 3
    assert examples[0].id == "image_caption-000000033471"
    assert {example.group for example in examples} == {"000000033471"}


def test_questions_about_one_video_are_one_group(tmp_path):
    path = str(film(tmp_path / "a.mp4", 20))
    rows = [{"video": path, "question": f"what {n}", "answer": "that"} for n in range(2)]
    examples = hub_examples("next_qa", write_rows(tmp_path / "set", {"train": rows}), "train", 2, SIGHT)
    assert examples[0].id != examples[1].id
    assert examples[0].group == examples[1].group == path


def test_pictures_stored_as_bytes_are_seen(tmp_path):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "p" / "blue-40.png"
    coloured(tmp_path / "p", "blue")
    table = datasets.Dataset.from_dict({"image": [{"bytes": path.read_bytes(), "path": None}], "caption": ["Blue."]})
    (tmp_path / "set").mkdir()
    table.to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    (example,) = hub_examples("image_caption", f"hub:{tmp_path / 'set'}", "train", 1, SIGHT)
    assert example.see()[0][0, 0, 0].tolist() == [0, 0, 255]


def test_a_source_names_form_and_data_set(tmp_path):
    name = write_image_set(tmp_path / "set")
    (example,) = open_examples(f"image_choices@{name}", "test", 1, SIGHT)
    assert example.kind == "image_choices"
    with pytest.raises(LabError, match=r"unknown form of image-text and video-text data 'image_choice'.*did you mean"):
        open_examples(f"image_choice@{name}", "test", 1, SIGHT)


LETTERS = {"A": "red", "B": "green", "C": "nan", "D": None}


@pytest.mark.parametrize(
    ("row", "choices", "answer"),
    [
        ({"choices": ["red", "green"], "answer": 1}, ("red", "green"), "green"),
        ({"choices": ["red", "green"], "answer": "B"}, ("red", "green"), "green"),
        ({"choices": [1, 2, 3], "answer": 0}, ("1", "2", "3"), "1"),
        ({**LETTERS, "answer": "A"}, ("red", "green"), "red"),
        ({**LETTERS, "E": "blue", "answer": "B"}, ("red", "green", "blue"), "green"),
    ],
)
def test_image_choices_come_as_a_list_or_as_lettered_columns(tmp_path, row, choices, answer):
    image = coloured(tmp_path / "p", "red")
    name = write_rows(tmp_path / "set", {"train": [{"image": image, "question": "which", **row}]})
    (example,) = hub_examples("image_choices", name, "train", 1, SIGHT)
    assert (example.choices, example.answer) == (choices, answer)


@pytest.mark.parametrize(
    "row",
    [
        {"choices": ["red", "green"], "answer": 2},
        {"choices": ["red", "green"], "answer": "C"},
        {"choices": ["red", "green"], "answer": "green"},
        {"choices": ["red", "green"], "answer": ""},
        {**LETTERS, "answer": "C"},
        {"answer": "A"},
    ],
)
def test_image_choices_without_a_right_one_are_left_out(tmp_path, row):
    good = {"image": coloured(tmp_path / "p", "red"), "question": "which", "choices": ["yes", "no"], "answer": 0}
    own = {"image": good["image"], "question": "which", "choices": None, **row, "answer": str(row["answer"])}
    name = write_rows(tmp_path / "set", {"train": [own, {**good, "answer": "0"}]})
    assert [e.answer for e in hub_examples("image_choices", name, "train", 9, SIGHT)] == ["yes"]
