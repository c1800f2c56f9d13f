"""A real JupyterLab and a real MLflow page on a workbench of their own, and a headless Chromium of the machine."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lab.paths import repository_root
from tests.browser.jupyter_lab import JupyterLab
from tests.browser.workbench import ROWS, RUNG, STUDY, Workbench, make_workbench

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SCREENSHOTS = repository_root() / "test-results"
START_SECONDS = 120.0
FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(900))
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium here; on Debian: apt install chromium"))


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra: pip install -e '.[browser]'")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=QUIET)
        yield launched
        launched.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def page(browser, request):
    """A page of its own; where its test fails, what it showed is kept as `test-results/failed_TEST.png`."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(60_000)
    opened = context.new_page()
    yield opened
    if request.node.stash.get(FAILED, False):
        SCREENSHOTS.mkdir(exist_ok=True)
        with suppress(Exception):
            opened.screenshot(path=SCREENSHOTS / f"failed_{request.node.name}.png")
    context.close()


@pytest.fixture
def screenshot(page, request):
    """Keep what the page shows as `test-results/NAME.png`, for people to look at."""
    SCREENSHOTS.mkdir(exist_ok=True)

    def keep(name: str) -> None:
        page.screenshot(path=SCREENSHOTS / f"{name}.png")

    return keep


@pytest.fixture(scope="session")
def workbench(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Workbench:
    """With a study of two cells that were run, and a third to run."""
    bench = make_workbench(tmp_path_factory.mktemp("browser"), packages)
    bench.lab("reproduce", STUDY, "--rung", RUNG, "--rows", ",".join(ROWS), "--workers", "1")
    return bench


@contextmanager
def serving(command: list[str], bench: Workbench, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server for as long as it is needed; its words are in `log`."""
    with log.open("wb") as words:
        process = subprocess.Popen(
            command,
            cwd=bench.root,
            env=bench.environment,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        _end(process, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal it and what it has started: of make alone, the server would live on."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)


@pytest.fixture(scope="session")
def jupyter(workbench: Workbench) -> Iterator[JupyterLab]:
    """JupyterLab as `make lab` starts it, on a free port and without opening a browser of its own."""
    log = workbench.root.parent / "jupyter.log"
    settings = Path(workbench.environment["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    # Cells that are scrolled out of sight are elements too.
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    root = ["--allow-root"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", *root, *lab_options()]
    with serving(command, workbench, log) as process:
        runtime = Path(workbench.environment["JUPYTER_RUNTIME_DIR"]) / f"jpserver-{process.pid}.json"
        until = time.monotonic() + START_SECONDS
        while not runtime.exists() and time.monotonic() < until and process.poll() is None:
            time.sleep(0.2)
        assert runtime.exists(), log.read_text()
        server = json.loads(runtime.read_text())
        yield JupyterLab(server["url"], server["token"], log)


def lab_options() -> list[str]:
    """What the Makefile's target `lab` hands to JupyterLab, but for the port."""
    words = (repository_root() / "Makefile").read_text().split("jupyter lab ", 1)[1].split("\n\n", 1)[0]
    return [word for word in shlex.split(words.replace("\\\n", " ")) if not word.startswith("--port")]


@pytest.fixture(scope="session")
def mlflow_page(workbench: Workbench) -> Iterator[str]:
    """The address that `make mlflow` prints; the server as it starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", workbench.root.parent / "mlflow.log"
    command = ["make", "-f", str(repository_root() / "Makefile"), "mlflow", f"MLFLOW_PORT={port}", "INSTALLED="]
    with serving([*command, f"BIN={Path(sys.executable).parent}"], workbench, log) as process:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            time.sleep(0.5)
        else:
            raise AssertionError(log.read_text())
        told = re.search(r"the runs: (\S+)", log.read_text())
        assert told is not None, log.read_text()
        yield told[1]
