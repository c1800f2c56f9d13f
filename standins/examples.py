"""Pictures and a video to look at where nobody brings any."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from lab.data.images import read_image
from standins.pages.page_settings import PAGES
from standins.pages.rendered_text import make_page, render
from standins.pictures.pictures import PICTURE_SOURCES
from standins.pictures.things import caption_name
from standins.scenes.questions import video_scene
from standins.scenes.rendering import write_video


def example_pictures(*, seed: int = 0, folder: Path | None = None) -> dict[str, UInt8[ndarray, "height width 3"]]:
    """Pictures of several shapes to look at: a page of small text, a stamp, an emoji; and those of a folder.

    Raises:
        LabError: a file of the folder that cannot be read as a picture.
    """
    page = make_page(PAGES["labelled"], seed=seed, index=0, split="test")
    found = {"page of small text": render(page)}
    for name in ("stamps", "emoji"):
        pictures = PICTURE_SOURCES[name]().pictures
        one = pictures[int(np.random.default_rng(seed).integers(len(pictures)))]
        found[f"{name}: {caption_name(one.captions['en'])}"] = np.asarray(read_image(one.path))
    for path in sorted(path for path in folder.iterdir() if path.is_file()) if folder else ():
        found[path.name] = np.asarray(read_image(path))
    return found


def example_video(folder: Path, *, seed: int = 0, index: int = 0) -> tuple[Path, str]:
    """A composed scene of the test set as a file in `folder`, made if it is not there, and what is asked about it."""
    scene = video_scene(index, seed=seed, split="test")
    path = folder / f"{scene.id}.mp4"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_video(scene, path)
    asked = scene.question
    return path, f"{asked.text} ({', '.join(asked.choices)}): {asked.answer}"
