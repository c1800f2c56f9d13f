"""Kernels forked from a process that has imported everything once, for whoever asks Jupyter for one (papermill does).

A plain kernel imports torch, transformers and the rest again for every notebook (about 10 s on two cores).
papermill's parameters, outputs and saved notebooks are the same with either. Where a fork is not safe (no Linux, CUDA
already initialised, threads), kernels are plain ones.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

NAME = "omni-lab-forked"
START_SECONDS = 300.0  # importing everything, on a machine that is busy


class ForkedKernel:
    """A forked kernel, with what Jupyter uses of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, ended: Mapping[int, int]) -> None:
        self.pid, self._ended = pid, ended

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._ended.get(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("kernel", timeout or 0.0)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to it alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Ended(dict[int, int]):
    """Exit codes by process id; once the template is gone, every kernel of it is."""

    template_gone = False

    def get(self, pid: int, default: Any = None) -> Any:
        return super().get(pid, -int(signal.SIGKILL) if self.template_gone else default)


class KernelTemplate:
    """The process that kernels are forked from (`lab.study.kernel_template`)."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lab.study.kernel_template", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._ended = _Ended()
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._safe: bool | None = None
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "exited":
                self._ended[event["pid"]] = event["code"]
            else:
                self._answers.put(event)
        self._ended.template_gone = True
        self._answers.put(None)

    def _answer(self) -> dict[str, Any] | None:
        with suppress(queue.Empty):
            return self._answers.get(timeout=START_SECONDS)
        return None

    def is_safe(self) -> bool:
        """Whether it forks kernels; waits until it has imported everything."""
        if self._safe is None:
            ready = self._answer()
            self._safe = bool(ready and ready["safe"])
        return self._safe

    def fork(self, connection_file: str, *, cwd: str, env: Mapping[str, str]) -> ForkedKernel | None:
        """A new kernel; None where this process cannot, or must not, fork one."""
        if not self.is_safe():
            return None
        request = {"connection_file": connection_file, "cwd": cwd, "env": dict(env)}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            answer = None
        else:
            answer = self._answer()
        if answer is None:
            self._safe = False
            return None
        return ForkedKernel(answer["pid"], self._ended)

    def close(self) -> None:
        """End the process and whatever kernels it still has; later kernels are plain ones."""
        self._safe = False
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


_template: KernelTemplate | None = None


class ForkedProvisioner(LocalProvisioner):
    """Starts a Python kernel as a fork, any other as Jupyter does."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel of that command line."""
        kernel = None
        if _template is not None and "ipykernel_launcher" in cmd and "-f" in cmd:
            connection_file = cmd[cmd.index("-f") + 1]
            cwd = str(kwargs.get("cwd") or Path.cwd())
            kernel = _template.fork(connection_file, cwd=cwd, env=kwargs.get("env") or os.environ)
        if kernel is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = kernel  # type: ignore[assignment]  # what is used of a Popen
        self.pid = self.pgid = kernel.pid
        self.cwd = kwargs.get("cwd")
        return self.connection_info


def use_forked_kernels(modules: Sequence[str]) -> KernelTemplate | None:
    """Let every kernel that this process asks Jupyter for be forked from one that has imported `modules`.

    Returns at once: the importing goes on beside. None where the platform does not fork safely.
    """
    global _template
    if not sys.platform.startswith("linux"):
        return None
    _template = KernelTemplate(modules)
    factory = KernelProvisionerFactory.instance()
    factory.provisioners[NAME] = EntryPoint(NAME, f"{__name__}:ForkedProvisioner", factory.GROUP_NAME)
    factory.default_provisioner_name = NAME
    return _template
