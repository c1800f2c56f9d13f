"""Speech held against its text by a recogniser: kept where both agree, or where they do not (section 3).

Prompts made by TTS stay where an ASR transcript matches them (the paper's threshold: not found, so it is a parameter);
a separate ASR set loses the samples that are already easy. Judging is apart from listening, so that many thresholds
cost one pass, which `KeptTranscripts` keeps for the next run. Errors count words, or characters where
the normaliser reports no words (Chinese).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from lab.data.filters.filtering import Dropped, Filtered
from lab.data.instructions.instructions import in_batches
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

    `error_rate` is errors over the length of the text, a fraction; above 1 where more was heard than said. Where there
    is none, `reason` is one of the two constants above and `problem` the sentence that says it.
    """

    id: str
    text: str
    transcript: str = ""
    error_rate: float = math.nan
    reason: str | None = None
    problem: str = ""


Transcribe = Callable[[Sequence[Float[ndarray, " samples"]]], Sequence[str]]


def listen(
    recordings: Iterable[Sample], transcribe: Transcribe, normalizer: Normalizer, *, batch_size: int = 64
) -> Iterator[Heard]:
    """Transcribe recordings as they come, one `Heard` each, in their order; `batch_size` of them are held at a time.

    A recording whose audio cannot be read, or is too short or not finite, comes out with its reason, as does a text of
    which the normaliser leaves nothing; no recording is lost and none ends the run.
    """
    unit = _unit(normalizer)
    for batch in in_batches(recordings, batch_size):
        clips: dict[int, Float[ndarray, " samples"]] = {}
        heard: dict[int, Heard] = {}
        for place, recording in enumerate(batch):
            try:
                clips[place] = _clip(recording, normalizer)
            except Dropped as dropped:
                problem = f"{recording.id}: {dropped.__cause__}"
                heard[place] = Heard(id=recording.id, text=recording.answer, reason=str(dropped), problem=problem)
        said = [batch[place] for place in clips]
        transcripts = list(transcribe(list(clips.values()))) if clips else []
        table = text_errors([r.answer for r in said], transcripts, normalizer, [r.id for r in said])
        rates = (table[f"{unit}_errors"] / table[f"num_{unit}s"]).tolist()
        for place, one, transcript, rate in zip(clips, said, transcripts, rates, strict=True):
            heard[place] = Heard(id=one.id, text=one.answer, transcript=transcript, error_rate=rate)
        yield from (heard[place] for place in range(len(batch)))


def _unit(normalizer: Normalizer) -> str:
    return "word" if "wer" in normalizer.reports else "character"


def _clip(recording: Sample, normalizer: Normalizer) -> Float[ndarray, " samples"]:
    if not normalizer(recording.answer):
        problem = f"the normaliser {normalizer.name!r} leaves nothing of {recording.answer!r}"
        raise Dropped(UNSCORED) from LabError(problem)
    try:
        samples = recording.sound.read()
        if (seconds := len(samples) / SAMPLING_RATE) < MIN_SECONDS:
            raise LabError(f"{seconds:.3f} seconds of audio, expected at least {MIN_SECONDS}")
    except LabError as error:
        raise Dropped(UNREADABLE) from error
    return samples


def filter_speech(
    heard: Sequence[Heard], normalizer: Normalizer, *, min_error_rate: float = 0.0, max_error_rate: float = math.inf
) -> Filtered:
    """Keep speech whose error rate lies within two bounds, both included.

    At most so much keeps speech whose transcript agrees with its text; at least so much drops what is already easy.

    Raises:
        LabError: a bound below 0, or not a number.
    """
    for name, bound in (("min_error_rate", min_error_rate), ("max_error_rate", max_error_rate)):
        if not bound >= 0:
            raise LabError(f"{name} is {bound}, expected at least 0 (a fraction: 0.2 is one word wrong in five)")
    reasons = [
        one.reason
        or ("transcript disagrees" if one.error_rate > max_error_rate else None)
        or ("easy" if one.error_rate < min_error_rate else None)
        for one in heard
    ]
    parameters = {
        "min_error_rate": min_error_rate,
        "max_error_rate": max_error_rate,
        "unit": f"{_unit(normalizer)}s",
        "normalizer": f"{normalizer.name} {normalizer.version}",
    }
    return Filtered([one.id for one in heard], reasons, name="speech_agreement", parameters=parameters)
