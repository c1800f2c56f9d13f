"""Questions about the order and the number of things that come and go: which was first, what came before, how many.

Each function makes a group of twins, one for each answer, as `standins.scenes.questions` says.
"""

from standins.drawn import Question
from standins.scenes.scene import Actor
from standins.scenes.stage import Stage, Twin, leaving, standing, visiting

NUMBERS = ("one", "two", "three")
_VISITS = 4


def came_first(stage: Stage) -> list[Twin]:
    """Two things come, and go in the order in which they came."""
    return _in_turn(stage, "came_first", "came", visits=True)


def left_first(stage: Stage) -> list[Twin]:
    """Two things go away, and come back in the order in which they went."""
    return _in_turn(stage, "left_first", "went away", visits=False)


def _in_turn(stage: Stage, kind: str, verb: str, *, visits: bool) -> list[Twin]:
    words = stage.words(2 + stage.still_count(2))
    things = [(word, stage.picture(word), stage.size()) for word in words]
    spots, (milliseconds, spans) = stage.lane_spots(), stage.overlapping()
    a, b = stage.dice.shuffled(words[:2])
    text = f"Which {verb} first, the {a} or the {b}?"
    others = [Actor(picture, word, standing(spots[2], size)) for word, picture, size in things[2:]]
    twins = []
    for first in words[:2]:
        actors = []
        for (word, picture, size), spot in zip(things[:2], spots[:2], strict=True):
            span = spans[0] if word == first else spans[1]
            keys = visiting([spot], [span], size) if visits else leaving(spot, span, size)
            actors.append(Actor(picture, word, keys))
        twins.append(Twin(milliseconds, [*others, *actors], Question(kind, text, (a, b), first)))
    return twins


def just_before(stage: Stage) -> list[Twin]:
    """Three things come and go in turn, round and round from any of them; the twin goes round the other way."""
    words = stage.words(3)
    things = [(word, stage.picture(word), stage.size()) for word in words]
    spots, (milliseconds, spans) = stage.lane_spots(), stage.events(_VISITS)
    begin, asked = stage.dice.between(0, 2), stage.dice.pick(words)
    around = [word for word in words if word != asked]
    choices = tuple(stage.dice.shuffled(around))
    text = stage.dice.pick(("What came just before the {}?", "Right before the {}, what was there?")).format(asked)
    twins = []
    for answer in around:
        circle = [answer, asked, *(word for word in around if word != answer)]
        visits = {word: [n for n in range(_VISITS) if circle[(begin + n) % 3] == word] for word in words}
        actors = [
            Actor(picture, word, visiting([spot] * _VISITS, [spans[n] for n in visits[word]], size))
            for (word, picture, size), spot in zip(things, spots, strict=True)
        ]
        twins.append(Twin(milliseconds, actors, Question("before", text, choices, answer)))
    return twins


def how_many(stage: Stage) -> list[Twin]:
    """Four times something comes and goes, never two at once: one thing again and again, or two, or three."""
    words = stage.words(3)
    things = [(word, stage.picture(word), stage.size()) for word in words]
    milliseconds, spans = stage.events(_VISITS)
    spots = [*stage.lane_spots(), *stage.lane_spots()][:_VISITS]
    choices = tuple(stage.dice.shuffled(NUMBERS))
    text = stage.dice.pick(("How many different things came in all?", "How many different things were there in all?"))
    # The first two classes are of the split by themselves, so they are the ones that come when only two do.
    one, both, every = [stage.dice.pick(words)], words[:2], words
    twins = []
    for number, cast in zip(NUMBERS, (one, both, every), strict=True):
        visitors = stage.dice.shuffled([*cast, *(stage.dice.pick(cast) for _ in range(_VISITS - len(cast)))])
        actors = []
        for word, picture, size in things:
            own = [visit for visit, visitor in enumerate(visitors) if visitor == word]
            actors.append(Actor(picture, word, visiting([spots[v] for v in own], [spans[v] for v in own], size)))
        twins.append(Twin(milliseconds, actors, Question("how_many", text, choices, number)))
    return twins
