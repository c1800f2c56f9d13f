"""Which modules of `lab` and `standins` a notebook reaches: what it imports, what that imports, and so on.

Read from the source, so that nothing is imported to find out. An import inside a function counts like one at the top
of a file, one under `if TYPE_CHECKING:` does not. A module that a name is put together for at run time would not be
seen; the house has no such import of its own modules, and a test looks for it.
"""

import ast
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import lab
from lab.study.parameters import cell_source, read_notebook

ROOMS = ("data", "parts", "training", "evaluation")
"""The rooms of `lab` whose code decides a result; the study's and the paper's own keep and show it."""


def lab_modules(rooms: Iterable[str] = ROOMS) -> dict[str, Path]:
    """All modules of the rooms, and of `standins`, and their files, by dotted name; a package has its folder's."""
    root = Path(lab.__file__).resolve().parent
    found = {}
    for place in (*(root / room for room in rooms), root.parent / "standins"):
        for path in [place.with_suffix(".py"), *sorted(place.rglob("*.py"))]:
            if path.is_file():
                name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
                found[name.removesuffix(".__init__")] = path
    return found


def reached_modules(notebook: Path) -> dict[str, Path]:
    """The modules of the rooms that decide results which the notebook reaches, and their files, by dotted name.

    Raises:
        LabError: it is missing or is no notebook.
    """
    known = lab_modules()
    waiting = [name for source in _code_cells(notebook) for name in _imported(source)]
    reached: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        # `import lab.data.text` runs lab/data/__init__.py too; `from lab.data import text` names a module, or not.
        parts = name.split(".")
        for stem in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
            if stem in known and stem not in reached:
                reached[stem] = known[stem]
                status = known[stem].stat()
                waiting += _imports_of(known[stem], status.st_mtime_ns, status.st_size)
    return dict(sorted(reached.items()))


def _code_cells(notebook: Path) -> Iterator[str]:
    for cell in read_notebook(notebook)["cells"]:
        if cell["cell_type"] == "code":
            # Lines such as %matplotlib import nothing.
            lines = cell_source(cell).splitlines()
            yield "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


@cache
def _imports_of(path: Path, modified: int, size: int) -> tuple[str, ...]:
    return tuple(_imported(path.read_text(encoding="utf-8")))


def _imported(source: str) -> list[str]:
    """The dotted names that the source imports, with each name of `from a import b` as `a.b`."""
    names: list[str] = []
    with suppress(SyntaxError):  # it fails in the kernel, where it is seen
        waiting: list[ast.AST] = [ast.parse(source)]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                waiting += node.orelse
            else:
                waiting += ast.iter_child_nodes(node)
    return names
