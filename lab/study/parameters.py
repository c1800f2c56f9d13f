"""The parameters of a notebook: what its tagged cell declares, held against the typed parameters of its kind of study.

papermill runs a notebook on its defaults, with only a warning, when a parameter is misspelt or the `parameters` tag is
lost, so that a sweep becomes identical runs. The tagged cell is read here as Python rather than with
`papermill.inspect_notebook`, which takes 2.6 s to import and is silent about a missing tag.

    python -m lab.study.parameters  # writes the parameters cell of every study's notebook anew
"""

import ast
import inspect
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

from lab.errors import LabError
from lab.paths import read_text
from lab.training.parameters import Parameters

DRIVER_PARAMETERS = ("run_id",)
"""Given by the sweep, not by the ablation: a notebook has each in its `parameters` cell, empty for use by hand."""

_RUN_ID = 'run_id: str = ""  # MLflow run that the sweep opened; empty: a run of its own'
_ADDED = "injected-parameters"
_NO_OPTIONS = "field(default_factory=dict, hash=False)"
_LINE = re.compile(r"    (\w+): .+? = (.+?)  # (.+)")

P = TypeVar("P", bound=Parameters)


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook as JSON; a LabError where it is missing or is none.

    Left out are tags that are null, and the cell that papermill adds: found again, it is filled where it stands.
    """
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        raise LabError(f"notebook {path} is missing") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not a notebook: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise LabError(f"{path} is not a notebook: it has no cells")
    for cell in content["cells"]:
        if cell["metadata"].get("tags", ()) is None:
            del cell["metadata"]["tags"]
    content["cells"] = [cell for cell in content["cells"] if _ADDED not in cell["metadata"].get("tags", ())]
    return content


def cell_source(cell: Mapping[str, Any]) -> str:
    """A notebook cell's text."""
    return whole_text(cell["source"])


def whole_text(source: str | list[str]) -> str:
    """A notebook keeps long text as one string or as its lines."""
    return source if isinstance(source, str) else "".join(source)


def imported_modules(notebook: Path) -> list[str]:
    """The modules that a notebook's top-level imports name, in order, each once."""
    names: dict[str, None] = {}
    for cell in read_notebook(notebook)["cells"]:
        with suppress(SyntaxError):  # a line such as %matplotlib
            for node in ast.parse(cell_source(cell) if cell["cell_type"] == "code" else "").body:
                if isinstance(node, ast.Import):
                    names |= dict.fromkeys(alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names[node.module] = None
    return list(names)


def _tagged(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The one cell tagged `parameters`."""
    tagged = [cell for cell in content["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    if len(tagged) != 1:
        raise LabError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters' where one is needed; without it papermill would "
            "run every cell on the same defaults (in JupyterLab: property inspector, Common Tools, Cell Tags)"
        )
    return tagged[0]  # type: ignore[no-any-return]


def notebook_parameters(path: Path) -> list[str]:
    """The names that the one cell tagged `parameters` declares, each line as `name: type = value`, else a LabError."""
    try:
        statements = ast.parse(cell_source(_tagged(read_notebook(path), path))).body
    except SyntaxError as error:
        raise LabError(f"the parameters cell of {path.name} is not Python: {error}") from None
    names = []
    for statement in statements:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value):
            raise LabError(
                f"line {statement.lineno} of the parameters cell of {path.name} is not of the form 'name: type = value'"
            )
        names.append(statement.target.id)
    return names


def check_notebook(notebook: Path, kind: type[Parameters]) -> None:
    """Refuse a notebook whose parameters are not those of its kind of study, which would run on defaults of its own.

    So is one of another language than Python; the kernel's name does not matter (see `lab.study.kernels`).
    """
    metadata = read_notebook(notebook).get("metadata", {})
    named = ((metadata.get("language_info") or {}).get("name"), (metadata.get("kernelspec") or {}).get("language"))
    if (language := next(filter(None, named), "python")) != "python":
        raise LabError(f"{notebook.name} was saved with a kernel of {language}; expected one of python")
    declared, wanted = notebook_parameters(notebook), [*kind.names(), *DRIVER_PARAMETERS]
    problems = [f"{name!r} is missing" for name in wanted if name not in declared]
    problems += [f"{name!r} is none of them" for name in declared if name not in wanted]
    if problems:
        raise LabError(
            f"the parameters cell of {notebook.name} does not hold the {kind.__name__}: {', '.join(problems)}; "
            "`python -m lab.study.parameters` writes it"
        )


def given_parameters(kind: type[P], namespace: Mapping[str, Any]) -> P:
    """The parameters of a notebook, from its `globals()`; raises a LabError where a value does not fit."""
    return kind(**{name: namespace[name] for name in kind.names()})


def parameters_cell(kind: type[Parameters]) -> str:
    """The parameters cell of a notebook of this kind: a line a parameter, with its default and its unit."""
    written: dict[str, tuple[str, str]] = {}
    for one in reversed(kind.__mro__[:-1]):
        found = map(_LINE.fullmatch, inspect.getsource(one).splitlines())
        written |= {line[1]: (line[2], line[3]) for line in found if line}
    types = {entry.name: entry.type for entry in fields(kind)}
    lines = []
    for name in kind.names():
        plain = str if get_origin(types[name]) is Literal else get_origin(types[name]) or types[name]
        default, explained = written[name]
        lines.append(f"{name}: {plain.__name__} = {default.replace(_NO_OPTIONS, '{}')}  # {explained}")  # type: ignore[union-attr]
    return "\n".join([*lines, _RUN_ID])


def write_parameters(notebook: Path, kind: type[Parameters]) -> None:
    """Write the parameters cell of a notebook anew; else nothing is changed but what `read_notebook` leaves out.

    Raises:
        LabError: as `read_notebook`, or it has not one such cell.
    """
    content = read_notebook(notebook)
    _tagged(content, notebook)["source"] = parameters_cell(kind).splitlines(keepends=True)
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Write those of every study's notebook."""
    from lab.study.ablation import ablation_files, load_ablation, notebook_path

    for ablation in map(load_ablation, ablation_files()):
        write_parameters(notebook_path(ablation), type(ablation.base))


if __name__ == "__main__":
    main()
