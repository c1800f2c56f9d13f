from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image as Picture

from lab.data.sample import Audio, Drawn, Image, Sample, Text, UniqueIds, Video, each_answer, samples_sha256
from lab.data.video import Sight
from lab.errors import LabError
from tests.data.fakes import tone
from tests.data.films import film, number_of

SEVERAL_TURNS = Sample(
    id="s1",
    content=(
        Text("You are brief.", "system"),
        Image(Path("a.png")),
        Text("What is this?"),
        Text("A cat.", "assistant"),
        Text("And this?"),
        Audio(b"RIFF", speaker="anna"),
        Video(Path("c.mp4")),
    ),
    answer="A dog.",
    task="describe",
    source="hub:a/b",
    group="g",
)


def test_media_are_read_when_they_are_asked_for(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    Picture.new("RGB", (5, 3), (1, 2, 3)).save(tmp_path / "b.png")
    film(tmp_path / "c.mp4", 20)
    assert Audio(tmp_path / "a.wav").read().shape == (8000,)
    np.testing.assert_array_equal(Image((tmp_path / "b.png").read_bytes()).read(), np.full((3, 5, 3), (1, 2, 3)))
    video = Video(tmp_path / "c.mp4").read(Sight(max_frames=2))
    assert len(video.frames) == len(video.seconds) == 2
    (middle,) = Video(tmp_path / "c.mp4").read(Sight(max_frames=1)).frames
    assert number_of(middle) == 10
    assert len(Video(tmp_path / "c.mp4").read(Sight(max_frames=0)).frames) == 0
    with pytest.raises(LabError, match=r"none\.wav is not there"):
        Audio(tmp_path / "none.wav").read()


def test_what_is_drawn_is_read_each_time_and_compared_by_value():
    one, same, other = (Drawn(np.zeros, (shape,)) for shape in ((2, 3, 3), (2, 3, 3), (1, 1, 3)))
    assert one == same != other
    drawn = Sample(id="d", content=(Audio(one),))
    assert drawn.content[0].read().shape == (2, 3, 3)


def test_another_question_keeps_media_and_earlier_turns_and_has_no_choices():
    sample = Sample(
        id="s",
        content=(Text("Hello."), Text("Yes?", "assistant"), Text("Is"), Image(b"png"), Text("it red?")),
        answer="yes",
        choices=("yes", "no"),
    )
    assert sample.question == "Is it red?"
    asked = sample.asking("yes", "Is it red?")
    assert asked.content == (*sample.content[:2], Image(b"png"), Text("yes"))
    assert (asked.answer, asked.choices, asked.question) == ("Is it red?", (), "yes")


def test_a_sample_without_content_is_refused():
    with pytest.raises(LabError, match="sample 's' has no content; give it text, a sound, a picture or a video"):
        Sample(id="s", content=())


def test_an_answer_that_is_none_of_the_choices_is_refused():
    with pytest.raises(LabError, match="sample 's' has the answer 'c', which is none of its choices: 'a', 'b'"):
        Sample(id="s", content=(Text("x"),), answer="c", choices=("a", "b"))


def test_every_answer_of_a_conversation_is_a_sample_given_what_was_said_before():
    first, last = each_answer(SEVERAL_TURNS)
    assert (first.content, first.answer) == (SEVERAL_TURNS.content[:3], "A cat.")
    assert (last.content, last.answer) == (SEVERAL_TURNS.content, "A dog.")
    assert (first.id, last.id, first.group, last.group) == ("s1-0", "s1-1", "g", "g")
    assert [one.answer for one in each_answer(replace(SEVERAL_TURNS, content=(Text("Hi"),)))] == ["A dog."]


def test_what_is_asked_is_all_that_stands_written():
    assert SEVERAL_TURNS.asked == "You are brief.\nWhat is this?\nA cat.\nAnd this?"


def test_the_hash_of_samples_changes_with_everything_that_they_say():
    changes = {"id": "o", "content": (Text("o"),), "answer": "o", "source": "o", "group": "o", "task": "o"}
    hashes = {samples_sha256([replace(SEVERAL_TURNS, **{name: other})]) for name, other in changes.items()}
    assert len({*hashes, samples_sha256([SEVERAL_TURNS])}) == 7
    assert samples_sha256([SEVERAL_TURNS]) == samples_sha256([replace(SEVERAL_TURNS)])


@pytest.mark.parametrize(
    ("ids", "unique"),
    [
        (["7", "8", "7", "7"], ["7", "8", "7#2", "7#3"]),
        (["7", "7", "7#2"], ["7", "7#2", "7#2#2"]),
        (["7#2", "7", "7"], ["7#2", "7", "7#3"]),
        (["", "", "a"], ["", "#2", "a"]),
    ],
)
def test_an_id_that_comes_again_gets_a_number_that_no_other_has(ids: list[str], unique: list[str]) -> None:
    assert list(map(UniqueIds("#"), ids)) == unique


def test_samples_are_known_by_what_their_files_hold_wherever_these_lie(tmp_path: Path) -> None:
    def known_as(name: str) -> str:
        return samples_sha256([Sample(id="s", content=(Image(tmp_path / name / "a.png"), Video(tmp_path / name)))])

    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"red")
    assert known_as("here") == known_as("there")
    (tmp_path / "there" / "a.png").write_bytes(b"tan")
    assert known_as("here") != known_as("there")
    assert known_as("gone") != known_as("nowhere")
