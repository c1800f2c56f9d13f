import errno
import json

import numpy as np
import pytest

from lab.data.fetch import Availability
from lab.data.speech import corpora
from lab.data.speech.corpora import CORPORA, CorpusKind, default_corpus, load_corpus
from lab.data.speech.recordings import Recording
from lab.errors import LabError
from lab.paths import cache_dir
from tests.data.fakes import reading, tone


def broken():
    raise LabError("clip is truncated")


def recordings(count: int = 8):
    for number in range(count):
        audio = tone(0.3 + 0.1 * number, hertz=200 + 50 * number)
        yield Recording(id=f"u{number}", text=f"Sentence {number}!", speaker=f"s{number % 2}", audio=lambda a=audio: a)


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
    assert first.utterances == second.utterances
    assert [u.id for u in first.utterances] == [f"u{n}" for n in range(8)]
    for number, utterance in enumerate(second.utterances):
        samples = second.audio(utterance)
        assert samples.dtype == np.float32
        assert samples.size == utterance.num_samples == round((0.3 + 0.1 * number) * 16000)
        np.testing.assert_allclose(samples, tone(0.3 + 0.1 * number, hertz=200 + 50 * number), atol=2**-15)


def test_the_manifest_counts_what_is_there(toy):
    corpus = load_corpus("toy")
    manifest = corpus.manifest()
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
    changed = Recording(id="u0", text="Sentence 0!", speaker="s0", audio=lambda: tone(0.3, hertz=201))
    CORPORA["toy"] = lambda: CorpusKind(lambda: reading([changed, *list(recordings(4))[1:]]))
    assert load_corpus("toy").sha256 != same


def test_options_are_part_of_the_key(toy):
    assert len(load_corpus("toy", count=3).utterances) == 3
    assert len(load_corpus("toy", count=5).utterances) == 5
    assert load_corpus("toy", count=8).folder == load_corpus("toy").folder
    assert toy == [3, 5, 8]


def test_what_cannot_be_used_is_left_out_and_counted(monkeypatch):
    extra = (
        Recording(id="a", text="?!", speaker="s", audio=tone),
        Recording(id="b", text="too short", speaker="s", audio=lambda: tone(0.1)),
        Recording(id="c", text="does not decode", speaker="s", audio=broken),
    )
    monkeypatch.setitem(CORPORA, "toy", lambda: CorpusKind(lambda: reading([*recordings(), *extra])))
    corpus = load_corpus("toy")
    assert len(corpus.utterances) == 8
    assert corpus.manifest()["skipped"] == {
        "audio that cannot be read": 1,
        "shorter than 0.2 seconds": 1,
        "text empty after normalisation": 1,
    }


def test_splits_partition_the_utterances(toy):
    corpus = load_corpus("toy", count=60)
    parts = [corpus.split(name) for name in ("train", "dev", "test")]
    assert sorted(u.id for part in parts for u in part) == sorted(u.id for u in corpus.utterances)
    with pytest.raises(LabError, match="unknown split 'valid'"):
        corpus.split("valid")


def test_loud_samples_are_clipped_not_wrapped(monkeypatch):
    loud = Recording(id="u", text="loud", speaker="s", audio=lambda: np.full(8000, 1.0, np.float32))
    monkeypatch.setitem(CORPORA, "toy", lambda: CorpusKind(lambda: reading([loud])))
    corpus = load_corpus("toy")
    assert corpus.audio(corpus.utterances[0]).min() > 0.99


def test_an_unknown_corpus_or_option_lists_the_choices(toy):
    with pytest.raises(LabError, match=r"unknown corpus 'amazon_quen' \(did you mean 'amazon_queen'\?\).*espeak"):
        load_corpus("amazon_quen")
    with pytest.raises(LabError, match=r"unknown option of corpus 'toy' 'cont' \(did you mean 'count'\?\)"):
        load_corpus("toy", cont=3)
    with pytest.raises(LabError, match="corpus 'hub' needs dataset"):
        load_corpus("hub")


def test_a_corpus_with_nothing_usable_says_why(monkeypatch):
    silent = Recording(id="u", text="...", speaker="s", audio=tone)
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
    monkeypatch.setattr(corpora, "available", lambda name: Availability())
    assert default_corpus()[0] == "amazon_queen"
    monkeypatch.setattr(corpora, "available", lambda name: Availability("no network"))
    assert default_corpus() == ("espeak", "recorded speech is out of reach: no network")


def test_the_manifest_on_disk_is_the_one_that_is_returned(toy):
    corpus = load_corpus("toy")
    assert json.loads((corpus.folder / "manifest.json").read_text()) == corpus.manifest()
