from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lab.errors import LabError
from lab.evaluation.benchmarks import samples
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.evaluation.benchmarks.samples import SampleBenchmark, normalizers_of, score_transcripts
from lab.evaluation.items import NAMES
from tests.evaluation.benchmarks.fakes import asked
from tests.speech import SENTENCES, write_corpus, write_whisper


def said(references: Sequence[str], heard: Sequence[str]) -> list[tuple[str, str, str]]:
    return [(str(number), *pair) for number, pair in enumerate(zip(references, heard, strict=True), start=1)]


def test_hand_worked_rates_under_every_normaliser():
    heard = ["hello world", "it is ten clock"]
    scores, answers = score_transcripts(said(["Hello, world.", "It is ten o'clock"], heard), "en")
    by_name = {score.metric: score for score in scores}
    # "o'clock" is one word, heard as "clock": 1 error of 6 words; raw, "Hello," "world." and "It" are wrong too.
    assert by_name["word_error_rate"].value == pytest.approx(1 / 6)
    assert by_name["word_error_rate/lowercase_alphanumeric"].value == pytest.approx(1 / 6)
    assert by_name["word_error_rate/raw"].value == pytest.approx(4 / 6)
    assert by_name["character_error_rate/raw"].value > by_name["character_error_rate"].value
    assert all(score.low <= score.value <= score.high for score in scores)
    assert answers["score"].tolist() == [1.0, 0.0]
    assert answers["word_errors"].tolist() == [0, 1]
    assert answers["given"].tolist() == heard


def test_chinese_is_counted_by_characters_alone():
    scores, _ = score_transcripts(said(["你好,世界。", "早上好"], ["你好世", "早上好"]), "zh")
    by_name = {score.metric: score.value for score in scores}
    # 4 + 3 characters, one left out; raw, two marks are missing as well, of 6 + 3.
    assert by_name == {
        "character_error_rate": pytest.approx(1 / 7),
        "character_error_rate/raw": pytest.approx(3 / 9),
    }


def test_a_reference_without_words_is_left_out_and_all_of_them_are_refused():
    scores, answers = score_transcripts(said(["(laughs)", "yes", "no"], ["ha", "yes", "no"]), "en")
    assert answers["id"].tolist() == ["2", "3"]
    assert {score.num_items for score in scores} == {2}
    with pytest.raises(LabError, match="none of the 1 references has a word left under the normaliser"):
        score_transcripts(said(["(laughs)"], ["ha"]), "en")
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
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SampleBenchmark:
    """FLEURS' benchmark; the data set is a folder of the hub's form, with 6 test clips."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    write_corpus(tmp_path / "speech", held_out=6)
    found = BENCHMARKS["fleurs_en"]
    assert isinstance(found, SampleBenchmark)
    return found


def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None):
    """The options that name the folder, and what transcribes it in place of a Whisper."""
    data = f"hub:{tmp_path / 'speech'}::test"
    texts = {one.sound.num_samples: one.answer for one in samples._open_corpus(data, "en").split("test")}
    assert len(texts) == 6
    recognizer = Reading(texts, stop_after)
    monkeypatch.setattr("lab.parts.audio_encoders.load_speech_recognizer", lambda name, language: recognizer)
    return {"dataset": data}, recognizer


def test_a_data_set_of_the_hubs_form_is_transcribed_and_scored(benchmark, tmp_path, monkeypatch):
    options, recognizer = reading(tmp_path, monkeypatch)
    seen = []
    found = asked(benchmark, "whisper_tiny_en", options, progress=lambda done, total: seen.append((done, total)))
    by_name = {score.metric: score for score in found.scores}
    assert list(by_name)[:2] == ["word_error_rate", "character_error_rate"]
    assert by_name["word_error_rate"].value == pytest.approx(0.5)  # one of two words of each sentence
    assert by_name["word_error_rate"].num_items == 6 == recognizer.num_heard
    assert set(found.answers["answer"]) <= set(SENTENCES)
    assert set(NAMES) <= set(found.answers)
    assert seen[-1] == (6, 6)
    assert found.settings["data"].startswith(f"{tmp_path / 'speech'}::test @ folder ")
    assert found.settings["normalizer.raw"] == "1"
    assert len(found.settings["corpus_sha256"]) == 64
    assert found.settings["left_out"] == "0 of 6 without words to say"


def test_a_run_that_was_stopped_goes_on(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "_CHUNK", 2)
    options, recognizer = reading(tmp_path, monkeypatch, stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        asked(benchmark, "whisper_tiny_en", options)
    assert recognizer.num_heard == 4
    options, recognizer = reading(tmp_path, monkeypatch)
    asked(benchmark, "whisper_tiny_en", options)
    assert recognizer.num_heard == 2
    options, recognizer = reading(tmp_path, monkeypatch)
    sample = asked(benchmark, "whisper_tiny_en", options, 3)
    assert (recognizer.num_heard, len(sample.answers)) == (0, 3)


def test_another_data_set_or_whisper_is_another_evaluation(benchmark, tmp_path):
    options = {"dataset": f"hub:{tmp_path / 'speech'}"}
    first = benchmark.identify("whisper_tiny_en", options)
    assert first == benchmark.identify("whisper_tiny_en", options)
    assert first.model_key != benchmark.identify("whisper_base", options).model_key
    (tmp_path / "speech" / "test" / "more.txt").write_text("x")
    assert first.settings != benchmark.identify("whisper_tiny_en", options).settings


def test_a_random_whisper_in_a_folder_is_told_by_its_files(benchmark, tmp_path):
    folder = write_whisper(tmp_path / "whisper")
    options = {"dataset": f"hub:{tmp_path / 'speech'}"}
    assert benchmark.identify(folder, options).model_key.startswith("folder@")


def test_bad_input_is_refused_before_anything_is_loaded(benchmark, tmp_path):
    options = {"dataset": f"hub:{tmp_path / 'speech'}"}
    with pytest.raises(LabError, match="unknown model 'whisper'; expected one of whisper_base, whisper_tiny_en"):
        benchmark.identify("whisper", options)
    with pytest.raises(LabError, match=r"has no data set that everybody can open .* --option dataset="):
        BENCHMARKS["kespeech_beijing"].identify("whisper_base", {})
    with pytest.raises(LabError, match="option num_beams is of a saved model, and 'whisper_base' is a Whisper"):
        BENCHMARKS["asterisk"].identify("whisper_base", {"num_beams": "2"})


def test_recorded_corpora_are_known_by_their_pinned_packages_as_tracked():
    for name, key in (("asterisk", "3a01bd9bfd20633e"), ("amazon_queen", "5ae0e9359f7276cd")):
        found = BENCHMARKS[name].identify("whisper_base", {})
        assert found.key(BENCHMARKS[name], None) == key
    assert found.settings["language"] == "en"


def test_a_corpus_without_a_test_split_is_refused(benchmark, tmp_path, monkeypatch):
    _, _ = reading(tmp_path, monkeypatch)
    with pytest.raises(LabError, match="has no test split"):
        asked(benchmark, "whisper_tiny_en", {"dataset": f"hub:{tmp_path / 'speech'}::validation"})
