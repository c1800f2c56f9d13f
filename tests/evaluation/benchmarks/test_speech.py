from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lab.errors import LabError
from lab.evaluation.benchmarks import speech
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.evaluation.benchmarks.revisions import ModelRevision
from lab.evaluation.benchmarks.speech import (
    SpeechBenchmark,
    normalizers_of,
    score_transcripts,
)
from tests.evaluation.benchmarks.fakes import silent
from tests.speech import SENTENCES, write_corpus, write_whisper


def test_hand_worked_rates_under_every_normaliser():
    said = ["Hello, world.", "It is ten o'clock"]
    heard = ["hello world", "it is ten clock"]
    scores, answers = score_transcripts(["1", "2"], said, heard, "en")
    by_name = {score.metric: score for score in scores}
    # "o'clock" is one word, heard as "clock": 1 error of 6 words; raw, "Hello," "world." and "It" are wrong too.
    assert by_name["word_error_rate"].value == pytest.approx(1 / 6)
    assert by_name["word_error_rate/lowercase_alphanumeric"].value == pytest.approx(1 / 6)
    assert by_name["word_error_rate/raw"].value == pytest.approx(4 / 6)
    assert by_name["character_error_rate/raw"].value > by_name["character_error_rate"].value
    assert all(score.low <= score.value <= score.high for score in scores)
    assert answers["score"].tolist() == [0.0, pytest.approx(1 / 4)]
    assert answers["given"].tolist() == heard


def test_chinese_is_counted_by_characters_alone():
    scores, _ = score_transcripts(["1", "2"], ["你好,世界。", "早上好"], ["你好世", "早上好"], "zh")
    by_name = {score.metric: score.value for score in scores}
    # 4 + 3 characters, one left out; raw, two marks are missing as well, of 6 + 3.
    assert by_name == {
        "character_error_rate": pytest.approx(1 / 7),
        "character_error_rate/raw": pytest.approx(3 / 9),
    }


def test_a_reference_without_words_is_left_out_and_all_of_them_are_refused():
    scores, answers = score_transcripts(["1", "2", "3"], ["(laughs)", "yes", "no"], ["ha", "yes", "no"], "en")
    assert answers["id"].tolist() == ["2", "3"]
    assert {score.num_items for score in scores} == {2}
    with pytest.raises(LabError, match="none of the 1 references has a word left under the normaliser"):
        score_transcripts(["1"], ["(laughs)"], ["ha"], "en")
    with pytest.raises(LabError, match="unknown language 'de'; choose one of: en, zh"):
        normalizers_of("de")


class Reading:
    """Says what a clip's sentence is, looked up by its number of samples, but for the first word; counts its clips."""

    key = "reading"

    def __init__(self, texts: dict[int, str], stop_after: int | None = None) -> None:
        self._texts, self._stop_after, self.num_heard = texts, stop_after, 0

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        if self._stop_after is not None and self.num_heard >= self._stop_after:
            raise KeyboardInterrupt
        self.num_heard += len(waveforms)
        return [self._texts[len(clip)].partition(" ")[2] for clip in waveforms]


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpeechBenchmark:
    """FLEURS' benchmark; the data set is a folder of the hub's form, with 6 test clips."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    write_corpus(tmp_path / "speech", held_out=6)
    found = BENCHMARKS["fleurs_en"]
    assert isinstance(found, SpeechBenchmark)
    return found


def asked(benchmark: SpeechBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None):
    options = {"dataset": f"{tmp_path / 'speech'}::test"}
    texts = {one.sound.num_samples: one.answer for one in benchmark._open(options).split("test")}
    assert len(texts) == 6
    recognizer = Reading(texts, stop_after)
    checkpoint = ModelRevision(name="whisper_tiny_en", key="k", packages=())
    monkeypatch.setattr(speech, "_checkpoint", lambda model: checkpoint)
    monkeypatch.setattr(SpeechBenchmark, "_recognizer", lambda self, checkpoint: recognizer)
    return options, recognizer


def test_a_data_set_of_the_hubs_form_is_transcribed_and_scored(benchmark, tmp_path, monkeypatch):
    options, recognizer = asked(benchmark, tmp_path, monkeypatch)
    seen = []
    found = benchmark.evaluate(
        "whisper_tiny_en", options=options, limit=None, progress=lambda done, total: seen.append((done, total))
    )
    by_name = {score.metric: score for score in found.scores}
    assert by_name["word_error_rate"].value == pytest.approx(0.5)  # one of two words of each sentence
    assert by_name["word_error_rate"].num_items == 6 == recognizer.num_heard
    assert set(found.answers["answer"]) <= set(SENTENCES)
    assert seen[-1] == (6, 6)
    assert f"hub:{tmp_path / 'speech'}::test @ folder " in found.settings["data"]
    assert found.settings["normalizer.raw"] == "1"
    assert len(found.settings["corpus_sha256"]) == 64
    assert found.settings["left_out"] == "0 of 6 without words to say"


def test_a_run_that_was_stopped_goes_on(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "_CHUNK", 2)
    options, recognizer = asked(benchmark, tmp_path, monkeypatch, stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        benchmark.evaluate("whisper_tiny_en", options=options, limit=None, progress=silent)
    assert recognizer.num_heard == 4
    options, recognizer = asked(benchmark, tmp_path, monkeypatch)
    benchmark.evaluate("whisper_tiny_en", options=options, limit=None, progress=silent)
    assert recognizer.num_heard == 2
    options, recognizer = asked(benchmark, tmp_path, monkeypatch)
    sample = benchmark.evaluate("whisper_tiny_en", options=options, limit=3, progress=silent)
    assert (recognizer.num_heard, len(sample.answers)) == (0, 3)


def test_another_data_set_or_whisper_is_another_evaluation(benchmark, tmp_path):
    first = benchmark.check("whisper_tiny_en", options={"dataset": str(tmp_path / "speech")})
    assert first == benchmark.check("whisper_tiny_en", options={"dataset": str(tmp_path / "speech")})
    assert first.model_key != benchmark.check("whisper_base", options={"dataset": str(tmp_path / "speech")}).model_key
    (tmp_path / "speech" / "test" / "more.txt").write_text("x")
    assert first.settings != benchmark.check("whisper_tiny_en", options={"dataset": str(tmp_path / "speech")}).settings


def test_a_random_whisper_in_a_folder_is_told_by_its_files(benchmark, tmp_path):
    folder = write_whisper(tmp_path / "whisper")
    assert benchmark.check(folder, options={"dataset": str(tmp_path / "speech")}).model_key.startswith("folder@")


def test_bad_input_is_refused_before_anything_is_loaded(benchmark, tmp_path):
    with pytest.raises(LabError, match="unknown model 'whisper'; expected one of whisper_base, whisper_tiny_en"):
        benchmark.check("whisper", options={"dataset": str(tmp_path / "speech")})
    with pytest.raises(LabError, match=r"has no data set that everybody can open .* --option dataset="):
        BENCHMARKS["kespeech_beijing"].check("whisper_base", options={})
    with pytest.raises(LabError, match="'asterisk' has no options, and 'dataset' was given"):
        BENCHMARKS["asterisk"].check("whisper_base", options={"dataset": "x"})
    with pytest.raises(LabError, match="limit is 0"):
        benchmark.evaluate("whisper_base", options={}, limit=0, progress=silent)


def test_recorded_corpora_are_known_by_their_pinned_packages():
    settings = BENCHMARKS["asterisk"].check("whisper_base", options={}).settings
    assert settings["data"].startswith("asterisk-core-sounds-en 1.6.1-1 ")
    assert settings["language"] == "en"


def test_a_corpus_without_a_test_split_is_refused(benchmark, tmp_path, monkeypatch):
    options, _ = asked(benchmark, tmp_path, monkeypatch)
    options = {"dataset": f"{tmp_path / 'speech'}::validation"}
    with pytest.raises(LabError, match="has no test split"):
        benchmark.evaluate("whisper_tiny_en", options=options, limit=None, progress=silent)
