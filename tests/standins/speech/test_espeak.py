import numpy as np
import pytest

from lab.data.speech.corpora import load_corpus
from lab.data.splits import SPLITS, held_out_speakers, split_of
from lab.errors import LabError
from standins import texts
from standins.speech import espeak
from standins.speech.espeak import PHONEMES, VOICES, WORD_BOUNDARY, ipa, phonemes, synthesize
from tests.data.fakes import chatterbot_package

TURNS = [f"Sentence number {n} of the day." for n in range(60)]


def test_there_are_at_least_as_many_timbres_as_in_the_paper():
    assert len(set(VOICES)) == len(VOICES) >= 44


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The fire.", "D @ _ f aI 3"),
        ("cheese", "tS i: z"),
        ("little button", "l I t @ l _ b V t @ n"),
        ("Where, there?", "w E r _ D E r"),
        ("42", "f O: r t i: _ t u:"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_phonemes_of_known_words(text, expected):
    assert phonemes(text) == expected.split()


def test_phonemes_stay_in_the_alphabet_and_boundaries_stand_between_words():
    for text in ("D\u00e9j\u00e0 vu, bon voyage!", "xylophone loch Bach", "a (very) odd -- thing", "You're okay."):
        found = phonemes(text)
        assert set(found) <= set(PHONEMES)
        assert found[0] != WORD_BOUNDARY != found[-1]
        assert "_ _" not in " ".join(found)
    assert len(set(PHONEMES)) == len(PHONEMES) == 41


def test_ipa_differs_between_accents():
    assert ipa("car") != ipa("car", "en")


@pytest.mark.slow
def test_every_voice_speaks_and_no_two_sound_the_same():
    spoken = {voice: synthesize("Where is the fire?", voice) for voice in VOICES}
    spectra = {}
    for voice, samples in spoken.items():
        assert samples.dtype == np.float32
        assert 0.5 < samples.size / 16000 < 3.0
        assert np.abs(samples).max() > 0.05
        spectra[voice] = np.abs(np.fft.rfft(samples, 65536))[::16].tobytes()
    assert len(set(spectra.values())) == len(VOICES)


def test_faster_speech_is_shorter():
    slow, fast = (synthesize("Where is the old fire?", words_per_minute=rate).size for rate in (120, 220))
    assert fast < slow


def test_nothing_to_say_and_unknown_voices_are_named():
    with pytest.raises(LabError, match="eSpeak NG says nothing for ''"):
        synthesize("")
    with pytest.raises(LabError, match="eSpeak NG says nothing for '\\?!'"):
        synthesize("?!")
    with pytest.raises(LabError, match=r"unknown voice 'en-us\+f9' \(did you mean 'en-us\+f"):
        synthesize("hello", "en-us+f9")


def test_a_library_or_voice_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LabError, match="cannot be loaded"):
        espeak._Library(path=str(tmp_path / "none.so"))
    with pytest.raises(LabError, match="does not know voice 'xx-yy'"):
        espeak._library().set_voice("xx-yy")


def test_the_corpus_repeats_exactly_and_splits_by_sentence_and_voice(tmp_path, monkeypatch):
    made = []
    for name in ("a", "b"):
        monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path / name))
        chatterbot_package(TURNS)
        made.append(load_corpus("espeak", num_utterances=80, text_sources=("chatterbot",)))
        synthesize("something in between")
    corpus = made[0]
    assert made[0].sha256 == made[1].sha256
    unheard = held_out_speakers(VOICES, 0.2)
    assert len(unheard) == round(0.2 * len(VOICES))
    assert corpus.manifest["held_out_speakers"] == sorted(unheard)
    assert len(corpus.samples) == 80  # twenty sentences are said twice
    for split in SPLITS:
        assert corpus.split(split)
        for one in corpus.split(split):
            assert one.answer in TURNS
            assert split == split_of(one.answer)
            assert (one.sound.speaker in unheard) == (split != "train")


def test_another_seed_says_other_things():
    chatterbot_package(TURNS)
    texts = [
        [u.answer for u in load_corpus("espeak", num_utterances=10, seed=seed, text_sources=("chatterbot",)).samples]
        for seed in (0, 1)
    ]
    assert texts[0] != texts[1]


def test_a_count_below_one_is_refused():
    chatterbot_package(TURNS)
    with pytest.raises(LabError, match="num_utterances is -1, expected at least 1"):
        load_corpus("espeak", num_utterances=-1, text_sources=("chatterbot",))


def test_text_sources_are_resolved_to_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(texts, "available_text_sources", lambda: ("chatterbot", "amazon_queen"))
    assert texts.spoken_text_sources() == ("chatterbot",)
