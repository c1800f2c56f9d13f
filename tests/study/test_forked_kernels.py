import asyncio
import os
import queue
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import pytest
from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_core.paths import jupyter_runtime_dir
from traitlets import default

from lab.study import forked_kernels, kernel_template
from lab.study.forked_kernels import KernelTemplate, use_forked_kernels
from lab.study.parameters import imported_modules
from lab.study.quick_client import QuickClient, QuickManager, socket_stem

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernels are forked on Linux only")


@contextmanager
def forking(*modules: str, spare: bool = False) -> Iterator[KernelTemplate]:
    factory = KernelProvisionerFactory.instance()
    former = factory.default_provisioner_name
    template = use_forked_kernels(modules, spare=spare)
    assert template is not None
    try:
        yield template
    finally:
        template.close()
        forked_kernels._template = None
        factory.default_provisioner_name = former


class PlainManager(AsyncKernelManager):
    """Jupyter's own, with files for sockets: ports that a test beside this one takes would fail it."""

    @default("transport")
    def _files(self) -> str:
        return "ipc"

    @default("ip")
    def _ip_default(self) -> str:
        return socket_stem()


def start(**options: Any) -> tuple[KernelManager, Any]:
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=socket_stem())
    manager.start_kernel(**options)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    return manager, client


@contextmanager
def kernel(**options: Any) -> Iterator[tuple[KernelManager, Any]]:
    manager, client = start(**options)
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def printed(client: Any, code: str, *, interrupt: Callable[[], None] | None = None) -> str:
    """What the code prints, and the name of its error; it is interrupted as soon as it prints something."""
    request = client.execute(code)
    text = ""
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "stream":
            text += message["content"]["text"]
            if interrupt:
                interrupt()
        elif message["msg_type"] == "error":
            text += message["content"]["ename"]
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return text.strip()


def pid_of(manager: KernelManager) -> int:
    assert manager.provisioner is not None
    return int(manager.provisioner.pid)  # type: ignore[attr-defined]


def spare_pid(template: KernelTemplate) -> int:
    assert template._spare is not None
    template._spare._starting.join()
    assert template._spare.pid is not None
    return template._spare.pid


def gone(pid: int, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


NOTEBOOK = [
    ("parameters", "size: int = 1\nname: str = ''"),
    ("", "import numpy as np\nimport matplotlib.pyplot as plt\nimport os, sys"),
    ("", "print(size, name, os.getcwd(), os.environ['ASKED'])\nnp.arange(size)"),
    ("", "import subprocess\nprint('to stderr', file=sys.stderr)"),
    ("", "figure, axes = plt.subplots()\naxes.plot(range(size))\nplt.show()"),
    ("", "1 / 0"),
]


def write(path: Path) -> Path:
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for number, (tag, source) in enumerate(NOTEBOOK):
        cell = nbformat.v4.new_code_cell(source, id=f"cell-{number}", metadata={"tags": [tag] if tag else []})
        notebook.cells.append(cell)
    nbformat.write(notebook, path)
    return path


def execute(notebook: Path, output: Path, **options: Any) -> list[dict[str, Any]]:
    options.setdefault("kernel_manager_class", PlainManager)
    with pytest.raises(papermill.PapermillExecutionError, match="division by zero"):
        papermill.execute_notebook(
            str(notebook), str(output), {"size": 3, "name": "x"}, cwd=str(output.parent), progress_bar=False, **options
        )
    cells = []
    for cell in nbformat.read(output, as_version=4).cells:
        timeless = {key: value for key, value in cell.metadata.items() if key not in ("papermill", "execution")}
        outputs = cell.get("outputs", [])
        for shown in outputs:
            shown.pop("traceback", None)  # names a file of the kernel's process
        cells.append({"source": cell.source.replace(str(output), "OUTPUT"), "metadata": timeless, "outputs": outputs})
    return [cell for cell in cells if cell["source"] and "papermill-error" not in str(cell["metadata"])]


@pytest.mark.slow
def test_papermills_notebook_is_the_same_from_a_forked_kernel_as_from_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASKED", "yes")
    notebook = write(tmp_path / "study.ipynb")
    plain = execute(notebook, tmp_path / "executed.ipynb")
    with forking("numpy", "matplotlib.pyplot", spare=True) as template:
        assert template.is_safe()
        forked = execute(notebook, tmp_path / "executed.ipynb")
        spare = spare_pid(template)
        # What a worker does, with the kernel that was started meanwhile.
        second = execute(notebook, tmp_path / "executed.ipynb", kernel_manager_class=QuickManager)
        assert spare_pid(template) != spare
    assert gone(spare)
    assert forked == second == plain
    assert any("image/png" in shown.get("data", {}) for cell in forked for shown in cell["outputs"])


@pytest.mark.slow
def test_the_next_kernel_is_started_while_one_runs_and_only_used_where_it_is_the_same(tmp_path: Path) -> None:
    ask = "import os; print(os.getpid(), os.getcwd(), os.environ.get('ASKED'))"
    runtime = Path(jupyter_runtime_dir())
    before = set(runtime.glob("kernel-*.json")) if runtime.exists() else set()
    with forking(spare=True) as template:
        with kernel(cwd=str(tmp_path)) as (_, client):
            first = printed(client, ask).split()
            assert template.idle_pids() == {template._process.pid, spare := spare_pid(template)}
        with kernel(cwd=str(tmp_path)) as (manager, client):
            second = printed(client, ask).split()
            assert second == [str(spare), *first[1:]]
            assert pid_of(manager) == spare != spare_pid(template)
        killed = spare_pid(template)
        os.kill(killed, signal.SIGKILL)
        assert template._spare is not None
        assert template._spare._kernel.wait(10) == -signal.SIGKILL
        with kernel(cwd=str(tmp_path)) as (manager, client):
            assert printed(client, ask).split()[1:] == first[1:]
            assert pid_of(manager) != killed
        unused = spare_pid(template)
        with kernel(cwd=str(tmp_path), env={**os.environ, "ASKED": "yes"}) as (manager, client):
            assert printed(client, ask).split()[1:] == [first[1], "yes"]
            assert pid_of(manager) != unused
        assert gone(unused)
        last = spare_pid(template)
    assert gone(last)
    assert set(runtime.glob("kernel-*.json")) <= before


def test_a_cells_kernel_is_spoken_to_through_files_and_ports_only_where_their_names_are_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert QuickManager().transport == "ipc"
    monkeypatch.setattr(tempfile, "tempdir", "/" + "a" * 80)
    manager = QuickManager()
    assert (manager.transport, manager.ip) == ("tcp", "127.0.0.1")


def test_no_two_kernels_have_the_same_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = QuickManager(), QuickManager()
    assert first.ip != second.ip
    assert Path(first.ip).parent == Path(tempfile.gettempdir())


@pytest.mark.slow
def test_sockets_of_kernels_leave_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKED", "yes")
    short = Path(tempfile.mkdtemp(prefix="lab"))  # pytest's own is too long for a socket
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    notebook = write(tmp_path / "study.ipynb")
    with forking("numpy", "matplotlib.pyplot", spare=True) as template:
        for _ in range(2):
            execute(notebook, tmp_path / "executed.ipynb", kernel_manager_class=QuickManager)
        assert template._spare is not None
        template._spare._starting.join()
        assert template._spare.connection_info["transport"] == "ipc"
    assert list(short.rglob("*-ipc-*")) == []
    shutil.rmtree(short)


@pytest.mark.parametrize(
    ("alive", "message"), [(True, "Kernel didn't respond in 0.01 seconds"), (False, "Kernel died before replying")]
)
def test_a_client_that_gets_no_answer_says_whether_the_kernel_died(
    alive: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answers(client: QuickClient) -> bool:
        return False

    async def lives(client: QuickClient) -> bool:
        return alive

    monkeypatch.setattr(QuickClient, "_answers", answers)
    monkeypatch.setattr(QuickClient, "is_alive", lives)
    with pytest.raises(RuntimeError, match=message):
        asyncio.run(QuickClient().wait_for_ready(timeout=0.01))


@pytest.mark.slow
def test_a_forked_kernel_has_imported_everything_and_its_own_randomness() -> None:
    ask = "import sys, os, random, numpy; print('torch' in sys.modules, os.getppid(), random.random(), "
    ask += "numpy.random.random())"
    with forking("numpy", "torch") as template:
        answers = []
        for _ in range(2):
            with kernel() as (_, client):
                answers.append(printed(client, ask).split())
        assert answers[0][:2] == answers[1][:2] == ["True", str(template._process.pid)]
        assert answers[0][2] != answers[1][2]
        assert answers[0][3] != answers[1][3]


@pytest.mark.slow
def test_a_kernel_is_a_session_of_its_own_can_be_interrupted_and_its_death_is_seen() -> None:
    with forking() as template:
        with kernel() as (manager, client):
            pid = pid_of(manager)
            assert os.getsid(pid) == pid != os.getsid(template._process.pid)
            code = "import time; print('begun', flush=True); time.sleep(60)"
            assert printed(client, code, interrupt=manager.interrupt_kernel).split() == ["begun", "KeyboardInterrupt"]
            assert printed(client, "print('still here')") == "still here"
        assert gone(pid)
        with kernel() as (manager, _):
            os.kill(pid_of(manager), signal.SIGKILL)
            deadline = time.monotonic() + 30
            while manager.is_alive() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not manager.is_alive()
            assert manager.provisioner.process.poll() == -signal.SIGKILL  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_forked_kernel_runs_its_exit_handlers_and_leaves_by_itself_when_asked_to(tmp_path: Path) -> None:
    with forking() as template:
        assert template.is_safe()
        manager, client = start()
        pid = pid_of(manager)
        printed(client, f"import atexit, pathlib; atexit.register(pathlib.Path({str(tmp_path / 'left')!r}).touch)")
        client.shutdown()
        assert manager.provisioner.process.wait(10) == 0  # type: ignore[union-attr]  # nobody has killed it
        assert gone(pid)
        assert (tmp_path / "left").exists()
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["close", "kill"])
def test_kernels_end_with_the_process_they_were_forked_from(how: str) -> None:
    with forking() as template, kernel() as (manager, _):
        pid = pid_of(manager)
        if how == "close":
            template.close()
        else:
            template._process.kill()
        assert gone(pid)


@pytest.mark.slow
def test_where_a_module_starts_threads_kernels_are_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True, name='sleeper').start()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with forking("threaded") as template:
        assert not template.is_safe()
        with kernel() as (_, client):
            assert printed(client, "import os; print(os.getppid())") == str(os.getpid())
    assert "kernels are started afresh: an imported module started threads: sleeper" in capfd.readouterr().err


@pytest.mark.slow
def test_a_module_that_cannot_be_imported_is_left_to_the_notebook() -> None:
    with forking("no_such_module_anywhere", "json") as template:
        assert template.is_safe()


def test_an_initialised_gpu_or_a_thread_forbids_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(kernel_template.threading, "active_count", lambda: 1)
    assert kernel_template.why_not_fork() == ""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert kernel_template.why_not_fork() == "an imported module initialised CUDA"


def test_elsewhere_than_on_linux_kernels_are_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked_kernels.sys, "platform", "darwin")
    assert use_forked_kernels(["json"]) is None


def test_a_template_that_never_answers_forks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    template = object.__new__(KernelTemplate)
    template._safe, template._answers = None, queue.Queue()
    monkeypatch.setattr(forked_kernels, "START_SECONDS", 0.01)
    assert not template.is_safe()


def test_the_modules_that_a_notebook_imports_are_read_from_its_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "study.ipynb")
    assert imported_modules(path) == ["numpy", "matplotlib.pyplot", "os", "sys", "subprocess"]
