"""Tux Paint's stamps: drawings and photographs of things, each with a caption in many languages.

Of the 952 captions of tuxpaint-stamps-default 2022.06.04, 785 have a PNG: these are read, all with an English caption,
713 with a Chinese one too (775 of the 952). 165 are drawn only as SVG, which no library that we depend on can render,
and 2 have no picture; 11 PNGs are mirror images of another stamp, without a caption of their own.
"""

from collections import Counter

from lab.data.fetch import fetch
from lab.errors import LabError
from standins.pictures.things import Picture, PictureReading

PACKAGE = "tuxpaint-stamps-default"
FOLDER = "usr/share/tuxpaint/stamps"
SOURCE = "stamps"
_CHINESE = "zh_CN.utf8="


def captions_of(text: str) -> dict[str, str]:
    """Read a stamp's captions: the first line is English, the others are `LOCALE=caption`.

    >>> captions_of("A cow.\\nde.utf8=Eine Kuh.\\nzh_CN.utf8=牛。")
    {'en': 'A cow.', 'zh': '牛。'}
    """
    english, *others = text.splitlines() or [""]
    chinese = next((line.removeprefix(_CHINESE) for line in others if line.startswith(_CHINESE)), "")
    found = {"en": english.strip(), "zh": chinese.strip()}
    return {language: caption for language, caption in found.items() if caption}


def read_stamps() -> PictureReading:
    """Read the stamps that have a PNG; a stamp's topic is its top folder, such as `animals`.

    Raises:
        LabError: the package cannot be fetched, or its folder of stamps is gone.
    """
    root = fetch(PACKAGE) / FOLDER
    if not root.is_dir():
        raise LabError(f"{root} is missing; delete {fetch(PACKAGE)} to fetch it again")
    pictures: list[Picture] = []
    skipped: Counter[str] = Counter()
    drawn = {path.with_suffix("") for path in root.rglob("*.png")}
    for path in sorted(root.rglob("*.txt")):
        stamp = path.with_suffix("")
        if stamp not in drawn:
            skipped["only an SVG" if path.with_suffix(".svg").exists() else "caption without a picture"] += 1
            continue
        drawn.remove(stamp)
        captions = captions_of(path.read_text(encoding="utf-8", errors="replace"))
        if "en" not in captions:
            skipped["no English caption"] += 1
            continue
        place = stamp.relative_to(root)
        pictures.append(
            Picture(f"{SOURCE}/{place.as_posix()}", path.with_suffix(".png"), captions, place.parts[0], SOURCE)
        )
    mirrored = sum(stamp.name.endswith("_mirror") for stamp in drawn)
    skipped["mirror image of another stamp"] = mirrored
    skipped["picture without a caption"] = len(drawn) - mirrored
    return PictureReading(pictures, +skipped)
