"""The one exception that is the user's to mend, and the look-up by name that raises it."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class LabError(Exception):
    """A mistake in what the user asked for, or something missing that they can provide.

    Its message is one clear sentence: the thing, what was expected, the choices. The command line prints it without
    a traceback and exits with 2.
    """


class TryAgain(LabError):
    """What may go well another time as it stands: a network that is not there, a server that is busy."""


def choose(choices: Mapping[str, T], name: str, what: str) -> T:
    """Return `choices[name]`.

    Raises:
        LabError: `name` is not there; the message lists every choice, the closest first.
    """
    if name in choices:
        return choices[name]
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise LabError(f"unknown {what} {name!r}{hint}; choose one of: {', '.join(sorted(choices))}")


def first_line(error: BaseException) -> str:
    """What an error of a library says first."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def reason(error: BaseException) -> str:
    """What an error of the system or of FFmpeg says, without number and file; of another one its first line."""
    return getattr(error, "strerror", None) or first_line(error)


def name_values(given: Iterable[str], option: str, example: str) -> dict[str, str]:
    """The NAME=VALUE words of a repeatable option; a LabError where one is of another form, or given twice."""
    values: dict[str, str] = {}
    for word in given:
        name, _, value = word.partition("=")
        if not name.strip() or not value:
            raise LabError(f"{option} is {word!r}; expected NAME=VALUE, as in {option} {example}")
        if name.strip() in values:
            raise LabError(f"{option} {name} is given twice: {values[name.strip()]!r} and {value!r}")
        values[name.strip()] = value
    return values
