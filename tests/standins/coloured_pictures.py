"""Pictures that a tower can learn in a few steps: squares whose colour is their name."""

from standins.pictures.pictures import Picture
from tests.data.fakes import drawing

COLOURS = {"red": (255, 0, 0, 255), "green": (0, 255, 0, 255), "blue": (0, 0, 255, 255), "white": (255,) * 4}
SHAPES = ("door", "lamp", "coat", "boat", "sock", "car", "hat", "cup")


def coloured_pictures(folder) -> list[Picture]:
    """32 pictures, one a colour and shape, of which only the colour is drawn; the colour is the topic, too."""
    pictures = []
    for colour, value in COLOURS.items():
        for shape in SHAPES:
            path = folder / f"{colour}-{shape}.png"
            path.write_bytes(drawing(value))
            pictures.append(Picture(f"emoji/{path.stem}", path, f"{colour} {shape}", f"{colour}/all", "emoji"))
    return pictures
