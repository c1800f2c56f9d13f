"""Gives mkdocs the pages that `lab.paper.site` makes of the repository's own files, and their places in the menu."""

import os
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
os.environ.setdefault("OMNI_LAB_CHECKOUT", str(ROOT))


def on_config(config: Any) -> Any:
    """Append the generated pages to the menu."""
    from lab.paper.site import modules, reference_path

    rooms: dict[str, list[Any]] = {}
    for name in modules():
        package, room = name.split(".")[:2]
        # Modules beside the rooms are the package's own: the command line, errors, paths.
        is_room = package == "lab" and (ROOT / "lab" / room).is_dir()
        rooms.setdefault(room if is_room else package, []).append({name: reference_path(name)})
    config.nav += [
        {"Components": "components.md"},
        {"What reproduces": "results.md"},
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
