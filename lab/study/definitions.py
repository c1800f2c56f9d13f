"""What a module of `lab` defines at its top level, read from its source without importing it.

A definition is a function, a class or a constant. Of each is kept what it does (its syntax tree without comments,
docstrings, annotations of functions and imports of our own modules), which other names it uses, and the strings in it.
Of a constant that is a dict with names as keys, every entry is kept by itself, so that one entry can count without the
others. A name that was imported under another one is put back, so that moving a definition to another file changes
nothing.
"""

import ast
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

SELECTORS = {"choose", "build_by_name"}
"""Functions that take one entry of the dict that they are given, whose name is the argument after it."""

PURE_DECORATORS = {
    "abstractmethod", "asynccontextmanager", "cache", "cached_property", "classmethod", "contextmanager", "dataclass",
    "final", "inference_mode", "jaxtyped", "lru_cache", "no_grad", "overload", "override", "property",
    "runtime_checkable", "setter", "staticmethod", "total_ordering", "wraps",
}  # fmt: skip
"""What these decorate is found by its name alone; any other decorator may put it into a registry."""

OURS = ("lab", "standins")
"""The packages whose definitions are followed."""

ALL, CHOSEN = "*", "?"
"""Which entries of a dict a use takes: every one, or the one that is named at run time."""

IMPORTED = "import"
"""In place of an entry: the use only imports a module, whose top level then runs."""


@dataclass(frozen=True)
class Use:
    """A name that a definition uses: of another definition, or of a module of ours where `attribute` is empty.

    `module` is empty for a name of the same module. `entry` is `ALL`, `CHOSEN`, `IMPORTED`, or the key that
    stands in the source.
    """

    module: str
    attribute: str
    entry: str = ALL


@dataclass(frozen=True)
class Definition:
    """What one definition does (`digest`), what it uses, and the strings in it that may name a component."""

    digest: str
    uses: tuple[Use, ...]
    strings: tuple[str, ...]
    entries: "dict[str, Definition]" = field(default_factory=dict)
    """Of a dict with names as keys; the digest is then that of its other entries, such as `**MORE`."""


@dataclass(frozen=True)
class ModuleDefinitions:
    """What a module defines, by name, what it imports when it is imported, and what it does then."""

    definitions: dict[str, Definition]
    imported: tuple[str, ...]
    """The modules of ours, and the names in them, that its top level imports."""
    aliases: dict[str, tuple[Use, ...]]
    """What the names of its imports of ours may mean: several where branches import under one name."""
    effects: tuple[Definition, ...]
    """Statements at the top level that define nothing, and definitions that a decorator may have registered."""


def read_definitions(source: str | bytes, modules: Collection[str]) -> ModuleDefinitions:
    """Read a module's source; `modules` are the dotted names of all modules of ours.

    Raises:
        SyntaxError: as `ast.parse`.
    """
    tree = ast.parse(source)
    imports = _Imports(tree.body, modules)
    definitions: dict[str, Definition] = {}
    effects = [_read([ast.Pass()], imports, tuple(imports.stars))] if imports.stars else []
    for statement in _statements(tree.body):
        if _only_imports(statement) or _is_text(statement):
            continue
        names = _names_bound(statement)
        if not names:
            effects.append(_definition(statement, imports))
            continue
        found = _definition(statement, imports)
        for name in names:
            # A name that is bound twice (`try` and `except`) is what both do.
            definitions[name] = found if name not in definitions else _joined(definitions[name], found)
        if any(_decorator_name(node) not in PURE_DECORATORS for node in getattr(statement, "decorator_list", ())):
            effects.append(found)
    return ModuleDefinitions(definitions, tuple(imports.modules), imports.ours, tuple(effects))


def code_hash(source: str, modules: Collection[str]) -> str:
    """A hash of what the source does, in order; imports of ours, comments, docstrings and formatting do not count.

    Raises:
        SyntaxError: as `ast.parse`.
    """
    body = ast.parse(source).body
    return _read([statement for statement in body if not _is_text(statement)], _Imports(body, modules)).digest


class _Imports:
    """The names that a module's top level imports: those of our own modules, and those of others."""

    def __init__(self, body: Sequence[ast.stmt], known: Collection[str]) -> None:
        self.known = known
        self.ours: dict[str, tuple[Use, ...]] = {}
        self.others: dict[str, str] = {}
        self.modules: dict[str, None] = {}
        self.stars: list[Use] = []
        """What `from lab.data import *` takes: a module whole."""
        for statement in _statements(body):
            apart = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            for node in () if apart else ast.walk(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    self.add(node)
        self.own_names = {name for statement in _statements(body) for name in _names_bound(statement)}

    def add(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in OURS:
                    self.modules[alias.name] = None
                    # `import lab.data.text` binds `lab`; the dotted name is looked up as it is written.
                    bound = Use(alias.name, "") if alias.asname else Use(alias.name.split(".")[0], "")
                    self._bind(alias.asname or alias.name.split(".")[0], bound)
                else:
                    self._bind_other(alias.asname or alias.name.split(".")[0], alias.name)
            return
        module = node.module or ""  # the house has no relative imports; a test looks for them
        for alias in node.names:
            if module.split(".")[0] not in OURS:
                self._bind_other(alias.asname or alias.name, f"{module}.{alias.name}")
            elif alias.name == "*":
                self.modules[module] = None
                self.stars.append(Use(module, ""))
            else:
                self.modules[f"{module}.{alias.name}"] = None
                self._bind(alias.asname or alias.name, Use(module, alias.name))

    def _bind(self, name: str, use: Use) -> None:
        known = self.ours.get(name, ())
        self.ours[name] = known if use in known else (*known, use)

    def _bind_other(self, name: str, meaning: str) -> None:
        known = self.others.get(name, meaning)
        self.others[name] = known if meaning in known.split(" or ") else f"{known} or {meaning}"

    def within(self, node: ast.AST) -> "_Imports":
        """These, with the imports inside a function or class."""
        inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
        if not inner:
            return self
        own = _Imports([], self.known)
        own.ours, own.others, own.own_names = dict(self.ours), dict(self.others), self.own_names
        for statement in inner:
            own.add(statement)
        return own

    def meant(self, name: str) -> Use | None:
        """The one definition of ours that a name means; None where it means none, a module, or one of several."""
        uses = self.ours.get(name, ())
        if name in self.own_names:
            uses = (*uses, Use("", name))
        return uses[0] if len(uses) == 1 and uses[0].attribute else None


class _Reader(ast.NodeTransformer):
    """Takes out of a tree what does nothing, and notes the names and strings that it uses."""

    def __init__(self, imports: _Imports) -> None:
        self.imports = imports
        self.uses: dict[Use, None] = {}
        self.strings: dict[str, None] = {}
        self.others: dict[str, str] = {}
        self._modules: dict[str, list[str]] = {}  # of the definitions that have one name, in the order of their use
        self._in_class = False
        self._looked_up: set[ast.AST] = set()

    def _use(self, name: str, entry: str = ALL) -> None:
        # A name may be imported in one branch and defined in another: then both count.
        for found in self.imports.ours.get(name, ()):
            self.uses[Use(found.module, found.attribute, entry)] = None
        if name in self.imports.own_names:
            self.uses[Use("", name, entry)] = None
        if name in self.imports.others:
            self.others[name] = self.imports.others[name]

    def _written(self, use: Use) -> str:
        """The name that a definition has where it stands; the second of one name is told from the first."""
        modules = self._modules.setdefault(use.attribute, [])
        if use.module not in modules:
            modules.append(use.module)
        return f"{use.attribute}~{modules.index(use.module)}".removesuffix("~0")

    def _body(self, node: Any, in_class: bool = False) -> Any:
        around, self._in_class = self._in_class, in_class
        node.body = [statement for statement in node.body if not _is_text(statement)]
        node = self.generic_visit(node)
        node.body = [statement for statement in node.body if not isinstance(statement, ast.Pass)]
        self._in_class = around
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        return self._body(node, in_class=True)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        node.returns = None
        return self._body(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        node.returns = None
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> Any:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if not self._in_class:
            return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else ast.Pass()
        # A field's annotation may decide (a ClassVar is no field); what it names is made elsewhere.
        written = ast.unparse(node.annotation)
        self.generic_visit(_without_annotation(node))
        node.annotation = ast.Constant(written)
        return node

    def visit_Import(self, node: ast.Import) -> Any:
        for alias in node.names:
            if alias.name.split(".")[0] in OURS:
                self.uses[Use(alias.name, "", IMPORTED)] = None
        kept = [alias for alias in node.names if alias.name.split(".")[0] not in OURS]
        return ast.Import(kept) if kept else ast.Pass()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        if (node.module or "").split(".")[0] not in OURS:
            return node
        for alias in node.names:
            self.uses[Use(f"{node.module}.{alias.name}", "", IMPORTED)] = None
        return ast.Pass()

    def visit_Name(self, node: ast.Name) -> Any:
        if node not in self._looked_up:
            self._use(node.id)
        meant = self.imports.meant(node.id)
        return ast.Name(self._written(meant) if meant else node.id, node.ctx)

    def visit_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, str):
            self.strings[node.value] = None
        return node

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        if (found := self._of_a_module(node)) is not None:
            self.uses[found] = None
            return ast.Name(self._written(found), node.ctx)
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        if isinstance(node.ctx, ast.Load):
            self._look_up(node.value, node.slice)
        # `table["words"]` is a column, and names no component.
        column = isinstance(node.slice, ast.Constant) and node.value not in self._looked_up
        return ast.Subscript(self.visit(node.value), node.slice if column else self.visit(node.slice), node.ctx)

    def visit_Dict(self, node: ast.Dict) -> Any:
        keys = [key if key is None or isinstance(key, ast.Constant) else self.visit(key) for key in node.keys]
        return ast.Dict(keys, [self.visit(value) for value in node.values])

    def visit_Compare(self, node: ast.Compare) -> Any:
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn):
            self._look_up(node.comparators[0], node.left)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> Any:
        function, arguments = node.func, node.args
        if isinstance(function, ast.Attribute) and function.attr == "get" and arguments:
            self._look_up(function.value, arguments[0])
        elif isinstance(function, ast.Name) and len(arguments) > 1:
            meant = self.imports.meant(function.id)
            if (meant.attribute if meant else function.id) in SELECTORS:
                self._look_up(arguments[0], arguments[1])
        return self.generic_visit(node)

    def _look_up(self, names: ast.expr, key: ast.expr) -> None:
        """Note that one entry of a dict of ours is taken; what stands there is then no use of the whole dict."""
        if isinstance(names, ast.Name) and self._is_ours(names.id):
            self._use(names.id, _key(key))
            self._looked_up.add(names)

    def _is_ours(self, name: str) -> bool:
        return name in self.imports.own_names or any(use.attribute for use in self.imports.ours.get(name, ()))

    def _of_a_module(self, node: ast.Attribute) -> Use | None:
        """The definition that `store.database` or `lab.data.text.NAME` names, where `store` is a module of ours."""
        names: list[str] = []
        value: ast.expr = node
        while isinstance(value, ast.Attribute):
            names.insert(0, value.attr)
            value = value.value
        uses = self.imports.ours.get(value.id, ()) if isinstance(value, ast.Name) else ()
        if len(uses) != 1:
            return None
        (found,) = uses
        module = ".".join(filter(None, (found.module, found.attribute, *names[:-1])))
        is_definition = module in self.imports.known and f"{module}.{names[-1]}" not in self.imports.known
        return Use(module, names[-1]) if is_definition else None


def _without_annotation(node: ast.AnnAssign) -> ast.AnnAssign:
    node.annotation = ast.Constant(None)
    return node


def _key(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else CHOSEN


def _only_imports(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, also one after an attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a top level, without those that only a type checker sees."""
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _statements(statement.orelse)
        else:
            yield statement


def _names_bound(statement: ast.stmt) -> list[str]:
    """The names that a statement defines; none where it may do anything else besides."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names: list[str] = []
        for target in targets:
            parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            if not all(isinstance(part, ast.Name) for part in parts):
                return []
            names += [part.id for part in parts if isinstance(part, ast.Name)]
        return names
    if isinstance(statement, ast.Try | ast.If):
        inner = [*statement.body, *statement.orelse]
        if isinstance(statement, ast.Try):
            inner += [*statement.finalbody, *(entry for handler in statement.handlers for entry in handler.body)]
        bound = [
            _names_bound(entry) for entry in inner if not isinstance(entry, ast.Import | ast.ImportFrom | ast.Pass)
        ]
        return [name for names in bound for name in names] if all(bound) else []
    return []


def _decorator_name(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _definition(statement: ast.stmt, imports: _Imports) -> Definition:
    literal = _dict_literal(statement)
    if literal is None:
        return _read([statement], imports)
    entries, rest = {}, []
    for key, value in zip(literal.keys, literal.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            entries[key.value] = _read([ast.Expr(value)], imports)
        else:
            rest.append(ast.Expr(value))
    # `**MORE`: what is chosen of this dict may be an entry of that one.
    spread = _read(rest, imports)
    uses = tuple(Use(use.module, use.attribute, CHOSEN) for use in spread.uses)
    return Definition(spread.digest, uses, spread.strings, entries)


def _dict_literal(statement: ast.stmt) -> ast.Dict | None:
    """The dict of `NAMES = {"one": One, **MORE}`, also inside `MappingProxyType(...)`; None where keys are no names."""
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    if isinstance(value, ast.Call) and _decorator_name(value) == "MappingProxyType" and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, ast.Dict) or not value.keys:
        return None
    spread = [entry for key, entry in zip(value.keys, value.values, strict=True) if key is None]
    named = all(key is None or (isinstance(key, ast.Constant) and isinstance(key.value, str)) for key in value.keys)
    return value if named and all(isinstance(entry, ast.Name) for entry in spread) else None


def _read(statements: Sequence[ast.stmt], imports: _Imports, uses: Sequence[Use] = ()) -> Definition:
    reader = _Reader(imports)
    reader.uses |= dict.fromkeys(uses)
    dumps = []
    for statement in statements:
        reader.imports = imports.within(statement)
        dumps.append(ast.dump(reader.visit(statement)))
    # What an imported name of another library stands for decides too.
    parts = [*dumps, *(f"{name} = {meaning}" for name, meaning in sorted(reader.others.items()))]
    return Definition(digest("\n".join(parts)), tuple(reader.uses), tuple(reader.strings))


def _joined(one: Definition, other: Definition) -> Definition:
    return Definition(
        digest(one.digest + other.digest),
        (*one.uses, *other.uses),
        (*one.strings, *other.strings),
        {**one.entries, **other.entries},
    )


def digest(text: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
