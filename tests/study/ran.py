"""Runs the code of a notebook in this process and prints which top-level definitions of ours ran, a line each.

`python -m tests.study.ran NOTEBOOK PARAMETERS` with the parameters as JSON. A line is `MODULE NAME`.
"""

import ast
import inspect
import json
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType

from lab.study.definitions import OURS
from lab.study.parameters import cell_source, read_notebook
from lab.study.reach import our_modules


def names_by_line(source: str) -> dict[int, str]:
    """The name that the top-level statement on each line defines."""
    names = {}
    for statement in ast.parse(source).body:
        first = min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", ()))])
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            name = statement.name
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            name = target.id if isinstance(target, ast.Name) else ""
        else:
            continue
        names |= dict.fromkeys(range(first, (statement.end_lineno or first) + 1), name)
    return names


def is_importing(frame: FrameType) -> bool:
    """Whether it runs as a module of ours is imported: for a constant that nobody need use."""
    caller: FrameType | None = frame
    while caller is not None:
        if caller.f_code.co_name == "<module>" and caller.f_globals.get("__name__", "").split(".")[0] in OURS:
            return True
        caller = caller.f_back
    return False


def main() -> None:
    """Run the notebook and print."""
    notebook, parameters = Path(sys.argv[1]), json.loads(sys.argv[2])
    files = {str(path): name for name, path in our_modules().items()}
    seen: set[CodeType] = set()

    def trace(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code not in seen and not is_importing(frame):
            seen.add(frame.f_code)

    namespace = {"__name__": "__main__"}
    threading.settrace(trace)
    sys.settrace(trace)
    for cell in read_notebook(notebook)["cells"]:
        if cell["cell_type"] == "code":
            exec(compile(cell_source(cell), notebook.name, "exec"), namespace)
            if "parameters" in cell["metadata"].get("tags", ()):
                namespace |= parameters
    sys.settrace(None)
    for code in seen:
        module = files.get(code.co_filename)
        # The body of a class or module runs when it is imported, whoever uses it.
        if module and code.co_flags & inspect.CO_OPTIMIZED:
            name = names_by_line(Path(code.co_filename).read_text()).get(code.co_firstlineno, "")
            if name:
                print(module, name)


if __name__ == "__main__":
    main()
