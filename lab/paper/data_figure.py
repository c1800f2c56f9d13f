"""The figures that show no run but the project's own components and data: how they are drawn and known to be current.

What such a figure says is a mapping of facts, taken from built components or declared data. Its hash stands in the
files, with that of the code that draws it.
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
from lab.study.identity import source_hash
from lab.study.reach import lab_modules

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_RUNG = "cpu"  # what `lab figures` says where nobody says anything
_DRAWN_BY = ("lab.paper.diagram", "lab.paper.style")


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

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the facts and of the code that draws them."""
        return _fingerprint(self.script, _text(self.facts()))

    def main(self, rung: str = NO_RUNG) -> list[Path]:
        """Draw figures/NAME.svg and .png; files of the same facts and code are left as they are.

        Raises:
            LabError: a rung is asked for; such a figure has none.
        """
        name = self.script.stem
        if rung != NO_RUNG:
            raise LabError(f"figure {name!r} shows components and data, which have no rung {rung!r}; leave it out")
        stem = paths.repository_root() / "figures" / name
        facts = self.facts()
        inputs = _fingerprint(self.script, _text(facts))
        files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("svg", "png")]
        if not all(path.exists() and inputs.encode() in path.read_bytes() for path in files):
            from lab.paper.style import paper_style, save

            digest = hashlib.sha256(_text(facts).encode()).hexdigest()
            metadata = {
                "Title": self.title,
                "Description": f"drawn from {inputs}; sha256 of the facts {digest}; no run of this project",
            }
            with paper_style():
                files = save(self.draw(facts), stem, metadata)
        for path in files:
            print(f"figure: {path}")
        return files


def _text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, ensure_ascii=False)


def _fingerprint(script: Path, facts: str) -> str:
    modules = {name: path for name, path in lab_modules(("paper",)).items() if name in _DRAWN_BY}
    parts = [facts, script.read_text(encoding="utf-8")]
    parts += [f"{name} {digest}" for name, digest in source_hash(modules).items()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def figure_scripts() -> dict[str, Path]:
    """The files that draw a figure, by the figure's name."""
    return {path.stem: path for path in sorted((paths.repository_root() / "figures").glob("[a-z]*.py"))}


def load_script(path: Path) -> ModuleType:
    """A figure's own file as a module; it has `main(rung)`, and `fingerprint()` where it shows no run."""
    spec = importlib.util.spec_from_file_location(f"figures.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
