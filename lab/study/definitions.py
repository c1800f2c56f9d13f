"""What a module of ours defines at its top level, read from its source without importing it.

A definition is a function, a class or a constant. Kept of each are a hash of what it does (its syntax tree without
comments, docstrings, annotations of functions and imports), the names that it uses, and the strings in it. Of a
constant that is a dict with names as keys, every entry is kept by itself, so that one can count without the others. A
name that was imported under another one is put back, so that moving a definition to another file changes nothing.
"""

import ast
import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from lab.errors import LabError

OURS = ("lab", "standins")
"""The packages whose definitions are followed."""

SELECTORS = {"choose", "build_by_name"}
"""Functions that take one entry of the dict that they are given."""

PURE_DECORATORS = {"cache", "contextmanager", "dataclass", "inference_mode", "lru_cache", "no_grad", "wraps"}
"""What these decorate is found by its name alone; any other decorator may put it into a registry."""

_NO_MATTER = {"annotation", "returns", "ctx", "type_comment"}


@dataclass(frozen=True)
class Use:
    """A name that a definition uses; the whole module where `name` is empty."""

    module: str
    name: str
    chosen: bool = False
    """Of a dict one entry is taken."""


@dataclass(frozen=True)
class Definition:
    """What one definition does (`digest`), what it uses, and the strings in it that may name a component."""

    digest: str
    uses: tuple[Use, ...]
    strings: frozenset[str]
    entries: "dict[str, Definition]" = field(default_factory=dict)
    """Of a dict all of whose keys are names; nothing else is said of it then."""


def digest(text: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_hash(source: str, modules: Collection[str]) -> str:
    """A hash of what a source does, in order; comments, docstrings, formatting and imports of ours do not count."""
    module = Module("", source, modules)
    return _Reader(module).read(module.body).digest


def locate(dotted: str, modules: Collection[str]) -> tuple[str, str]:
    """The module in a dotted name, and what follows it: `lab.data.text` and `NAME.x`; no module where none is ours."""
    module = dotted
    while module and module not in modules:
        module = module.rpartition(".")[0]
    return module, dotted[len(module) + 1 :] if module else dotted


class Module:
    """A module's definitions, read one by one as they are asked for.

    Args:
        name: dotted; empty for a notebook.
        source: its text.
        modules: the dotted names of all modules of ours.

    Raises:
        SyntaxError: as `ast.parse`.
        LabError: an import of ours that is relative, or of all names (`*`).
    """

    def __init__(self, name: str, source: str | bytes, modules: Collection[str]) -> None:
        self.name, self.modules = name, modules
        self.aliases: dict[str, dict[str, None]] = {}
        """What an imported name means, dotted: several things where branches import under one name."""
        self.statements: dict[str, list[ast.stmt]] = {}
        """What defines a name: several where it is bound again."""
        self.body = list(_statements(ast.parse(source).body))
        self._effects: list[ast.stmt] = []
        self._read: dict[str, Definition] = {}
        for statement in self.body:
            for node in ast.walk(statement):
                for alias, meaning in self.meanings(node):
                    self.aliases.setdefault(alias, {})[meaning] = None
            names, no_more = _binds(statement)
            for bound in names:
                self.statements.setdefault(bound, []).append(statement)
            if not no_more and not isinstance(statement, ast.Import | ast.ImportFrom):
                self._effects.append(statement)

    def meanings(self, node: ast.AST) -> list[tuple[str, str]]:
        """The names that an import binds, and what each means."""
        if isinstance(node, ast.Import):
            return [(alias.asname or alias.name, alias.name) for alias in node.names]
        if not isinstance(node, ast.ImportFrom):
            return []
        package = node.module or ""
        if node.level or (package.split(".")[0] in OURS and node.names[0].name == "*"):
            raise LabError(
                f"`{ast.unparse(node)}` in {self.name or 'a notebook'} cannot be followed; import each name from its "
                "full module"
            )
        return [(alias.asname or alias.name, f"{package}.{alias.name}") for alias in node.names]

    def effects(self) -> list[Definition]:
        """Statements at the top level that do more than define, and definitions that a decorator may register."""
        return [_Reader(self).read([statement]) for statement in self._effects]

    def definition(self, name: str) -> Definition:
        """What the module defines under a name."""
        if name not in self._read:
            entries = _named_entries(self.statements[name])
            found = _Reader(self).read([] if entries else self.statements[name])
            self._read[name] = replace(found, entries={key: _Reader(self).read([one]) for key, one in entries.items()})
        return self._read[name]


class _Reader(ast.NodeVisitor):
    """Writes a tree down without what does nothing, and notes the names and strings that it uses."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.chosen: set[ast.AST] = set()
        """Dicts of which one entry is taken."""
        self._keys: set[ast.AST] = set()
        self._written: list[str] = []
        self._uses: list[Use] = []
        self._strings: set[str] = set()

    def read(self, nodes: Iterable[ast.AST]) -> Definition:
        for node in nodes:
            self.visit(node)
        return Definition(digest("\n".join(self._written)), tuple(self._uses), frozenset(self._strings))

    def generic_visit(self, node: ast.AST) -> None:
        self._written.append(type(node).__name__)
        for name, value in ast.iter_fields(node):
            if name in _NO_MATTER:
                continue
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    self.visit(part)
                else:
                    self._written.append(repr(part))
            self._written.append(".")

    def visit_Expr(self, node: ast.Expr) -> None:
        if not _is_text(node):
            self.generic_visit(node)

    def visit_Pass(self, node: ast.AST) -> None:
        """It does nothing, and stands only where there is no docstring; an import does what its names are used for."""

    visit_Import = visit_ImportFrom = visit_Pass

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        # A field's annotation may decide (a ClassVar is no field); what it names is made elsewhere.
        fields = (statement for statement in node.body if isinstance(statement, ast.AnnAssign))
        self._written += [f"{ast.unparse(one.target)}: {ast.unparse(one.annotation)}" for one in fields]
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(ast.Assign([node.target], node.value))

    def visit_Constant(self, node: ast.Constant) -> None:
        self._written.append(repr(node.value))
        if isinstance(node.value, str) and node not in self._keys:
            self._strings.add(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        meanings = self.module.aliases.get(node.id, ())
        for meaning in meanings:
            self._use(meaning, node)
        if node.id in self.module.statements:
            self._uses.append(Use(self.module.name, node.id, node in self.chosen))
        if not meanings:
            self._written.append(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        base, _, rest = _dotted(node).partition(".")
        meanings = [base] if base in OURS else self.module.aliases.get(base, ())
        modules = [meaning for meaning in meanings if meaning in self.module.modules]
        if modules and node.value not in self.chosen:
            for module in modules:
                self._use(f"{module}.{rest}", node)
        else:
            self.generic_visit(node)

    def _use(self, dotted: str, node: ast.AST) -> None:
        """Note what a name means: a definition or module of ours, or something of another library."""
        module, inner = locate(dotted, self.module.modules)
        if module:
            self._uses.append(Use(module, inner.partition(".")[0], node in self.chosen))
        self._written.append(inner or module)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.slice, ast.Constant):  # `table["words"]` is a column, and names no component
            self._keys.add(node.slice)
        elif isinstance(node.ctx, ast.Load):
            self.chosen.add(node.value)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        self._keys |= set(filter(None, node.keys))  # nor does a key of a dict in code
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if isinstance(node.ops[0], ast.In | ast.NotIn):
            self.chosen.add(node.comparators[0])
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            self.chosen.add(node.func.value)
        elif _dotted(node.func) in SELECTORS and node.args:
            self.chosen.add(node.args[0])
        self.generic_visit(node)


def _dotted(node: ast.AST) -> str:
    """`store.database` as it is written; empty for what is no name."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def _is_text(node: ast.stmt) -> bool:
    """A docstring, also one after an attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a top level, without texts and without those that only a type checker sees."""
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _statements(statement.orelse)
        elif not _is_text(statement):
            yield statement


def _binds(statement: ast.stmt) -> tuple[list[str], bool]:
    """The names that a statement defines, and whether it does no more."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        decorators = (one.func if isinstance(one, ast.Call) else one for one in statement.decorator_list)
        return [statement.name], all(_dotted(one).rpartition(".")[2] in PURE_DECORATORS for one in decorators)
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return [], False
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    nodes = [node for target in targets for node in ast.walk(target)]
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return names, not any(isinstance(node, ast.Attribute | ast.Subscript) for node in nodes)


def _named_entries(statements: list[ast.stmt]) -> dict[str, ast.expr]:
    """The entries of a dict all of whose keys are names; empty for anything else."""
    (statement, *others) = statements
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) and not others else None
    if not isinstance(value, ast.Dict):
        return {}
    keys = [key.value if isinstance(key, ast.Constant) else None for key in value.keys]
    named = {key: one for key, one in zip(keys, value.values, strict=True) if isinstance(key, str)}
    return named if len(named) == len(keys) else {}
