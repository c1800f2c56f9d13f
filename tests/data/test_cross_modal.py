from itertools import count

import numpy as np
import pytest

from lab.data.cross_modal import spoken_quarters, with_own_sound
from lab.data.filters.filtering import LeftOut
from lab.data.sample import Audio, Image, Sample, Text, Video
from lab.data.speech.spoken_prompts import Speakers, timbres
from tests.data.fakes import tone
from tests.data.films import film

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
