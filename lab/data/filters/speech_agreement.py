"""Speech held against its text by a recogniser: kept where both agree, or where they do not (section 3).

Prompts made by TTS stay where an ASR transcript matches them (the paper's threshold: not found, so it is a parameter);
a separate ASR set loses the samples that are already easy. Judging is apart from listening, so that many thresholds
cost one pass, which `lab.evaluation.kept_transcripts` keeps for the next run. `errors` and `length` count words, or
characters where the normaliser reports no words (Chinese).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lab.data.filters.filtering import Filtered
from lab.data.normalizers import Normalizer, text_errors
from lab.data.sample import Sample
from lab.data.speech.audio import SAMPLING_RATE
from lab.errors import LabError

# Whisper's spectrogram needs 25 ms; nothing is said in less than this.
MIN_SECONDS = 0.1
UNREADABLE, UNSCORED = "audio that cannot be read", "text empty after the normaliser"


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What the recogniser made of one recording.

    Where there is no error rate, `reason` is one of the two constants above and `problem` the sentence that says it.
    """

    id: str
    text: str
    transcript: str = ""
    errors: int = 0
    length: int = 0
    reason: str | None = None
    problem: str = ""

    @property
    def error_rate(self) -> float:
        """Errors over the length of the text, a fraction; above 1 where more was heard than said.

        Raises:
            LabError: there is none.
        """
        if self.reason is not None:
            raise LabError(self.problem)
        return self.errors / self.length


Transcribe = Callable[[Sequence[Float[ndarray, " samples"]]], Sequence[str]]


def listen(
    recordings: Iterable[Sample], transcribe: Transcribe, normalizer: Normalizer, *, batch_size: int = 64
) -> Iterator[Heard]:
    """Transcribe recordings as they come, one `Heard` each, in their order; `batch_size` of them are held at a time.

    A recording whose audio cannot be read, or is too short or not finite, comes out with its reason, as does a text of
    which the normaliser leaves nothing; no recording is lost and none ends the run.

    Raises:
        LabError: `batch_size` below 1.
    """
    if batch_size < 1:
        raise LabError(f"batch_size is {batch_size}, expected at least 1")
    return _listen(recordings, transcribe, normalizer, batch_size)


def _listen(
    recordings: Iterable[Sample], transcribe: Transcribe, normalizer: Normalizer, batch_size: int
) -> Iterator[Heard]:
    source = iter(recordings)
    while batch := list(islice(source, batch_size)):
        clips = [_clip(recording, normalizer) for recording in batch]
        audio = [clip for clip in clips if not isinstance(clip, Heard)]
        said = [recording for recording, clip in zip(batch, clips, strict=True) if not isinstance(clip, Heard)]
        transcripts = list(transcribe(audio)) if audio else []
        table = text_errors([r.answer for r in said], transcripts, normalizer, [r.id for r in said])
        unit = "word" if "wer" in normalizer.reports else "character"
        scores = iter(zip(said, transcripts, table[f"{unit}_errors"], table[f"num_{unit}s"], strict=True))
        for clip in clips:
            if isinstance(clip, Heard):
                yield clip
                continue
            recording, transcript, errors, length = next(scores)
            yield Heard(
                id=recording.id, text=recording.answer, transcript=transcript, errors=int(errors), length=int(length)
            )


def _clip(recording: Sample, normalizer: Normalizer) -> Float[ndarray, " samples"] | Heard:
    """The audio, or the account of why there is none."""

    def refused(reason: str, problem: str) -> Heard:
        return Heard(id=recording.id, text=recording.answer, reason=reason, problem=problem)

    if not normalizer(recording.answer):
        return refused(
            UNSCORED, f"{recording.id}: the normaliser {normalizer.name!r} leaves nothing of {recording.answer!r}"
        )
    try:
        samples = recording.sound.read()
    except LabError as error:
        return refused(UNREADABLE, f"{recording.id}: {error}")
    if len(samples) < MIN_SECONDS * SAMPLING_RATE:
        seconds = len(samples) / SAMPLING_RATE
        return refused(
            UNREADABLE, f"{recording.id} has {seconds:.3f} seconds of audio, expected at least {MIN_SECONDS}"
        )
    if not np.isfinite(samples).all():
        return refused(UNREADABLE, f"{recording.id} has audio samples that are not finite numbers")
    return samples


def keep_agreeing(heard: Sequence[Heard], normalizer: Normalizer, *, max_error_rate: float) -> Filtered:
    """Keep speech whose transcript has an error rate of at most `max_error_rate` against its text.

    Raises:
        LabError: a threshold below 0, or not a number.
    """
    _check("max_error_rate", max_error_rate)
    reasons = [h.reason or (None if h.error_rate <= max_error_rate else "transcript disagrees") for h in heard]
    return _judged(heard, reasons, normalizer, "keep_agreeing", {"max_error_rate": max_error_rate})


def drop_easy(heard: Sequence[Heard], normalizer: Normalizer, *, min_error_rate: float) -> Filtered:
    """Drop the samples that the recogniser already gets right: error rate below `min_error_rate`.

    Raises:
        LabError: a threshold below 0, or not a number.
    """
    _check("min_error_rate", min_error_rate)
    reasons = [h.reason or ("easy" if h.error_rate < min_error_rate else None) for h in heard]
    return _judged(heard, reasons, normalizer, "drop_easy", {"min_error_rate": min_error_rate})


def _check(name: str, threshold: float) -> None:
    if not threshold >= 0:
        raise LabError(f"{name} is {threshold}, expected at least 0 (a fraction: 0.2 is one word wrong in five)")


def _judged(
    heard: Sequence[Heard],
    reasons: Sequence[str | None],
    normalizer: Normalizer,
    name: str,
    parameters: Mapping[str, float],
) -> Filtered:
    unit = "words" if "wer" in normalizer.reports else "characters"
    settings = {**parameters, "unit": unit, "normalizer": f"{normalizer.name} {normalizer.version}"}
    return Filtered([h.id for h in heard], reasons, name=name, parameters=settings)


SPEECH_FILTERS: Mapping[str, Callable[..., Filtered]] = {"keep_agreeing": keep_agreeing, "drop_easy": drop_easy}
