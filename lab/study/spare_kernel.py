"""The next kernel, started while the one before it runs a notebook: forking and starting one take 0.2 s.

A notebook gets it only where its command line, folder and environment are those it was started with.
"""

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo, write_connection_file

from lab.study.quick_client import socket_stem

Fork = Callable[..., Any]
"""`KernelTemplate.fork`."""
PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


class SpareKernel:
    """A kernel that nobody has asked for yet, with connection details of its own."""

    def __init__(
        self, fork: Fork, arguments: Sequence[str], *, cwd: str, env: Mapping[str, str], transport: str = "tcp"
    ) -> None:
        self._transport = transport
        self._fork, self._cwd, self._env = fork, cwd, dict(env)
        self._arguments = _without_file(arguments)
        self._file = ""
        self._kernel: Any = None
        self.connection_info: KernelConnectionInfo = {}
        self._starting = threading.Thread(target=self._start, daemon=True)
        self._starting.start()

    def _start(self) -> None:
        key = uuid.uuid4().hex.encode()
        ip = socket_stem() if self._transport == "ipc" else ""
        self._file, info = write_connection_file(key=key, ip=ip, transport=self._transport)
        self.connection_info = {**info, "key": key}  # type: ignore[typeddict-item]  # bytes, as a manager has it
        self._kernel = self._fork([*self._arguments, "-f", self._file], cwd=self._cwd, env=self._env)

    @property
    def pid(self) -> int | None:
        """Of its process; None where there is none (yet)."""
        return self._kernel.pid if self._kernel is not None else None

    def take(self, arguments: Sequence[str], *, cwd: str, env: Mapping[str, str]) -> Any:
        """The process, for a kernel of that command line, folder and environment; None where it is not one, or died."""
        self._starting.join()
        same = (self._arguments, self._cwd, self._env) == (_without_file(arguments), cwd, dict(env))
        if self._kernel is None or self._kernel.poll() is not None or not same:
            self.end()
            return None
        kernel, self._kernel = self._kernel, None
        return kernel

    def end(self) -> None:
        """Nobody needs it."""
        self._starting.join()
        if self._kernel is not None:
            self._kernel.kill()
        self._kernel = None
        if self._file:  # the kernel removes it itself where it leaves by itself
            Path(self._file).unlink(missing_ok=True)
        if self._transport == "ipc":
            ip = str(self.connection_info["ip"])
            for name in PORTS:
                Path(f"{ip}-{self.connection_info[name]}").unlink(missing_ok=True)  # type: ignore[literal-required]


def _without_file(arguments: Sequence[str]) -> list[str]:
    at = list(arguments).index("-f")
    return [*arguments[:at], *arguments[at + 2 :]]
