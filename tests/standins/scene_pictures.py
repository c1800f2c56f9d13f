"""A cast of drawn stand-ins, so that scenes need no package: every class has things on each side of the split."""

from pathlib import Path

from PIL import Image, ImageDraw

from lab.data.splits import SPLITS, split_of
from standins.pictures.pictures import Picture
from standins.scenes.casts import THING_CLASSES

PER_SPLIT = 3


def picture(name: str, topic: str, path: Path = Path("none.png")) -> Picture:
    """A picture whose topic is `SOURCE/TOPIC` as in `THING_CLASSES`."""
    source, _, rest = topic.partition("/")
    return Picture(f"{source}/{rest}/{name}", path, f"A {name}.", rest.split("/")[0], source)


def stand_ins(folder: Path | None = None) -> list[Picture]:
    """Three things of each class and split, drawn as coloured triangles into `folder` where it is given."""
    made = []
    for number, (word, topics) in enumerate(THING_CLASSES.items()):
        for split in SPLITS:
            names = (f"{word}kin{n}" for n in range(1000))
            chosen = [name for name in names if split_of(name) == split][:PER_SPLIT]
            for place, name in enumerate(chosen):
                path = Path(f"{name}.png")
                if folder is not None:
                    path = folder / path
                    image = Image.new("RGBA", (60, 40))
                    colour = (25 * number, 80 * place, 200 - 20 * number, 255)
                    ImageDraw.Draw(image).polygon([(10, 30), (50, 30), (40, 10)], fill=colour)
                    image.save(path)
                topic = next(t for t in topics if t.startswith("stamps/"))
                made.append(picture(name, topic, path))
    return made
