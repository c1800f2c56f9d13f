"""Cross-modal samples: image and prompt stay, a quarter of the answer is spoken, the rest is to be written (section 3).

The paper speaks the first quarter with 44 timbres; a video brings its own sound track instead.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from lab.data.cross_modal_text import MIN_UNITS, SPOKEN_SHARE, split_quarter
from lab.data.filters.streamed import Dropped, Streamed, streamed
from lab.data.speech.spoken_prompts import SPEEDS, SpeechStore, telling
from lab.data.video.reading import read_sound
from lab.data.vision_forms import Media, Sample
from lab.data.vision_hub import media_file
from lab.errors import LabError
from lab.paths import cache_dir


@dataclass(frozen=True, kw_only=True)
class CrossModalSample:
    """What the model is given (`prompt`, `images` or `video`, `audio`: float32, 16 kHz) and what it must write.

    Where `spoken` is not empty, `spoken + blank + target` is the answer that the sample was made of, exactly; `voice`
    and `speed` say it. A video's own sound has no voice, and the whole answer is the target.
    """

    id: str
    prompt: str
    images: tuple[Media, ...]
    video: Media | None
    audio: Callable[[], Float[ndarray, " samples"]]
    target: str
    spoken: str = ""
    blank: str = ""
    voice: str = ""
    speed: float = 1.0


def spoken_quarters(
    samples: Iterable[Sample],
    store: SpeechStore,
    *,
    voices: Sequence[str],
    seed: int = 0,
    speeds: Sequence[float] = SPEEDS,
    share: float = SPOKEN_SHARE,
    min_units: int = MIN_UNITS,
) -> Streamed[CrossModalSample]:
    """Split each answer 1:3; its first quarter is spoken, by a voice drawn by the sample's id, when `audio` is called.

    Answers that are too short or have no place to part them are counted; so are samples of neither image nor video.

    Raises:
        LabError: an unknown voice, an impossible speed, none of either, or a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise LabError(f"the spoken share is {share}, expected a fraction between 0 and 1")
    draw = telling(voices, speeds, seed)

    def make(sample: Sample) -> CrossModalSample:
        if not sample.images and sample.video is None:
            raise Dropped("neither image nor video")
        try:
            quarter = split_quarter(sample.answer, sample=sample.id, share=share, min_units=min_units)
        except LabError as error:
            raise Dropped("answer that cannot be split") from error
        voice, speed = draw(sample.id)
        return CrossModalSample(
            id=sample.id,
            prompt=sample.question,
            images=sample.images,
            video=sample.video,
            audio=partial(store.audio, quarter.spoken, voice, speed),
            target=quarter.written,
            spoken=quarter.spoken,
            blank=quarter.blank,
            voice=voice,
            speed=speed,
        )

    parameters = {"share": share, "min_units": min_units, "voices": len(voices), "seed": seed}
    return streamed(samples, lambda sample: sample.id, make, name="spoken_quarters", parameters=parameters)


def with_own_sound(samples: Iterable[Sample], *, folder: Path | None = None) -> Streamed[CrossModalSample]:
    """Give each video its own sound track as audio; what has none, or one that cannot be read, is counted.

    `folder` keeps videos that are bytes or web addresses. A sound is decoded as its sample passes, one at a time.
    """
    kept = folder or cache_dir() / "media"

    def make(sample: Sample) -> CrossModalSample:
        if sample.video is None:
            raise Dropped("no video")
        try:
            sound = read_sound(media_file(sample.video, folder=kept))
        except LabError as error:
            raise Dropped("sound that cannot be read") from error
        if sound is None:
            raise Dropped("video without sound")
        return CrossModalSample(
            id=sample.id,
            prompt=sample.question,
            images=sample.images,
            video=sample.video,
            audio=lambda: sound,
            target=sample.answer,
        )

    return streamed(samples, lambda sample: sample.id, make, name="with_own_sound", parameters={})
