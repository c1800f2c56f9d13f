"""JupyterLab by hand: what a person clicks to open a notebook, run it and move what stands in it."""

import base64
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

RUN_SECONDS = 240


class JupyterLab:
    """A server, by its address and token."""

    def __init__(self, url: str, token: str, log: Path) -> None:
        self.url, self.token, self.log = url, token, log

    def ask(self, path: str, method: str = "GET", **body: Any) -> Any:
        """Its REST interface; the parsed answer, None where there is none."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = answer.read()
        return json.loads(said) if said else None

    def open(self, page: Any, path: str) -> "OpenNotebook":
        """Open a notebook in the browser, in a workspace without anything else."""
        page.goto(f"{self.url}lab/tree/{path}?token={self.token}&reset")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        page.get_by_text(re.compile(r"^Python 3.* \| Idle$")).first.wait_for()
        return OpenNotebook(page)

    def shut_kernels(self) -> None:
        """Shut every kernel down: what one notebook left behind is no matter of the next."""
        for kernel in self.ask("api/kernels"):
            self.ask(f"api/kernels/{kernel['id']}", "DELETE")


class OpenNotebook:
    """A notebook that is open in a page."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def choose(self, menu: str, entry: str) -> None:
        """Choose an entry of JupyterLab's menu bar."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
        self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{entry}")).first.click()

    def run_all(self, seconds: float = RUN_SECONDS) -> None:
        """Run All Cells, and wait until every cell has its number."""
        self.choose("Run", "Run All Cells$")
        self.page.wait_for_function(
            """() => {
                const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];
                const idle = document.querySelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]');
                return idle && prompts.length && prompts.every(one => /\\[\\d+\\]/.test(one.textContent));
            }""",
            timeout=1000 * seconds,
        )

    def errors(self) -> list[str]:
        """What went wrong: tracebacks of cells, sentences of panels, widgets that could not be drawn."""
        wrong = self.page.locator(
            '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"], '
            ".jp-RenderedText pre .ansi-red-fg, .jupyter-widgets p[style*='D55E00'], .jupyter-widgets-error-widget"
        )
        return [text for text in wrong.all_inner_texts() if text.strip()]

    def pictures(self) -> list[str]:
        """The figures of the panels as they are shown, each as its bytes in base64."""
        return self.page.evaluate(
            """async () => Promise.all([
                ...document.querySelectorAll('.widget-image, .widget-html img')
            ].map(async one => {
                const bytes = new Uint8Array(await (await fetch(one.src)).arrayBuffer());
                return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
            }))"""
        )

    def wait_for_other(self, before: list[str], seconds: float = 60) -> list[str]:
        """Wait until a figure is another than before."""
        for _ in range(int(seconds * 4)):
            now = self.pictures()
            if now != before and now:
                assert all(base64.b64decode(one)[:4] == b"\x89PNG" for one in now)
                return now
            self.page.wait_for_timeout(250)
        raise AssertionError(f"no figure changed within {seconds:.0f} s")

    def control(self, label: str) -> Any:
        """The widget with that label."""
        return self.page.locator(".jupyter-widgets", has=self.page.locator(f'.widget-label:text-is("{label}")')).last

    def checkbox(self, label: str) -> Any:
        """The checkbox with that text beside it."""
        return self.page.locator(".widget-checkbox", has_text=label).locator("input")

    def push_slider(self, label: str, times: int = 1, key: str = "ArrowRight") -> None:
        """Move a slider by so many steps."""
        handle = self.control(label).locator(".noUi-handle")
        handle.scroll_into_view_if_needed()
        handle.focus()
        for _ in range(times):
            handle.press(key)

    def choose_option(self, label: str, number: int) -> None:
        """Choose an entry of a drop-down list, by its place."""
        self.control(label).locator("select").select_option(index=number)
