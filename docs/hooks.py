"""Gives mkdocs the pages that `lab.paper.site` makes of the repository's own files, and their places in the menu."""

import os
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
os.environ.setdefault("OMNI_LAB_CHECKOUT", str(ROOT))


def on_config(config: Any) -> Any:
    """Append the generated pages to the menu."""
    from lab.paper.freshness import ablation_names
    from lab.paper.site import COMPONENTS, modules, reference_path

    rooms: dict[str, list[Any]] = {}
    for name in modules():
        rooms.setdefault(name.split(".")[1], []).append({name: reference_path(name)})
    config.nav += [
        {"Components": [{title: f"components/{slug}.md"} for slug, (title, *_) in COMPONENTS.items()]},
        {"Ablations": [*({name: f"ablations/{name}.md"} for name in ablation_names()), {"Log": "log.md"}]},
        {"What reproduces": "reproduces.md"},
        {"Reference": [{room: pages} for room, pages in rooms.items()]},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and the drawn figures."""
    from lab.paper.site import figure_files, generated_pages

    for path, content in generated_pages().items():
        files.append(File.generated(config, path, content=content))
    for path, source in figure_files().items():
        files.append(File.generated(config, path, abs_src_path=str(source)))
    return files
