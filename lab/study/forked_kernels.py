"""Kernels forked from a process that has imported everything once, for whoever asks Jupyter for one (papermill does).

A plain kernel imports torch, transformers and the rest again for every notebook (about 10 s on two cores).
papermill's parameters, outputs and saved notebooks are the same with either. Where a fork is not safe (no Linux, CUDA
already initialised, threads), kernels are plain ones.
"""

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from lab.study.spare_kernel import SpareKernel

NAME = "omni-lab-forked"
START_SECONDS = 300.0  # importing everything, on a machine that is busy
LEAVE_SECONDS = 1.0  # then Jupyter goes on as with a plain kernel: 2.5 s later it terminates it


class ForkedKernel:
    """A forked kernel, with what Jupyter uses of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        """Its exit code, negative for a signal; None while it runs."""
        self._ended = threading.Event()

    def end(self, code: int) -> None:
        """It has ended."""
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("kernel", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to it alone."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended, and the template's word is still under way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class KernelTemplate:
    """The process that kernels are forked from (`lab.study.kernel_template`)."""

    def __init__(self, modules: Sequence[str], spare: bool = False) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lab.study.kernel_template", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._kernels: dict[int, ForkedKernel] = {}
        self._answers: queue.Queue[bool | ForkedKernel] = queue.Queue()
        self._safe: bool | None = None
        self._forking = threading.Lock()
        self._with_spare = spare
        self._spare: SpareKernel | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def idle_pids(self) -> set[int | None]:
        """Its process, and the spare kernel's: those below this process that run no notebook."""
        return {self._process.pid, self._spare.pid if self._spare else None}

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "exited":
                self._kernels.pop(event["pid"]).end(event["code"])
            elif event["event"] == "forked":
                kernel = self._kernels[event["pid"]] = ForkedKernel(event["pid"])
                self._answers.put(kernel)
            else:
                self._answers.put(event["safe"])
        for kernel in self._kernels.values():  # no kernel outlives the template
            kernel.end(-signal.SIGKILL)
        self._answers.put(False)

    def _answer(self) -> bool | ForkedKernel:
        with suppress(queue.Empty):
            return self._answers.get(timeout=START_SECONDS)
        return False

    def is_safe(self) -> bool:
        """Whether it forks kernels; waits until it has imported everything."""
        if self._safe is None:
            self._safe = self._answer() is True
        return self._safe

    def fork(self, arguments: Sequence[str], *, cwd: str, env: Mapping[str, str]) -> ForkedKernel | None:
        """A new kernel of `ipykernel_launcher ARGUMENTS`; None where this process cannot, or must not, fork one."""
        if not self.is_safe():
            return None
        request = {"arguments": list(arguments), "cwd": cwd, "env": dict(env)}
        assert self._process.stdin is not None
        # Of one that has ended, or was closed here, no kernel comes.
        with self._forking, suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            if isinstance(kernel := self._answer(), ForkedKernel):
                return kernel
        self._safe = False
        return None

    def kernel(
        self,
        arguments: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        spare: bool = True,
        transport: str = "tcp",
    ) -> tuple[ForkedKernel | None, KernelConnectionInfo | None]:
        """A kernel as `fork` gives it, or the spare one, which has connection details of its own."""
        if not (spare and self._with_spare):
            return self.fork(arguments, cwd=cwd, env=env), None
        former, self._spare = self._spare, None
        kernel = former.take(arguments, cwd=cwd, env=env) if former else None
        info = former.connection_info if former and kernel else None
        kernel = kernel or self.fork(arguments, cwd=cwd, env=env)
        if kernel is not None:
            self._spare = SpareKernel(self.fork, arguments, cwd=cwd, env=env, transport=transport)
        return kernel, info

    def close(self) -> None:
        """End the process and whatever kernels it still has; later kernels are plain ones."""
        self._safe = False
        if self._spare:
            self._spare.end()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


_template: KernelTemplate | None = None


class ForkedProvisioner(LocalProvisioner):
    """Starts a Python kernel as a fork, any other as Jupyter does."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel of that command line."""
        kernel = info = None
        encrypted = "curve_publickey" in self.connection_info  # a spare kernel could not be
        if _template is not None and "ipykernel_launcher" in cmd and "-f" in cmd:
            arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
            cwd = str(kwargs.get("cwd") or Path.cwd())
            env = kwargs.get("env") or os.environ
            transport = str(self.connection_info["transport"])
            kernel, info = _template.kernel(arguments, cwd=cwd, env=env, spare=not encrypted, transport=transport)
        if kernel is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = kernel  # type: ignore[assignment]  # what is used of a Popen
        self.pid = self.pgid = kernel.pid
        self.cwd = kwargs.get("cwd")
        return info or self.connection_info

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Wait for a fork that leaves by itself: Jupyter would look every 100 ms, and a fork needs 60 ms."""
        kernel: Any = self.process
        if isinstance(kernel, ForkedKernel):
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(kernel.wait, LEAVE_SECONDS)


def use_forked_kernels(modules: Sequence[str], *, spare: bool = False) -> KernelTemplate | None:
    """Let every kernel that this process asks Jupyter for be forked from one that has imported `modules`.

    Returns at once: the importing goes on beside. None where the platform does not fork safely. With `spare`, the next
    kernel is started while one runs, for a process that executes one notebook after another.
    """
    global _template
    if not sys.platform.startswith("linux"):
        return None
    _template = KernelTemplate(modules, spare)
    factory = KernelProvisionerFactory.instance()
    factory.provisioners[NAME] = EntryPoint(NAME, f"{__name__}:ForkedProvisioner", factory.GROUP_NAME)
    factory.default_provisioner_name = NAME
    return _template
