"""A cell's parameters held against its notebook's, before any kernel starts.

papermill runs a notebook on its defaults, with only a warning, when a parameter is misspelt or the `parameters` tag is
lost, so that a sweep becomes identical runs. The tagged cell is read here as Python rather than with
`papermill.inspect_notebook`: that takes 2.6 s to import, reads no quoted annotation, and is silent about a missing tag.
"""

import ast
import difflib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import LabError
from lab.study.cells import Cell

DRIVER_PARAMETERS = ("run_id",)
"""Given by the sweep, not by the ablation: a notebook has each in its `parameters` cell, empty for use by hand."""

_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (dict,),
    "None": (type(None),),
}


@dataclass(frozen=True)
class NotebookParameter:
    """One line of the `parameters` cell; `types` are the names that a value may have (empty: anything)."""

    name: str
    types: tuple[str, ...]


def _annotation_types(node: ast.expr, where: str) -> tuple[str, ...]:
    """The names in `int | None`, `"list[int]"`...; what a list holds is not looked at."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _annotation_types(node.left, where) + _annotation_types(node.right, where)
    if isinstance(node, ast.Subscript):
        return _annotation_types(node.value, where)
    name = ast.unparse(node)
    if name not in _TYPES:
        raise LabError(f"{where} is annotated {name!r}; use one of: {', '.join(_TYPES)}, joined with | where needed")
    return (name,)


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook as JSON.

    Raises:
        LabError: it is missing or is no notebook.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"notebook {path} is missing") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not a notebook: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise LabError(f"{path} is not a notebook: it has no cells")
    return content


def cell_source(cell: Mapping[str, Any]) -> str:
    """A notebook cell's text (nbformat allows a list of lines)."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def imported_modules(notebook: Path) -> list[str]:
    """The modules that a notebook's top-level imports name, in order, each once."""
    names: dict[str, None] = {}
    for cell in read_notebook(notebook)["cells"]:
        if cell["cell_type"] != "code":
            continue
        with suppress(SyntaxError):  # a line such as %matplotlib
            for node in ast.parse(cell_source(cell)).body:
                if isinstance(node, ast.Import):
                    names |= {alias.name: None for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names[node.module] = None
    return list(names)


def notebook_parameters(path: Path) -> dict[str, NotebookParameter]:
    """What the one cell tagged `parameters` declares, by name.

    Raises:
        LabError: no cell or several are tagged, or the cell holds anything but `name: type = value`.
    """
    content = read_notebook(path)
    tagged = [cell for cell in content["cells"] if "parameters" in cell.get("metadata", {}).get("tags", ())]
    if len(tagged) != 1:
        raise LabError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters' where one is needed; without it papermill would "
            "run every cell on the same defaults (in JupyterLab: property inspector, Common Tools, Cell Tags)"
        )
    try:
        statements = ast.parse(cell_source(tagged[0])).body
    except SyntaxError as error:
        raise LabError(f"the parameters cell of {path.name} is not Python: {error}") from None
    found: dict[str, NotebookParameter] = {}
    for statement in statements:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            name = statement.target.id
            types = _annotation_types(statement.annotation, f"parameter {name!r} of {path.name}")
        elif (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            name = statement.targets[0].id
            value = statement.value.value if isinstance(statement.value, ast.Constant) else None
            types = () if value is None else (type(value).__name__,)
        else:
            raise LabError(
                f"line {statement.lineno} of the parameters cell of {path.name} is not of the form 'name: type = value'"
            )
        found[name] = NotebookParameter(name, types)
    return found


def _fits(value: Any, types: tuple[str, ...]) -> bool:
    if not types:
        return True
    if isinstance(value, bool):  # Python's bool is an int; here True for a number of steps is a mistake
        return "bool" in types
    return any(isinstance(value, _TYPES[name]) for name in types)


def check_parameters(cells: Iterable[Cell], notebook: Path) -> None:
    """Hold every cell's parameters against the notebook's `parameters` cell.

    Raises:
        LabError: names what is unknown (with the closest match), missing or of the wrong type, and the choices.
    """
    declared = notebook_parameters(notebook)
    for name in DRIVER_PARAMETERS:
        if name not in declared:
            raise LabError(f'{notebook.name} has no parameter {name!r}; add the line {name}: str = ""')
    own = {name: entry for name, entry in declared.items() if name not in DRIVER_PARAMETERS}
    for cell in cells:
        problems = []
        for name in cell.parameters:
            if name not in own:
                close = difflib.get_close_matches(name, own, n=1)
                problems.append(f"{name!r} is unknown" + (f" (did you mean {close[0]!r}?)" if close else ""))
            elif not _fits(cell.parameters[name], own[name].types):
                value = cell.parameters[name]
                problems.append(f"{name!r} is {value!r} ({type(value).__name__}), not {' | '.join(own[name].types)}")
        problems += [f"{name!r} is missing" for name in own if name not in cell.parameters]
        if problems:
            raise LabError(
                f"parameters of {cell.row!r} at rung {cell.rung!r} do not fit {notebook.name}: {'; '.join(problems)}. "
                f"The notebook has: {', '.join(sorted(own))}"
            )


def given_parameters(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the parameters of `notebooks/NOTEBOOK.ipynb` have in a notebook's `globals()`."""
    declared = notebook_parameters(paths.repository_root() / "notebooks" / f"{notebook}.ipynb")
    return {name: namespace[name] for name in declared if name not in DRIVER_PARAMETERS}
