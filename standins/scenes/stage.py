"""What scenes are put together from: places, courses and times, drawn for a whole group of twins at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.data.splits import Split
from lab.errors import LabError
from standins.drawn import Question
from standins.pictures.pictures import Picture
from standins.scenes.casts import Cast, Dice, draw_words
from standins.scenes.scene import THOUSAND, Actor, Key

Spot = tuple[int, int]
Span = tuple[int, int]

_EDGE = 165
# From anywhere on a line to both of its ends and back.
ROUND_TRIP = 2 * (THOUSAND - 2 * _EDGE)
_LANES = (170, 500, 830)
_MARGIN = 500
_GAP = (300, 1200)
_TRIES = 200


@dataclass(frozen=True)
class SceneOptions:
    """The ranges, both ends included, that scenes are drawn from.

    `seconds` is a scene's length; it is raised for kinds whose events would not fit. `event_seconds` is how long one
    event lasts, so a model that sees a frame every so many seconds misses the shorter ones.
    """

    seconds: tuple[float, float] = (8.0, 48.0)
    event_seconds: tuple[float, float] = (2.0, 6.0)

    def __post_init__(self) -> None:
        limits = {
            "seconds": (1.0, 3600.0),
            "event_seconds": (0.5, 600.0),
        }
        for name, (lowest, highest) in limits.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise LabError(
                    f"scene option {name} is {(low, high)}; expected a range in {lowest} to {highest}, low end first"
                )


@dataclass(frozen=True)
class Twin:
    """One scene of a group: its actors in the order in which they are drawn, and its question."""

    milliseconds: int
    actors: Sequence[Actor]
    question: Question


@dataclass
class Stage:
    """The dice, the cast and the options of one group of twins."""

    dice: Dice
    cast: Cast
    split: Split
    options: SceneOptions = field(default_factory=SceneOptions)

    def words(self, count: int, among: Sequence[str] | None = None) -> list[str]:
        """Draw different classes that may stand together; `among` limits the first two."""
        return draw_words(self.dice, count, self.split, among or list(self.cast))

    def still_count(self, others: int) -> int:
        """Draw how many things only stand there, beside `others`; three in all at most."""
        return self.dice.between(0, min(2, 3 - others))

    def picture(self, word: str) -> Picture:
        """Draw a picture of a class."""
        return self.dice.pick(self.cast[word])

    def size(self) -> int:
        """Draw the size of a thing, the longer side of it."""
        return self.dice.between(260, 330)

    def events(self, count: int, longer: int = 0) -> tuple[int, list[Span]]:
        """Draw the length of a scene and `count` events, one after the other, somewhere in it.

        There is room for `longer` milliseconds behind the last one.

        Where in the scene they lie is uniform, so that a moment does not tell whether it is early or late in them.
        """
        low, high = (round(seconds * THOUSAND) for seconds in self.options.event_seconds)
        shortest, longest = (round(seconds * THOUSAND) for seconds in self.options.seconds)
        needed = count * (low + _GAP[1]) + 2 * _MARGIN + longer
        milliseconds = self.dice.between(max(shortest, needed), max(longest, needed))
        most = (milliseconds - 2 * _MARGIN - longer) // count - _GAP[1]
        lengths = [self.dice.between(low, min(high, most)) for _ in range(count)]
        gaps = [self.dice.between(*_GAP) for _ in range(count - 1)]
        start = self.dice.between(_MARGIN, milliseconds - _MARGIN - longer - sum(lengths) - sum(gaps))
        spans = []
        for length, gap in zip(lengths, [*gaps, 0], strict=True):
            spans.append((start, start + length))
            start += length + gap
        return milliseconds, spans

    def overlapping(self) -> tuple[int, list[Span]]:
        """Draw the length of a scene and two spans, the second of which begins and ends a little later than the first.

        It is later by half the shortest event to the whole of it: the less, the less a moment tells which is the first.
        Both overlap for at least one event's length.
        """
        low = round(self.options.event_seconds[0] * THOUSAND)
        milliseconds, ((start, end),) = self.events(1, longer=2 * low)
        early, late = (self.dice.between(low // 2, low) for _ in range(2))
        return milliseconds, [(start, end + 2 * low - late), (start + early, end + 2 * low)]

    def lane_middles(self) -> list[int]:
        """Draw the order of three lanes side by side; who keeps to a lane meets nobody."""
        return [middle + self.dice.between(-15, 15) for middle in self.dice.shuffled(_LANES)]

    def lane_spots(self) -> list[Spot]:
        """Draw a spot in each of three lanes, all across or all upright."""
        upright = self.dice.between(0, 1)
        return [(lane, self.along()) if upright else (self.along(), lane) for lane in self.lane_middles()]

    def along(self) -> int:
        """Draw a place on a line where a thing is wholly in the frame."""
        return self.dice.between(_EDGE, THOUSAND - _EDGE)

    def apart(self) -> tuple[int, int]:
        """Draw two places on a line, at least 250 apart, either of them the first."""
        while True:
            first, second = self.along(), self.along()
            if abs(first - second) >= 250:
                return first, second

    def beside(self, taken: Sequence[Spot], count: int) -> list[Spot]:
        """Draw up to `count` spots that are clear of the taken ones and of each other, fewer where there is no room."""
        spots: list[Spot] = []
        for _ in range(_TRIES):
            if len(spots) == count:
                break
            spot = (self.along(), self.along())
            if all(max(abs(spot[0] - x), abs(spot[1] - y)) >= 270 for x, y in [*taken, *spots]):
                spots.append(spot)
        return spots


def standing(spot: Spot, size: int, angle: int = 0) -> tuple[Key, ...]:
    """Let a thing stand where it is."""
    return (Key(0, *spot, size, angle),)


def moving(start: Spot, end: Spot, span: Span, size: int) -> tuple[Key, ...]:
    """Let a thing stand, move straight, and stand again."""
    return (Key(0, *start, size), Key(span[0], *start, size), Key(span[1], *end, size))


def bouncing(start: Spot, way: int, span: Span, size: int, upright: int) -> tuple[Key, ...]:
    """Let a thing go `way` thousandths along its line, right or down where that is above 0, and turn at the ends.

    From a start that is uniform on the line it is so at every moment, so where it is does not tell that it moves.
    """
    place, left, keys = start[1] if upright else start[0], abs(way), [Key(0, *start, size), Key(span[0], *start, size)]
    down = way > 0
    while left:
        step = min(left, THOUSAND - _EDGE - place if down else place - _EDGE)
        place, left, down = place + step if down else place - step, left - step, not down
        spot = (start[0], place) if upright else (place, start[1])
        keys.append(Key(span[1] - (span[1] - span[0]) * left // abs(way), *spot, size))
    return tuple(keys)


def visiting(spots: Sequence[Spot], spans: Sequence[Span], size: int) -> tuple[Key, ...]:
    """Let a thing be there for some spans of time only, each at a spot of its own; further spots do not count."""
    keys = [Key(0, *spots[0], size, visible=False)] if spots else [Key(0, 500, 500, size, visible=False)]
    for spot, (start, end) in zip(spots, spans, strict=False):
        keys += [Key(start, *spot, size), Key(end, *spot, size, visible=False)]
    return tuple(keys)


def leaving(spot: Spot, span: Span, size: int) -> tuple[Key, ...]:
    """Let a thing be gone for one span of time."""
    return (Key(0, *spot, size), Key(span[0], *spot, size, visible=False), Key(span[1], *spot, size))
