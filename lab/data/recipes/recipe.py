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

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pyarrow as pa

from lab.data.filters.step import KINDS, Step
from lab.data.filters.steps import STEPS
from lab.data.recipes.source import Source, check_schema
from lab.data.recipes.sources import SOURCES
from lab.errors import LabError, choose

SHARD_ROWS = 50_000

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe as it was declared; a shard has `shard_rows` rows when it is read, fewer once some are dropped."""

    name: str
    description: str
    sources: tuple[Source, ...]
    steps: tuple[Step, ...]
    shard_rows: int = SHARD_ROWS


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; nothing but the file itself is looked at.

    Raises:
        LabError: it is not there or no TOML, has no source, or an unknown, missing or mistyped name or parameter.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise LabError(f"there is no recipe file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"recipe {path} is no TOML: {error}") from None
    known = dict.fromkeys(("name", "description", "shard_rows", "source", "step"))
    for key in table:
        choose(known, key, f"entry of recipe {path.name}:")
    declared: dict[str, list[Any]] = {}
    for key, named, choices in (("source", "from", SOURCES), ("step", "use", STEPS)):
        entries = table.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise LabError(f"recipe {path.name}: a {key} is a table that begins with [[{key}]]")
        declared[key] = [
            _declared(choices, entry, named, f"{key} {number}", path) for number, entry in enumerate(entries, 1)
        ]
    sources: tuple[Source, ...] = tuple(declared["source"])
    names = [source.name for source in sources]
    if not sources or len(set(names)) < len(names):
        raise LabError(f"recipe {path.name} has sources {names}, expected at least one, each with a name of its own")
    about = {"name": table.get("name", path.stem), "description": table.get("description", "")}
    rows = table.get("shard_rows", SHARD_ROWS)
    if not all(isinstance(text, str) for text in about.values()) or type(rows) is not int or rows < 1:
        raise LabError(f"recipe {path.name}: name and description are texts, shard_rows a whole number of at least 1")
    steps: tuple[Step, ...] = tuple(declared["step"])
    for number, step in enumerate(steps[:-1], 1):
        if step.ends:
            raise LabError(
                f"step {number} ({step.use}) of recipe {path.name} has to be the last; what follows undoes it"
            )
    return Recipe(**about, sources=sources, steps=steps, shard_rows=rows)


def _declared(choices: Mapping[str, type[T]], entry: Mapping[str, Any], key: str, what: str, path: Path) -> T:
    """Make the object of one table: `entry[key]` chooses the class, the rest are its parameters."""
    if not isinstance(entry.get(key), str):
        raise LabError(f"{what} of recipe {path.name} has no {key!r}; choose one of: {', '.join(sorted(choices))}")
    kind = choose(choices, entry[key], f"{key!r} of {what} of recipe {path.name}:")
    what = f"{what} ({entry[key]}) of recipe {path.name}"
    hints = get_type_hints(kind)
    parameters = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    given = {}
    for name, value in entry.items():
        if name != key:
            choose(parameters, name, f"parameter of {what}:")
            fits, expected = _TYPES[hints[name]]
            if not fits(value):
                raise LabError(f"parameter {name!r} of {what} is {value!r}, expected {expected}")
            given[name] = tuple(value) if isinstance(value, list) else value
            if hints[name] is Path:
                given[name] = path.parent / value
    for name, field in parameters.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise LabError(f"{what} needs the parameter {name!r}; its parameters are: {', '.join(parameters)}")
    try:
        return kind(**given)
    except LabError as error:
        raise LabError(f"{what}: {error}") from None


def _whole(value: Any) -> bool:
    return type(value) is int  # True is an int too


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _texts(values: Any) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_number, values))


# What a parameter may be declared as, and what the file has to hold for it.
_TYPES: Mapping[Any, tuple[Callable[[Any], bool], str]] = {
    str: (lambda value: isinstance(value, str), "a text in quotes"),
    str | None: (lambda value: isinstance(value, str), "a text in quotes"),
    Path: (lambda value: isinstance(value, str), "a path in quotes"),
    int: (_whole, "a whole number"),
    int | None: (_whole, "a whole number"),
    float: (_number, "a number"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    tuple[str, ...]: (
        lambda value: isinstance(value, list) and _texts(value),
        'a list of texts such as ["prompt", "answer"]',
    ),
    Mapping[str, str]: (
        lambda value: isinstance(value, dict) and _texts(value.values()),
        'a table of texts such as {prompt = "question"}',
    ),
    Mapping[str, tuple[float, ...]]: (
        lambda value: isinstance(value, dict) and all(map(_numbers, value.values())),
        "a table of numbers such as {num_words = [3, 1000]}",
    ),
}


def check_recipe(recipe: Recipe) -> pa.Schema:
    """Look at what the recipe needs and read none of it but footers and first rows; returns the columns of its rows.

    Raises:
        LabError: a source that is missing, empty or damaged, columns that differ among files or sources, or a step
            whose columns are not there or hold something else.
    """
    schema: pa.Schema | None = None
    for source in recipe.sources:
        schemas = {part: source.schema(number) for number, part in enumerate(source.parts())}
        if all(found is None for found in schemas.values()):
            raise LabError(f"source {source.name!r} has no rows in {', '.join(schemas) or 'anything'}")
        for part, found in schemas.items():
            if found is not None:
                schema = schema or found
                check_schema(found, schema, f"source {source.name!r}: {part}")
    assert schema is not None
    for number, step in enumerate(recipe.steps, 1):
        where = f"step {number} ({step.use}) of recipe {recipe.name!r}"
        for name, kind in step.needs().items():
            if name not in schema.names:
                raise LabError(f"{where} needs the column {name!r}; the rows have: {', '.join(schema.names)}")
            if not KINDS[kind](schema.field(name).type):
                raise LabError(f"{where} needs {kind} in column {name!r}, which has {schema.field(name).type}")
        step.identity()  # what it reads besides the rows is there
    return schema
