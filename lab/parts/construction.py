"""A part built by its name from a dict of classes, with its options checked before its constructor sees them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lab.errors import LabError, choose

T = TypeVar("T")


def build_by_name(choices: Mapping[str, Callable[..., T]], name: str, what: str, options: Mapping[str, Any]) -> T:
    """Call `choices[name]` with keyword options; `what` says in a message what the choices are.

    Raises:
        LabError: an unknown name, an option that it does not have, or a missing one; the message lists the choices.
    """
    part = choose(choices, name, what)
    parameters = inspect.signature(part).parameters
    for option in options:
        choose(parameters, option, f"option of {what} {name!r}:")
    missing = [key for key, p in parameters.items() if p.default is inspect.Parameter.empty and key not in options]
    if missing:
        raise LabError(f"{what} {name!r} also needs: {', '.join(missing)}")
    return part(**options)
