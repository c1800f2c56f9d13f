"""A process that has imported what the notebooks import, and forks a kernel from itself in half a second.

`lab.study.forked_kernels` starts `python -m lab.study.kernel_template MODULE...`. It reads requests as JSON lines
(arguments, folder, environment of a kernel) and answers with events as JSON lines: `ready`, `forked` (pid),
`exited` (pid, code). The end of its input ends it and its kernels. It has one thread and never starts another: a fork
copies only the thread that calls it, with every lock that others held.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn


def why_not_fork() -> str:
    """Why a fork of this process would not be safe; empty where it is."""
    if threading.active_count() > 1:
        names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        return f"an imported module started threads: {', '.join(names)}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "an imported module initialised CUDA"
    return ""


def import_all(modules: Sequence[str]) -> None:
    """Import what can be; what fails will fail again in the notebook, where it is seen."""
    for module in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)


class Template:
    """The loop of the template process; `serve` returns only in a forked child, with its request."""

    def __init__(self) -> None:
        self._requests, self._replies = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)  # whatever a library or a kernel prints goes to the log
        os.close(null)
        self._pending = b""
        self._kernels: set[int] = set()
        # A signal wakes the loop: a kernel has ended.
        self._ended, self._wake = os.pipe()
        for end in (self._ended, self._wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake)

    def reply(self, event: dict[str, Any]) -> None:
        """Answer; whoever started this process may be gone."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._replies, json.dumps(event).encode() + b"\n")

    def serve(self) -> dict[str, Any]:
        """Fork a kernel for every request; returns the request in the child."""
        while True:
            readable, _, _ = select.select([self._requests, self._ended], [], [])
            if self._ended in readable:
                os.read(self._ended, 65536)
                self._reap()
            if self._requests not in readable:
                continue
            chunk = os.read(self._requests, 65536)
            if not chunk:
                self._end()
            *lines, self._pending = (self._pending + chunk).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if self._fork():
                    return request

    def _reap(self) -> None:
        for pid in list(self._kernels):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._kernels.remove(pid)
                self.reply({"event": "exited", "pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _fork(self) -> bool:
        """Fork; whether this is the child. The parent answers once the child leads a session of its own."""
        ready, ready_in_child = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for end in (ready, ready_in_child, self._requests, self._replies, self._ended, self._wake):
                os.close(end)
            return True
        os.close(ready_in_child)
        os.read(ready, 1)
        os.close(ready)
        self._kernels.add(pid)
        self.reply({"event": "forked", "pid": pid})
        return False

    def _end(self) -> NoReturn:
        for pid in self._kernels:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)


def run_kernel(request: dict[str, Any]) -> NoReturn:
    """Be the kernel that `python -m ipykernel_launcher ARGUMENTS` would have been."""
    from ipykernel.kernelapp import IPKernelApp

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"], JPY_PARENT_PID=str(os.getppid()))
    os.chdir(request["cwd"])
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # two kernels would draw the same "random" numbers
    sys.argv = ["ipykernel_launcher", *request["arguments"]]
    IPKernelApp.launch_instance(argv=sys.argv[1:])
    # A thread of IPython's that is no daemon ends in an exit handler, for which the interpreter would wait for that
    # very thread first: in a fork that takes until Jupyter terminates it, 2.5 s later.
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def main() -> None:
    """Import, say so, fork kernels until the input ends; in a fork, be a kernel."""
    # As ipykernel_launcher does; the kernel puts its own folder first.
    if sys.path and (sys.path[0] == "" or Path(sys.path[0]) == Path.cwd()):
        del sys.path[0]
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # ipykernel reads it when it is imported
    # Asking whether there is a GPU must not initialise CUDA here: a fork could not use it any more.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the sweep's to hand on
    template = Template()
    import_all(["ipykernel.kernelapp", *sys.argv[1:]])
    reason = why_not_fork()
    if reason:
        print(f"kernels are started afresh: {reason}", file=sys.stderr, flush=True)
    # What was imported stays: a kernel that leaves has IPython collect garbage, which went through every object of
    # torch and transformers for 0.3 s, and wrote to (so copied) the pages that it shares with this process.
    gc.collect()
    gc.freeze()
    template.reply({"event": "ready", "safe": not reason})
    run_kernel(template.serve())


if __name__ == "__main__":
    main()
