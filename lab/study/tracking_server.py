"""The MLflow tracking server through which other machines write into this machine's store.

It serves `mlruns/mlflow.db` and `mlruns/artifacts` and nothing else. A sweep starts one for as long as it runs, or uses
one that the user started.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress

from lab import paths
from lab.errors import LabError
from lab.study import store

START_SECONDS = 90.0
CALL_SECONDS = 10.0

# A server ends with this shell's input, so that none outlives a sweep, however that died; the shell with its server.
# SQLite takes a server's sudden end well.
_UNTIL_INPUT_ENDS = '{ "$@"; kill -9 0; } & cat > /dev/null; kill -9 0'
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a cluster is never behind the user's proxy


def command_line(host: str, port: int) -> list[str]:
    """The command that serves this machine's store; the README shows it too."""
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
        *("--allowed-hosts", f"{host}:{port},localhost:{port},127.0.0.1:{port}"),
        *("--backend-store-uri", store.store_uri(store.database().resolve())),
        *("--serve-artifacts", "--artifacts-destination", (paths.mlruns_dir() / "artifacts").resolve().as_uri()),
    ]


def call(url: str, *, data: bytes | None = None) -> bytes:
    """What that address answers; with `data`, which is put there. A LabError where nothing answers, or an error."""
    request = urllib.request.Request(url, data=data, method="GET" if data is None else "PUT")
    try:
        with _DIRECT.open(request, timeout=CALL_SECONDS) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        raise LabError(f"{url} answered {error.code} ({error.reason})") from None
    except (OSError, ValueError) as error:
        raise LabError(f"{url} does not answer ({getattr(error, 'reason', error)})") from None


def check_server(uri: str) -> None:
    """Refuse an address that no MLflow server answers at."""
    try:
        answer = call(f"{uri.rstrip('/')}/health").strip()
    except LabError as error:
        raise LabError(
            f"no MLflow tracking server can be reached at {uri}: {error}; expected an address such as http://HOST:5000"
        ) from None
    if answer != b"OK":
        raise LabError(f"what answers at {uri} is no MLflow tracking server; expected one started with `mlflow server`")


def check_store(uri: str, run_id: str) -> None:
    """Refuse a server that serves another store than ours, seen by a run of ours and an artifact put there."""
    uri = uri.rstrip("/")
    probe = store.artifact(run_id, "reachable.txt")
    expected = " ".join(command_line("HOST", 5000)[1:])
    try:
        call(f"{uri}/api/2.0/mlflow/runs/get?run_id={run_id}")
        call(f"{uri}/api/2.0/mlflow-artifacts/artifacts/{run_id}/artifacts/{probe.name}", data=b"through the server\n")
    except LabError as error:
        raise LabError(f"the tracking server {uri} does not serve this store ({error}); expected: {expected}") from None
    if not probe.exists():
        raise LabError(f"the tracking server {uri} keeps artifacts elsewhere than in this store; expected: {expected}")
    probe.unlink()


class TrackingServer:
    """A server for the length of a sweep; it starts in the background, `wait` gives its address."""

    def __init__(self, host: str) -> None:
        store.quiet_mlflow()
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        self.uri = f"http://{host}:{port}"
        self._log = paths.mlruns_dir() / "logs" / f"server-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", _UNTIL_INPUT_ENDS, "sh", *command_line(host, port)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                cwd=paths.mlruns_dir(),
                start_new_session=True,  # a Ctrl-C is the sweep's to hand on, and the shell ends its own group
            )

    def wait(self) -> str:
        """Its address, once it answers; a LabError that names its log where it does not."""
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(LabError):
                check_server(self.uri)
                return self.uri
            time.sleep(0.2)
        raise LabError(f"MLflow's tracking server did not start at {self.uri}; its log: {self._log}")

    def stop(self) -> None:
        """End it, and all of its processes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
