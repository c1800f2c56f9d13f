"""An executed notebook for MLflow's page: as one HTML page, and its figures as pictures.

MLflow shows a notebook as the JSON that it is. nbconvert would do, and takes a worker about two seconds of its own,
which is more than a small cell; what a cell's notebook holds (text, code, tables, figures) needs less.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

PAGE, FIGURE = "notebook.html", "figure-{number}.png"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 1.5em auto; padding: 0 1em }
pre { font: 13px/1.4 ui-monospace, monospace; background: #f4f5f7; padding: .6em; white-space: pre-wrap }
img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .2em .6em; border-bottom: 1px solid #ddd }
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
    parts = []
    for cell in notebook["cells"]:
        source = _text(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else _as_is(source))
        parts += map(_output, cell.get("outputs", []))
    body = MarkdownIt("commonmark").enable("table").render("\n\n".join(parts))
    return f"<!doctype html><meta charset='utf-8'><title>Notebook</title><style>{_STYLE}</style>\n{body}"


def _output(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _as_is(_text(output["text"]))
    if output["output_type"] == "error":
        return _as_is("\n".join(output["traceback"]))
    data = output.get("data", {})
    if "text/html" in data:
        table = re.sub(r"\n\s*\n", "\n", _text(data["text/html"]))  # a blank line would end it
        return f"<div>{table}</div>"
    if "image/png" in data:
        return f"<img alt='figure' src='data:image/png;base64,{_text(data['image/png']).strip()}'>"
    return _as_is(_text(data.get("text/plain", "")))


def _as_is(words: str) -> str:
    """A block of Markdown that shows the words as they are, without a terminal's colours."""
    words = _COLOURS.sub("", words)
    return f"``````\n{words}\n``````" if words.strip() else ""


def _text(source: str | list[str]) -> str:
    """A notebook keeps long text as one string or as its lines."""
    return source if isinstance(source, str) else "".join(source)
