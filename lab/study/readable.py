"""An executed notebook for MLflow's page: as one HTML page, and its figures as pictures.

MLflow shows a notebook as the JSON that it is. nbconvert would do, and takes a worker about two seconds of its own,
which is more than a small cell; what a cell's notebook holds (text, code, tables, figures) needs less.
"""

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

PAGE, FIGURE = "notebook.html", "figure-{number}.png"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 1.5em auto;
  padding: 0 1em; color: #222; background: #fff }
pre { font: 13px/1.4 ui-monospace, monospace; margin: .4em 0; white-space: pre-wrap; overflow-wrap: anywhere }
pre.code { background: #f4f5f7; border-left: 3px solid #0072b2; padding: .6em .8em }
pre.error { background: #fdf0ea; border-left: 3px solid #d55e00; padding: .6em .8em }
img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .2em .6em; border-bottom: 1px solid #ddd }
.out { overflow-x: auto; margin-bottom: 1em }
"""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def write_readable(notebook: Path, folder: Path) -> None:
    """Write the page and the figures into the folder; nothing where the notebook was not written whole."""
    with suppress(OSError, ValueError, KeyError):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        page = notebook_page(content)
        for number, picture in enumerate(figures(content), 1):
            (folder / FIGURE.format(number=number)).write_bytes(picture)
        (folder / PAGE).write_text(page, encoding="utf-8")


def figures(notebook: Mapping[str, Any]) -> Iterator[bytes]:
    """The pictures (PNG) among the outputs, from the first to the last."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                yield base64.b64decode(_text(picture))


def notebook_page(notebook: Mapping[str, Any]) -> str:
    """The notebook as a page that needs nothing beside it.

    Of an output the richest form is taken that needs no script: HTML (as pandas writes tables), PNG, or text.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    parts = []
    for cell in notebook["cells"]:
        source = _text(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(markdown.render(source))
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"<pre class='code'>{html.escape(source)}</pre>")
            if shown := "".join(map(_output, cell["outputs"])):
                parts.append(f"<div class='out'>{shown}</div>")
    body = "\n".join(parts)
    return f"<!doctype html><meta charset='utf-8'><title>Notebook</title><style>{_STYLE}</style>\n{body}\n"


def _output(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _pre(_text(output["text"]))
    if output["output_type"] == "error":
        return _pre("\n".join(output["traceback"]), "error")
    data = output.get("data", {})
    if "text/html" in data:
        return _text(data["text/html"])
    if "image/png" in data:
        return f"<img alt='figure' src='data:image/png;base64,{_text(data['image/png']).strip()}'>"
    return _pre(_text(data["text/plain"])) if "text/plain" in data else ""


def _pre(words: str, kind: str = "") -> str:
    return f"<pre class='{kind}'>{html.escape(_COLOURS.sub('', words))}</pre>"


def _text(source: str | list[str]) -> str:
    """A notebook keeps long text as one string or as its lines."""
    return source if isinstance(source, str) else "".join(source)
