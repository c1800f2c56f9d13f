import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lab.data.filters.speech_agreement import filter_speech, listen
from lab.data.kept import Kept
from lab.data.normalizers import NORMALIZERS
from lab.data.sample import Drawn
from lab.data.speech.corpora import spoken
from lab.errors import LabError
from lab.paths import cache_dir
from lab.training.sample_filters import KeptTranscripts

ENGLISH = NORMALIZERS["whisper_english"]


def clip(number: int, size: int = 4000) -> np.ndarray:
    return np.full(size, number / 1000, np.float32)


def said(samples: np.ndarray) -> str:
    return f"word {round(float(samples[0]) * 1000)}"


class Counting:
    """Reads a clip's number, and writes down what it was asked; another word makes it another recogniser."""

    def __init__(self, key: str = "weights-a-en", word: str = "") -> None:
        self.key, self._word = key, word
        self.batches: list[list[str]] = []

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        self.batches.append([self._word + said(samples) for samples in waveforms])
        return self.batches[-1]

    @property
    def heard(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


def test_the_first_text_under_a_key_stays_and_an_empty_one_is_kept():
    kept, again = (Kept("texts", "a maker", what="texts") for _ in range(2))

    def make(missing: list[int]) -> list[tuple[int, str]]:
        assert again.values([b"a"], lambda places: [(place, "first") for place in places]) == ["first"]
        return [(place, ["later", ""][place]) for place in missing]

    keys = [b"a", b"b", b"b"]
    assert kept.values(keys, make) == ["first", "", ""]
    more = again.values([*keys, b"c"], lambda places: [(place, "new") for place in places])
    assert more == ["first", "", "", "new"]


def test_a_second_call_transcribes_nothing_in_whatever_order():
    clips = [clip(number, 2000 + 7 * (number % 5)) for number in range(30)]
    first, second = Counting(), Counting()
    kept = KeptTranscripts(first, name="tiny")
    assert kept.transcribe(clips) == [f"word {number}" for number in range(30)]
    assert len(first.heard) == 30
    again = KeptTranscripts(second, name="tiny")
    assert again.transcribe(clips[::-1]) == [f"word {number}" for number in reversed(range(30))]
    assert second.batches == []


def test_a_second_threshold_hears_nothing():
    recordings = [spoken(str(n), f"word {n % 2}", Drawn(clip, (n,)), speaker="v") for n in range(5)]
    first, second = Counting(), Counting()
    heard = list(listen(recordings, KeptTranscripts(first, name="tiny").transcribe, ENGLISH, batch_size=2))
    again = list(listen(recordings, KeptTranscripts(second, name="tiny").transcribe, ENGLISH, batch_size=3))
    assert again == heard
    assert (len(first.heard), second.batches) == (5, [])
    # One of two words is wrong of 2, 3 and 4.
    assert [filter_speech(again, ENGLISH, max_error_rate=t).num_kept for t in (0.4, 0.5)] == [2, 5]


def test_a_clip_that_comes_twice_is_transcribed_once_and_new_ones_alone():
    recognizer = Counting()
    kept = KeptTranscripts(recognizer, name="tiny")
    assert kept.transcribe([clip(1), clip(2), clip(1)]) == ["word 1", "word 2", "word 1"]
    kept.transcribe([clip(2), clip(3)])
    assert recognizer.batches == [["word 1", "word 2"], ["word 3"]]


def test_clips_of_other_length_or_type_are_other_clips():
    recognizer = Counting()
    kept = KeptTranscripts(recognizer, name="tiny")
    kept.transcribe([clip(1), clip(1, 4001), clip(1).astype(np.float64)])
    assert len(recognizer.heard) == 3


def test_an_empty_transcript_is_kept_too():
    class Deaf(Counting):
        def transcribe(self, waveforms):
            return ["" for _ in super().transcribe(waveforms)]

    recognizer = Deaf()
    kept = KeptTranscripts(recognizer, name="tiny")
    assert [kept.transcribe([clip(1)]) for _ in range(2)] == [[""], [""]]
    assert len(recognizer.batches) == 1


@pytest.mark.parametrize(("key", "name"), [("weights-b-en", "tiny"), ("weights-a-zh", "tiny"), ("weights-a-en", "big")])
def test_transcripts_of_another_recogniser_are_not_taken(key, name):
    KeptTranscripts(Counting(), name="tiny").transcribe([clip(1)])
    other = Counting(key=key, word="other ")
    assert KeptTranscripts(other, name=name).transcribe([clip(1)]) == ["other word 1"]
    assert KeptTranscripts(Counting(), name="tiny").transcribe([clip(1)]) == ["word 1"]
    assert len(list((cache_dir() / "transcripts").iterdir())) == 2


# A process of its own: the recogniser of this test, killed or held up where its clip says.
PROGRAM = """
import os, signal, sys, time
import numpy as np
from lab.training.sample_filters import KeptTranscripts

class Slow:
    key = "weights-a-en"
    def transcribe(self, waveforms):
        numbers = [round(float(samples[0]) * 1000) for samples in waveforms]
        if "kill" in sys.argv and 9 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.005)
        return [f"word {number}" for number in numbers]

kept = KeptTranscripts(Slow(), name="tiny")
clips = [np.full(4000, number / 1000, np.float32) for number in range(40)]
texts = [text for start in range(0, 40, 4) for text in kept.transcribe(clips[start : start + 4])]
assert texts == [f"word {number}" for number in range(40)]
"""


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_loses_one_call_and_leaves_a_whole_file():
    killed = started("kill")
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    rest = Counting()
    clips = [clip(number) for number in range(40)]
    assert KeptTranscripts(rest, name="tiny").transcribe(clips) == [f"word {number}" for number in range(40)]
    # Calls of four: clip 9 is in the third.
    assert rest.heard == [f"word {number}" for number in range(8, 40)]


def test_processes_that_run_at_once_share_the_file():
    processes = [started() for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (0, "")
    rest = Counting()
    KeptTranscripts(rest, name="tiny").transcribe([clip(number) for number in range(40)])
    assert rest.batches == []


def test_the_first_of_two_transcripts_of_one_clip_is_what_both_return():
    class Overtaken(Counting):
        def transcribe(self, waveforms):
            KeptTranscripts(Counting(), name="tiny").transcribe(waveforms)
            return super().transcribe(waveforms)

    assert KeptTranscripts(Overtaken(word="later "), name="tiny").transcribe([clip(1)]) == ["word 1"]


def test_no_clips_are_no_transcripts_and_no_file():
    assert KeptTranscripts(Counting(), name="tiny").transcribe([]) == []
    assert not (cache_dir() / "transcripts").exists()


def test_a_recogniser_that_gives_too_few_transcripts_is_refused():
    class Short(Counting):
        def transcribe(self, waveforms):
            return super().transcribe(waveforms)[1:]

    clips = [clip(1), clip(2)]
    with pytest.raises(ValueError, match="zip"):
        KeptTranscripts(Short(), name="tiny").transcribe(clips)


def test_a_recognisers_own_error_stays_its_own():
    class Broken(Counting):
        def transcribe(self, waveforms):
            raise OSError("the graphics card is gone")

    with pytest.raises(OSError, match="the graphics card is gone"):
        KeptTranscripts(Broken(), name="tiny").transcribe([clip(1)])


def test_a_damaged_file_is_named():
    kept = KeptTranscripts(Counting(), name="tiny")
    kept.kept.folder.mkdir(parents=True)
    (kept.kept.folder / "cache.db").write_bytes(b"no database at all, however long it is" * 30)
    with pytest.raises(LabError, match=r"the transcripts of 'tiny' cannot be kept in .*\(file is not a databa"):
        kept.transcribe([clip(1)])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path / "taken"))
    with pytest.raises(LabError, match=r"the transcripts of 'tiny' cannot be kept in .*; free some disk"):
        KeptTranscripts(Counting(), name="tiny").transcribe([clip(1)])
