"""Video scenes as descriptions: cut-out pictures that move, turn, grow, come and go, and a question about them.

The project's stand-in for the paper's video data (section 3), for machines without a hub. A scene holds whole numbers
only: times in milliseconds, places and sizes in thousandths of the frame, angles in degrees; so one seed gives the same
scene on every machine. `standins.scenes.questions` makes scenes, `standins.scenes.rendering` draws them.
"""

from dataclasses import dataclass, field

from lab.data.splits import Split
from lab.errors import LabError
from standins.drawn import Question
from standins.pictures.pictures import Picture

THOUSAND = 1000


@dataclass(frozen=True)
class Key:
    """What an actor is at one moment; between two keys everything but `visible` changes evenly.

    `x` and `y` are the centre's, from the left and from the top; `size` is the longer side of the picture; `angle` is
    anticlockwise. `visible` holds until the next key. Places beyond the frame wrap round: see `State`.
    """

    milliseconds: int
    x: int
    y: int
    size: int
    angle: int = 0
    visible: bool = True


@dataclass(frozen=True)
class State:
    """An actor at one moment, as it is drawn: wholly out of the frame on one side, it comes in on the other."""

    x: int
    y: int
    size: int
    angle: int
    visible: bool


@dataclass(frozen=True)
class Actor:
    """One thing on the stage: `word` is its class, the only name that questions use for it."""

    picture: Picture
    word: str
    keys: tuple[Key, ...]

    def state(self, milliseconds: int) -> State:
        """Give the state at a moment; before the first key and after the last one it stays as it is there."""
        after = next((place for place, key in enumerate(self.keys) if key.milliseconds > milliseconds), len(self.keys))
        start = self.keys[max(after - 1, 0)]
        end = self.keys[min(after, len(self.keys) - 1)]
        span = end.milliseconds - start.milliseconds
        done = min(max(milliseconds - start.milliseconds, 0), span)

        def between(first: int, last: int) -> int:
            return first + (last - first) * done // span if span else first

        size = between(start.size, end.size)
        return State(
            x=wrapped(between(start.x, end.x), size),
            y=wrapped(between(start.y, end.y), size),
            size=size,
            angle=between(start.angle, end.angle) % 360,
            visible=start.visible,
        )


def wrapped(place: int, size: int) -> int:
    """Bring a centre back to where its thing is at least partly in the frame, from half a size before to half behind.

    >>> wrapped(1150, 300), wrapped(1151, 300), wrapped(500, 300)
    (-150, -149, 500)
    """
    return (place + size // 2) % (THOUSAND + size) - size // 2


@dataclass(frozen=True)
class Background:
    """A pattern of `standins.scenes.rendering.PATTERNS` in two colours, repeated every `spacing` thousandths."""

    pattern: str
    first: tuple[int, int, int]
    second: tuple[int, int, int]
    spacing: int = 200


@dataclass(frozen=True)
class Scene:
    """A course of things, drawn from the first actor to the last, so that later ones hide earlier ones.

    A still has `milliseconds` 0. `twins` names the group of scenes that share everything but what the answer is about.
    """

    id: str
    split: Split
    milliseconds: int
    background: Background
    actors: tuple[Actor, ...]
    question: Question
    twins: str = field(default="")

    @property
    def seconds(self) -> float:
        """The length."""
        return self.milliseconds / THOUSAND

    def states(self, seconds: float) -> tuple[State, ...]:
        """Give the states of all actors, in their order, at a moment of the scene."""
        milliseconds = round(seconds * THOUSAND)
        if not 0 <= milliseconds <= self.milliseconds:
            raise LabError(f"scene {self.id} lasts {self.seconds} seconds and has no moment {seconds}")
        return tuple(actor.state(milliseconds) for actor in self.actors)
