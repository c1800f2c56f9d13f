"""Questions about pictures and video from the hub's data sets, in the same form as the project's own.

Section 3 of the paper: captions and instructions for images, ShareGPT4Video, WebVid, ActivityNet-QA, NExT-QA. A source
is named by its form and its data set, as in "next_qa@hub:OWNER/NAME:config:split".
"""

import re
from collections import Counter
from functools import partial

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from lab.data.hub import parse_name, read_samples
from lab.data.images import read_image
from lab.data.splits import Split
from lab.data.video.reading import read_video
from lab.data.vision_forms import Sample
from lab.data.vision_hub import media_file
from lab.errors import LabError
from lab.paths import cache_dir, media_dir
from lab.training.vision_example import Sight, VisionExample

_MARK = re.compile(r"\s*<(image|video)>\s*")


def hub_examples(form: str, name: str, split: Split, count: int, sight: Sight) -> list[VisionExample]:
    """The first `count` usable rows of a data set; of a split that `name` names itself, else of `split`.

    A sample without a picture or video is left out, and one of several pictures, of which one alone could be shown.
    Data sets that ask several questions under one id have them numbered. Media with a web address are fetched when they
    are first seen, and kept; files that rows name lie in `lab.paths.media_dir()/OWNER/NAME`.

    Raises:
        LabError: as `read_samples`, or no row is usable.
    """
    named = name if name.count(":") > 2 else f"{name}{':' * (3 - name.count(':'))}{split}"
    found: list[VisionExample] = []
    asked: Counter[str] = Counter()
    dataset, _, _ = parse_name(name)
    for sample in read_samples(named, form=form, root=media_dir() / dataset).samples:
        if sample.video is None and len(sample.images) != 1:
            continue
        asked[sample.id] += 1
        number = f"-{asked[sample.id]}" if asked[sample.id] > 1 else ""
        found.append(_example(f"{form}-{sample.id}{number}", form, sample, sight))
        if len(found) == count:
            break
    if not found:
        raise LabError(f"{name!r} has no row of form {form!r} with one picture or a video")
    return found


def _example(key: str, form: str, sample: Sample, sight: Sight) -> VisionExample:
    return VisionExample(
        id=key,
        group=sample.id if sample.video is None or isinstance(sample.video, bytes) else str(sample.video),
        kind=form,
        question=_MARK.sub(" ", sample.question).strip(),
        choices=sample.choices,
        answer=sample.answer,
        see=partial(_see, sample, sight),
    )


def _see(sample: Sample, sight: Sight) -> tuple[UInt8[ndarray, "frames height width 3"], tuple[float, ...]]:
    if sight.max_frames == 0:
        return np.zeros((0, 1, 1, 3), dtype=np.uint8), ()
    folder = cache_dir() / "media"
    if sample.video is None:
        image = sample.images[0]
        picture = read_image(image if isinstance(image, bytes) else media_file(image, folder=folder))
        return np.asarray(picture)[None], (0.0,)
    path = media_file(sample.video, folder=folder)
    if sight.max_frames == 1:
        # Of first, middle and last frame the middle one: a reader that is asked for one gives the first.
        video = read_video(path, frames_per_second=1000.0, max_frames=3)
        middle = len(video.frames) // 2
        return video.frames[middle : middle + 1], (float(video.seconds[middle]),)
    video = read_video(path, frames_per_second=sight.frames_per_second, max_frames=sight.max_frames)
    return video.frames, tuple(float(second) for second in video.seconds)
