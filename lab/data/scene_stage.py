"""What scenes are put together from: places, courses and times, drawn for a whole group of twins at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.data.scene_casts import Cast, Dice, draw_words
from lab.data.scenes import THOUSAND, Actor, Key, Question
from lab.data.splits import Split
from lab.data.things import Picture
from lab.errors import LabError

MAX_THINGS = 3
MIN_EVENT_SECONDS = 0.5
Spot = tuple[int, int]
Span = tuple[int, int]

_EDGE = 165
_LANES = (170, 500, 830)
_MARGIN = 500
_GAP = (300, 1200)
_TRIES = 200


@dataclass(frozen=True)
class SceneOptions:
    """The ranges, both ends included, that scenes are drawn from.

    `seconds` is a scene's length; it is raised for kinds whose events would not fit. `event_seconds` is how long one
    event lasts, so a model that sees a frame every so many seconds misses the shorter ones. `still_things` counts the
    things that only stand there (fewer where a scene would have more than three in all). `size` is the longer side of a
    thing as a share of the frame.

    Raises:
        LabError: a range is empty or beyond what can be drawn.
    """

    seconds: tuple[float, float] = (8.0, 48.0)
    event_seconds: tuple[float, float] = (2.0, 6.0)
    still_things: tuple[int, int] = (0, 2)
    size: tuple[float, float] = (0.26, 0.33)

    def __post_init__(self) -> None:
        limits = {
            "seconds": (1.0, 3600.0),
            "event_seconds": (MIN_EVENT_SECONDS, 600.0),
            "still_things": (0, MAX_THINGS - 1),
            "size": (0.1, 0.33),
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
        """Draw how many things only stand there, beside `others`."""
        low, high = self.options.still_things
        most = min(high, MAX_THINGS - others)
        return self.dice.between(min(low, most), most)

    def picture(self, word: str) -> Picture:
        """Draw a picture of a class."""
        return self.dice.pick(self.cast[word])

    def size(self) -> int:
        """Draw the size of a thing."""
        low, high = self.options.size
        return self.dice.between(round(low * THOUSAND), round(high * THOUSAND))

    def events(self, count: int) -> tuple[int, list[Span]]:
        """Draw the length of a scene and `count` events, one after the other, somewhere in it.

        Where in the scene they lie is uniform, so that a moment does not tell whether it is early or late in them.
        """
        low, high = (round(seconds * THOUSAND) for seconds in self.options.event_seconds)
        shortest, longest = (round(seconds * THOUSAND) for seconds in self.options.seconds)
        needed = count * (low + _GAP[1]) + 2 * _MARGIN
        milliseconds = self.dice.between(max(shortest, needed), max(longest, needed))
        most = (milliseconds - 2 * _MARGIN) // count - _GAP[1]
        lengths = [self.dice.between(low, min(high, most)) for _ in range(count)]
        gaps = [self.dice.between(*_GAP) for _ in range(count - 1)]
        start = self.dice.between(_MARGIN, milliseconds - _MARGIN - sum(lengths) - sum(gaps))
        spans = []
        for length, gap in zip(lengths, [*gaps, 0], strict=True):
            spans.append((start, start + length))
            start += length + gap
        return milliseconds, spans

    def lanes(self) -> list[list[Spot]]:
        """Draw three lanes side by side, each with two spots 300 or more apart; who keeps to a lane meets nobody."""
        upright = self.dice.between(0, 1)
        lanes = []
        for middle in self.dice.shuffled(_LANES):
            across = middle + self.dice.between(-15, 15)
            ends = self.apart()
            lanes.append([(across, along) if upright else (along, across) for along in ends])
        return lanes

    def apart(self) -> tuple[int, int]:
        """Draw two places on a line, at least 300 apart, either of them the first."""
        while True:
            first, second = (self.dice.between(_EDGE, THOUSAND - _EDGE) for _ in range(2))
            if abs(first - second) >= 300:
                return first, second

    def beside(self, taken: Sequence[Spot], count: int) -> list[Spot]:
        """Draw up to `count` spots that are clear of the taken ones and of each other, fewer where there is no room."""
        spots: list[Spot] = []
        for _ in range(_TRIES):
            if len(spots) == count:
                break
            spot = (self.dice.between(_EDGE, THOUSAND - _EDGE), self.dice.between(_EDGE, THOUSAND - _EDGE))
            if all(max(abs(spot[0] - x), abs(spot[1] - y)) >= 270 for x, y in [*taken, *spots]):
                spots.append(spot)
        return spots


def standing(spot: Spot, size: int, angle: int = 0) -> tuple[Key, ...]:
    """Let a thing stand where it is."""
    return (Key(0, *spot, size, angle),)


def moving(start: Spot, end: Spot, span: Span, size: int) -> tuple[Key, ...]:
    """Let a thing stand, move straight, and stand again."""
    return (Key(0, *start, size), Key(span[0], *start, size), Key(span[1], *end, size))


def visiting(spots: Sequence[Spot], spans: Sequence[Span], size: int) -> tuple[Key, ...]:
    """Let a thing be there for some spans of time only, each at its own spot."""
    keys = [Key(0, *spots[0], size, visible=False)] if spots else [Key(0, 500, 500, size, visible=False)]
    for spot, (start, end) in zip(spots, spans, strict=True):
        keys += [Key(start, *spot, size), Key(end, *spot, size, visible=False)]
    return tuple(keys)


def leaving(spot: Spot, span: Span, size: int) -> tuple[Key, ...]:
    """Let a thing be gone for one span of time."""
    return (Key(0, *spot, size), Key(span[0], *spot, size, visible=False), Key(span[1], *spot, size))
