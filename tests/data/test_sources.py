from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest

from lab.data.filters.filtering import left_out_account
from lab.data.forms import FORMS
from lab.data.sample import Audio, Image, Part, Sample, Text, Video
from lab.data.sources import SAMPLE_SOURCES, Largest, check_source, largest_sample, open_samples, sources_sha256
from lab.data.video import Sight
from lab.errors import LabError
from tests.data.films import film, number_of
from tests.vision import coloured, draw_stand_ins, write_image_set, write_rows, write_video_set

SIGHT = Sight(frame_size=96, frames_per_second=1.0, max_frames=48)
# Speech and text have sources of their own.
OF_PICTURES = [form for form in FORMS if form not in ("transcribe", "messages", "pair")]
FEW = Sight(frames_per_second=1.0, max_frames=8)


def opened(form, name, split, count):
    samples, _ = open_samples(f"{form}@{name}", split, count)
    return samples


def pixels_of(sample: Sample):
    return sample.content[0].read()


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


def captions(folder, *texts):
    return [{"id": n, "image": coloured(folder, "red"), "caption": text} for n, text in enumerate(texts)]


def test_questions_about_pictures_keep_their_choices_and_show_the_whole_picture(tmp_path):
    examples = opened("image_choices", write_image_set(tmp_path / "set"), "train", 6)
    assert len(examples) == 6
    assert [example.answer for example in examples] == ["red", "green", "blue", "white", "red", "green"]
    second = examples[1]
    assert second.choices == ("red", "green", "blue", "white")
    assert (second.task, second.question) == ("image_choices", "which colour")
    assert pixels_of(second).shape == (30, 40, 3)
    assert pixels_of(second)[0, 0].tolist() == [0, 128, 0]


def test_a_video_is_seen_as_often_as_asked(tmp_path):
    # 10 frames a second: films of 3 and of 6 seconds.
    name = write_video_set(tmp_path / "set")
    first, *_, last = opened("next_qa", name, "train", 4)
    video = first.content[0].read(FEW)
    assert video.frames.shape == (3, 32, 48, 3)
    assert video.seconds.tolist() == [0.0, 1.0, 2.0]
    assert [number_of(frame) for frame in video.frames] == [0, 10, 20]
    assert last.content[0].read(FEW).seconds.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    few = first.content[0].read(Sight(frames_per_second=2.0, max_frames=3))
    assert few.seconds.tolist() == pytest.approx([0.0, 1.2, 2.5], abs=0.06)
    assert first.question == "what happens"
    assert first.choices[0] == first.answer == "it grows"


def test_nothing_is_seen_where_no_frame_is_asked_for(tmp_path):
    (example,) = opened("next_qa", write_video_set(tmp_path / "set"), "test", 1)
    video = example.content[0].read(Sight(max_frames=0))
    assert (len(video.frames), len(video.seconds), video.frames.dtype) == (0, 0, np.uint8)


def test_a_single_frame_is_the_one_in_the_middle(tmp_path):
    (example,) = opened("next_qa", write_video_set(tmp_path / "set"), "test", 1)
    video = example.content[0].read(Sight(max_frames=1))
    assert video.seconds.tolist() == pytest.approx([1.5])
    assert [number_of(frame) for frame in video.frames] == [15]


def test_files_that_rows_name_are_looked_for_in_the_media_folder_of_the_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_LAB_MEDIA", str(tmp_path / "media"))
    write_rows(tmp_path / "set", {"train": [{"id": 1, "image": "nested/red-40.png", "caption": "red"}]})
    real = datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **options: real(str(tmp_path / "set"), **options))
    (example,) = opened("image_caption", "hub:owner/name", "train", 1)
    with pytest.raises(LabError, match=r"owner/name/nested/red-40.png is not there; .*OMNI_LAB_MEDIA"):
        pixels_of(example)
    (tmp_path / "media/owner/name").mkdir(parents=True)
    coloured(tmp_path / "media/owner/name/nested", "red")
    assert pixels_of(example)[0, 0].tolist() == [255, 0, 0]


def test_files_of_a_folder_of_ones_own_lie_beside_its_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "set", {"train": [{"id": 1, "image": "nested/red-40.png", "caption": "red"}]})
    coloured(tmp_path / "set" / "nested", "red")
    (sample,) = opened("image_caption", "hub:set", "train", 1)
    assert pixels_of(sample)[0, 0].tolist() == [255, 0, 0]


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
        (example,) = opened("image_caption", named, split, 5)
        assert example.answer == expected
    with pytest.raises(LabError, match=r"unknown split of data set .*: 'dev'; choose one of: test, train, validation"):
        opened("image_caption", name, "dev", 5)


def test_rows_that_cannot_be_used_are_counted_and_named(tmp_path):
    red, blue = coloured(tmp_path / "p", "red"), coloured(tmp_path / "p", "blue")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    text = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "Text."}]
    both = [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "The first."}]
    rows = [
        {"id": "text", "conversations": text},
        {"id": "both", "conversations": both, "images": [red, blue]},
        {"id": "unasked", "conversations": turns[1:], "images": [red]},
        {"id": "first", "conversations": turns, "images": [red]},
    ]
    name = write_rows(tmp_path / "set", {"train": rows})
    samples, left_out = open_samples(f"conversation@{name}", "train", 9)
    assert [sample.id for sample in samples] == ["conversation-both", "conversation-first"]
    assert samples[0].content == (Image(Path(red)), Text("or"), Image(Path(blue)), Text("?"))
    unasked = "turns that are not questions and answers in alternation"
    assert left_out == {"neither picture nor video": ["text"], unasked: ["unasked"]}
    assert left_out_account(left_out) == f"left out: 1 neither picture nor video (text); 1 {unasked} (unasked)"
    none = write_rows(tmp_path / "none", {"train": rows[:1]})
    with pytest.raises(
        LabError, match=r"no row of form 'conversation' that can be used; left out: 1 neither picture .*\(text\)"
    ):
        opened("conversation", none, "train", 2)


def test_several_questions_under_one_id_are_told_apart_and_are_one_group(tmp_path):
    rows = [{**row, "id": "000000033471"} for row in captions(tmp_path / "p", "red", "a square", "paint")]
    name = write_rows(tmp_path / "set", {"train": rows})
    examples = opened("image_caption", name, "train", 3)
    assert len({example.id for example in examples}) == 3
    assert examples[0].id == "image_caption-000000033471"
    assert {example.group for example in examples} == {"000000033471"}


def test_questions_about_one_video_are_one_group(tmp_path):
    path = str(film(tmp_path / "a.mp4", 20))
    rows = [{"video": path, "question": f"what {n}", "answer": "that"} for n in range(2)]
    examples = opened("next_qa", write_rows(tmp_path / "set", {"train": rows}), "train", 2)
    assert examples[0].id != examples[1].id
    assert examples[0].group == examples[1].group == path


def test_pictures_stored_as_bytes_are_seen(tmp_path):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "p" / "blue-40.png"
    coloured(tmp_path / "p", "blue")
    table = datasets.Dataset.from_dict({"image": [{"bytes": path.read_bytes(), "path": None}], "caption": ["Blue."]})
    (tmp_path / "set").mkdir()
    table.to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    (example,) = opened("image_caption", f"hub:{tmp_path / 'set'}", "train", 1)
    assert pixels_of(example)[0, 0].tolist() == [0, 0, 255]


def test_a_source_names_form_and_data_set(tmp_path):
    name = write_image_set(tmp_path / "set")
    (sample,) = opened("image_choices", name, "test", 1)
    assert (sample.task, sample.source) == ("image_choices", f"image_choices@{name}::test")
    with pytest.raises(LabError, match=r"unknown form of a data set 'image_choice'.*did you mean"):
        opened("image_choice", name, "test", 1)


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
    (example,) = opened("image_choices", name, "train", 1)
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
    assert [e.answer for e in opened("image_choices", name, "train", 9)] == ["yes"]


def rows_of(form: str, folder: Path, media: str | None = None) -> list[dict]:
    """Two rows of a form, of media that are there, or of the file that is named."""
    image = media or coloured(folder / "p", "red")
    video = media or str(film(folder / "v_a.mp4", 20))
    asked = {"question": "what is it", "answer": "a thing"}
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "What is <image>?"},
        {"from": "gpt", "value": "Red."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ]
    row = {
        "conversation": {"id": "c", "conversations": turns, "image": image},
        "image_caption": {"image": image, "caption": "Red."},
        "image_choices": {"image": image, **asked, "answer": "B", "A": "blue", "B": "red"},
        "sharegpt4video": {"video_path": video, "captions": [{"idx": "-1", "content": "A film."}]},
        "webvid": {"videoid": 3, "video": video, "name": "A film"},
        "activitynet_qa": {**asked, "video_name": Path(video).stem.removeprefix("v_"), "question_id": "q"},
        "next_qa": {"video": video, **asked, "answer": 1, "a0": "no", "a1": "yes"},
    }[form]
    return [row, row]


def check(samples: list[Sample], source: str) -> None:
    assert len({sample.id for sample in samples}) == len(samples) > 1
    for sample in samples:
        assert all((sample.id, sample.group, sample.task, sample.answer, sample.question))
        assert sample.source.startswith(source)
        media = [part for part in sample.content if not isinstance(part, Text)]
        assert media
        for part in media:
            check_media(part)


def check_media(part: Part) -> None:
    if isinstance(part, Video):
        video = part.read(Sight(frame_size=16, max_frames=3))
        assert 0 < len(video.frames) == len(video.seconds) <= 3
    else:
        assert not isinstance(part, Audio)
        assert part.read(Sight(frame_size=16)).shape[2] == 3


@pytest.mark.parametrize("source", SAMPLE_SOURCES)
def test_every_source_gives_whole_samples(source, tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    samples, left_out = open_samples(source, "train", 3)
    assert left_out == {}
    check(samples, source)


@pytest.mark.parametrize("form", OF_PICTURES)
def test_every_form_gives_whole_samples(form, tmp_path):
    name = f"hub:{tmp_path}"
    write_rows(tmp_path / "set", {"train": rows_of(form, tmp_path)})
    (tmp_path / "set" / "train.jsonl").rename(tmp_path / "train.jsonl")
    check(opened(form, name, "train", 2), f"{form}@{name}")


@pytest.mark.parametrize("form", OF_PICTURES)
def test_media_of_every_form_that_are_broken_are_refused_in_one_sentence(form, tmp_path):
    broken = tmp_path / "v_b.mp4"
    broken.write_bytes(b"no media")
    write_rows(tmp_path / "set", {"train": rows_of(form, tmp_path, str(broken))})
    (tmp_path / "set" / "train.jsonl").rename(tmp_path / "train.jsonl")
    sample, _ = opened(form, f"hub:{tmp_path}", "train", 2)
    (media,) = (part for part in sample.content if not isinstance(part, Text))
    with pytest.raises(LabError, match=r"is not (an image|a video) that can be read"):
        media.read()


def test_a_conversation_keeps_its_turns_and_what_the_system_says(tmp_path):
    name = write_rows(tmp_path / "set", {"train": rows_of("conversation", tmp_path)})
    sample, _ = opened("conversation", name, "train", 2)
    assert [(part.type, part.role) for part in sample.content] == [
        ("text", "system"),
        ("text", "user"),
        ("image", "user"),
        ("text", "user"),
        ("text", "assistant"),
        ("text", "user"),
    ]
    assert (sample.question, sample.answer) == ("Sure?", "Yes.")


def largest(source: str, *, is_video: bool = False, sight: Sight = SIGHT, max_tiles: int = 4) -> Largest:
    return largest_sample(source, sight, is_video=is_video, image_size=384, max_tiles=max_tiles)


def test_a_video_of_the_hub_has_all_frames_at_the_size_that_reading_leaves():
    every = Largest(48, (384, 768), is_video=True)
    assert largest("next_qa@hub:lmms-lab/NExTQA:MC") == every
    assert largest("conversation@hub:lmms-lab/LLaVA-Video-178K", is_video=True) == every


def test_an_image_of_the_hub_fills_as_many_tiles_as_there_may_be():
    source = "conversation@hub:liuhaotian/LLaVA-Instruct-150K"
    assert largest(source) == Largest(1, (1536, 384))
    assert largest(source, max_tiles=1) == Largest(1, (384, 384))


@pytest.mark.parametrize(
    ("source", "frames"),
    [("scenes", 48), ("scenes:8-12:2-4", 12), ("scenes:2-9", 9), ("stills", 1), ("interleaved", 3)],
)
def test_a_scene_has_a_frame_a_second_of_its_longest_and_a_document_three_pictures(source, frames):
    assert largest(source) == Largest(frames, (96, 96), is_video=source.startswith("scenes"))


def test_names_before_other_data_add_sounds_and_take_media_away():
    still = Largest(1, (96, 96))
    assert largest("speech:hub:openslr/librispeech_asr:clean") == Largest(sounds=1, asked=False)
    assert largest("text:hub:HuggingFaceH4/ultrachat_200k:default:train_sft") == Largest()
    assert largest("spoken:espeak:stills") == replace(still, sounds=1, asked=False)
    assert largest("quarters:kokoro:stills") == largest("swapped:image:quarters:kokoro:stills")
    assert largest("quarters:kokoro:stills") == replace(still, sounds=1)
    assert largest("lacking:audio:quarters:kokoro:stills") == largest("lacking:video:stills") == still
    assert largest("lacking:image:stills") == replace(still, frames=0)


def test_a_page_is_as_large_as_its_kind_may_be():
    assert largest("pages:reading") == Largest(1, (128, 128))
    assert largest("pages:words") == largest("pages") == Largest(1, (512, 512))


@pytest.mark.parametrize("source", ["pages:easy", "pages:labelled_small", "transcripts", "charts"])
def test_no_sample_is_larger(source):
    most = largest(source)
    samples, _ = open_samples(source, "train", 5)
    for sample in samples:
        assert all(found <= side for found, side in zip(pixels_of(sample).shape[:2], most.frame_size, strict=True))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pictures", "unknown source of samples 'pictures'"),
        ("pages:poems", "unknown kind of page 'poems'"),
        ("scenes:long", "'long' is no range of seconds"),
    ],
)
def test_unknown_sources_are_named(source, message):
    with pytest.raises(LabError, match=message):
        largest(source)


def test_the_state_of_a_data_set_of_ones_own_is_the_content_of_its_files(tmp_path):
    source = (
        f"image_caption@{write_rows(tmp_path / 'set', {'train': [{'id': 1, 'image': 'red-40.png', 'caption': 'a'}]})}"
    )
    coloured(tmp_path / "set", "red")
    first = sources_sha256(source)
    assert sources_sha256(source) == first
    picture = tmp_path / "set" / "red-40.png"
    was = picture.read_bytes()
    picture.write_bytes(was[:-1] + bytes([was[-1] ^ 1]))
    assert sources_sha256(source) != first
    picture.write_bytes(was)
    assert sources_sha256(source) == first


def test_ids_that_come_again_are_unique_whatever_the_others_are(tmp_path):
    rows = [{"id": name, "image": "red-40.png", "caption": "a"} for name in ("a", "a", "a-2")]
    samples = opened("image_caption", write_rows(tmp_path / "set", {"train": rows}), "train", 3)
    assert [sample.id for sample in samples] == ["image_caption-a", "image_caption-a-2", "image_caption-a-2-2"]


@pytest.mark.usefixtures("shared_packages")
def test_the_first_of_a_source_are_as_many_as_either_asks_for():
    every = [one.id for one in open_samples("stills", "train", 5)[0]]
    assert [one.id for one in open_samples("first:3:stills", "train", 5)[0]] == every[:3]
    assert [one.id for one in open_samples("first:9:stills", "train", 5)[0]] == every
    assert sources_sha256("first:3:stills") != sources_sha256("first:4:stills")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("first:0:stills", "COUNT of 'first:0:stills' is '0'; expected a number of at least 1"),
        ("first:few:stills", "is 'few'; expected a number"),
        ("first:3:stils", "did you mean 'stills'"),
        ("first:3", "'first:3' names no data; expected first:COUNT:DATA"),
    ],
)
def test_a_count_that_is_none_is_refused(name, message):
    with pytest.raises(LabError, match=message):
        check_source(name)
