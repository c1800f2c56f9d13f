"""Questions about courses: what moves, which way, does it grow, turn, hide; which came first, before, how many in all.

Each function makes a group of twins, one for each answer, as `standins.scenes.questions` says.
"""

from standins.drawn import Question
from standins.scenes.scene import THOUSAND, Actor, Key
from standins.scenes.stage import ROUND_TRIP, Spot, Stage, Twin, bouncing, leaving, moving, standing, visiting

NUMBERS = ("one", "two", "three")
PLACES: dict[str, Spot] = {"left": (200, 500), "right": (800, 500), "top": (500, 200), "bottom": (500, 800)}
_VISITS = 4
DIRECTIONS = ("left", "right", "up", "down")
# Broad enough that a small thing behind them is not seen, and always drawn whole.
COVERS = ("vehicle", "building", "flag", "food", "face", "sign")


def what_moves(stage: Stage) -> list[Twin]:
    """One of three things goes along its lane and bounces off the edges: at any moment it can be anywhere there."""
    words = stage.words(3)
    things = [(word, stage.picture(word), stage.size()) for word in words]
    upright, lanes = stage.dice.between(0, 1), stage.lane_middles()
    starts = [stage.along() for _ in things]
    spots = [(lane, start) if upright else (start, lane) for lane, start in zip(lanes, starts, strict=True)]
    milliseconds, (span,) = stage.events(1)
    way = stage.dice.pick((1, -1)) * stage.dice.pick((ROUND_TRIP, stage.dice.between(500, 1000)))
    choices, text = tuple(stage.dice.shuffled(words)), stage.dice.pick(("What moves?", "Which thing moves?"))
    twins = []
    for mover in words:
        actors = [
            Actor(picture, word, bouncing(spot, way, span, size, upright) if word == mover else standing(spot, size))
            for (word, picture, size), spot in zip(things, spots, strict=True)
        ]
        twins.append(Twin(milliseconds, actors, Question("moves", text, choices, mover)))
    return twins


def direction(stage: Stage) -> list[Twin]:
    """A thing goes from one place to another, straight or out at one side and in at the other: both ways end alike."""
    count = stage.still_count(1)
    words = stage.words(1 + count)
    size = stage.size()
    (left, right), (top, bottom) = stage.apart(), stage.apart()
    corners = [(x, y) for x in (left, right) for y in (top, bottom)]
    others = [
        Actor(stage.picture(word), word, standing(spot, stage.size()))
        for word, spot in zip(words[1:], stage.beside(corners, count), strict=False)
    ]
    picture, (milliseconds, (span,)) = stage.picture(words[0]), stage.events(1)
    in_front = stage.dice.between(0, 1)
    choices, period = tuple(stage.dice.shuffled(DIRECTIONS)), THOUSAND + size
    text = stage.dice.pick((f"Which way does the {words[0]} go?", f"Where does the {words[0]} move to?"))
    twins = []
    for way in DIRECTIONS:
        start = (left, top)
        forth_x, forth_y = (right - left) % period, (bottom - top) % period
        end = {
            "left": (left + forth_x - period, top),
            "right": (left + forth_x, top),
            "up": (left, top + forth_y - period),
            "down": (left, top + forth_y),
        }[way]
        mover = Actor(picture, words[0], moving(start, end, span, size))
        actors = [*others, mover] if in_front else [mover, *others]
        twins.append(Twin(milliseconds, actors, Question("direction", text, choices, way)))
    return twins


def ends(stage: Stage) -> list[Twin]:
    """A thing goes from one side of the frame to another: each side is an end, and the start of another twin's way."""
    (word,), size, (milliseconds, (span,)) = stage.words(1), stage.size(), stage.events(1)
    picture, choices, ring = stage.picture(word), tuple(stage.dice.shuffled(PLACES)), stage.dice.shuffled(PLACES)
    text = stage.dice.pick((f"Where is the {word} at the end?", f"On which side does the {word} end?"))
    twins = []
    for start, end in zip(ring, (*ring[1:], ring[0]), strict=True):
        mover = Actor(picture, word, moving(PLACES[start], PLACES[end], span, size))
        twins.append(Twin(milliseconds, [mover], Question("ends", text, choices, end)))
    return twins


def size_change(stage: Stage) -> list[Twin]:
    """A thing comes, grows or shrinks, and goes: one course is the other backwards."""
    words = stage.words(1 + stage.still_count(1))
    spots, (milliseconds, ((start, end),)) = stage.lane_spots(), stage.events(1)
    others = [
        Actor(stage.picture(word), word, standing(spot, stage.size()))
        for word, spot in zip(words[1:], spots[1:], strict=False)
    ]
    picture, small = stage.picture(words[0]), stage.dice.between(150, 240)
    large = small * stage.dice.between(170, 210) // 100
    choices = tuple(stage.dice.shuffled(("grow", "shrink")))
    text = f"Does the {words[0]} {choices[0]} or {choices[1]}?"
    twins = []
    for answer, first, last in (("grow", small, large), ("shrink", large, small)):
        keys = (
            Key(0, *spots[0], first, visible=False),
            Key(start, *spots[0], first),
            Key(end, *spots[0], last, visible=False),
        )
        actors = [*others, Actor(picture, words[0], keys)]
        twins.append(Twin(milliseconds, actors, Question("size_change", text, choices, answer)))
    return twins


def turns(stage: Stage) -> list[Twin]:
    """A thing stands at some angle; in one twin it turns round once and ends as it began."""
    words = stage.words(1 + stage.still_count(1))
    spots, (milliseconds, ((start, end),)) = stage.lane_spots(), stage.events(1)
    others = [
        Actor(stage.picture(word), word, standing(spot, stage.size(), stage.dice.between(0, 359)))
        for word, spot in zip(words[1:], spots[1:], strict=False)
    ]
    picture, size, angle = stage.picture(words[0]), stage.size(), stage.dice.between(0, 359)
    way = stage.dice.pick((360, -360))
    choices = tuple(stage.dice.shuffled(("yes", "no")))
    twins = []
    for answer, turn in (("yes", way), ("no", 0)):
        keys = (
            Key(0, *spots[0], size, angle),
            Key(start, *spots[0], size, angle),
            Key(end, *spots[0], size, angle + turn),
        )
        question = Question("turns", f"Does the {words[0]} turn?", choices, answer)
        twins.append(Twin(milliseconds, [*others, Actor(picture, words[0], keys)], question))
    return twins


def hides(stage: Stage) -> list[Twin]:
    """A small thing goes behind one of two large ones, stays there unseen, and comes back."""
    *covers, word = stage.words(3, among=COVERS)
    across, back, upright = (
        stage.dice.pick(((195, 805), (805, 195))),
        stage.dice.between(200, 800),
        stage.dice.between(0, 1),
    )
    along = [stage.dice.between(230, 770) for _ in covers]
    spots = [(a, b) if upright else (b, a) for a, b in zip(across, along, strict=True)]
    home = (500, back) if upright else (back, 500)
    others = [
        Actor(stage.picture(cover), cover, standing(spot, stage.dice.between(340, 380)))
        for cover, spot in zip(covers, spots, strict=True)
    ]
    picture, size = stage.picture(word), stage.dice.between(160, 190)
    milliseconds, ((start, end),) = stage.events(1)
    way = min(1000, (end - start) // 3)
    a, b = stage.dice.shuffled(covers)
    text = f"What did the {word} hide behind, the {a} or the {b}?"
    twins = []
    for cover, spot in zip(covers, spots, strict=True):
        keys = (
            Key(0, *home, size),
            Key(start, *home, size),
            Key(start + way, *spot, size, visible=False),
            Key(end - way, *spot, size),
            Key(end, *home, size),
        )
        twins.append(Twin(milliseconds, [Actor(picture, word, keys), *others], Question("hides", text, (a, b), cover)))
    return twins


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
