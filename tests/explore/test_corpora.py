import base64
import io
import re

import numpy as np
import pytest
import soundfile

from lab.data.speech.corpora import load_corpus
from lab.errors import LabError
from lab.explore.corpora import corpora_panel
from tests.speech import write_corpus


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return load_corpus(write_corpus(tmp_path / "speech", train=12, held_out=3))


def said(sound):
    return re.match("<p>.*?: (.*?)</p>", sound)[1]


def test_no_corpora_are_refused():
    with pytest.raises(LabError, match="there is no corpus to listen to"):
        corpora_panel({})


def test_a_split_is_counted_and_some_of_it_can_be_heard(corpus):
    panel = corpora_panel({"tones": corpus}, num_listened=2)
    figure, first, second = panel.shown
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    test = corpus.split("test")
    assert f"test: {len(test)}, {sum(one.sound.num_samples for one in test) / 16000 / 3600:.2f} h" in told
    heard = {one.answer: one.sound.read() for one in test}
    for sound in (first, second):
        written = io.BytesIO(base64.b64decode(re.findall("base64,([^']*)", sound)[0]))
        np.testing.assert_allclose(soundfile.read(written)[0], heard[said(sound)], atol=1e-4)
    assert said(first) != said(second)
    panel.controls["split"].value = "train"
    assert set(map(said, panel.shown[1:])) <= {one.answer for one in corpus.split("train")}


def test_another_draw_gives_other_utterances_and_the_same_one_the_same(corpus):
    panel = corpora_panel({"tones": corpus}, split="train", num_listened=1)
    drawn = {}
    for draw in (0, 1, 2, 3, 0):
        panel.controls["draw"].value = draw
        drawn.setdefault(draw, set()).add(said(panel.shown[1]))
    assert all(len(captions) == 1 for captions in drawn.values())
    assert len(set.union(*drawn.values())) > 1


def test_a_split_without_utterances_says_so(corpus, monkeypatch):
    monkeypatch.setattr(corpus, "split", lambda name: [])
    panel = corpora_panel({"tones": corpus}, split="test")
    assert panel.error == "split 'test' of 'tones' is empty; choose another"
