"""Cross-modal samples: image and prompt stay, a quarter of the answer is spoken, the rest is to be written (section 3).

The paper speaks the first quarter with 44 timbres; a video brings its own sound track instead.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lab.data.cross_modal_text import MIN_UNITS, SPOKEN_SHARE, split_quarter
from lab.data.filters.filtering import Dropped, LeftOut, made_of_each
from lab.data.media import Drawn, media_file
from lab.data.sample import Audio, Image, Sample, Video
from lab.data.speech.spoken_prompts import SPEEDS, SpeechStore, telling
from lab.data.video.reading import read_sound
from lab.errors import LabError


def spoken_quarters(
    samples: Iterable[Sample],
    store: SpeechStore,
    left_out: LeftOut,
    *,
    voices: Sequence[str],
    seed: int = 0,
    speeds: Sequence[float] = SPEEDS,
    share: float = SPOKEN_SHARE,
    min_units: int = MIN_UNITS,
) -> Iterator[Sample]:
    """Split each answer 1:3: its first quarter stands behind the content as a sound, the rest is the answer.

    The voice is drawn by the sample's id, and says the quarter when the sound is read. Answers that are too short or
    have no place to part them are left out and named; so are samples of neither image nor video.

    Raises:
        LabError: an unknown voice, an impossible speed, none of either, or a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise LabError(f"the spoken share is {share}, expected a fraction between 0 and 1")
    draw = telling(voices, speeds, seed)

    def make(sample: Sample) -> Sample:
        if not any(isinstance(part, Image | Video) for part in sample.content):
            raise Dropped("neither image nor video")
        try:
            quarter = split_quarter(sample.answer, sample=sample.id, share=share, min_units=min_units)
        except LabError as error:
            raise Dropped("answer that cannot be split") from error
        voice, speed = draw(sample.id)
        spoken = Audio(Drawn(store.audio, (quarter.spoken, voice, speed)), speaker=voice)
        return replace(sample, content=(*sample.content, spoken), answer=quarter.written, choices=())

    return made_of_each(samples, make, left_out)


def with_own_sound(samples: Iterable[Sample], left_out: LeftOut) -> Iterator[Sample]:
    """Give each video its own sound track, as a sound behind it; what has none, or a broken one, is left out and named.

    A sound is decoded once as its sample passes, to know that it can be.
    """

    def make(sample: Sample) -> Sample:
        videos = [part for part in sample.content if isinstance(part, Video)]
        if len(videos) != 1 or isinstance(videos[0].source, Drawn):
            raise Dropped("not of one video with a file")
        try:
            sound = read_sound(media_file(videos[0].source))
        except LabError as error:
            raise Dropped("sound that cannot be read") from error
        if sound is None:
            raise Dropped("video without sound")
        at = sample.content.index(videos[0]) + 1
        return replace(sample, content=(*sample.content[:at], Audio(videos[0].source), *sample.content[at:]))

    return made_of_each(samples, make, left_out)
