import json
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lab.data.cross_modal import (
    spoken_quarters,
    with_own_sound,
    with_spoken_question,
    with_swapped_media,
    without_media,
)
from lab.data.filters.filtering import LeftOut
from lab.data.sample import Audio, Image, Sample, Text, Video
from lab.data.sources import check_source, open_samples, sources_sha256
from lab.data.speech.spoken_prompts import Speakers, timbres
from lab.data.splits import SPLITS
from lab.errors import LabError
from standins.drawn import Question
from standins.pictures.pictures import Picture
from standins.scenes.scene import Actor, Background, Scene
from standins.scenes.stage import standing
from standins.scenes.stills import described
from tests.data.fakes import tone
from tests.data.films import film
from tests.vision import draw_stand_ins

CAPTION = "A brown dog runs over the green hill to its small house."


def pictured(key, answer=CAPTION, **options):
    return Sample(id=key, content=(Image(b"png"), Text("Describe the image.")), answer=answer, **options)


def test_image_and_prompt_stay_and_the_answer_is_spoken_and_written(tmp_path):
    (made,) = spoken_quarters([pictured("a")], Speakers(timbres("en")), LeftOut())
    *content, sound = made.content
    assert tuple(content) == pictured("a").content
    spoken, voice, speed = sound.source.given
    assert f"{spoken} {made.answer}" == CAPTION
    assert spoken == "A brown dog runs"  # 13.75 of 55 characters; blanks stand at 11 and 16
    assert voice in timbres("en")
    assert speed in (0.9, 1.0, 1.1)
    assert 0.3 < sound.read().size / 16000 < 3.0


def test_what_cannot_be_made_is_counted_with_its_reason_and_named(tmp_path):
    samples = [
        pictured("a"),
        pictured("b", "Three short words"),
        Sample(id="c", content=(Text("Why?"),), answer=CAPTION),
        pictured("d"),
    ]
    left_out = LeftOut()
    stream = spoken_quarters(samples, Speakers(timbres("en")), left_out)
    assert [made.id for made in stream] == ["a", "d"]
    assert left_out == {"answer that cannot be split": ["b"], "neither image nor video": ["c"]}


def test_it_streams(tmp_path):
    endless = map(pictured, map(str, count()))
    stream = spoken_quarters(endless, Speakers(timbres("en")), LeftOut())
    assert [next(stream).id for _ in range(5)] == ["0", "1", "2", "3", "4"]
    assert next(endless).id == "5"


def test_the_same_seed_gives_the_same_voices_and_another_gives_others(tmp_path):
    samples = [pictured(str(k)) for k in range(40)]
    made = [spoken_quarters(samples, Speakers(timbres("en"), seed=seed), LeftOut()) for seed in (0, 0, 1)]
    voices = [[sample.content[-1].source.given[1] for sample in one] for one in made]
    assert voices[0] == voices[1] != voices[2]
    assert len(set(voices[0])) > 20


def test_a_video_brings_its_own_sound_and_the_rest_is_counted(tmp_path):
    loud = film(tmp_path / "loud.mp4", sound=tone(1.0, 22050), sound_rate=22050)
    mute = film(tmp_path / "mute.mp4")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film at all")
    paths = {"loud": loud, "mute": mute, "broken": broken, "gone": tmp_path / "gone.mp4"}
    asked = Text("What is heard?")
    samples = [Sample(id=key, content=(Video(path), asked), answer=CAPTION) for key, path in paths.items()]
    left_out = LeftOut()
    (made,) = with_own_sound([*samples, pictured("still")], left_out)
    assert (made.id, made.content, made.answer) == ("loud", (Video(loud), Audio(loud), asked), CAPTION)
    sound = made.content[1].read()
    assert sound.size / 16000 == pytest.approx(1.0, abs=0.1)
    assert np.argmax(np.abs(np.fft.rfft(sound))) * 16000 / sound.size == pytest.approx(440, abs=5)
    assert left_out == {
        "video without sound": ["mute"],
        "sound that cannot be read": ["broken", "gone"],
        "not of one video with a file": ["still"],
    }


def test_a_source_of_videos_is_heard_by_name(tmp_path):
    film(tmp_path / "loud.mp4", sound=tone(1.0, 22050), sound_rate=22050)
    film(tmp_path / "mute.mp4")
    rows = [{"video": f"{name}.mp4", "question": "What?", "answer": "a"} for name in ("loud", "mute")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = f"sounding:next_qa@hub:{tmp_path}"
    check_source(source)
    (made,), left_out = open_samples(source, "train", 9)
    assert [part.type for part in made.content] == ["video", "audio", "text"]
    assert len(left_out["video without sound"]) == 1


def asked(number: int, group: str) -> Sample:
    return Sample(
        id=f"q{number}",
        group=group,
        content=(Image(Path(f"{number}.png")), Text(f"What is number {number}?")),
        answer="a",
        choices=("a", "b"),
    )


def test_the_last_thing_written_is_said_and_choices_stay():
    (made,) = with_spoken_question([asked(1, "g")], Speakers(timbres("en")), LeftOut())
    picture, sound = made.content
    assert (picture, made.answer, made.choices) == (Image(Path("1.png")), "a", ("a", "b"))
    assert sound.source.given[0] == "What is number 1?"
    left_out = LeftOut()
    silent = replace(asked(2, "g"), content=(Image(Path("2.png")), Text(" ")))
    assert list(with_spoken_question([silent], Speakers(timbres("en")), left_out)) == []
    assert left_out == {"nothing written": ["q2"]}


def test_swapped_pictures_are_those_of_another_group_and_all_else_stays():
    samples = [asked(n, group) for n, group in enumerate("aabb")]
    swapped = with_swapped_media(samples, ["image"])
    assert [one.content[0].source.stem for one in swapped] == ["2", "2", "0", "0"]
    assert [one.content[1] for one in swapped] == [one.content[1] for one in samples]
    assert not {one.id for one in swapped} & {one.id for one in samples}
    assert [one.group for one in swapped] == list("aabb")
    for alone in (samples[:2], [replace(one, content=(Text("a"),)) for one in samples]):
        with pytest.raises(LabError, match="the image of sample 'q0' cannot be swapped; expected samples of several"):
            with_swapped_media(alone, ["image"])


def test_without_its_media_nothing_may_be_left_to_ask():
    left = without_media(asked(1, "g"), ["image"])
    assert left.content == (Text("What is number 1?"),)
    assert without_media(replace(left, content=(Image(Path("1.png")),)), ["image"]).content == (Text(""),)


def test_sources_before_other_data_open_change_and_refuse_them(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    plain, _ = open_samples("stills", "test", 8)
    source = "swapped:audio:spoken:espeak:stills"
    changed, _ = open_samples(source, "test", 8)
    assert [one.source for one in changed] == [source] * 8
    assert [one.answer for one in changed] == [one.answer for one in plain]
    heard = {split: {s.sound.speaker for s in open_samples("spoken:espeak:stills", split, 60)[0]} for split in SPLITS}
    assert not heard["train"] & heard["test"]
    assert sources_sha256("spoken:espeak:stills") != sources_sha256("stills")
    for name, message in {
        "spoken": "'spoken' names no data; expected spoken:ENGINES:DATA",
        "swapped:text:stills": "unknown kind of media 'text'",
        "spoken:hal:stills": "unknown engine 'hal'",
        "spoken:espeak:films": "unknown source of samples 'films'",
        "speech:radio": "unknown corpus 'radio'",
        "text:novels": "unknown source of instructions 'novels'",
    }.items():
        with pytest.raises(LabError, match=message):
            check_source(name)


@pytest.mark.parametrize("source", ["spoken:espeak+kokoro:stills", "quarters:kokoro:stills", "speech:kokoro"])
def test_an_engine_that_is_not_installed_is_refused_before_it_speaks(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        LabError, match=r"kokoro needs onnxruntime: run pip install 'omni-lab\[kokoro\]', or take espeak"
    ):
        check_source(source)
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    check_source(source)


def test_a_described_still_says_what_can_be_seen_from_left_to_right():
    picture = Picture("p", Path("p.png"), "a cat", "", "stamps")
    actors = tuple(
        Actor(picture, word, standing(spot, size))
        for word, spot, size in (("dog", (500, 500), 600), ("cat", (100, 900), 200), ("car", (900, 500), 300))
    )
    scene = Scene("s", "train", 0, Background("plain", (0, 0, 0), (0, 0, 0)), actors, Question("what", "", ("a",), "a"))
    assert described(scene) == (
        "a small cat at the bottom on the left and a large dog in the middle and a small car on the right"
    )
