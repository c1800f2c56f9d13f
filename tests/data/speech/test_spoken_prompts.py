from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from lab.data.speech import spoken_prompts
from lab.data.speech.spoken_prompts import ENGINES, Speakers, clip_path, spoken_clip, timbres
from lab.errors import LabError
from tests.data.fakes import tone

VOICES = timbres("en")


@pytest.fixture
def said(monkeypatch):
    """What the engine was asked to say; it answers with a tone."""
    asked = []

    def speak(text, voice, speed):
        asked.append((text, voice, speed))
        return tone(0.25)

    monkeypatch.setattr(spoken_prompts, "ENGINES", {"espeak": lambda: replace(ENGINES["espeak"](), speak=speak)})
    return asked


def test_english_has_at_least_the_papers_44_timbres_and_mandarin_8():
    assert len(set(timbres("en"))) == 62
    assert len(set(timbres("en", ("espeak", "kokoro")))) == 90
    assert len(set(timbres("zh", ("kokoro",)))) == 8


def test_a_clip_is_spoken_once_and_read_back_the_same(said, tmp_path):
    first, again = (spoken_clip("Hello there.", VOICES[0], 1.1) for _ in range(2))
    assert said == [("Hello there.", VOICES[0].partition(":")[2], 1.1)]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, tone(0.25), atol=1 / 32768)


def test_text_voice_and_speed_each_make_another_clip(said, tmp_path):
    clips = [("a b", VOICES[0], 1.0), ("a c", VOICES[0], 1.0), ("a b", VOICES[1], 1.0), ("a b", VOICES[0], 1.1)]
    assert len({clip_path(*clip) for clip in clips}) == len(clips)


def test_a_run_that_is_killed_goes_on_where_it_stopped(said, tmp_path, monkeypatch):
    speakers = Speakers(VOICES)
    sounds = [speakers.say(f"p{k}", f"Sentence {k} of many.") for k in range(6)]
    for sound in sounds[:3]:
        sound.read()
    # Killed in the middle of a file: what was written so far lies under another name.
    path = clip_path(*sounds[3].source.given)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.name}.1").write_bytes(b"half")
    for sound in sounds:
        assert sound.read().size == 4000
    assert sorted(Counter(text for text, _, _ in said).values()) == [1] * 6


def test_the_real_library_speaks_into_the_store(tmp_path):
    samples = spoken_clip("Where is the fire?", "espeak:en-us+f1")
    assert 0.5 < samples.size / 16000 < 3.0
    with pytest.raises(LabError, match="eSpeak NG says nothing for '\\?!'"):
        spoken_clip("?!", "espeak:en-us+f1")


def test_a_broken_file_is_named(said, tmp_path):
    spoken_clip("Hello.", VOICES[0])
    path = clip_path("Hello.", VOICES[0], 1.0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LabError, match=path.name):
        spoken_clip("Hello.", VOICES[0])


def test_a_full_disk_leaves_no_clip(said, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(LabError, match=r"the clip .*\.flac cannot be written: No space left on device"):
        spoken_clip("Hello.", VOICES[0])
    assert not clip_path("Hello.", VOICES[0], 1.0).exists()


def test_voices_are_drawn_evenly_by_id_and_seed_whatever_the_order():
    ids = [f"s{k}" for k in range(6200)]
    speakers = Speakers(VOICES)
    chosen = {sample: speakers.say(sample, "a").speaker for sample in ids}
    counts = Counter(chosen.values())
    assert len(counts) == 62
    # 100 each; a binomial count strays by more than five of its deviations once in two million.
    assert max(abs(count - 100) for count in counts.values()) < 50
    assert {sample: speakers.say(sample, "a").speaker for sample in reversed(ids)} == chosen
    assert sum(Speakers(VOICES, seed=1).say(sample, "a").speaker == chosen[sample] for sample in ids) < 200


@pytest.mark.parametrize(
    ("voice", "speed", "message"),
    [
        ("festival:kal", 1.0, "unknown engine 'festival'; choose one of: espeak, kokoro"),
        ("espeak:en-us+f9", 1.0, "unknown voice of espeak 'en-us\\+f9'"),
        ("espeak:en-us+f1", 3.0, "speed is 3.0, expected 0.5 to 2.0"),
    ],
)
def test_unknown_voices_and_speeds_are_refused_before_the_first_clip(voice, speed, message, tmp_path):
    with pytest.raises(LabError, match=message):
        Speakers([voice], speeds=[speed])


def test_no_voice_to_choose_from_and_a_language_that_nobody_speaks_are_refused(tmp_path):
    with pytest.raises(LabError, match="0 voices and 3 speeds to choose from"):
        Speakers([])
    with pytest.raises(LabError, match="no voice for language 'zh' in espeak; choose one of: kokoro"):
        timbres("zh")
    with pytest.raises(LabError, match="unknown engine 'festival'"):
        timbres("en", ("festival",))
