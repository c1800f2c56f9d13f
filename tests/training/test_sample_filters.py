"""Filters of samples by models, before any source: planted cases go, as many go at random, and tests stay whole."""

from dataclasses import replace

import numpy as np
import pytest

from lab.data.sample import TRANSCRIBE, Audio, Drawn, Image, Sample, Text
from lab.data.sources import check_source, open_samples, sources_sha256
from lab.data.speech.spoken_prompts import Speakers
from lab.errors import LabError
from lab.training import sample_filters
from lab.training.sample_filters import SampleFilter, filter_of

SOURCE = "text:bigbench:plurals"


def pair(number: int, prompt: str, answer: str) -> Sample:
    return Sample(id=f"pair-{number}", content=(Text(prompt),), answer=answer, task="pair", source="pairs")


def odd(samples, value):
    """Drops every third."""
    reasons = ["third" if place % 3 == 0 else None for place in range(len(samples))]
    return sample_filters.Filtered([one.id for one in samples], reasons, name="odd", parameters={"value": value})


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(sample_filters, "SAMPLE_FILTERS", {"odd": SampleFilter(judge=odd, value=1.0)})


def drawn(*_):
    raise AssertionError("read")


@pytest.mark.usefixtures("plain", "shared_packages")
def test_training_samples_are_filtered_and_those_of_tests_are_not():
    every, _ = open_samples(SOURCE, "train", 12)
    kept, left_out = open_samples(f"kept:odd:{SOURCE}", "train", 12)
    assert [one.id for one in kept] == [one.id for place, one in enumerate(every) if place % 3]
    assert left_out["odd: third"] == [one.id for one in every[::3]]
    for split in ("dev", "test"):
        asked = [one.id for one in open_samples(SOURCE, split, 12)[0]]
        assert [one.id for one in open_samples(f"kept:odd:{SOURCE}", split, 12)[0]] == asked


@pytest.mark.usefixtures("plain", "shared_packages")
def test_as_many_go_at_random_whatever_their_order():
    every, _ = open_samples(SOURCE, "train", 12)
    kept, left_out = open_samples(f"kept:random=odd:{SOURCE}", "train", 12)
    assert len(kept) == 8
    assert left_out["random=odd: drawn at random"] != [one.id for one in every[::3]]
    other = filter_of("random=odd")(every[::-1])
    assert {one.id for one, stays in zip(every[::-1], other.keep, strict=True) if stays} == {one.id for one in kept}


@pytest.mark.usefixtures("plain", "shared_packages")
def test_filters_follow_one_another_and_count_in_the_state():
    kept, _ = open_samples(f"kept:odd+odd:{SOURCE}", "train", 12)
    assert len(kept) == 5
    assert len({sources_sha256(f"kept:{told}:{SOURCE}") for told in ("odd", "odd=2", "odd+odd", "random=odd")}) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kept:los:stills", r"unknown filter of samples 'los' \(did you mean 'loss'\?\)"),
        ("kept:random:stills", "unknown filter of 'random'"),
        ("kept:random=los:stills", r"unknown filter of 'random=los': 'los' \(did you mean 'loss'"),
        ("kept:said=much:stills", "'said=much' has the value 'much'; expected a number of at least 0, as in said=0.2"),
        ("kept:said=-1:stills", "the value '-1'; expected"),
        ("kept:said:stils", "did you mean 'stills'"),
        ("kept:said", "names no data; expected kept:FILTERS:DATA"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_read(name, message):
    with pytest.raises(LabError, match=message):
        check_source(name)


@pytest.mark.usefixtures("plain", "shared_packages")
def test_a_filter_that_leaves_nothing_is_named(monkeypatch):
    nothing = SampleFilter(
        judge=lambda samples, value: odd(samples, value).__class__(
            [one.id for one in samples], ["gone"] * len(samples), name="odd"
        ),
        value=1.0,
    )
    monkeypatch.setattr(sample_filters, "SAMPLE_FILTERS", {"odd": nothing})
    with pytest.raises(LabError, match="filters 'odd' leave no sample of 'text:bigbench:plurals'; give another value"):
        open_samples(f"kept:odd:{SOURCE}", "train", 12)


def fake_losses(monkeypatch, losses):
    monkeypatch.setattr(sample_filters, "answer_loss", lambda samples: np.array([losses(one) for one in samples]))


def test_losses_far_from_the_mean_go_and_what_has_none_too(monkeypatch):
    samples = [pair(number, "a", "b") for number in range(12)]
    told = dict(zip((one.id for one in samples), [9.0, 0.01, float("nan"), *[2.0] * 4, *[2.2] * 5], strict=True))
    fake_losses(monkeypatch, lambda one: told[one.id])
    found = filter_of("loss")(samples)
    assert found.dropped == {"loss above the bound": 1, "loss below the bound": 1, "without a loss": 1}
    assert filter_of("loss=1.5")(samples).dropped == {"loss above the bound": 1, "without a loss": 1}


def test_what_the_scorer_does_not_know_goes(monkeypatch):
    samples = [pair(number, f"capital of {number}", f"town {number}") for number in range(8)]
    own = {one.id: one.answer for one in samples}

    def loss(one):
        name = one.id.partition("\0")[0]
        known = int(name.removeprefix("pair-")) % 2 == 0
        return 1.0 if (one.answer == own[name]) == known else 2.0

    fake_losses(monkeypatch, loss)
    assert list(filter_of("known")(samples).keep) == [True, False] * 4
    assert filter_of("known=1.5")(samples).num_dropped == 0


def test_a_scorer_of_text_refuses_what_is_seen():
    seen = replace(pair(0, "what is this?", "a cat"), content=(Image(Drawn(drawn, ())), Text("what is this?")))
    with pytest.raises(LabError, match="sample 'pair-0' of 'pairs' holds image; the scorer 'smollm2_135m' reads text"):
        sample_filters.answer_loss([seen])


class Ears:
    """Hears every text as it was said, but for those with "misread" in them."""

    def transcribe(self, waveforms):
        return [self.texts[len(samples)] for samples in waveforms]

    def __init__(self, *texts):
        self.texts = {1600 * (place + 2): text for place, text in enumerate(texts)}


def tone(text, voice, speed):
    return np.full(voice, 0.1, dtype=np.float32)


def spoken(number, text, task="which"):
    said = Audio(Drawn(tone, (text, 1600 * (number + 2), 1.0)), text=text)
    return Sample(id=f"said-{number}", content=(Image(Drawn(drawn, ())), said), answer="left", task=task)


def test_speech_that_is_heard_otherwise_goes(monkeypatch):
    samples = [spoken(0, "where is the cat"), spoken(1, "where is the dog"), pair(2, "a", "b")]
    monkeypatch.setattr(sample_filters, "_recognizer", lambda: Ears("where is the cat", "wear is a dock"))
    found = filter_of("said")(samples)
    assert list(found.keep) == [True, False, True]
    assert found.dropped == {"transcript disagrees": 1}


def test_easy_utterances_go_and_other_tasks_stay(monkeypatch):
    utterances = [
        replace(spoken(n, ""), content=spoken(n, "").content[1:], task=TRANSCRIBE, answer="a cat sat down")
        for n in range(2)
    ]
    monkeypatch.setattr(sample_filters, "_recognizer", lambda: Ears("a cat sat down", "a cat sat town"))
    found = filter_of("hard")([*utterances, spoken(5, "never heard")])
    assert list(found.keep) == [False, True, True]
    assert found.dropped == {"easy": 1}


@pytest.mark.slow
@pytest.mark.usefixtures("shared_packages")
def test_the_packaged_models_judge_planted_cases():
    asked = [f"Where was {name} born?" for name in ("Mozart", "Einstein", "Darwin")]
    same = [pair(n, prompt, "vienna") for n, prompt in enumerate([*asked, "In which place was Mozart born?"])]
    assert list(filter_of("distinct=0.8")(same).keep) == [True, True, True, False]
    voices = Speakers(("espeak:en-us+m1",))
    said = [
        replace(spoken(n, ""), content=(voices.say(str(n), text),))
        for n, text in enumerate(("where is the large red ball", "what can be seen in the picture"))
    ]
    wrong = replace(
        said[1], id="wrong", content=(Audio(Drawn(lambda: said[0].sound.read(), ()), text="nothing like it"),)
    )
    assert list(filter_of("said=0.3")([*said, wrong]).keep) == [True, True, False]
    pairs = [pair(n, f"Say {word}.", word) for n, word in enumerate(("one", "two", "three", "four", "five", "six"))]
    swapped = pair(9, "one", "Say the number that comes before two, if you please, zebra quartz.")
    assert not filter_of("loss")([*pairs, swapped]).keep[-1]
