"""A recipe: which sources, and which steps over them, as a TOML file that is checked before anything starts.

Section 3 of the paper describes such a chain in prose (filters, deduplication, packing). A recipe reads:

    name = "chats"
    description = "What it is for."

    [[source]]
    name = "chats"
    from = "files"            # a key of lab.data.recipes.sources.SOURCES
    path = "chats/*.parquet"  # beside the recipe
    licence = "CC-BY-4.0"

    [[step]]
    use = "exact_duplicates"  # a key of lab.data.filters.steps.STEPS
    columns = ["prompt", "answer"]
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from lab.data.filters.filtering import LeftOut, left_out_account
from lab.data.filters.step import Step
from lab.data.filters.steps import STEPS
from lab.data.recipes.sources import SOURCES, Source
from lab.errors import LabError, choose
from lab.paths import read_text

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe as it was declared; a shard has `shard_rows` rows when it is read, fewer once some are dropped.

    What is built lies in a folder of its name.

    Raises:
        LabError: a name that is no folder's, such as `../chats`.
    """

    name: str
    description: str = ""
    shard_rows: Annotated[int, Field(ge=1)] = 50_000
    sources: tuple[Source, ...] = ()
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .-]*", self.name):
            raise LabError(f"name {self.name!r} is no folder's; use letters, digits, spaces and . _ -, as in 'chats-2'")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; nothing but the file itself is looked at.

    Raises:
        LabError: it is not there or no TOML, has no source, or an unknown, missing or mistyped name or parameter.
    """
    try:
        table = tomllib.loads(read_text(path))
    except (FileNotFoundError, IsADirectoryError):
        raise LabError(f"there is no recipe file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"recipe {path} is no TOML: {error}") from None
    for key in table:
        choose(dict.fromkeys(("name", "description", "shard_rows", "source", "step")), key, f"entry of {path.name}:")
    sources = tuple(_declared(SOURCES, table.pop("source", []), "source", "from", path))
    steps = tuple(_declared(STEPS, table.pop("step", []), "step", "use", path))
    names = [source.name for source in sources]
    if not sources or len(set(names)) < len(names):
        raise LabError(f"recipe {path.name} has sources {names}, expected at least one, each with a name of its own")
    for number, step in enumerate(steps[:-1], 1):
        if step.ends:
            raise LabError(
                f"step {number} ({step.use}) of recipe {path.name} has to be the last; what follows undoes it"
            )
    recipe = _made(Recipe, {"name": path.stem, **table}, f"recipe {path.name}", path.parent)
    return replace(recipe, sources=sources, steps=steps)


def _declared(choices: Mapping[str, type[T]], entries: Any, what: str, key: str, path: Path) -> Iterator[T]:
    """Make the object of each table: its `key` chooses the class, the rest are its parameters."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LabError(f"recipe {path.name}: a {what} is a table that begins with [[{what}]]")
    for number, entry in enumerate(entries, 1):
        where = f"{what} {number} of recipe {path.name}"
        if not isinstance(name := entry.pop(key, None), str):
            raise LabError(f"{where} has no {key!r}; choose one of: {', '.join(sorted(choices))}")
        kind = choose(choices, name, f"{key!r} of {where}:")
        yield _made(kind, entry, f"{what} {number} ({name}) of recipe {path.name}", path.parent)


def _made(kind: type[T], given: Mapping[str, Any], what: str, folder: Path) -> T:
    """Make a dataclass of parameters of the types that it declares; paths stand beside the recipe."""
    parameters = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        choose(dict.fromkeys(parameters), name, f"parameter of {what}:")
    try:
        # As JSON, whose lists and texts are taken for tuples and paths where nothing else is converted.
        made = TypeAdapter(kind).validate_json(json.dumps(given, default=str), strict=True)
        paths = {name: folder / value for name, value in vars(made).items() if isinstance(value, Path)}
        return replace(made, **paths)  # type: ignore[type-var]
    except ValidationError as error:
        wrong = error.errors()[0]
        name, value = ".".join(map(str, wrong["loc"])), wrong["input"]
        told = "missing" if wrong["type"] == "missing" else f"{value!r}: {wrong['msg'].lower()}"
        raise LabError(f"parameter {name!r} of {what} is {told}; they are: {', '.join(parameters)}") from None
    except LabError as error:
        raise LabError(f"{what}: {error}") from None


def check_recipe(recipe: Recipe) -> None:
    """Look at what the recipe needs and read none of it but footers and first rows.

    Raises:
        LabError: a source that is missing, empty or damaged or lacks a column, or what a step reads besides the rows.
    """
    for source in recipe.sources:
        parts = source.parts()
        left_out = LeftOut()
        first = [next(source.tables(part, left_out, 1), None) for part in parts]
        if not any(first):
            told = f"; {left_out_account(left_out)}" if left_out else ""
            raise LabError(f"source {source.name!r} has no rows in {', '.join(parts) or 'anything'}{told}")
    for step in recipe.steps:
        step.identity()
