"""A notebook executed by papermill in a process of its own, forked from one that has imported everything once.

Importing torch, transformers and the rest anew takes about 10 s on two cores. Python's own fork server forks; where
that is not safe (no Linux, CUDA initialised, threads) processes are fresh ones. IPython runs the cells in the process
itself: nobody else speaks to it, so that it needs none of the sockets and threads of Jupyter's kernels. The kernel that
a notebook was saved with is not started: the cells run in the environment of `lab`.
"""

import atexit
import base64
import json
import multiprocessing
import os
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import TextIOBase
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

import psutil
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_output
from traitlets import Type
from traitlets.config import Config

from lab import paths
from lab.study.limits import Limits, family
from lab.study.parameters import read_notebook

WATCH_SECONDS = 1.0
DIED = "DeadProcess"
"""The name of the error of a notebook whose process has died."""

_context: ForkServerContext | SpawnContext = multiprocessing.get_context("spawn")


def warm(modules: Sequence[str]) -> None:
    """Fork the processes of later notebooks from one that has imported these modules, where that is safe."""
    global _context
    if not sys.platform.startswith("linux"):
        return
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["papermill", __name__, *modules, "lab.study.warmed"])
    probe = forks.Process(target=_probe)
    with suppress(OSError, EOFError):  # a module ended the process that imported it
        probe.start()
        probe.join()
    if probe.exitcode == 0:
        _context = forks


def _probe() -> None:
    from lab.study.warmed import UNSAFE

    if UNSAFE:
        print(f"notebooks get fresh processes: {UNSAFE}", file=sys.stderr, flush=True)
        os._exit(1)


def execute(notebook: Path, executed: Path, parameters: Mapping[str, Any], limits: Limits) -> tuple[str, str, str]:
    """Run the notebook in a process of its own, which is killed where it is over a limit.

    Returns its error's name, last line and whole text, empty where there was none.
    """
    answers, answer = _context.Pipe(duplex=False)
    begun, why = time.monotonic(), ""
    process = _context.Process(target=_execute, args=(notebook, executed, dict(parameters), answer))
    process.start()
    answer.close()
    assert process.pid is not None
    while not wait([answers, process.sentinel], WATCH_SECONDS):
        why = why or limits.exceeded(process.pid, time.monotonic() - begun)
        for member in family(process.pid) if why else ():
            with suppress(psutil.NoSuchProcess):
                member.kill()
    told: tuple[str, str, str] | None = None
    with suppress(EOFError):
        told = answers.recv() if answers.poll() else None
    process.join()
    if told is None:
        code = process.exitcode or 0
        died = f"its process died ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
        told = ("OverLimit", why, why) if why else (DIED, died, died)
    return told


def reason_of(error: Exception) -> tuple[str, str]:
    """The name of a failed notebook's exception, and its last line without terminal colours."""
    name = getattr(error, "ename", None) or type(error).__name__
    value = getattr(error, "evalue", None)
    if value is None:
        value = str(error)
    text = value if name == "LabError" else f"{name}: {value}"
    return name, re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def _execute(notebook: Path, executed: Path, parameters: dict[str, Any], answer: Connection) -> None:
    """Be the process of one notebook."""
    import papermill
    from papermill.engines import papermill_engines

    threading.Thread(target=_end_with_parent, daemon=True).start()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # two forks would draw the same "random" numbers
    sys.path.insert(0, "")
    papermill_engines.register("in_process", _engine())
    told = ("", "", "")
    try:
        executed.write_text(json.dumps(read_notebook(notebook)), encoding="utf-8")  # papermill takes no null for tags
        papermill.execute_notebook(
            str(executed),
            str(executed),
            parameters=parameters,
            cwd=str(paths.repository_root()),  # in which a user names a folder of their own
            progress_bar=False,
            engine_name="in_process",
            kernel_name="python3",
            language="python",
        )
    except Exception as error:
        told = (*reason_of(error), str(error))
    answer.send(told)
    atexit._run_exitfuncs()


def _end_with_parent() -> None:
    """End this process after the one that it was forked from, or, where it is a fresh one, after the worker."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _engine() -> Any:
    from papermill.engines import Engine

    class InProcess(Engine):  # type: ignore[misc]
        """Runs the cells in this process, up to the first that fails."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> None:
            """Run the cells of the notebook that papermill has prepared."""
            settings = Config(HistoryManager={"enabled": False})
            shell = _Shell.instance(config=settings)
            for number, cell in enumerate(nb_man.nb.cells):
                nb_man.cell_start(cell, number)
                succeeded = cell.cell_type != "code" or shell.run(cell)
                if not succeeded:
                    nb_man.cell_exception(cell, number)
                nb_man.cell_complete(cell, number)
                if not succeeded:
                    break

    return InProcess


class _Shown(DisplayPublisher):
    """What a cell displays."""

    shell: Any

    def publish(  # type: ignore[override]
        self, data: dict[str, Any], metadata: Any = None, *, transient: Any = None, update: bool = False, **_: Any
    ) -> None:
        """Keep it, in place of what had its name where it is an update."""
        name = (transient or {}).get("display_id")
        shown = self.shell.displayed.get(name) if update else None
        if shown is None:
            self.shell.outputs.append(shown := new_output("display_data"))
            self.shell.displayed[name] = shown
        shown.update(data=_texts(data), metadata=metadata or {})

    def clear_output(self, wait: bool = False) -> None:
        """Forget what the cell has shown."""
        self.shell.outputs.clear()


class _Value(DisplayHook):
    """The value of a cell's last line."""

    shell: Any

    def write_output_prompt(self) -> None:
        """Nothing: the number stands with the value."""

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        """Keep it."""
        count = self.prompt_count
        value = new_output("execute_result", _texts(format_dict), metadata=md_dict or {}, execution_count=count)
        self.shell.outputs.append(value)


def _texts(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        kind: base64.b64encode(value).decode() if isinstance(value, bytes) else value for kind, value in data.items()
    }


class _Shell(InteractiveShell):
    """IPython whose cells leave what they print and show in their outputs."""

    display_pub_class = Type(_Shown)
    displayhook_class = Type(_Value)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.outputs: list[Any] = []
        self.displayed: dict[str | None, Any] = {}

    def run(self, cell: Any) -> bool:
        """Run a cell; whether it came to its end."""
        if not cell.source.strip():
            return True
        self.outputs, cell.execution_count = cell.outputs, self.execution_count
        with redirect_stdout(_Stream(self, "stdout")), redirect_stderr(_Stream(self, "stderr")):
            return bool(self.run_cell(cell.source, store_history=True).success)

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        self.outputs.append(new_output("error", ename=etype.__name__, evalue=str(evalue), traceback=list(stb)))


class _Stream(TextIOBase):
    """What a cell prints."""

    def __init__(self, shell: _Shell, name: str) -> None:
        self._shell, self._name = shell, name

    def write(self, text: str) -> int:
        last = self._shell.outputs[-1] if self._shell.outputs else {}
        if last.get("name") == self._name:
            last["text"] += text
        elif text:
            self._shell.outputs.append(new_output("stream", name=self._name, text=text))
        return len(text)
