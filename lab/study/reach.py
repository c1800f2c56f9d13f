"""Which definitions a cell reaches: what its notebook uses, what that uses, and so on.

Read from the source, so that nothing is imported to find out. Of a dict of components only the entries count that the
cell chose: those whose key is a word of one of its parameters, or stands as a string in the code that it reaches. What
cannot be followed counts whole: a dict that is gone through or handed on, a module that is used as a value, and of a
module of which anything is reached a statement at its top level or a definition under a decorator that may register.

Not seen are: a key that is put together at run time, or stands only as a keyword, in `x["key"]` or in a dict inside
a function, where another key of the same dict is a word of the cell; what a package hands on from its modules, where
the package itself is used as a value; a class that only the annotation of a field names; what a call does beside its
value in `NAME = call()`; and a module that is imported and not used.
A test runs a cell of every notebook and holds what ran against what was reached.
"""

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from keyword import iskeyword
from pathlib import Path
from typing import Any

import lab
from lab.errors import LabError
from lab.study.definitions import OURS, Definition, Module, Use, digest, locate
from lab.study.parameters import cell_source, read_notebook

ROOMS = ("data", "parts", "training", "evaluation")
"""The rooms of `lab` whose code decides a result; the study's and the paper's own keep and show it."""

_MAGIC = re.compile(r"\s*(\w+\s*=\s*)?[%!]")
_WORD_LIST = re.compile(r"[\w-]+\.txt")


def our_modules() -> dict[str, Path]:
    """All modules of ours and their files, by dotted name; a package is named like its folder."""
    beside = Path(lab.__file__).resolve().parent.parent
    found = {}
    for package in OURS:
        for path in sorted((beside / package).rglob("*.py")):
            if path.is_file():  # an editor's lock is a link to nothing
                found[".".join(path.relative_to(beside).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def sources_hash() -> str:
    """A hash of all code of ours as it stands on disk."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in our_modules().values())).hexdigest()


def decides(module: str) -> bool:
    """Whether the module's definitions decide a result: those of `ROOMS`, and what stands in for data and weights.

    The declarations of parameters do not: their values are ingredients of their own.
    """
    package, _, rest = module.partition(".")
    return package != "lab" or (rest.split(".")[0] in ROOMS and rest != "training.parameters")


def reached_by_notebook(notebook: Path) -> Callable[[Mapping[str, Any]], Mapping[str, str]]:
    """A hash of each definition that decides the result of a cell, by its name, as a function of its parameters.

    Raises:
        LabError: the notebook is missing or is no notebook; from the function, a module of ours that is not Python.
    """
    library = our_modules()
    start = Module("", notebook_code(notebook), frozenset(library))
    answers: dict[frozenset[str], dict[str, str]] = {}

    def reached(parameters: Mapping[str, Any]) -> Mapping[str, str]:
        words = frozenset(_words(list(parameters.values())))
        if words not in answers:
            answers[words] = _Walk(library, words).run(start)
        return answers[words]

    return reached


def _words(value: Any) -> list[str]:
    """Each text in a parameter's value whole, and its parts, as in `bigbench:plurals,past+chatterbot`."""
    if isinstance(value, str):
        return [part for part in (value, *re.split(r"[^\w.-]+", value)) if part]
    inner = [*value, *value.values()] if isinstance(value, Mapping) else value
    return [word for entry in inner for word in _words(entry)] if isinstance(inner, list | tuple) else []


def notebook_code(notebook: Path) -> str:
    """The code of the cells, without that of the parameters: a default that stands there is not what a cell chose.

    Raises:
        LabError: the notebook is missing or is no notebook, or a cell is not Python.
    """
    code: list[str] = []
    for cell in read_notebook(notebook)["cells"]:
        if cell["cell_type"] != "code" or "parameters" in cell["metadata"].get("tags", ()):
            continue
        lines = re.split(r"\r?\n", cell_source(cell))  # splitlines would cut a text at U+2028 as well
        if not _is_python(lines):
            lines = [_in_python(line) if _MAGIC.match(line) else line for line in lines]
        if not _is_python(lines):
            raise LabError(f"a cell of {notebook} is not Python, so what it reaches cannot be told: {lines[:1]}")
        code += lines
    return "\n".join(code)


def _in_python(magic: str) -> str:
    """A line such as `%time train(model)` as Python that says the same and uses what it names."""
    names = [name for name in re.findall(r"\b[^\W\d]\w*", magic) if not iskeyword(name)]
    return f"{magic[: len(magic) - len(magic.lstrip())]}{', '.join([repr(magic), *names])},"


def _is_python(lines: Sequence[str]) -> bool:
    try:
        ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return True


@cache
def _module(name: str, path: Path, modified: int, names: frozenset[str]) -> Module:
    try:
        return Module(name, path.read_bytes(), names)
    except (SyntaxError, ValueError) as error:
        raise LabError(f"{path} is not Python: {error}") from None


class _Walk:
    """One walk over the definitions, from the code of a notebook."""

    def __init__(self, library: Mapping[str, Path], words: Collection[str]) -> None:
        self.library, self.words = library, set(words)
        self.reached: dict[tuple[str, str], Definition] = {}
        """By module and name; an entry of a dict is named `NAMES[key]`."""
        self._names = frozenset(library)
        self._modules: dict[str, Module] = {}  # those that are imported
        self._chosen: dict[tuple[str, str], Definition] = {}  # dicts of which what is named at run time is taken
        self._followed: set[Use] = set()
        self._waiting: list[Definition] = []

    def run(self, start: Module) -> dict[str, str]:
        own = [start.definition(name) for name in start.statements] + start.effects()
        self._waiting += [entry for found in own for entry in (found, *found.entries.values())]
        while self._waiting or self._choose():
            found = self._waiting.pop()
            self.words |= found.strings
            for use in found.uses:
                self._follow(use)
        return self._told(own)

    def _module(self, name: str) -> Module:
        """A module, whose effects count from now on."""
        if name not in self._modules:
            path = self.library[name]
            self._modules[name] = module = _module(name, path, path.stat().st_mtime_ns, self._names)
            for number, effect in enumerate(module.effects()):
                self._add(name, f"(on import) {number}", effect)
        return self._modules[name]

    def _follow(self, use: Use) -> None:
        if use in self._followed:
            return
        self._followed.add(use)
        name, found = use.name, locate(f"{use.module}.{use.name}".strip("."), self._names)[0]
        if not found:  # a name of the notebook's own
            return
        module = self._module(found)
        if found != use.module or not name:
            for one in module.statements:
                self._take(module, one, chosen=False)
        elif name in module.statements:
            self._take(module, name, use.chosen)
        elif name in module.aliases:  # imported there, and from there
            for alias in module.aliases[name]:
                target, inner = locate(alias, self._names)
                self._follow(Use(target, inner.partition(".")[0], use.chosen))
        elif name not in ("__file__", "__doc__", "__name__", "__version__"):
            self._follow(Use(found, ""))

    def _take(self, module: Module, name: str, chosen: bool) -> None:
        found = module.definition(name)
        self._add(module.name, name, found)
        # Entries that are plain values, such as numbers, are not components.
        if chosen and any(one.uses for one in found.entries.values()):
            self._chosen[module.name, name] = found
        elif found.entries:
            for key, one in found.entries.items():
                self._add(module.name, f"{name}[{key}]", one)
            # Whoever goes through it may count on its order, and use its keys in another dict.
            keys = Definition(digest(" ".join(found.entries)), (), frozenset(found.entries))
            self._add(module.name, f"{name}[*]", keys)

    def _add(self, module: str, name: str, found: Definition) -> None:
        if (module, name) not in self.reached:
            self.reached[module, name] = found
            self._waiting.append(found)

    def _choose(self) -> bool:
        """Take the entries that are chosen by now; whole where none ever is, as then it is not known how they are."""
        for last in (False, True):
            for (module, name), found in self._chosen.items():
                keys = found.entries.keys() & self.words
                for key in keys or (found.entries if last else ()):
                    self._add(module, f"{name}[{key}]", found.entries[key])
            if self._waiting:
                return True
        return False

    def _told(self, own: Sequence[Definition]) -> dict[str, str]:
        counted = {place: found for place, found in self.reached.items() if decides(place[0])}
        twice = {name for name, count in Counter(name for _, name in counted).items() if count > 1}

        def meant(found: Definition) -> str:
            """Which of several definitions of one name it uses stands in no tree."""
            return "".join(f" {use.module}.{use.name}" for use in found.uses if use.name in twice)

        told: dict[str, str] = {}
        effects = []
        for (module, name), found in counted.items():
            hashed = digest(found.digest + meant(found)) if meant(found) else found.digest
            if name.startswith("(on import)"):
                effects.append(hashed)
            else:
                told[f"{module}.{name}" if name in twice else name] = hashed
            for file in filter(_WORD_LIST.fullmatch, found.strings):
                if (path := self.library[module].with_name(file)).is_file():
                    told[file] = digest(path.read_text(encoding="utf-8"))
        if effects:
            told["(on import)"] = digest(" ".join(sorted(effects)))
        if other := "".join(map(meant, own)):
            told["(notebook)"] = digest(other)
        return dict(sorted(told.items()))
