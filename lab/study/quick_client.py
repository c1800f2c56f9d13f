"""papermill's side of a kernel, without the pause that Jupyter makes for clients that share a kernel with others."""

import tempfile
import time
import uuid
from pathlib import Path
from queue import Empty

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from traitlets import DottedObjectName, Type, default

LONGEST_SOCKET = 107
"""Bytes of a socket's path that Linux takes."""


def socket_stem() -> str:
    """What the names of one kernel's sockets begin with: a path of its own, each time another."""
    return str(Path(tempfile.gettempdir()) / f"kernel-{uuid.uuid4()}-ipc")


class QuickClient(AsyncKernelClient):
    """A client that is ready as soon as its kernel is.

    Jupyter's waits until the output channel has been silent for 0.2 s, so that nothing that another client asked for is
    taken for an answer. This one is its kernel's only client, and nbclient tells answers by the request they belong to.
    """

    async def wait_for_ready(self, timeout: float | None = None) -> None:  # type: ignore[override]
        """Wait until the kernel answers, and what it prints arrives here.

        Raises:
            RuntimeError: the kernel died, or has not answered within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not await self._answers():
            if not await self.is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
            if deadline is not None and time.monotonic() > deadline:
                raise RuntimeError(f"Kernel didn't respond in {timeout:g} seconds")

    async def _answers(self) -> bool:
        self.kernel_info()
        try:
            reply = await self.shell_channel.get_msg(timeout=1)  # type: ignore[call-arg, misc]
            await self.iopub_channel.get_msg(timeout=0.2)  # type: ignore[call-arg, misc]
        except Empty:
            return False
        if reply["msg_type"] != "kernel_info_reply":
            return False
        self._handle_kernel_info_reply(reply)
        return True


class QuickManager(AsyncKernelManager):
    """Gives its kernel a `QuickClient` and sockets of files; for papermill's `kernel_manager_class`.

    Jupyter's own choice are five TCP ports, free when they are looked for: on a busy machine one may be taken before
    the kernel binds it, and the cell would fail for it.
    """

    client_class = DottedObjectName(f"{__name__}.QuickClient")
    client_factory = Type(QuickClient)

    @default("transport")
    def _files_where_their_names_fit(self) -> str:
        return "ipc" if len(f"{socket_stem()}-99999".encode()) <= LONGEST_SOCKET else "tcp"

    @default("ip")
    def _ip_default(self) -> str:
        # Jupyter's own would be `kernel-ipc` in the working folder, for two workers that start at once the same.
        return socket_stem() if self.transport == "ipc" else str(super()._ip_default())
