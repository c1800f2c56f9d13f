"""Which definitions a cell reaches: what its notebook uses, what that uses, and so on.

Read from the source, so that nothing is imported to find out. Of a dict of components only the entries count that the
cell chose: those whose key is a word of one of its parameters, or stands as a string in the code that it reaches. What
cannot be followed counts whole: a dict that is gone through or handed on, a module that is used as a value, a statement
at the top level of an imported module, a definition under a decorator that may register it.

Not seen are: a key that is put together at run time, or stands only as a keyword, in `thing["key"]` or in a dict inside
a function, where another key of the same dict is a word of the cell; what a package hands on from its modules, where
the package itself is used as a value; a class that only the annotation of a field names; and what a call does beside
its value in `NAME = call()`.
A test runs a cell of every notebook and holds what ran against what was reached.
"""

import ast
import pickle
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from keyword import iskeyword
from pathlib import Path
from typing import Any

import lab
from lab.errors import LabError
from lab.paths import cache_dir, write_whole
from lab.study.definitions import (
    ALL,
    CHOSEN,
    IMPORTED,
    OURS,
    Definition,
    ModuleDefinitions,
    Use,
    digest,
    read_definitions,
)
from lab.study.parameters import cell_source, read_notebook

ROOMS = ("data", "parts", "training", "evaluation")
"""The rooms of `lab` whose code decides a result; the study's and the paper's own keep and show it."""

_MAGIC = re.compile(r"\s*(\w+\s*=\s*)?[%!]")
_WORD_LIST = re.compile(r"[\w-]+\.txt")


@dataclass(frozen=True)
class Reached:
    """What decides a result: a hash of each definition by its name, and the modules in which they stand."""

    definitions: Mapping[str, str]
    modules: tuple[str, ...]


def our_modules() -> dict[str, Path]:
    """All modules of ours and their files, by dotted name; a package is named like its folder."""
    beside = Path(lab.__file__).resolve().parent.parent
    found = {}
    for package in OURS:
        for path in sorted((beside / package).rglob("*.py")):
            if path.is_file():  # an editor's lock is a link to nothing
                found[".".join(path.relative_to(beside).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def decides(module: str) -> bool:
    """Whether the module's definitions decide a result: those of `ROOMS`, and what stands in for data and weights.

    The declarations of parameters do not: their values are ingredients of their own.
    """
    package, _, rest = module.partition(".")
    return package != "lab" or (rest.split(".")[0] in ROOMS and rest != "training.parameters")


def reached_by_notebook(notebook: Path) -> Callable[[Mapping[str, Any]], Reached]:
    """What a cell of the notebook reaches, as a function of its parameters; all of it is read now, once.

    Raises:
        LabError: the notebook is missing or is no notebook.
    """
    return _reached(notebook_code(notebook)[0], decides)


def reached_by_modules(modules: Iterable[str], cells: Iterable[Mapping[str, Any]]) -> Reached:
    """What these modules of the study's room define and reach, that room included, where they work for these cells."""
    code = "\n".join(f"import {module} as module_{number}\nmodule_{number}" for number, module in enumerate(modules))
    every = {f"{number} {name}": value for number, cell in enumerate(cells) for name, value in cell.items()}
    return _reached(code, _prepares)(every)


def _prepares(module: str) -> bool:
    return decides(module) or module.startswith("lab.study.")


def _words(parameters: Mapping[str, Any]) -> frozenset[str]:
    """What the parameters say: each text whole, and its parts, as in `bigbench:plurals,past+chatterbot`."""
    values = _texts(list(parameters.values()))
    return frozenset(part for value in values for part in (value, *re.split(r"[^\w.-]+", value)) if part)


def _texts(value: Any) -> list[str]:
    """The texts in a parameter's value, which may be a list or a dict of others."""
    inner = [*value, *value.values()] if isinstance(value, Mapping) else value
    if isinstance(inner, list | tuple):
        return [text for entry in inner for text in _texts(entry)]
    return [inner] if isinstance(inner, str) else []


def notebook_code(notebook: Path) -> tuple[str, list[str]]:
    """The code of the cells, and the lines that are none, such as %matplotlib; without the cell of the parameters.

    A default that stands there is not what a cell chose.

    Raises:
        LabError: the notebook is missing or is no notebook.
    """
    status = notebook.stat() if notebook.exists() else None
    return _notebook_code(notebook, *((status.st_mtime_ns, status.st_size) if status else (0, 0)))


@cache
def _notebook_code(notebook: Path, modified: int, size: int) -> tuple[str, list[str]]:
    code: list[str] = []
    others: list[str] = []
    for cell in read_notebook(notebook)["cells"]:
        if cell["cell_type"] != "code" or "parameters" in (cell.get("metadata", {}).get("tags") or ()):
            continue
        lines = cell_source(cell).splitlines()
        own = lines if _is_python(lines) else [line for line in lines if not _MAGIC.match(line)]
        magics = [line for line in lines if line not in own]
        others += magics
        if not _is_python(own):
            raise LabError(f"a cell of {notebook} is not Python, so what it reaches cannot be told: {lines[:1]}")
        code += own
        # `%time train(model)` uses what it names.
        code += [name for line in magics for name in re.findall(r"\b[^\W\d]\w*", line) if not iskeyword(name)]
    return "\n".join(code), others


def _is_python(lines: Sequence[str]) -> bool:
    try:
        ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return True


def _reached(code: str, counts: Callable[[str], bool]) -> Callable[[Mapping[str, Any]], Reached]:
    library = _library(tuple((name, str(path)) for name, path in our_modules().items()))
    library.refresh()
    start = read_definitions(code, library.paths)
    answers: dict[frozenset[str], Reached] = {}

    def reached(parameters: Mapping[str, Any]) -> Reached:
        # Words that are no key of any dict choose nothing: cells that differ in them alone share an answer.
        words = _words(parameters) & library.keys
        if words not in answers:
            answers[words] = _Walk(library.modules, words).run(start, counts, library.paths)
        return answers[words]

    return reached


@cache
def _library(paths: tuple[tuple[str, str], ...]) -> "_Library":
    return _Library({name: Path(path) for name, path in paths})


def _read_kept(path: Path) -> dict[str, tuple[list[int], ModuleDefinitions]]:
    """What a library was when it was last read, with the stamps of its files; empty where the file is not whole."""
    with suppress(Exception):  # of damaged bytes anything may come
        kept = pickle.loads(path.read_bytes())
        return kept if isinstance(kept, dict) else {}
    return {}


class _Library:
    """The definitions of all modules of ours, kept on disk between calls: reading them takes about two seconds."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths
        self.modules: dict[str, ModuleDefinitions] = {}
        self.keys: frozenset[str] = frozenset()
        """The keys of all dicts."""
        self._stamps: dict[str, list[int]] = {}

    def refresh(self) -> None:
        """Read anew what has changed on disk."""
        stamps = {}
        for name, path in self.paths.items():
            status = path.stat()
            stamps[name] = [status.st_mtime_ns, status.st_size]
        if stamps == self._stamps:
            return
        reader = digest(Path(__file__).with_name("definitions.py").read_text(encoding="utf-8"))
        kept_at = cache_dir() / "definitions" / f"{digest(repr([sorted(map(str, self.paths.items())), reader]))}.pickle"
        kept = _read_kept(kept_at)
        if changed := [name for name, stamp in stamps.items() if name not in kept or kept[name][0] != stamp]:
            for name in changed:
                try:
                    module = read_definitions(self.paths[name].read_bytes(), self.paths)
                except (SyntaxError, ValueError) as error:
                    raise LabError(f"{self.paths[name]} is not Python: {error}") from None
                kept[name] = stamps[name], module
            with suppress(OSError):  # a full disk costs time, no answer
                write_whole(kept_at, pickle.dumps({name: kept[name] for name in stamps}))
        self.modules = {name: kept[name][1] for name in stamps}
        every = [found for module in self.modules.values() for found in module.definitions.values()]
        self.keys = frozenset(key for found in every for key in found.entries)
        self._stamps = stamps


class _Walk:
    """One walk over the definitions, from the code of a notebook."""

    def __init__(self, modules: Mapping[str, ModuleDefinitions], words: Collection[str]) -> None:
        self.modules = modules
        self.words = set(words)
        self.reached: dict[tuple[str, str], Definition] = {}
        """By module and name; an entry of a dict is named `NAMES[key]`."""
        self.effects: dict[str, Definition] = {}
        self._chosen: dict[tuple[str, str], Definition] = {}  # dicts of which what is named at run time is taken
        self._imported: set[str] = set()
        self._followed: set[tuple[str, Use]] = set()
        self._waiting: list[tuple[str, Definition]] = []
        self._hashes: dict[tuple[str, str], str] = {}

    def run(self, start: ModuleDefinitions, counts: Callable[[str], bool], paths: Mapping[str, Path]) -> Reached:
        for name in start.imported:
            self._import(name)
        own = [*start.definitions.values(), *start.effects]
        self._waiting += [("", entry) for found in own for entry in (found, *found.entries.values())]
        while self._waiting or self._choose():
            module, found = self._waiting.pop()
            self.words |= set(found.strings)
            for use in found.uses:
                self._follow(module, use)
        return self._told(own, counts, paths)

    def _import(self, name: str) -> None:
        """`import lab.data.text` runs lab/__init__.py and lab/data/__init__.py too; the last part may be no module."""
        parts = name.split(".")
        for stem in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
            if stem in self.modules and stem not in self._imported:
                self._imported.add(stem)
                for number, effect in enumerate(self.modules[stem].effects):
                    self.effects[f"{stem} {number}"] = effect
                    self._waiting.append((stem, effect))
                for other in self.modules[stem].imported:
                    self._import(other)

    def _follow(self, module: str, use: Use) -> None:
        target, name = use.module or module, use.attribute
        if (target, use) in self._followed:
            return
        self._followed.add((target, use))
        if use.entry == IMPORTED:
            self._import(target)
        elif f"{target}.{name}" in self.modules:
            self._whole(f"{target}.{name}")
        elif target not in self.modules:
            return  # a name of the notebook's own
        elif not name:
            self._whole(target)
        elif name in self.modules[target].definitions:
            self._import(target)
            self._take(target, name, use.entry)
        elif name in self.modules[target].aliases:  # imported there, and from there
            for alias in self.modules[target].aliases[name]:
                self._follow(target, replace(alias, entry=use.entry))
        elif name not in ("__file__", "__doc__", "__name__", "__version__"):
            self._whole(target)

    def _whole(self, module: str) -> None:
        self._import(module)
        for name in self.modules[module].definitions:
            self._take(module, name, ALL)

    def _take(self, module: str, name: str, entry: str) -> None:
        found = self.modules[module].definitions[name]
        self._add(module, name, found)
        # Entries that are plain values, such as numbers, are not components.
        components = any(one.uses for one in found.entries.values())
        if components and entry == CHOSEN:
            self._chosen[module, name] = found
        elif components and entry in found.entries:
            self._add(module, f"{name}[{entry}]", found.entries[entry])
        else:
            for key, one in found.entries.items():
                self._add(module, f"{name}[{key}]", one)
            if found.entries:  # whoever goes through it may count on its order, and use its keys in another dict
                self._add(module, f"{name}[*]", Definition(digest(" ".join(found.entries)), (), tuple(found.entries)))
                for use in found.uses:  # of `**MORE` every entry, too
                    self._follow(module, replace(use, entry=ALL))

    def _add(self, module: str, name: str, found: Definition) -> None:
        if (module, name) not in self.reached:
            self.reached[module, name] = found
            self._waiting.append((module, found))

    def _choose(self) -> bool:
        """Take the entries that are chosen by now; whole where none ever is, as then it is not known how they are."""
        for (module, name), found in self._chosen.items():
            for key in found.entries.keys() & self.words:
                self._add(module, f"{name}[{key}]", found.entries[key])
        if not self._waiting:
            for (module, name), found in self._chosen.items():
                if not found.entries.keys() & self.words:
                    for key, one in found.entries.items():
                        self._add(module, f"{name}[{key}]", one)
        return bool(self._waiting)

    def _told(self, own: Sequence[Definition], counts: Callable[[str], bool], paths: Mapping[str, Path]) -> Reached:
        counted = {place: found for place, found in self.reached.items() if counts(place[0])}
        twice = {name for name, count in Counter(name for _, name in counted).items() if count > 1}
        # Where several definitions have one name, which of them is meant stands in no tree; nor which one that means.
        self._hashes = {place: found.digest for place, found in self.reached.items()}
        distinct = 0
        while len(set(self._hashes.values())) > distinct:  # until a round tells no more of them apart
            distinct = len(set(self._hashes.values()))
            self._hashes |= {place: self._told_apart(place[0], found, twice) for place, found in counted.items()}
        parts: dict[str, list[str]] = {}
        for (module, name), found in counted.items():
            parts.setdefault(name, []).append(self._hashes[module, name])
            for file in filter(_WORD_LIST.fullmatch, found.strings):
                path = paths[module].with_name(file)
                if path.is_file():
                    parts.setdefault(file, []).append(digest(path.read_text(encoding="utf-8")))
        for place, found in self.effects.items():
            if counts(module := place.split()[0]):
                parts.setdefault("(on import)", []).append(self._told_apart(module, found, twice))
        if meant := "".join(self._meant("", use, twice) for found in own for use in found.uses):
            parts["(notebook)"] = [digest(meant)]
        told = {
            name: found[0] if len(found) == 1 else digest(" ".join(sorted(found)))
            for name, found in sorted(parts.items())
        }
        return Reached(told, tuple(sorted({module for module, _ in counted})))

    def _told_apart(self, module: str, found: Definition, twice: Collection[str]) -> str:
        meant = "".join(self._meant(module, use, twice) for use in found.uses)
        return digest(found.digest + meant) if meant else found.digest

    def _meant(self, module: str, use: Use, twice: Collection[str]) -> str:
        """The hash of what a use means, where its name is that of several definitions."""
        if use.attribute not in twice:
            return ""
        waiting, seen, told = [(use.module or module, use.attribute)], set[tuple[str, str]](), ""
        while waiting:
            place = waiting.pop(0)
            if place in self.reached:
                told += f" {use.attribute} {self._hashes[place]}"
            elif place not in seen and place[0] in self.modules:
                waiting += [(one.module, one.attribute) for one in self.modules[place[0]].aliases.get(place[1], ())]
            seen.add(place)
        return told
