"""The figures that show no run but the project's own components and data: how they are drawn and known to be current.

What such a figure says is a mapping of facts, taken from built components or declared data, and their hash stands in
the files. Code that would draw the same facts otherwise is no reason to draw them anew.
"""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lab import paths
from lab.errors import LabError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_RUNG = "cpu"  # what `lab figures` says where nobody says anything


@dataclass(frozen=True, kw_only=True)
class DataFigure:
    """A figure of facts.

    `script` is its own file, whose stem names it; `facts` gives what it says, as JSON has it; `draw` is called with
    them within `lab.paper.style.paper_style`.
    """

    script: Path
    title: str
    facts: Callable[[], Mapping[str, Any]]
    draw: "Callable[[Mapping[str, Any]], Figure]"

    def checksum(self) -> str:
        """The SHA-256 of the facts."""
        return _checksum(self.facts())

    def main(self, rung: str = NO_RUNG) -> list[Path]:
        """Draw figures/NAME.svg and .png; the same facts give the same bytes.

        Raises:
            LabError: a rung is asked for; such a figure has none.
        """
        from lab.paper.style import paper_style, save

        name = self.script.stem
        if rung != NO_RUNG:
            raise LabError(f"figure {name!r} shows components and data, which have no rung {rung!r}; leave it out")
        facts = self.facts()
        told = f"sha256 of the facts {_checksum(facts)}; no run of this project"
        with paper_style():
            stem = paths.repository_root() / "figures" / name
            files = save(self.draw(facts), stem, {"Title": self.title, "Description": told})
        for path in files:
            print(f"figure: {path}")
        return files


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def figure_scripts() -> dict[str, Path]:
    """The files that draw a figure, by the figure's name."""
    return {path.stem: path for path in sorted((paths.repository_root() / "figures").glob("[a-z]*.py"))}


def load_script(path: Path) -> ModuleType:
    """A figure's own file as a module; it has `main(rung)`, and a `DataFigure` as `FIGURE` where it shows no run."""
    spec = importlib.util.spec_from_file_location(f"figures.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
