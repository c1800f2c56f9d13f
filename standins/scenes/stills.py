"""Questions about stills of the same stage, for the image-text stage: what, where, how many, which is larger.

A still is a scene of no length: `frame(scene, 0.0, size)` draws it. Each function makes a group of twins, one for each
answer, as `standins.scenes.questions` says.
"""

from standins.drawn import Question
from standins.scenes.courses import NUMBERS, PLACES
from standins.scenes.scene import THOUSAND, Actor, Scene
from standins.scenes.stage import Spot, Stage, Twin, standing

CHOICES = 4
_CORNERS: tuple[Spot, ...] = ((220, 220), (780, 220), (220, 780), (780, 780))
_SHAKE = 50
_LARGE = 350


def _shaken(stage: Stage, spot: Spot) -> Spot:
    return (spot[0] + stage.dice.between(-_SHAKE, _SHAKE), spot[1] + stage.dice.between(-_SHAKE, _SHAKE))


def what(stage: Stage) -> list[Twin]:
    """One thing, large, to be named by its class."""
    words = stage.dice.shuffled(stage.cast)[:CHOICES]
    spot, size = _shaken(stage, (500, 500)), stage.dice.between(400, 800)
    text = stage.dice.pick(("What is in the picture?", "What is this?", "What can be seen here?"))
    return [
        Twin(
            0,
            [Actor(stage.picture(word), word, standing(spot, size))],
            Question("what", text, tuple(words), word),
        )
        for word in words
    ]


def where(stage: Stage) -> list[Twin]:
    """One thing at one of four sides, and perhaps others in the corners."""
    words = stage.words(1 + stage.still_count(1))
    picture, size = stage.picture(words[0]), stage.size()
    shake = _shaken(stage, (0, 0))
    others = [
        Actor(stage.picture(word), word, standing(corner, stage.size() * 3 // 4))
        for word, corner in zip(words[1:], stage.dice.shuffled(_CORNERS), strict=False)
    ]
    choices = tuple(stage.dice.shuffled(PLACES))
    text = stage.dice.pick((f"Where is the {words[0]}?", f"On which side is the {words[0]}?"))
    twins = []
    for place, (x, y) in PLACES.items():
        actor = Actor(picture, words[0], standing((x + shake[0], y + shake[1]), size))
        twins.append(Twin(0, [*others, actor], Question("where", text, choices, place)))
    return twins


def number(stage: Stage) -> list[Twin]:
    """One to three things, each in a lane of its own."""
    words, spots = stage.words(3), stage.lane_spots()
    actors = [
        Actor(stage.picture(word), word, standing(spot, stage.size())) for word, spot in zip(words, spots, strict=True)
    ]
    choices = tuple(stage.dice.shuffled(NUMBERS))
    text = stage.dice.pick(("How many things are there?", "How many things are in the picture?"))
    return [
        Twin(0, actors[: number + 1], Question("number", text, choices, name)) for number, name in enumerate(NUMBERS)
    ]


def larger(stage: Stage) -> list[Twin]:
    """Two things, one about twice the size of the other."""
    words = stage.words(2)
    pictures = [stage.picture(word) for word in words]
    spots = stage.dice.shuffled(((270, 270 + stage.dice.between(0, 460)), (730, 270 + stage.dice.between(0, 460))))
    small = stage.dice.between(180, 230)
    large = small * stage.dice.between(190, 220) // 100
    a, b = stage.dice.shuffled(words)
    which = stage.dice.pick(("larger", "smaller"))
    text = f"Which is {which}, the {a} or the {b}?"
    twins = []
    for answer in words:
        sizes = [large if (word == answer) == (which == "larger") else small for word in words]
        actors = [
            Actor(picture, word, standing(spot, size))
            for picture, word, spot, size in zip(pictures, words, spots, sizes, strict=True)
        ]
        twins.append(Twin(0, actors, Question("larger", text, (a, b), answer)))
    return twins


def described(scene: Scene) -> str:
    """What there is, how large and where, from left to right: "a small cat on the left and a large ball in the middle".

    Sizes are told where things stand together; thirds of the frame tell places.
    """
    return " and ".join(_told(actor) for actor in sorted(scene.actors, key=lambda one: (one.keys[0].x, one.keys[0].y)))


def _told(actor: Actor) -> str:
    key = actor.keys[0]
    places = (_third(key.y, ("at the top", "", "at the bottom")), _third(key.x, ("on the left", "", "on the right")))
    where = " ".join(filter(None, places)) or "in the middle"
    return f"a {'large' if key.size > _LARGE else 'small'} {actor.word} {where}"


def _third(place: int, words: tuple[str, str, str]) -> str:
    return words[min(max(place * 3 // THOUSAND, 0), 2)]
