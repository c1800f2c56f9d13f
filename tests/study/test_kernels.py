import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import pytest

from lab import paths
from lab.study import kernels
from lab.study.kernels import execute, warm
from lab.study.limits import DEFAULT_LIMITS, Limits
from lab.study.parameters import imported_modules
from tests.conftest import saved_elsewhere, write_notebook

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")

NOTEBOOK = [
    "size: int = 1\nname: str = ''",
    "import numpy as np\nimport matplotlib.pyplot as plt\nimport os, sys",
    "print(size, name, os.getcwd(), os.environ['ASKED'])\nnp.arange(size)",
    "import subprocess\nprint('to stderr', file=sys.stderr)",
    "figure, axes = plt.subplots()\naxes.plot(range(size))\nplt.show()",
    "from IPython.display import display\nshown = display('before', display_id=True)\nprint('beside')\nshown.update(1)",
    "1 / 0",
    "print('never')",
]


def write(path: Path, *sources: str) -> Path:
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for number, source in enumerate(sources or NOTEBOOK):
        metadata = {} if number else {"tags": ["parameters"]}
        notebook.cells.append(nbformat.v4.new_code_cell(source, id=f"cell-{number}", metadata=metadata))
    nbformat.write(notebook, path)
    return path


def run(path: Path, *sources: str) -> tuple[str, tuple[str, str, str]]:
    """What the last cell prints, and how the notebook ended."""
    executed = path / "executed.ipynb"
    ended = execute(write(path / "study.ipynb", "size = 1", *sources), executed, {"size": 2}, DEFAULT_LIMITS)
    outputs = nbformat.read(executed, as_version=4).cells[-1].outputs
    return "".join(output.get("text", "") for output in outputs), ended


def cells_of(executed: Path) -> list[dict[str, Any]]:
    cells = []
    for cell in nbformat.read(executed, as_version=4).cells:
        timeless = {key: value for key, value in cell.metadata.items() if key not in ("papermill", "execution")}
        outputs = cell.get("outputs", [])
        for shown in outputs:
            shown.pop("traceback", None)  # names a file of the kernel's process
        cells.append({"source": cell.source, "metadata": timeless, "outputs": outputs})
    return [cell for cell in cells if cell["source"] and "papermill-error" not in str(cell["metadata"])]


def gone(pid: int, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def forking() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        patch.setenv("ASKED", "yes")
        patch.setattr(kernels, "_context", kernels._context)
        warm(["no_such_module_anywhere", "numpy", "matplotlib.pyplot"])
        assert kernels._context.get_start_method() == "forkserver"
        yield
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # leave the tests after these no process
        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@linux
@pytest.mark.slow
def test_papermills_notebook_is_the_same_as_from_a_kernel_of_jupyters(
    forking: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASKED", "yes")
    notebook, executed = write(tmp_path / "study.ipynb"), tmp_path / "executed.ipynb"
    given = {"size": 3, "name": "x"}
    with pytest.raises(papermill.PapermillExecutionError, match="division by zero"):
        papermill.execute_notebook(
            str(notebook), str(executed), given, cwd=str(paths.repository_root()), progress_bar=False
        )
    plain = cells_of(executed)
    name, error, text = execute(notebook, executed, given, DEFAULT_LIMITS)
    assert (name, error) == ("ZeroDivisionError", "ZeroDivisionError: division by zero")
    assert "1 / 0" in text
    assert cells_of(executed) == plain
    assert any("image/png" in shown.get("data", {}) for cell in plain for shown in cell["outputs"])


@linux
def test_a_notebook_saved_with_another_kernel_runs_in_this_environment(forking: None, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "study.ipynb", "size: int = 1", "import sys\nprint(size, sys.executable)")
    content = saved_elsewhere(path)
    executed = tmp_path / "executed.ipynb"
    for metadata in (content["metadata"], {}, {"kernelspec": None}):
        path.write_text(json.dumps(content | {"metadata": metadata}), encoding="utf-8-sig")
        assert execute(path, executed, {"size": 2}, DEFAULT_LIMITS) == ("", "", "")
        (printed,) = [cell["outputs"] for cell in cells_of(executed) if cell["outputs"]]
        assert printed[0]["text"].split() == ["2", sys.executable]


@linux
def test_a_fork_has_imported_everything_and_its_own_randomness(forking: None, tmp_path: Path) -> None:
    ask = "import sys, os, random; print('numpy' in sys.modules, os.getppid(), random.random(), "
    ask += "__import__('numpy').random.random())"
    first, second = (run(tmp_path, ask)[0].split() for _ in range(2))
    assert first[0] == second[0] == "True"
    assert first[1] == second[1]
    assert first[2] != second[2]
    assert first[3] != second[3]


@linux
def test_a_notebook_runs_its_exit_handlers_and_its_death_is_told(forking: None, tmp_path: Path) -> None:
    touch = f"import atexit, pathlib; atexit.register(pathlib.Path({str(tmp_path / 'left')!r}).touch)"
    assert run(tmp_path, touch) == ("", ("", "", ""))
    assert (tmp_path / "left").exists()
    died = run(tmp_path, "print('begun')", "import os; os.kill(os.getpid(), 9)")[1]
    assert died[:2] == (kernels.DIED, "its process died (signal 9)")


@linux
def test_a_notebook_ends_with_the_process_it_was_forked_from(forking: None, tmp_path: Path) -> None:
    def kill() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.05)
        time.sleep(0.2)
        psutil.Process(int((tmp_path / "pid").read_text())).parent().kill()  # type: ignore[union-attr]

    killer = threading.Thread(target=kill)
    killer.start()
    note = f"import os, pathlib, time; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))"
    assert run(tmp_path, note, "time.sleep(60)")[1][0] == kernels.DIED
    killer.join()
    assert gone(int((tmp_path / "pid").read_text()))
    assert run(tmp_path, "print(size)") == ("2\n", ("", "", ""))  # another fork server


@linux
def test_a_notebook_that_is_over_a_limit_is_killed(
    forking: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "WATCH_SECONDS", 0.1)
    notebook = write(tmp_path / "study.ipynb", "size = 1", "import time; time.sleep(60)")
    name, error, _ = execute(notebook, tmp_path / "executed.ipynb", {}, Limits(seconds=1))
    assert (name, error) == ("OverLimit", "it ran longer than its limit of 1 s")


@pytest.mark.slow
def test_where_a_module_starts_threads_each_process_is_a_fresh_one(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True, name='sleeper').start()"
    )
    write(tmp_path / "study.ipynb", "size = 1", "import os; print(os.getppid())")
    (tmp_path / "main.py").write_text(
        "import os\nfrom pathlib import Path\nfrom lab.study.kernels import execute, warm\n"
        "from lab.study.limits import Limits\n"
        "if __name__ == '__main__':\n    warm(['threaded'])\n"
        "    print(os.getpid(), execute(Path('study.ipynb').resolve(), Path('out.ipynb').resolve(), {}, Limits()))\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().endswith("('', '', '')"), done.stderr
    printed = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text
    assert printed.strip() == done.stdout.split()[0]
    if sys.platform.startswith("linux"):
        assert "notebooks get fresh processes: an imported module started threads: sleeper" in done.stderr


def test_the_modules_that_a_notebook_imports_are_read_from_its_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "study.ipynb")
    assert imported_modules(path) == ["numpy", "matplotlib.pyplot", "os", "sys", "subprocess", "IPython.display"]
