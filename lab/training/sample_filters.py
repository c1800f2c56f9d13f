"""Filters of samples by what models make of them, by name, as they stand before a source: `kept:said+known:DATA`.

Section 3 of the paper, which cleans what the model is trained on: so training samples are judged, and those of dev and
test pass as they are. The first samples of a source are read, then judged, so fewer are left. `random=FILTER` drops as
many as FILTER would, and no filter is judged without it. A voice's words count as written; recogniser and scorer are of
English.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from numpy import ndarray

from lab.data.fetch import packages
from lab.data.filters.filtering import Filtered, LeftOut, Reasons, first_reason
from lab.data.filters.loss_filters import SUMMARY, Losses, filter_losses, loss_files
from lab.data.filters.semantic_duplicates import (
    SENTENCE_ENCODERS,
    first_of_like,
    load_sentence_encoder,
    sentence_embeddings,
)
from lab.data.filters.sound_filters import SOUND_MEASURES, judge_sounds
from lab.data.filters.speech_agreement import filter_speech, listen
from lab.data.instructions.instructions import with_choices
from lab.data.kept import Kept
from lab.data.normalizers import NORMALIZERS
from lab.data.sample import TRANSCRIBE, Audio, Sample, Text, samples_sha256
from lab.data.sources import OuterSource, check_source, open_samples, sources_sha256
from lab.data.splits import Split
from lab.errors import LabError, choose
from lab.parts.audio_encoders import AUDIO_ENCODERS, SpeechRecognizer, load_speech_recognizer
from lab.paths import cache_dir
from lab.training.named_parts import OWN_LANGUAGE_MODELS, open_language_model
from lab.training.scoring import Scorer, ScoringOptions, score, text_scorer

RANDOM, JOIN, VALUE = "random", "+", "="
# The scorer is the model that the studies fine-tune, as in the paper.
SCORER, RECOGNIZER, SENTENCES = "character", "whisper_tiny_en", "minilm"
_KNOWN_CHOICES = 4
# To so few losses of a task no Gaussian is fitted.
_FEWEST_TO_FIT = 8


@dataclass(frozen=True, kw_only=True)
class SampleFilter:
    """Says of each sample why it goes, or that it stays, at a threshold: `value`, unless the source names another.

    A threshold is from 0 to `most`. `state` tells by which models it judges.
    """

    judge: Callable[[Sequence[Sample], float], Filtered]
    value: float
    state: Callable[[], str]
    most: float = sys.float_info.max


class KeptTranscripts:
    """The transcripts of a recogniser called `name`: each clip (known by its samples) is heard once, whoever asks."""

    def __init__(self, recognizer: SpeechRecognizer, *, name: str) -> None:
        self.kept = Kept("transcripts", name, recognizer.key, what=f"the transcripts of {name!r}")
        self._recognizer = recognizer

    def transcribe(self, waveforms: Sequence[Float[ndarray, " samples"]]) -> list[str]:
        """The transcript of each 16 kHz clip, in their order; all that are new are heard before the first is kept."""

        def make(missing: list[int]) -> Iterable[tuple[int, str]]:
            # From short to long: the recogniser puts clips of one length in a batch.
            order = sorted(missing, key=lambda place: len(waveforms[place]))
            return zip(order, self._recognizer.transcribe([waveforms[place] for place in order]), strict=True)

        keys = [hashlib.sha256(f"{clip.dtype.str}\n".encode() + clip.tobytes()).digest() for clip in waveforms]
        return self.kept.values(keys, make)


@cache
def _recognizer() -> KeptTranscripts:
    return KeptTranscripts(load_speech_recognizer(RECOGNIZER), name=RECOGNIZER)


@cache
def _scorer() -> Scorer:
    return text_scorer(open_language_model(SCORER), torch.device("cpu"))


def answer_loss(samples: Sequence[Sample]) -> Float[ndarray, " samples"]:
    """The mean loss of a token of each answer by the scorer, nats; NaN where it cannot read the sample.

    Kept in the cache for samples that are the same.

    Raises:
        LabError: a sample holds more than words, of which a language model alone knows nothing.
    """
    words = list(map(in_words, samples))
    for one in words:
        if media := [part.type for part in one.content if not isinstance(part, Text)]:
            raise LabError(
                f"sample {one.id!r} of {one.source!r} holds {media[0]}; the scorer {SCORER!r} reads text alone, so put "
                "the filter before a source of text, written or said by a voice"
            )
    # On every machine the same samples stay.
    options = ScoringOptions(part_samples=256, precision="float32")
    key = json.dumps([_scorer_state(), options.budget_tokens, samples_sha256(words)])
    folder = cache_dir() / "scores" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not (folder / SUMMARY).exists():
        score(_scorer(), words, folder, options=options)
    losses = {id: loss for path in loss_files(folder) for id, loss in _read(path)}
    return np.array([losses.get(one.id, np.nan) for one in words])


def _read(path: Path) -> Iterable[tuple[str, float]]:
    table = pq.read_table(path, columns=["id", "loss"])
    return zip(table["id"].to_pylist(), table["loss"].to_pylist(), strict=True)


def _scorer_state() -> str:
    own = OWN_LANGUAGE_MODELS[SCORER]()
    return own.folder(own.default_steps).name


def _pinned(*sources: str) -> str:
    return " ".join(packages()[source].sha256 for source in sources)


def in_words(sample: Sample) -> Sample:
    """The same sample with all that voices say in it written."""
    voices = ((part, part.text if isinstance(part, Audio) else "") for part in sample.content)
    return replace(sample, content=tuple(Text(words, part.role) if words else part for part, words in voices))


def _account(samples: Sequence[Sample], reasons: Reasons, name: str, value: float) -> Filtered:
    return Filtered([one.id for one in samples], reasons, name=name, parameters={"value": value})


def loss() -> SampleFilter:
    """Answers go whose loss by a language model lies beyond mean +- so many standard deviations of its task.

    A task of fewer than eight samples stays whole. Pictures, video and other sounds than a voice's are refused.

    Differs from the paper: it tells of one Gaussian, which of many tasks drops whole ones.
    """

    def judge(samples: Sequence[Sample], k: float) -> Filtered:
        losses = answer_loss(samples)
        reasons = first_reason({"without a loss": ~np.isfinite(losses)})
        tasks: dict[tuple[str, str], list[int]] = {}
        for place in np.flatnonzero(np.isfinite(losses)).tolist():
            tasks.setdefault(samples[place].kind, []).append(place)
        for places in tasks.values():
            if len(places) >= _FEWEST_TO_FIT:
                own = Losses([samples[place].id for place in places], losses[places])
                reasons[places] = filter_losses(own, "gaussian", k=k).reasons
        return _account(samples, reasons, "loss", k)

    return SampleFilter(judge=judge, value=1.0, state=_scorer_state)


def known() -> SampleFilter:
    """Unknown knowledge goes: where a language model finds another answer likelier by so many nats a token.

    Others are the sample's own choices, else three answers to others of its task. Refused is what `loss` refuses.

    Differs from the paper: its detector is not found.
    """

    def judge(samples: Sequence[Sample], nats: float) -> Filtered:
        of_tasks = [replace(in_words(one), source=one.task or one.source) for one in samples]
        num_choices = min(_KNOWN_CHOICES, max(2, len({one.answer for one in samples})))
        asked = with_choices(of_tasks, str, num_choices=num_choices)
        each = [
            replace(one, id=f"{one.id}\0{n}", answer=choice, choices=())
            for one in asked
            for n, choice in enumerate(one.choices)
        ]
        ends = np.cumsum([len(one.choices) for one in asked])
        reasons: list[str | None] = []
        for one, losses in zip(asked, np.split(answer_loss(each), ends[:-1]), strict=True):
            right = one.choices.index(one.answer)
            likelier = np.delete(losses, right).min(initial=np.inf) < losses[right] - nats
            reasons.append("without a loss" if np.isnan(losses).any() else "not known" if likelier else None)
        return _account(samples, reasons, "known", nats)

    return SampleFilter(judge=judge, value=0.0, state=_scorer_state)


def distinct() -> SampleFilter:
    """Semantic duplicates go: instructions as near as this cosine to an earlier one that stays, about the same media.

    So it is within each video, as in the paper; instructions without media are compared over the whole source. What
    asks nothing in words stays.
    """

    def judge(samples: Sequence[Sample], cosine: float) -> Filtered:
        words = [(place, in_words(one)) for place, one in enumerate(samples)]
        asked = [(place, one) for place, one in words if one.asked.strip()]
        texts, ids = [one.asked for _, one in asked], [one.id for _, one in asked]
        embedded = sentence_embeddings(texts, load_sentence_encoder(SENTENCES), ids=ids) if asked else np.empty((0, 1))
        groups: dict[object, list[int]] = {}
        for row, (_, one) in enumerate(asked):
            groups.setdefault(tuple(part.source for part in one.content if not isinstance(part, Text)), []).append(row)
        goes = np.zeros(len(samples), dtype=bool)
        places = np.array([place for place, _ in asked], dtype=int)
        for rows in groups.values():
            goes[places[rows]] = ~first_of_like(embedded[rows].astype(np.float32), threshold=cosine)
        return _account(samples, first_reason({"means the same as an earlier one": goes}), "distinct", cosine)

    return SampleFilter(judge=judge, value=0.8, most=1.0, state=lambda: _pinned(SENTENCE_ENCODERS[SENTENCES][0]))


def said() -> SampleFilter:
    """Speech goes that a recogniser reads otherwise: with more word errors than this share of what was to be said.

    That is what a voice was given, and of an utterance to be transcribed its transcript.
    """

    def sounds(sample: Sample) -> list[tuple[Audio, str]]:
        voices = [(part, part.text) for part in sample.content if isinstance(part, Audio) and part.text]
        return voices or _transcribed(sample)

    def judge(samples: Sequence[Sample], most: float) -> Filtered:
        return _account(samples, _heard(samples, sounds, max_error_rate=most), "said", most)

    return SampleFilter(judge=judge, value=0.2, state=lambda: _pinned(*AUDIO_ENCODERS[RECOGNIZER]().sources))


def hard() -> SampleFilter:
    """Easy speech goes: utterances to be transcribed that a recogniser reads with fewer word errors than this share."""

    def judge(samples: Sequence[Sample], least: float) -> Filtered:
        return _account(samples, _heard(samples, _transcribed, min_error_rate=least), "hard", least)

    return SampleFilter(judge=judge, value=0.05, state=lambda: _pinned(*AUDIO_ENCODERS[RECOGNIZER]().sources))


def _transcribed(sample: Sample) -> list[tuple[Audio, str]]:
    return [(sample.sound, sample.answer)] if sample.task == TRANSCRIBE else []


def _heard(
    samples: Sequence[Sample], sounds: Callable[[Sample], list[tuple[Audio, str]]], **bounds: float
) -> Sequence[str | None]:
    """Why samples go by word errors; every sound of one has to lie within the bounds, one without any stays."""
    each = [(place, *sound) for place, one in enumerate(samples) for sound in sounds(one)]
    judged = [replace(samples[place], content=(sound,), answer=words, choices=()) for place, sound, words in each]
    normalizer = NORMALIZERS["whisper_english"]
    heard = list(listen(judged, _recognizer().transcribe, normalizer)) if judged else []
    reasons: list[str | None] = [None] * len(samples)
    for (place, *_), reason in zip(each, filter_speech(heard, normalizer, **bounds).reasons, strict=True):
        reasons[place] = reasons[place] or reason
    return reasons


def _measured(name: str) -> SampleFilter:
    measure = SOUND_MEASURES[name]
    return SampleFilter(
        judge=partial(judge_sounds, name),
        value=measure.value,
        state=lambda: _pinned(*measure.packages),
        most=min(measure.most, sys.float_info.max),
    )


def voice() -> SampleFilter:
    """Sounds go in which somebody speaks for less than this share, such as noise and music."""
    return _measured("voice")


def speakers() -> SampleFilter:
    """Sounds go in which more people speak than this."""
    return _measured("speakers")


def snr() -> SampleFilter:
    """Sounds go whose speech is louder than the noise by fewer decibels than this."""
    return _measured("snr")


def clipping() -> SampleFilter:
    """Sounds go of which a larger share of the samples stands at either end of the scale."""
    return _measured("clipping")


def bandwidth() -> SampleFilter:
    """Sounds go that hold nothing above this frequency, Hz."""
    return _measured("bandwidth")


SAMPLE_FILTERS: dict[str, Callable[[], SampleFilter]] = {
    "loss": loss,
    "known": known,
    "distinct": distinct,
    "said": said,
    "hard": hard,
    "voice": voice,
    "speakers": speakers,
    "snr": snr,
    "clipping": clipping,
    "bandwidth": bandwidth,
}
"""Named with their thresholds where they are not their own, as in "said" or "said=0.1"."""


def filter_of(told: str) -> SampleFilter:
    """A filter as a source names it, with its threshold as its value: `loss`, `said=0.1`, `random=said=0.1`.

    Raises:
        LabError: an unknown filter, or a threshold that it does not take.
    """
    name, _, given = told.partition(VALUE)
    if name == RANDOM and given:
        like = filter_of(given)
        return replace(like, judge=partial(_as_many, like.judge))
    choose(dict.fromkeys((*SAMPLE_FILTERS, f"{RANDOM}{VALUE}FILTER")), name, "filter of samples")
    chosen = SAMPLE_FILTERS[name]()
    try:
        number = float(given) if given else chosen.value
    except ValueError:
        number = -1.0
    if not 0 <= number <= chosen.most:
        bounds = "of at least 0" if chosen.most == sys.float_info.max else f"from 0 to {chosen.most:g}"
        raise LabError(f"{told!r} has the value {given!r}; expected a number {bounds}, as in {name}={chosen.value:g}")
    return replace(chosen, value=number)


def _as_many(judge: Callable[[Sequence[Sample], float], Filtered], samples: Sequence[Sample], value: float) -> Filtered:
    """As many as a filter drops, drawn by the ids, whichever those are."""
    like = judge(samples, value)
    draws = [hashlib.sha256(f"{RANDOM} {one.id}".encode()).digest() for one in samples]
    drawn = np.zeros(len(samples), dtype=bool)
    drawn[sorted(range(len(samples)), key=draws.__getitem__)[: like.num_dropped]] = True
    return replace(like, reasons=first_reason({"drawn at random": drawn}), name=RANDOM)


def _read_kept(split: Split, count: int, inner: str, filters: str) -> tuple[list[Sample], LeftOut]:
    """The samples of the other data that pass one filter after the other; those of dev and test all do."""
    samples, left_out = open_samples(inner, split, count)
    for told in filters.split(JOIN) if split == "train" else ():
        chosen = filter_of(told)
        found = chosen.judge(samples, chosen.value)
        for one, reason in zip(samples, found.reasons, strict=True):
            if reason is not None:
                left_out.add(f"{told}: {reason}", one.id)
        samples = [one for one, stays in zip(samples, found.keep, strict=True) if stays]
        if not samples:
            raise LabError(f"filter {told!r} leaves no sample of {inner!r}; give another value. {found}")
    return samples, left_out


def _check_kept(inner: str, filters: str) -> None:
    for told in filters.split(JOIN):
        filter_of(told)
    check_source(inner)


def _state(inner: str, filters: str) -> str:
    return " ".join((sources_sha256(inner), *(filter_of(told).state() for told in filters.split(JOIN))))


KEPT = OuterSource(read=_read_kept, check=_check_kept, state=_state, options=("FILTERS",))
"""A source of samples of which filters have left out some."""
