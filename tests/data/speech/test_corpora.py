import errno
import json

import numpy as np
import pytest

from lab.data.sample import Audio, Sample, Text
from lab.data.speech import corpora
from lab.data.speech.corpora import CORPORA, CorpusKind, default_corpus, load_corpus
from lab.errors import LabError, TryAgain
from lab.paths import cache_dir
from tests.data.fakes import reading, recording, tone


def broken():
    raise LabError("clip is truncated")


def recordings(count: int = 8):
    for number in range(count):
        audio = tone(0.3 + 0.1 * number, hertz=200 + 50 * number)
        yield recording(f"u{number}", f"Sentence {number}!", lambda a=audio: a, speaker=f"s{number % 2}")


@pytest.fixture
def toy(monkeypatch):
    calls = []

    def read(*, count: int = 8):
        calls.append(count)
        return reading(recordings(count))

    monkeypatch.setitem(CORPORA, "toy", lambda: CorpusKind(read))
    return calls


def test_a_corpus_is_prepared_once_and_opens_with_the_same_contents(toy):
    first = load_corpus("toy")
    second = load_corpus("toy")
    assert toy == [8]
    assert first.samples == second.samples
    assert [one.id for one in first.samples] == [f"u{n}" for n in range(8)]
    for number, one in enumerate(second.samples):
        assert (one.answer, one.task, one.source) == (f"Sentence {number}!", "transcribe", "toy")
        assert one.sound.speaker == f"s{number % 2}"
        samples = one.sound.read()
        assert samples.dtype == np.float32
        assert samples.size == one.sound.num_samples == round((0.3 + 0.1 * number) * 16000)
        np.testing.assert_allclose(samples, tone(0.3 + 0.1 * number, hertz=200 + 50 * number), atol=2**-15)


def test_the_manifest_counts_what_is_there(toy):
    corpus = load_corpus("toy")
    manifest = corpus.manifest
    assert manifest["name"] == "toy"
    assert manifest["utterances"] == 8
    assert manifest["words"] == 16
    assert manifest["speakers"] == 2
    assert manifest["seconds"] == pytest.approx(sum(0.3 + 0.1 * n for n in range(8)), abs=0.01)
    assert sum(part["utterances"] for part in manifest["splits"].values()) == 8
    assert manifest["sources"] == {"fake": "0"}
    assert manifest["options"] == {"count": 8}
    assert len(manifest["sha256"]) == 64
    assert corpus.sha256 == manifest["sha256"]


def test_the_hash_follows_texts_and_samples(toy):
    same = load_corpus("toy", count=4).sha256
    changed = recording("u0", "Sentence 0!", lambda: tone(0.3, hertz=201), speaker="s0")
    CORPORA["toy"] = lambda: CorpusKind(lambda: reading([changed, *list(recordings(4))[1:]]))
    assert load_corpus("toy").sha256 != same


def test_options_are_part_of_the_key(toy):
    assert len(load_corpus("toy", count=3).samples) == 3
    assert len(load_corpus("toy", count=5).samples) == 5
    assert load_corpus("toy", count=8).folder == load_corpus("toy").folder
    assert toy == [3, 5, 8]


def test_what_cannot_be_used_is_left_out_and_counted(monkeypatch):
    extra = (
        recording("a", "?!", tone),
        recording("b", "too short", lambda: tone(0.1)),
        recording("c", "does not decode", broken),
    )
    monkeypatch.setitem(CORPORA, "toy", lambda: CorpusKind(lambda: reading([*recordings(), *extra])))
    corpus = load_corpus("toy")
    assert len(corpus.samples) == 8
    assert corpus.manifest["skipped"] == {
        "audio that cannot be read": 1,
        "shorter than 0.2 seconds": 1,
        "text empty after normalisation": 1,
    }
    assert corpus.manifest["problems"] == ["sample 'c' of corpus 'toy': clip is truncated"]


def test_a_network_that_fails_leaves_nothing_out_of_what_is_kept(toy, monkeypatch):
    away = Sample(id="a", content=(Audio("http://127.0.0.1:9/a.wav"),), answer="somewhere else")
    monkeypatch.setitem(CORPORA, "web", lambda: CorpusKind(lambda: reading([*recordings(), (away, None)])))
    with pytest.raises(TryAgain, match=r"127\.0\.0\.1:9/a\.wav cannot be read: .*, and try again$"):
        load_corpus("web")
    monkeypatch.setattr(Audio, "read", lambda _: tone())
    assert len(load_corpus("web").samples) == 9


def test_where_no_sound_can_be_read_the_first_is_named(monkeypatch):
    monkeypatch.setitem(CORPORA, "toy", lambda: CorpusKind(lambda: reading([recording("c", "nothing", broken)])))
    with pytest.raises(
        LabError, match=r"no usable utterance; skipped: 1 audio that .*; sample 'c' of corpus 'toy': clip"
    ):
        load_corpus("toy")


def test_a_recording_of_no_sound_or_of_two_is_refused_with_its_source():
    sound = recording("a", "b", tone)[0].sound
    for count, content in ((0, (Text("what was said?"),)), (2, (sound, sound))):
        with pytest.raises(LabError, match=f"sample 'x' of 'toy' has {count} sounds, expected one"):
            assert Sample(id="x", content=content, source="toy").sound


def test_samples_of_one_sentence_are_one_group_and_an_id_that_comes_again_is_numbered(monkeypatch):
    twice = [recording("7", text, lambda: tone(0.3)) for text in ("Go home.", "go home", "Stay.")]
    monkeypatch.setitem(CORPORA, "toy", lambda: CorpusKind(lambda: reading(twice)))
    first, second, third = load_corpus("toy").samples
    assert first.group == second.group != third.group
    assert [first.id, second.id, third.id] == ["7", "7#2", "7#3"]


def test_a_prepared_corpus_that_is_cut_off_is_named_when_it_is_read(toy):
    corpus = load_corpus("toy")
    (corpus.folder / "audio.i16").write_bytes(b"1234")
    with pytest.raises(LabError, match=r"audio\.i16 is cut off; delete its folder"):
        corpus.samples[0].sound.read()
    (corpus.folder / "audio.i16").unlink()
    with pytest.raises(LabError, match=r"audio\.i16 cannot be read: No such file .*; prepare its corpus again"):
        corpus.samples[0].sound.read()


def test_splits_partition_the_utterances(toy):
    corpus = load_corpus("toy", count=60)
    parts = [corpus.split(name) for name in ("train", "dev", "test")]
    assert sorted(u.id for part in parts for u in part) == sorted(u.id for u in corpus.samples)


def test_loud_samples_are_clipped_not_wrapped(monkeypatch):
    loud = recording("u", "loud", lambda: np.full(8000, 1.0, np.float32))
    monkeypatch.setitem(CORPORA, "toy", lambda: CorpusKind(lambda: reading([loud])))
    corpus = load_corpus("toy")
    assert corpus.samples[0].sound.read().min() > 0.99


def test_an_unknown_corpus_or_option_lists_the_choices(toy):
    with pytest.raises(LabError, match=r"unknown corpus 'amazon_quen' \(did you mean 'amazon_queen'\?\).*espeak"):
        load_corpus("amazon_quen")
    with pytest.raises(LabError, match=r"unknown option of corpus 'toy' 'cont' \(did you mean 'count'\?\)"):
        load_corpus("toy", cont=3)
    with pytest.raises(LabError, match="corpus 'hub' needs dataset"):
        load_corpus("hub")


def test_a_corpus_with_nothing_usable_says_why(monkeypatch):
    silent = recording("u", "...", tone)
    monkeypatch.setitem(CORPORA, "toy", lambda: CorpusKind(lambda: reading([silent])))
    with pytest.raises(LabError, match="no usable utterance; skipped: 1 text empty after normalisation"):
        load_corpus("toy")
    assert not [p for p in (cache_dir() / "corpora").iterdir() if p.suffix != ".lock"]


def test_a_full_disk_leaves_nothing_half_written(toy, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(corpora, "_write_audio", full)
    with pytest.raises(LabError, match=r"corpus 'toy' cannot be prepared in .*: no space is left on the disk"):
        load_corpus("toy")
    assert not [p for p in (cache_dir() / "corpora").iterdir() if p.suffix != ".lock"]


def test_a_damaged_corpus_says_what_to_delete(toy):
    folder = load_corpus("toy").folder
    (folder / "audio.i16").write_bytes(b"1234")
    with pytest.raises(LabError, match=r"is damaged .*delete it to make it again"):
        load_corpus("toy")
    (folder / "manifest.json").write_text("{")
    with pytest.raises(LabError, match=r"cannot be read .*delete it to make it again"):
        load_corpus("toy")


def test_the_default_is_recorded_speech_where_it_can_be_fetched(monkeypatch):
    monkeypatch.setattr(corpora, "available", lambda name: True)
    assert default_corpus() == "amazon_queen"
    monkeypatch.setattr(corpora, "available", lambda name: False)
    assert default_corpus() == "espeak"


def test_the_manifest_on_disk_is_the_one_that_is_returned(toy):
    corpus = load_corpus("toy")
    assert json.loads((corpus.folder / "manifest.json").read_text()) == corpus.manifest
