"""Filters of samples by models, before any source: planted cases go, as many go at random, and tests stay whole."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.data.filters.loss_filters import LOSS_COLUMNS, SUMMARY
from lab.data.sample import TRANSCRIBE, Audio, Drawn, Image, Sample, Text
from lab.data.sources import check_source, open_samples, sources_sha256
from lab.data.speech.spoken_prompts import Speakers
from lab.errors import LabError
from lab.training import sample_filters
from lab.training.sample_filters import SampleFilter, filter_of

VOICES = Speakers(("espeak:en-us+m1",))
SOURCE = "text:bigbench:plurals"


def pair(number: int, prompt: str, answer: str) -> Sample:
    return Sample(id=f"pair-{number}", content=(Text(prompt),), answer=answer, task="pair", source="pairs")


def filtered(told, samples):
    chosen = filter_of(told)
    return chosen.judge(samples, chosen.value)


def odd(samples, value):
    """Drops every third, or of a higher value one more in three."""
    reasons = ["third" if place % 3 < value else None for place in range(len(samples))]
    return sample_filters.Filtered([one.id for one in samples], reasons, name="odd", parameters={"value": value})


ODD = SampleFilter(judge=odd, value=1.0, state=lambda: "model 1")


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(sample_filters, "SAMPLE_FILTERS", {"odd": lambda: ODD})


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
    assert len(open_samples(f"kept:random=odd=2:{SOURCE}", "train", 12)[0]) == 4
    other = filtered("random=odd", every[::-1])
    assert {one.id for one, stays in zip(every[::-1], other.keep, strict=True) if stays} == {one.id for one in kept}


@pytest.mark.usefixtures("plain", "shared_packages")
def test_filters_follow_one_another_and_count_in_the_state_with_their_models(monkeypatch):
    kept, _ = open_samples(f"kept:odd+odd:{SOURCE}", "train", 12)
    assert len(kept) == 5
    names = [f"kept:{told}:{SOURCE}" for told in ("odd", "odd=2", "odd+odd", "random=odd")]
    hashes = set(map(sources_sha256, names))
    assert len(hashes) == 4
    other = replace(ODD, state=lambda: "model 2")
    monkeypatch.setattr(sample_filters, "SAMPLE_FILTERS", {"odd": lambda: other})
    assert not hashes & set(map(sources_sha256, names))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kept:los:stills", r"unknown filter of samples 'los' \(did you mean 'loss'\?\)"),
        ("kept:random:stills", "unknown filter of samples 'random'.*random=FILTER"),
        ("kept:random=los:stills", r"unknown filter of samples 'los' \(did you mean 'loss'"),
        ("kept:said=much:stills", "'said=much' has the value 'much'; expected a number of at least 0, as in said=0.2"),
        ("kept:said=-1:stills", "the value '-1'; expected"),
        ("kept:said=inf:stills", "the value 'inf'; expected"),
        ("kept:random=said=no:stills", "'said=no' has the value 'no'; expected"),
        ("kept:distinct=1.5:stills", "the value '1.5'; expected a number from 0 to 1, as in distinct=0.8"),
        ("kept:said:stils", "did you mean 'stills'"),
        ("kept:said", "names no data; expected kept:FILTERS:DATA"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_read(name, message):
    with pytest.raises(LabError, match=message):
        check_source(name)


@pytest.mark.usefixtures("plain", "shared_packages")
def test_a_filter_that_leaves_nothing_is_named():
    with pytest.raises(
        LabError, match=r"filter 'odd=3' leaves no sample of 'text:bigbench:plurals'; give another.*third"
    ):
        open_samples(f"kept:odd=3+odd:{SOURCE}", "train", 12)


def fake_losses(monkeypatch, losses):
    monkeypatch.setattr(sample_filters, "answer_loss", lambda samples: np.array([losses(one) for one in samples]))


def test_losses_far_from_the_mean_go_and_what_has_none_too(monkeypatch):
    samples = [pair(number, "a", "b") for number in range(12)]
    told = dict(zip((one.id for one in samples), [9.0, 0.01, float("nan"), *[2.0] * 4, *[2.2] * 5], strict=True))
    fake_losses(monkeypatch, lambda one: told[one.id])
    found = filtered("loss", samples)
    assert found.dropped == {"loss above the bound": 1, "loss below the bound": 1, "without a loss": 1}
    assert filtered("loss=1.5", samples).dropped == {"loss above the bound": 1, "without a loss": 1}


def test_each_task_has_a_gaussian_of_its_own_and_a_small_one_stays_whole(monkeypatch):
    samples = [replace(pair(number, "a", "b"), task="easy" if number < 10 else "hard") for number in range(20)]
    small = [replace(pair(20 + number, "a", "b"), task="small") for number in range(3)]
    told = [0.1] * 8 + [0.2, 1.0] + [5.0] * 8 + [5.1, 9.0] + [0.0, 50.0, 100.0]
    losses = {one.id: loss for one, loss in zip([*samples, *small], told, strict=True)}
    fake_losses(monkeypatch, lambda one: losses[one.id])
    found = filtered("loss", [*samples, *small])
    assert [one for one, stays in zip(found.ids, found.keep, strict=True) if not stays] == ["pair-9", "pair-19"]


def test_the_right_one_of_own_choices_is_held_against_the_others_wherever_it_stands(monkeypatch):
    many, two = ("red", "green", "blue", "grey", "pink"), ("no", "yes")
    samples = [
        replace(pair(0, "the sky?", "blue"), choices=many),
        replace(pair(1, "the grass?", "green"), choices=many),
        replace(pair(2, "is it?", "yes"), choices=two),
        pair(3, "and so?", "blue"),
    ]
    fake_losses(monkeypatch, lambda one: {"blue": 1.0, "yes": 1.0}.get(one.answer, 2.0))
    found = filtered("known", samples)
    assert list(found.keep) == [True, False, True, True]
    assert found.dropped == {"not known": 1}


def test_what_the_scorer_does_not_know_goes(monkeypatch):
    samples = [pair(number, f"capital of {number}", f"town {number}") for number in range(8)]
    own = {one.id: one.answer for one in samples}

    def loss(one):
        name = one.id.partition("\0")[0]
        known = int(name.removeprefix("pair-")) % 2 == 0
        return 1.0 if (one.answer == own[name]) == known else 2.0

    fake_losses(monkeypatch, loss)
    assert list(filtered("known", samples).keep) == [True, False] * 4
    assert filtered("known=1.5", samples).num_dropped == 0


def test_a_scorer_of_text_refuses_what_is_seen():
    seen = replace(pair(0, "what is this?", "a cat"), content=(Image(Drawn(drawn, ())), Text("what is this?")))
    with pytest.raises(LabError, match="sample 'pair-0' of 'pairs' holds image; the scorer 'character' reads text"):
        sample_filters.answer_loss([seen])


def test_losses_that_are_there_are_read_without_the_model_and_a_voice_is_read_as_words(monkeypatch):
    scored = []

    def score(scorer, samples, folder, *, options):
        scored.append([one.asked for one in samples])
        rows = [
            {"id": one.id, "loss": 1.5, "loss_without_prompt": None, "num_tokens": 1, "prompt_tokens": 1}
            for one in samples[:-1]
        ]
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, LOSS_COLUMNS), folder / "part-000000.parquet")
        (folder / SUMMARY).write_text("{}")

    monkeypatch.setattr(sample_filters, "score", score)
    monkeypatch.setattr(sample_filters, "_scorer", lambda: None)
    samples = [
        pair(0, "a", "b"),
        replace(pair(1, "", "b"), content=(VOICES.say("1", "where is it"),)),
        pair(2, "c", "d"),
    ]
    for _ in range(2):
        assert sample_filters.answer_loss(samples)[:2].tolist() == [1.5, 1.5]
        assert np.isnan(sample_filters.answer_loss(samples)[2])
    assert scored == [["a", "where is it", "c"]]


class Meanings:
    """Embeds a text by its last word."""

    width, name, sha256 = 8, "last word", "0"

    def __call__(self, texts):
        seeds = [hashlib.sha256(text.split()[-1].encode()).digest()[0] for text in texts]
        rows = np.array([np.random.default_rng(seed).normal(size=self.width) for seed in seeds], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_of_instructions_that_mean_the_same_about_the_same_media_the_first_stays(monkeypatch):
    monkeypatch.setattr(sample_filters, "load_sentence_encoder", lambda name: Meanings())
    one, other = Image(Path("a.png")), Image(Path("b.png"))
    contents = [
        (Text("where is the cat"),),
        (Text("find the cat"),),
        (one, Text("show the cat")),
        (other, Text("show the cat")),
        (one, VOICES.say("4", "where is the cat")),
        (VOICES.say("5", "where is the cat"),),
        (one,),
        (one,),
        (Text("where is the dog"),),
    ]
    samples = [replace(pair(number, "", "cat"), content=content) for number, content in enumerate(contents)]
    found = filtered("distinct=0.99", samples)
    assert [int(id[5:]) for id, stays in zip(found.ids, found.keep, strict=True) if not stays] == [1, 4, 5]
    assert filtered("distinct", samples[6:8]).num_dropped == 0


class Ears:
    """Hears clips by their lengths."""

    def transcribe(self, waveforms):
        return [self.texts[len(samples)] for samples in waveforms]

    def __init__(self, *texts):
        self.texts = {1600 * (place + 2): text for place, text in enumerate(texts)}


def tone(text, voice, speed):
    return np.full(voice, 0.1, dtype=np.float32)


def spoken(number, text, task="which"):
    said = Audio(Drawn(tone, (text, 1600 * (number + 2), 1.0)), text=text)
    return Sample(id=f"said-{number}", content=(Image(Drawn(drawn, ())), said), answer="left", task=task)


def test_of_several_sounds_all_that_voices_say_has_to_be_heard_and_a_sound_track_is_none_of_it(monkeypatch):
    track = Audio(Drawn(drawn, ("no words",)))
    both = [spoken(0, "where is the cat").content[1], spoken(1, "in the box").content[1]]
    monkeypatch.setattr(sample_filters, "_recognizer", lambda: Ears("where is the cat", "on the rocks"))
    samples = [replace(spoken(n, ""), content=(track, *own)) for n, own in enumerate((both[:1], both, both[1:], ()))]
    assert list(filtered("said", samples).keep) == [True, False, False, True]


def test_speech_that_is_heard_otherwise_goes(monkeypatch):
    samples = [spoken(0, "where is the cat"), spoken(1, "where is the dog"), pair(2, "a", "b")]
    monkeypatch.setattr(sample_filters, "_recognizer", lambda: Ears("where is the cat", "wear is a dock"))
    found = filtered("said", samples)
    assert list(found.keep) == [True, False, True]
    assert found.dropped == {"transcript disagrees": 1}


def test_easy_utterances_go_and_other_tasks_stay(monkeypatch):
    utterances = [
        replace(spoken(n, ""), content=spoken(n, "").content[1:], task=TRANSCRIBE, answer="a cat sat down")
        for n in range(2)
    ]
    monkeypatch.setattr(sample_filters, "_recognizer", lambda: Ears("a cat sat down", "a cat sat town"))
    found = filtered("hard", [*utterances, spoken(5, "never heard")])
    assert list(found.keep) == [False, True, True]
    assert found.dropped == {"easy": 1}


@pytest.mark.slow
@pytest.mark.usefixtures("shared_packages")
def test_the_packaged_models_judge_planted_cases():
    asked = [f"Where was {name} born?" for name in ("Mozart", "Einstein", "Darwin")]
    same = [pair(n, prompt, "vienna") for n, prompt in enumerate([*asked, "In which place was Mozart born?"])]
    assert list(filtered("distinct=0.8", same).keep) == [True, True, True, False]
    said = [
        replace(spoken(n, ""), content=(VOICES.say(str(n), text),))
        for n, text in enumerate(("where is the large red ball", "what can be seen in the picture"))
    ]
    wrong = replace(
        said[1], id="wrong", content=(Audio(Drawn(lambda: said[0].sound.read(), ()), text="nothing like it"),)
    )
    assert list(filtered("said=0.3", [*said, wrong]).keep) == [True, True, False]
